"""What a stranger learns of who has an account: by answer, by header, by work and by time.

Every route that takes an address is asked about one that is nobody's and about each kind of
account. Each request comes from an address of its own, so that limits are counted and met by none.
"""

import random
from collections import Counter
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from ipaddress import IPv4Address
from itertools import count as counting
from typing import Any, cast

import httpx
import pytest
from pymongo import monitoring
from sqlalchemy import Engine, event

from tests.attacks.measured import (
    ALPHA,
    FINDABLE,
    GROSS,
    POWER,
    SAMPLES,
    Compared,
    compare,
    compared,
)
from tests.told import ANOTHER, PASSWORD, PRODUCTION, Story, Work, hashes, plain, telling
from watchword.features.sign_in import sign_in
from watchword.presets import standard
from watchword.stores.sql.direct import PostgresReader, SqliteReader
from watchword.testing.story import bearer

Say = Callable[[str], None]
WRONG = "a wrong horse battery"
BEHIND: dict[str, Any] = {**PRODUCTION, "trusted_proxies": ("127.0.0.1/32",)}

_heard: ContextVar[Counter[str] | None] = ContextVar("heard", default=None)
_addresses = counting(int(IPv4Address("10.1.0.1")))


def elsewhere() -> dict[str, str]:
    """The headers that a proxy sends for a client that nobody saw before."""
    return {"X-Forwarded-For": str(IPv4Address(next(_addresses))), "X-Forwarded-Proto": "https"}


