"""A database of some size, and the operations that are measured on it."""

import random
import sqlite3
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from benchmarks.contenders.ours import PASSWORD, SOMEWHERE
from benchmarks.growth_rows import (
    Backend,
    People,
    Templates,
    add_to_postgres,
    add_to_sqlite,
    connected,
    fills,
    load,
    path_of,
    plain,
    sessions_past,
    templates,
)
from benchmarks.measure import say
from watchword import Watchword
from watchword.crypto.keys import generate_secret
from watchword.features.mail import mail
from watchword.features.sessions import Session, sessions
from watchword.features.tokens import tokens
from watchword.features.users import User
from watchword.storage.feed import Follower
from watchword.storage.store import Paging, ge, gt
from watchword.testing import without_limits
from watchword.testing.story import Outbox

BATCH = 500  # of an expiry
BACKENDS: tuple[Backend, ...] = ("postgresql", "sqlite")
LABELS: Mapping[str, str] = {"postgresql": "PostgreSQL", "sqlite": "SQLite"}
Step = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that is measured."""

    step: Step
    before: Step | None = None  # makes ready, and is not measured
    share: float = 1.0  # how often, compared with the others


@dataclass
class Filled:
    """A database of one size, its App, and what is done with it."""

    backend: Backend
    url: str
    people: People
    first: Templates
    auth: Watchword
    follower: Follower
    loaded: float  # seconds
    operations: dict[str, Operation] = field(default_factory=dict[str, Operation])


@asynccontextmanager
async def filled(backend: Backend, url: str, size: int) -> AsyncGenerator[Filled]:
    """A database with so many people, and an App on one connection."""
    if backend == "postgresql":
        url += f"{'&' if '?' in url else '?'}pool_size=1&read_pool_size=1"
    left_out = ("mail", "sessions", "tokens")
    features = [each for each in without_limits() if each.name not in left_out]
    auth = Watchword(
        url,
        features=[
            *features,
            mail(sender=Outbox()),  # nothing is due, so nothing is sent
            # What the rows say must stay true while all this lasts.
            sessions(idle_timeout="24h", absolute_timeout="48h", max_sessions=1000),
            tokens(access_ttl="24h", refresh_grace="60s"),
        ],
        environ={},
        environment="production",
        public_url="https://bench.example.com",
        require_https=False,  # a proxy of theirs speaks https; here there is none
        secret=generate_secret(),
        accept_missing=("limiter", "events"),
        background=False,
    )
    people = People(size, datetime.now(UTC))
    await auth.connect()
    await auth.keys.open()
    first = await templates(auth)
    await auth.disconnect()
    began = time.perf_counter()
    await load(auth, url, fills(first, people, backend))
    loaded = time.perf_counter() - began
    say(f"{LABELS[backend]}: {size} people in {loaded:.1f} s")
    await auth.connect()
    feed = auth.driver.feed
    assert feed is not None
    follower = feed.follow(auth.core.realm)
    await follower.begin()
    made = Filled(backend, url, people, first, auth, follower, loaded)
    made.operations = operations_of(made)
    try:
        yield made
    finally:
        await follower.close()
        await auth.disconnect()
        auth.hash_pool.close()


def operations_of(made: Filled) -> dict[str, Operation]:
    """What is done, by name. Whom it is done for is drawn anew each time."""
    auth = made.auth
    return {
        **_signing_in(made),
        **_misses(made),
        **_lists(made),
        **_endings(made),
        "outbox poll": Operation(auth.mail.deliver_due),
        "change feed poll": Operation(made.follower.read),
        "successors' grace over": Operation(auth.tokens.forget_successors),
    }


def _signing_in(made: Filled) -> dict[str, Operation]:
    auth, people = made.auth, made.people
    refreshing = _in_turn(range(0, people.size, 2))
    current: dict[int, str] = {}

    async def sign_in() -> None:
        email = people.email(random.randrange(people.size))
        user = await auth.passwords.sign_in(email=email, password=PASSWORD)
        await auth.sessions.start(
            user, amr=("pwd",), transport=auth.sessions.transport("bearer"), client=SOMEWHERE
        )

    async def refresh() -> None:
        number = next(refreshing)
        token = current.get(number) or people.token(number).text.reveal()
        pair = await auth.tokens.refresh(token, client=SOMEWHERE)
        current[number] = pair.refresh_token.reveal()

    return {"sign-in, without the hash": Operation(sign_in), "refresh": Operation(refresh)}


def _misses(made: Filled) -> dict[str, Operation]:
    auth, people = made.auth, made.people
    access = ""

    async def another_token() -> None:
        nonlocal access
        number = 2 * random.randrange(people.size // 2)
        session = replace(
            made.first.bearer, id=people.session_id(number), user_id=people.user_id(number)
        )
        access = await auth.tokens.access_token(session, made.first.user)

    async def bearer() -> None:
        await auth.tokens.authenticate(access, SOMEWHERE)

    async def cookie() -> None:
        number = 2 * random.randrange(people.size // 2) + 1
        await auth.sessions.authenticate(people.cookie(number), SOMEWHERE)

    return {
        "gate miss, bearer": Operation(bearer, another_token),
        "gate miss, cookie": Operation(cookie),
    }


def _lists(made: Filled) -> dict[str, Operation]:
    auth, people = made.auth, made.people
    place: str | None = None

    async def sessions_of_one() -> None:
        """As the cap on sessions asks at every sign-in."""
        paging = Paging(order=("started_at", "id"), descending=True, limit=100)
        user_id = people.user_id(random.randrange(people.size))
        now = auth.clock.now()
        page = await auth.store.find(
            Session, paging, user_id=user_id, ended_at=None, expires_at=gt(now)
        )
        if not page.items:
            raise RuntimeError("somebody has no session")

    async def somewhere() -> None:
        nonlocal place
        paging = Paging(order=("created_at", "id"), limit=1)
        since = people.joined(random.randrange(people.size // 2))
        place = (await auth.store.find(User, paging, created_at=ge(since))).next

    async def page() -> None:
        found = await auth.users.page(limit=50, after=place)
        if len(found.items) != 50:
            raise RuntimeError("a short page")

    return {
        "a user's sessions": Operation(sessions_of_one),
        "page of 50 users": Operation(page, somewhere),
    }


def _endings(made: Filled) -> dict[str, Operation]:
    auth = made.auth
    leaving = ""

    async def join() -> None:
        nonlocal leaving
        email = f"leaving{time.perf_counter_ns()}@example.com"
        leaving = (await auth.passwords.create_user(email=email, password=PASSWORD)).id

    async def leave() -> None:
        await auth.users.delete(leaving)

    async def lapse() -> None:
        await add_past(made)

    async def expire() -> None:
        gone = await auth.store.expire(Session, now=auth.clock.now(), limit=BATCH)
        if gone != BATCH:
            raise RuntimeError(f"{gone} of {BATCH} expired")

    return {
        "deletion of a user": Operation(leave, join, share=0.4),
        f"expiry of {BATCH} sessions": Operation(expire, lapse, share=0.1),
    }


def _in_turn(numbers: range) -> Iterator[int]:
    """Each of them, scattered, and then again; nothing of it is kept."""
    many = len(numbers)
    stride = next(s for s in (7919, 104729, 1299709) if many % s)
    place = random.randrange(many)
    while True:
        yield numbers[place]
        place = (place + stride) % many


async def add_past(made: Filled) -> None:
    past = sessions_past(made.first, made.people, BATCH, made.backend)
    if made.backend == "sqlite":
        with closing(sqlite3.connect(path_of(made.url), isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            add_to_sqlite(connection, past)
            connection.execute("COMMIT")
        return
    async with connected(plain(made.url)) as connection:
        await add_to_postgres(connection, past)
