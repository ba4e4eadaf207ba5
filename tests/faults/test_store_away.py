"""The database is away: never a yes, never a 500, and nobody needs to restart anything."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import asyncpg
import psutil
import pytest

from tests.faults.household import BOUND, Household, all_refused, probed, served
from tests.servers import Postgres, in_thread
from tests.told import ADA, ANOTHER, problem

# PostgreSQL


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[Postgres]:
    """A server of this module alone, with room for few."""
    server = Postgres.start(shared=False)

    async def narrow() -> None:
        connection = await asyncpg.connect(server.url)
        await connection.execute("ALTER SYSTEM SET max_connections = 30")
        await connection.close()

    asyncio.run(narrow())
    server.halt()
    server.resume()
    yield server
    server.stop()


Outage = Callable[[Postgres], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def stopped(server: Postgres) -> AsyncGenerator[None, None]:
    await in_thread(server.halt)
    try:
        yield
    finally:
        await in_thread(server.resume)


@asynccontextmanager
async def frozen(server: Postgres) -> AsyncGenerator[None, None]:
    """As a machine that stands still: connections stay open and say nothing."""
    pid = (server._server.pgdata / "postmaster.pid").read_text().splitlines()[0]
    postmaster = psutil.Process(int(pid))
    everything = [postmaster, *postmaster.children(recursive=True)]
    for process in everything:
        process.suspend()
    try:
        yield
    finally:
        for process in reversed(everything):
            process.resume()


@asynccontextmanager
async def full(server: Postgres) -> AsyncGenerator[None, None]:
    """Every connection belongs to somebody else."""
    taken: list[asyncpg.Connection] = []
    try:
        while True:
            try:
                taken.append(await asyncpg.connect(server.url))
            except asyncpg.TooManyConnectionsError:
                ended = await taken[0].execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE application_name = 'watchword'"
                )
                if ended == "SELECT 0":
                    break
                await asyncio.sleep(0.05)
        yield
    finally:
        await asyncio.gather(*(connection.close() for connection in taken))


@pytest.mark.slow
@pytest.mark.capability("DEF-02", "DEF-22")
@pytest.mark.invariant("I-04", "I-06")
@pytest.mark.parametrize("outage", [stopped, frozen, full])
async def test_while_postgres_is_away_all_is_503_and_then_goes_on_by_itself(
    own_postgres: Postgres, outage: Outage, say: Callable[[str], None]
) -> None:
    async with own_postgres.database() as url, served(url) as story:
        people = Household(story, url)
        await people.move_in()
        async with outage(own_postgres):
            await people.read_at_once()
            story.move(seconds=2)  # what the cache knew is over
            # One of each kind first, so that none waits behind another; then all together.
            slowest = await all_refused(story, [*people.reads(), *people.writes()])
            slowest = max(slowest, await all_refused(story, people.looks()))
            crowd = [request for _ in range(5) for request in people.reads()]
            slowest = max(slowest, await all_refused(story, crowd))
            await probed(story)
        back = time.monotonic()
        await people.go_on()
        say(
            f"postgresql {outage.__name__}: the slowest refusal took {slowest:.1f} s, "
            f"all worked again after {time.monotonic() - back:.1f} s"
        )


@pytest.mark.capability("DEF-22")
async def test_connections_that_are_cut_cost_at_most_a_503(
    postgres_url: str, count: Callable[[int, int], int], say: Callable[[str], None]
) -> None:
    async with served(postgres_url) as story:
        people = Household(story, postgres_url)
        await people.move_in()
        admin = await asyncpg.connect(postgres_url)
        seen: set[int] = set()
        for _ in range(count(10, 100)):
            story.move(seconds=2)
            wrong = {"email": ADA, "password": ANOTHER}
            sign_in = story.client.post("/auth/login", json=wrong)
            flight = asyncio.gather(*people.reads(), sign_in)
            await asyncio.sleep(0.002)
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'watchword' AND datname = current_database()"
            )
            async with asyncio.timeout(BOUND):
                answers = await flight
            for answer in answers[:-1]:
                seen.add(answer.status_code)
                if answer.status_code != 200:
                    problem(answer, 503, "store_unavailable")
            assert answers[-1].status_code in {401, 503}
        assert 200 in seen
        await admin.close()
        back = time.monotonic()
        await people.go_on()
        say(
            f"postgresql cut: statuses {sorted(seen)}, "
            f"all worked again after {time.monotonic() - back:.1f} s"
        )


# SQLite

LOCKS = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


@asynccontextmanager
async def locked(path: Path) -> AsyncGenerator[None, None]:
    """Another process is in the middle of a write, and stays there."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", LOCKS, path), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"locked\n"
        yield
    finally:
        process.kill()
        await process.communicate()


@pytest.mark.slow
@pytest.mark.capability("DEF-02", "DEF-22")
@pytest.mark.invariant("I-04")
async def test_while_another_process_locks_sqlite_writes_are_503_and_then_go_on(
    tmp_path: Path, say: Callable[[str], None]
) -> None:
    path = tmp_path / "locked.db"
    url = f"sqlite:///{path}?busy_timeout=4"
    async with served(url) as story:
        people = Household(story, url)
        await people.move_in()
        async with locked(path):
            story.move(seconds=2)
            for answer in await asyncio.gather(*people.reads()):
                assert answer.status_code == 200  # WAL: the state that was committed can be read
            slowest = await all_refused(story, people.writes())
            assert (await story.client.get("/healthz")).status_code == 200
        back = time.monotonic()
        await people.go_on()
        say(
            f"sqlite locked: the slowest refusal took {slowest:.1f} s, "
            f"all worked again after {time.monotonic() - back:.1f} s"
        )
