"""Redis, which keeps the sessions, is away: no session counts, and all else goes on."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx
import psutil
import pytest
from redis.asyncio import Redis as AsyncRedis

from tests.faults.household import BOUND, Household, all_refused, probed, served
from tests.faults.places import Place
from tests.faults.proxy import Proxy
from tests.servers import Redis, in_thread
from tests.told import ADA, ANOTHER, PASSWORD, problem
from watchword.testing.story import bearer


@pytest.fixture(scope="module")
def own_redis() -> Iterator[Redis]:
    """A server of this module alone, which writes every answer down first."""
    server = Redis.start(shared=False)
    yield server
    server.stop()


Outage = Callable[[Redis], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def stopped(server: Redis) -> AsyncGenerator[None, None]:
    await in_thread(server.halt)
    try:
        yield
    finally:
        await in_thread(server.resume)


@asynccontextmanager
async def paused(server: Redis) -> AsyncGenerator[None, None]:
    """As a machine that stands still: connections stay open and say nothing."""
    process = psutil.Process(server.pid)
    process.suspend()
    try:
        yield
    finally:
        process.resume()


@asynccontextmanager
async def full(server: Redis) -> AsyncGenerator[None, None]:
    """Every connection belongs to somebody else."""
    admin = AsyncRedis.from_url(server.url, protocol=2, single_connection_client=True)
    most = (await admin.config_get("maxclients"))["maxclients"]
    await admin.execute_command("CONFIG", "SET", "maxclients", "1")
    await admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    try:
        yield
    finally:
        await admin.execute_command("CONFIG", "SET", "maxclients", most)
        await admin.aclose()


def of_sessions(people: Household) -> list[Awaitable[httpx.Response]]:
    """Each needs a session, or begins one."""
    post, own = people.story.client.post, bearer(people.tokens["access_token"])
    change = {"current_password": PASSWORD, "new_password": ANOTHER}
    return [
        *people.reads(),
        post("/auth/login", json={"email": ADA, "password": PASSWORD}),
        post("/auth/refresh", json={"refresh_token": people.tokens["refresh_token"]}),
        post("/auth/password/change", json=change, headers=own),
        post("/auth/logout", headers=own),
        people.browser.post("/auth/logout", headers=people.csrf),
    ]


async def others_go_on(people: Household, address: str) -> None:
    """What the database alone knows."""
    post = people.story.client.post
    answer = await post("/auth/login", json={"email": "nobody@example.com", "password": PASSWORD})
    problem(answer, 401, "invalid_credentials")
    assert (await people.story.register(address)).status_code == 201
    people.people += 1
    assert (await post("/auth/password-reset-request", json={"email": ADA})).status_code == 202
    assert (await people.story.client.get("/healthz")).status_code == 200


@pytest.mark.slow
@pytest.mark.capability("DEF-02", "DEF-22")
@pytest.mark.invariant("I-04", "I-06")
@pytest.mark.parametrize("outage", [stopped, paused, full])
async def test_while_redis_is_away_no_session_counts_and_then_all_goes_on_by_itself(
    own_redis: Redis, sqlite_url: str, outage: Outage, say: Callable[[str], None]
) -> None:
    async with own_redis.prefix() as sessions:
        place = Place(name="redis", database=sqlite_url, sessions=sessions)
        async with served(sqlite_url, features=place.features()) as story:
            people = Household(story, sqlite_url, place.features())
            await people.move_in()
            async with outage(own_redis):
                await people.read_at_once()
                story.move(seconds=2)  # what the cache knew is over
                slowest = await all_refused(story, of_sessions(people))
                await others_go_on(people, "early@example.com")
                crowd = [request for _ in range(5) for request in people.reads()]
                slowest = max(slowest, await all_refused(story, crowd))
                await probed(story)
            back = time.monotonic()
            await people.go_on()
            say(
                f"redis {outage.__name__}: the slowest refusal took {slowest:.1f} s, "
                f"all worked again after {time.monotonic() - back:.1f} s"
            )


@pytest.mark.slow
@pytest.mark.capability("DEF-22")
async def test_connections_that_are_cut_cost_at_most_a_503(
    own_redis: Redis,
    sqlite_url: str,
    count: Callable[[int, int], int],
    say: Callable[[str], None],
) -> None:
    async with own_redis.prefix() as direct, Proxy.before(direct) as (proxy, sessions):
        place = Place(name="redis", database=sqlite_url, sessions=sessions)
        async with served(sqlite_url, features=place.features()) as story:
            people = Household(story, sqlite_url, place.features())
            await people.move_in()
            seen: set[int] = set()
            for _ in range(count(20, 200)):
                story.move(seconds=2)
                flight = asyncio.gather(*people.reads())
                await asyncio.sleep(0.002)
                proxy.cut()
                async with asyncio.timeout(BOUND):
                    answers = await flight
                for answer in answers:
                    seen.add(answer.status_code)
                    if answer.status_code != 200:
                        problem(answer, 503, "store_unavailable")
            assert proxy.cuts > 10
            back = time.monotonic()
            await people.go_on()
            say(
                f"redis cut: connections {proxy.cuts}, statuses {sorted(seen)}, "
                f"all worked again after {time.monotonic() - back:.1f} s"
            )
