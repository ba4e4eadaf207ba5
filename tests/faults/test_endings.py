"""Four workers: what ends at one is refused at all others within the bound, whatever wakes them."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count as numbers
from pathlib import Path

import asyncpg
import httpx
import pytest

from tests.faults.crew import Asker, crew
from tests.faults.places import Place
from tests.faults.victim import Victim
from tests.told import ANOTHER, PASSWORD
from watchword import Watchword

WORKERS = 4
BOUND = 2.0  # seconds: feed_bound on SQL, cache_max_age elsewhere
WATCHED = 0.3  # seconds that everybody is asked after all have refused


@dataclass
class Guest:
    """Somebody with a session, and everybody who asks about it."""

    auth: Watchword
    email: str
    server: Victim  # where it began
    cookie: str = ""
    csrf: str = ""
    token: str = ""

    @property
    def header(self) -> str:
        """What proves the session."""
        if self.cookie:
            return f"Cookie: __Host-session={self.cookie}"
        return f"Authorization: Bearer {self.token}"

    async def post(self, server: Victim, path: str, **body: str) -> httpx.Response:
        name, _, value = self.header.partition(": ")
        headers = {name: value} if self.cookie or self.token else {}
        if self.csrf:
            headers["X-CSRF-Token"] = self.csrf
        async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
            answer = await client.post(
                f"{server.address}/auth/{path}", headers=headers, json=body or None
            )
        assert answer.status_code < 300, answer.text
        return answer

    async def sign_in(self, transport: str) -> None:
        answer = await self.post(
            self.server, "login", email=self.email, password=PASSWORD, transport=transport
        )
        if transport == "cookie":
            self.cookie = answer.cookies["__Host-session"]
            self.csrf = answer.cookies["__Host-csrf"]
        else:
            self.token = answer.json()["access_token"]


# Each ends the guest's session, at one server or in a process that is none of them.


async def log_out(guest: Guest, at: Victim) -> None:
    await guest.post(at, "logout")


async def disable(guest: Guest, _: Victim) -> None:
    await guest.auth.users.disable((await guest.auth.users.find(guest.email)).id)


async def change_password(guest: Guest, at: Victim) -> None:
    other = Guest(guest.auth, guest.email, at)
    await other.sign_in("bearer")
    await other.post(at, "password/change", current_password=PASSWORD, new_password=ANOTHER)


Ending = Callable[[Guest, Victim], Awaitable[None]]
ENDINGS: tuple[tuple[str, Ending], ...] = (
    ("bearer", log_out),
    ("cookie", log_out),
    ("bearer", disable),
    ("bearer", change_password),
)
_numbers = numbers()


async def one_ending(
    auth: Watchword, servers: list[Victim], chance: random.Random, transport: str, end: Ending
) -> tuple[list[float], list[str]]:
    """Ask everybody, end it at one; how long each of the others took, and what was wrong."""
    guest = Guest(auth, f"guest{next(_numbers)}@example.com", chance.choice(servers))
    await auth.passwords.create_user(email=guest.email, password=PASSWORD, is_verified=True)
    await guest.sign_in(transport)
    at = chance.choice(servers)
    askers = [Asker(server.address, guest.header) for server in servers]
    others = [a for a, server in zip(askers, servers, strict=True) if server is not at]
    asking = [asyncio.create_task(asker.run()) for asker in askers]
    try:
        await asyncio.gather(*(asker.believed(times=3) for asker in askers))
        await asyncio.sleep(chance.random() / 2)
        await end(guest, at)
        ended = time.monotonic()
        while time.monotonic() < ended + BOUND + 1:
            if all(asker.refused_after(ended) is not None for asker in askers):
                break
            await asyncio.sleep(0.01)
        await asyncio.sleep(WATCHED)
    finally:
        for task in asking:
            task.cancel()
        ends = await asyncio.gather(*asking, return_exceptions=True)
    wrong = [f"{end.__name__}: {fault}" for asker in askers for fault in asker.faults(ended, BOUND)]
    wrong += [repr(each) for each in ends if not isinstance(each, asyncio.CancelledError)]
    took = [asker.refused_after(ended) for asker in others]
    wrong += [f"{end.__name__}: never refused" for each in took if each is None]
    return [each for each in took if each is not None], wrong


async def endings(
    place: Place, folder: Path, rounds: int, chance: random.Random
) -> tuple[list[float], list[str]]:
    """All kinds of endings at once, again and again."""
    environ = place.environment(folder / "mails")
    took: list[float] = []
    wrong: list[str] = []
    async with (
        crew(folder, environ, WORKERS) as servers,
        place.operator(environ) as auth,
    ):
        for _ in range(rounds):
            ends = await asyncio.gather(
                *(one_ending(auth, servers, chance, how, end) for how, end in ENDINGS)
            )
            took += [each for some, _ in ends for each in some]
            wrong += [each for _, some in ends for each in some]
    return sorted(took), wrong


def told(name: str, took: list[float], wrong: list[str]) -> str:
    """The distribution, shortly."""
    half, most = took[len(took) // 2], took[int(len(took) * 0.99)]
    return (
        f"{name}: refusals at other workers {len(took)}  median {half * 1000:.0f} ms  "
        f"99 % {most * 1000:.0f} ms  slowest {took[-1] * 1000:.0f} ms  "
        f"bound {BOUND * 1000:.0f} ms  over it or taken back {len(wrong)}"
    )


@pytest.mark.slow
@pytest.mark.capability("DEF-02")
@pytest.mark.invariant("I-01", "I-06", "I-08")
async def test_what_ends_at_one_of_four_workers_is_refused_at_all_within_the_bound(
    place: Place,
    tmp_path: Path,
    count: Callable[[int, int], int],
    say: Callable[[str], None],
) -> None:
    took, wrong = await endings(place, tmp_path, count(3, 50), random.Random(4))
    say(told(f"{place.name} endings", took, wrong))
    assert not wrong, "\n".join(wrong[:20])


@asynccontextmanager
async def nobody_listens(url: str) -> AsyncGenerator[list[int], None]:
    """Whoever listens for wake-ups loses that connection, again and again."""
    connection = await asyncpg.connect(url)
    killed = [0]

    async def cut() -> None:
        while True:
            killed[0] += await connection.fetchval(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid() "
                "AND (query LIKE 'LISTEN %' OR query LIKE 'NOTIFY %')"
            )
            await asyncio.sleep(0.05)

    cutting = asyncio.create_task(cut())
    try:
        yield killed
    finally:
        cutting.cancel()
        await asyncio.gather(cutting, return_exceptions=True)
        await connection.close()


@pytest.mark.slow
@pytest.mark.capability("DEF-02")
@pytest.mark.invariant("I-06", "I-08")
async def test_workers_that_lose_every_wake_up_keep_the_bound_by_polling(
    postgres_url: str,
    tmp_path: Path,
    count: Callable[[int, int], int],
    say: Callable[[str], None],
) -> None:
    place = Place(name="postgresql", database=postgres_url)
    async with nobody_listens(postgres_url) as killed:
        took, wrong = await endings(place, tmp_path, count(2, 30), random.Random(5))
    say(told(f"postgresql endings, {killed[0]} listeners cut", took, wrong))
    assert killed[0] >= WORKERS
    assert not wrong, "\n".join(wrong[:20])
    assert took[len(took) // 2] > 0.05, "somebody still woke them: the test means nothing"