@dataclass(frozen=True)
class Route:
    """A way to ask about an address."""

    path: str
    body: Callable[[str], dict[str, str]]
    status: int
    is_signed_in: bool = False
    form: bool = False

    async def ask(
        self, client: httpx.AsyncClient, email: str, given: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Ask about this address."""
        headers = {**elsewhere(), **(given or {})}
        if self.form:
            headers["Sec-Fetch-Site"] = "same-origin"
            return await client.post(self.path, data=self.body(email), headers=headers)
        return await client.post(self.path, json=self.body(email), headers=headers)


ROUTES = {
    "login": Route("/auth/login", lambda email: {"email": email, "password": WRONG}, 401),
    "login form": Route(
        "/auth/login", lambda email: {"username": email, "password": WRONG}, 401, form=True
    ),
    "register": Route("/auth/register", lambda email: {"email": email, "password": ANOTHER}, 202),
    "reset": Route("/auth/password-reset-request", lambda email: {"email": email}, 202),
    "verify": Route("/auth/verify-email-request", lambda email: {"email": email}, 202),
    "email change": Route(
        "/auth/email/change",
        lambda email: {"new_email": email, "current_password": PASSWORD},
        202,
        is_signed_in=True,
    ),
}
KINDS = ("nobody", "somebody", "switched off", "unverified", "without password")


@asynccontextmanager
async def town(database: str, **options: Any) -> AsyncGenerator[Story]:
    """All of it switched on, in production, behind a proxy."""
    options.setdefault("features", standard())
    async with telling(database, **{**BEHIND, **options}) as story:
        yield story


async def settle(story: Story, kind: str, number: int) -> str:
    """Somebody of this kind; their address."""
    email = f"{kind.replace(' ', '-')}-{number}@example.com"
    if kind == "without password":
        await story.auth.users.create(email=email, is_verified=True)
    elif kind != "nobody":
        user = await story.auth.passwords.create_user(
            email=email, password=PASSWORD, is_verified=kind != "unverified"
        )
        if kind == "switched off":
            await story.auth.users.disable(user.id)
    return email


async def asker(story: Story, route: Route) -> dict[str, str]:
    """What a route needs beside the address that it is asked about."""
    if not route.is_signed_in:
        return {}
    email = f"asker-{next(_addresses)}@example.com"
    await story.auth.passwords.create_user(email=email, password=PASSWORD, is_verified=True)
    answer = await story.client.post(
        "/auth/login", json={"email": email, "password": PASSWORD}, headers=elsewhere()
    )
    answer.raise_for_status()
    return bearer(answer.json()["access_token"])


# --- by answer and by work ------------------------------------------------------------------


class MongoStatements(monitoring.CommandListener):
    """Counts commands, for the task that listens."""

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        """One begins."""
        heard(event.command_name)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Counted when it began."""

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Counted when it began."""


monitoring.register(MongoStatements())  # for ever; it counts only while somebody listens


def heard(what: str) -> None:
    counter = _heard.get()
    if counter is not None:
        counter[what] += 1


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> Generator[Callable[[], Any]]:
    """Counts what the databases are asked, by the task that listens."""

    def before(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        heard(" ".join(statement.split()[:3]))

    for reader in (SqliteReader, PostgresReader):
        fetch = cast("Any", reader).fetch

        def fetched(self: Any, *given: Any, fetch: Any = fetch, **named: Any) -> Any:
            heard("direct read")
            return fetch(self, *given, **named)

        monkeypatch.setattr(reader, "fetch", fetched)
    event.listen(Engine, "before_cursor_execute", before)

    @contextmanager
    def listening() -> Generator[Counter[str]]:
        counter: Counter[str] = Counter()
        token = _heard.set(counter)
        try:
            yield counter
        finally:
            _heard.reset(token)

    yield listening
    event.remove(Engine, "before_cursor_execute", before)


@pytest.mark.capability("DEF-15", "S2-03", "S2-04", "S2-07", "S2-09")
@pytest.mark.invariant("I-12", "I-20")
@pytest.mark.standard("CVE row 36")
@pytest.mark.parametrize("name", ROUTES)
async def test_nobody_and_somebody_get_one_answer_for_one_work(
    database_url: str, work: Work, statements: Callable[[], Any], name: str
) -> None:
    route = ROUTES[name]
    async with town(database_url) as story:
        given = await asker(story, route)
        await route.ask(story.client, "first@example.com", given)  # makes ready what is made once
        seen: dict[str, Any] = {}
        costs: dict[str, Any] = {}
        for kind in KINDS:
            email = await settle(story, kind, 0)
            if given:  # who asks is known to the gate for 2 s at least; that is not looked at here
                await story.client.get("/auth/me", headers=given)
            with work.watched() as done, statements() as said:
                answer = await route.ask(story.client, email, given)
            assert answer.status_code == route.status, (kind, answer.text)
            assert hashes(done) == (0 if name in {"reset", "verify"} else 1), kind
            assert said, "the watch works"
            seen[kind] = plain(answer)
            costs[kind] = (dict(done), dict(said))
        for kind in KINDS:
            assert seen[kind] == seen["nobody"], kind
            # Who signs up is written down; nobody else may be. Its time is measured below.
            if name != "register":
                assert costs[kind] == costs["nobody"], kind


@pytest.mark.capability("DEF-15")
@pytest.mark.invariant("I-20")
async def test_a_limit_or_a_lock_says_nothing_of_who_is_behind_it() -> None:
    """A full account and a full address, of nobody and of somebody, at every route."""
    async with town("sqlite://") as story:
        for name, route in ROUTES.items():
            seen: dict[str, list[Any]] = {}
            for kind in KINDS[:4]:
                given = await asker(story, route)
                email = await settle(story, kind, 100 + list(ROUTES).index(name))
                headers = {**given, **elsewhere()}
                seen[kind] = [
                    plain(await route.ask(story.client, email, headers)) for _ in range(8)
                ]
                assert seen[kind][-1][0] == 429, (name, kind)
            for kind, answers in seen.items():
                assert answers == seen["nobody"], (name, kind)


async def test_every_route_that_takes_an_address_is_asked() -> None:
    """A new route that takes one belongs in `ROUTES`."""
    async with town("sqlite://") as story:
        openapi = story.app.openapi()
        schemas = openapi["components"]["schemas"]
        taking: set[str] = set()
        for path, operations in openapi["paths"].items():
            for operation in operations.values():
                for content in operation.get("requestBody", {}).get("content", {}).values():
                    named = content["schema"].get("$ref", "").rpartition("/")[2]
                    fields = schemas.get(named, content["schema"]).get("properties", {})
                    if {"email", "new_email", "username"} & set(fields):
                        taking.add(path)
        known = {route.path for route in ROUTES.values()}
        # A user's own name is theirs to change, and taken ones are no addresses.
        assert taking - {"/auth/me"} == known


# --- by time --------------------------------------------------------------------------------


def test_the_measurement_finds_what_it_says_it_finds() -> None:
    """Noise as skewed as a server's, and a difference in every tenth of trials' second half."""
    noise = random.Random(41)
    found = 0
    false = 0
    gross = 0
    for _ in range(200):
        one = [noise.gauss(10, 1) for _ in range(SAMPLES)]
        two = [noise.gauss(10, 1) for _ in range(SAMPLES)]
        other = [noise.gauss(10 + FINDABLE, 1) for _ in range(SAMPLES)]
        found += compared(one, other).p < 0.01
        false += compared(one, two).p < 0.01
        gross += compared(one, [value * 1.4 for value in other]).is_gross
        assert not compared(one, two).is_gross
    assert found >= 200 * (POWER - 0.02)
    assert false <= 8  # two of them on average
    assert gross == 200
    assert compared([1.0] * 9, [1.0] * 9).p == 1
    assert (GROSS, ALPHA) == (1.25, 1e-6)


TIMED = ("login", "reset", "verify", "email change", "register")  # which makes strangers users


@pytest.mark.slow
@pytest.mark.capability("DEF-08", "DEF-15")
@pytest.mark.standard("CVE row 20")
async def test_nobody_and_somebody_take_one_time(say: Say) -> None:
    """Without the floor under failed sign-ins and with cheap hashes, so that less hides more."""
    features = [each for each in standard() if each.name != "sign_in"]
    quick = [*features, sign_in(login_floor="0s")]
    async with town("sqlite://", features=quick, background=False) as story:
        await tell_apart(story, say)


@pytest.mark.long
@pytest.mark.real_cost
@pytest.mark.capability("DEF-08", "DEF-15")
@pytest.mark.standard("CVE row 20")
async def test_nobody_and_somebody_take_one_time_at_the_real_cost(
    say: Say, database_url: str
) -> None:
    """As it comes: the floor, the hashes, each database."""
    async with town(database_url, background=False) as story:
        await tell_apart(story, say)


async def tell_apart(story: Story, say: Say) -> None:
    """Compare, and again where they differ grossly: three times in a row is no accident."""
    rounds = counting()
    wide: list[str] = []

    async def once(names: Iterable[str]) -> None:
        turn = next(rounds)
        wide.clear()
        people = [
            await settle(story, "somebody", 1000 * (turn + 1) + number)
            for number in range(SAMPLES + WARM)
        ]
        strangers = [email.replace("somebody", "stranger") for email in people]
        for name in names:
            found = await timed(story, ROUTES[name], strangers, people)
            say(f"enumeration, {name}: nobody and somebody take {found}")
            if found.is_gross:
                wide.append(name)

    await once(TIMED)
    for _ in range(2):
        if wide:
            await once(tuple(wide))
    assert wide == [], "an attacker with a stopwatch sees who has an account"


WARM = 10  # requests of each kind that find what is made ready once


async def timed(
    story: Story, route: Route, strangers: Sequence[str], people: Sequence[str]
) -> Compared:
    """Ask one route about both, by turns."""
    askers = [await asker(story, route) for _ in range(len(people) // 15 + 1)]

    def to(many: Sequence[str]) -> Callable[[int], Awaitable[object]]:
        async def send(number: int) -> object:
            # Who is signed in may ask 50 times an hour.
            answer = await route.ask(story.client, many[number], askers[number // 15])
            assert answer.status_code == route.status, answer.text
            return answer

        return send

    for number in range(SAMPLES, SAMPLES + WARM):
        await to(people)(number)
        await to(strangers)(number)
    return await compare(to(strangers), to(people))
