"""MongoDB is away: never a yes, never a 500, and nobody needs to restart anything."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import psutil
import pytest

from tests.faults.household import BOUND, Household, all_refused, probed, served
from tests.faults.proxy import Proxy
from tests.servers import Mongo, in_thread
from tests.told import ADA, ANOTHER, problem
from watchword.stores.mongo.target import Target

_AS_SET = Target(url="mongodb://localhost", name="any")
# A server that stands still costs the command's time and then that of looking for a server again:
# a read is tried once more. Two seconds are for the rest, a hash among it.
WITHIN = _AS_SET.command_timeout + _AS_SET.selection_timeout + 2


@pytest.fixture(scope="module")
def own_mongo() -> Iterator[Mongo]:
    """A server of this module alone, which keeps a file."""
    server = Mongo.start(shared=False)
    yield server
    server.stop()


Outage = Callable[[Mongo, Proxy], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def stopped(server: Mongo, _: Proxy) -> AsyncGenerator[None, None]:
    await in_thread(server.halt)
    try:
        yield
    finally:
        await in_thread(server.resume)


@asynccontextmanager
async def paused(server: Mongo, _: Proxy) -> AsyncGenerator[None, None]:
    """As a machine that stands still: connections stay open and say nothing."""
    assert server._process is not None
    process = psutil.Process(server._process.pid)
    process.suspend()
    try:
        yield
    finally:
        process.resume()


@asynccontextmanager
async def full(_: Mongo, proxy: Proxy) -> AsyncGenerator[None, None]:
    """Every connection belongs to somebody else, as far as we can see."""
    async with proxy.refusing():
        yield


@pytest.mark.slow
@pytest.mark.capability("DEF-02", "DEF-22")
@pytest.mark.invariant("I-04", "I-06", "I-08")
@pytest.mark.parametrize("outage", [stopped, paused, full])
async def test_while_mongodb_is_away_all_is_503_and_then_goes_on_by_itself(
    own_mongo: Mongo, outage: Outage, say: Callable[[str], None]
) -> None:
    async with (
        own_mongo.database() as direct,
        Proxy.before(direct) as (proxy, url),
        served(url) as story,
    ):
        people = Household(story, direct)
        await people.move_in()
        async with outage(own_mongo, proxy):
            await people.read_at_once()
            story.move(seconds=2)  # what the cache knew is over
            slowest = await all_refused(story, [*people.reads(), *people.writes()], bound=WITHIN)
            slowest = max(slowest, await all_refused(story, people.looks(), bound=WITHIN))
            crowd = [request for _ in range(5) for request in people.reads()]
            slowest = max(slowest, await all_refused(story, crowd, bound=WITHIN))
            await probed(story)
        back = time.monotonic()
        await people.go_on()
        say(
            f"mongodb {outage.__name__}: the slowest refusal took {slowest:.1f} s, "
            f"all worked again after {time.monotonic() - back:.1f} s"
        )


@pytest.mark.slow
@pytest.mark.capability("DEF-22")
async def test_connections_that_are_cut_cost_at_most_a_503(
    own_mongo: Mongo, count: Callable[[int, int], int], say: Callable[[str], None]
) -> None:
    async with (
        own_mongo.database() as direct,
        Proxy.before(direct) as (proxy, url),
        served(url) as story,
    ):
        people = Household(story, direct)
        await people.move_in()
        seen: set[int] = set()
        for _ in range(count(10, 100)):
            story.move(seconds=2)
            wrong = {"email": ADA, "password": ANOTHER}
            sign_in = story.client.post("/auth/login", json=wrong)
            flight = asyncio.gather(*people.reads(), sign_in)
            await asyncio.sleep(0.002)
            proxy.cut()
            async with asyncio.timeout(BOUND):
                answers = await flight
            for answer in answers[:-1]:
                seen.add(answer.status_code)
                if answer.status_code != 200:
                    problem(answer, 503, "store_unavailable")
            assert answers[-1].status_code in {401, 503}
        assert proxy.cuts > 10
        back = time.monotonic()
        await people.go_on()
        say(
            f"mongodb cut: connections {proxy.cuts}, statuses {sorted(seen)}, "
            f"all worked again after {time.monotonic() - back:.1f} s"
        )
