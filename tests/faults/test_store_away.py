"""The database is away: never a yes, never a 500, and nobody needs to restart anything."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psutil
import pytest

from tests.faults.victim import REAL, ROOT, environment
from tests.servers import Postgres, in_thread
from tests.told import ADA, ANOTHER, PASSWORD, Story, browser, csrf_of, problem, telling
from watchword import CurrentPrincipal, CurrentUser
from watchword.features.passwords.records import Password
from watchword.features.users import User
from watchword.kernel.errors import StoreUnavailable
from watchword.server.probes import probes
from watchword.testing.story import bearer

BOUND = 15.0  # seconds in which every request is answered, whatever the store does
BACK_IN = 10.0  # seconds in which everything works again
STRANGER = "new@example.com"


@asynccontextmanager
async def served(url: str, **options: Any) -> AsyncGenerator[Story, None]:
    """A story with the probes of the server and two routes of its own."""
    async with telling(url, **options) as story:
        story.app.include_router(probes(story.auth))

        @story.app.get("/mine")
        async def mine(user: CurrentUser) -> str:
            return user.email

        @story.app.get("/who")
        async def who(principal: CurrentPrincipal) -> str:
            return principal.id

        yield story


class Household:
    """Somebody with a token, a cookie and a refresh token, from before the outage."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.browser = browser(story.app)
        self.tokens: dict[str, Any] = {}
        self.csrf: dict[str, str] = {}

    async def move_in(self) -> None:
        await self.story.join()
        self.tokens = await self.story.log_in()
        await self.story.log_in(transport="cookie", client=self.browser)
        self.csrf = csrf_of(self.browser)
        for path in ("/mine", "/who", "/auth/me"):
            assert (await self.read(path)).status_code == 200
            assert (await self.browser.get(path)).status_code == 200
        await self.story.mails()

    async def read(self, path: str) -> httpx.Response:
        return await self.story.client.get(path, headers=bearer(self.tokens["access_token"]))

    def reads(self) -> list[Awaitable[httpx.Response]]:
        """Each a protected route."""
        paths = ("/mine", "/who", "/auth/me")
        return [*map(self.read, paths), *map(self.browser.get, paths)]

    def writes(self) -> list[Awaitable[httpx.Response]]:
        """Each would change something."""
        post = self.story.client.post
        refresh = {"refresh_token": self.tokens["refresh_token"]}
        return [
            post("/auth/login", json={"email": ADA, "password": PASSWORD}),
            post("/auth/refresh", json=refresh),
            post("/auth/register", json={"email": STRANGER, "password": PASSWORD}),
            post("/auth/password-reset-request", json={"email": ADA}),
        ]

    def looks(self) -> list[Awaitable[httpx.Response]]:
        """Each asks the store before it could change anything."""
        post, own = self.story.client.post, bearer(self.tokens["access_token"])
        reset = {"token": "wwp_" + "x" * 43, "new_password": ANOTHER}
        change = {"current_password": PASSWORD, "new_password": ANOTHER}
        return [
            post("/auth/login", json={"email": "nobody@example.com", "password": PASSWORD}),
            post("/auth/password/change", json=change, headers=own),
            post("/auth/verify-email", json={"token": "wwv_" + "x" * 43}),
            post("/auth/password-reset", json=reset),
            post("/auth/logout", headers=own),
            self.browser.post("/auth/logout", headers=self.csrf),
        ]

    async def go_on(self) -> None:
        """All is as it was before: the same tokens work, and what was refused left nothing."""
        until = time.monotonic() + BACK_IN
        while (await self.story.client.get("/readyz")).status_code != 200:
            assert time.monotonic() < until, "not ready again"
            await asyncio.sleep(0.05)
        for answer in await asyncio.gather(*self.reads()):
            assert answer.status_code == 200, answer.text
        store = self.story.auth.store
        assert await store.count(User) == await store.count(Password) == 1
        refresh = {"refresh_token": self.tokens["refresh_token"]}
        answer = await self.story.client.post("/auth/refresh", json=refresh)
        assert answer.status_code == 200
        self.tokens = answer.json()
        assert (await self.story.register(STRANGER)).status_code == 201
        assert (await self.story.verify(STRANGER)).status_code == 204
        await self.story.log_in()


async def all_refused(story: Story, requests: list[Awaitable[httpx.Response]]) -> float:
    """503 without a word about the store, in time; how long the slowest took."""
    began = time.monotonic()
    async with asyncio.timeout(BOUND):
        answers = await asyncio.gather(*requests)
    for answer in answers:
        body = problem(answer, 503, "store_unavailable")
        assert body["detail"] == body["title"] == StoreUnavailable.title
        assert set(body) == {"type", "title", "status", "detail", "code", "request_id"}
        assert int(answer.headers["retry-after"]) > 0
        assert "set-cookie" not in answer.headers
    return time.monotonic() - began


async def probed(story: Story) -> None:
    """Alive, and not ready."""
    async with asyncio.timeout(BOUND):
        assert (await story.client.get("/healthz")).status_code == 200
        assert (await story.client.get("/readyz")).status_code == 503


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
    own_postgres: Postgres, outage: Outage, capsys: pytest.CaptureFixture[str]
) -> None:
    async with own_postgres.database() as url, served(url) as story:
        people = Household(story)
        await people.move_in()
        async with outage(own_postgres):
            story.move(seconds=2)  # what the cache knew is over
            # One of each kind first, so that none waits behind another; then all together.
            slowest = await all_refused(story, [*people.reads(), *people.writes()])
            slowest = max(slowest, await all_refused(story, people.looks()))
            crowd = [request for _ in range(5) for request in people.reads()]
            slowest = max(slowest, await all_refused(story, crowd))
            await probed(story)
        back = time.monotonic()
        await people.go_on()
        with capsys.disabled():
            print(
                f"\npostgresql {outage.__name__}: the slowest refusal took {slowest:.1f} s, "
                f"all worked again after {time.monotonic() - back:.1f} s"
            )


@pytest.mark.capability("DEF-22")
async def test_connections_that_are_cut_cost_at_most_a_503(
    postgres_url: str, count: Callable[[int, int], int]
) -> None:
    async with served(postgres_url) as story:
        people = Household(story)
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
        await people.go_on()


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
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "locked.db"
    async with served(f"sqlite:///{path}?busy_timeout=4") as story:
        people = Household(story)
        await people.move_in()
        async with locked(path):
            story.move(seconds=2)
            for answer in await asyncio.gather(*people.reads()):
                assert answer.status_code == 200  # WAL: the state that was committed can be read
            slowest = await all_refused(story, people.writes())
            assert (await story.client.get("/healthz")).status_code == 200
        back = time.monotonic()
        await people.go_on()
        with capsys.disabled():
            print(
                f"\nsqlite locked: the slowest refusal took {slowest:.1f} s, "
                f"all worked again after {time.monotonic() - back:.1f} s"
            )


# From the start


@pytest.mark.slow
@pytest.mark.capability("DEF-18")
def test_a_server_whose_store_is_away_does_not_start(tmp_path: Path) -> None:
    nowhere = f"postgresql://somebody:hidden@/nowhere?host={tmp_path}"
    ended = subprocess.run(
        [*REAL, "--data", tmp_path / "data"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env=environment(nowhere, tmp_path / "mails"),
    )
    said = ended.stdout + ended.stderr
    assert ended.returncode != 0, said
    assert "hidden" not in said
    assert "Traceback" not in said
