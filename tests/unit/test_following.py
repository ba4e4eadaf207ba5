"""The loop that follows the feed, over one that the test plays: what it calls fresh."""

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from watchword.http.gate import _lead
from watchword.kernel.clock import SystemClock
from watchword.kernel.errors import StoreUnavailable
from watchword.storage.feed import Change, Waker
from watchword.storage.following import Following
from watchword.testing import MovableClock

START = datetime(2030, 1, 1, tzinfo=UTC)
BOUND = timedelta(seconds=2)


class Played:
    """A feed and its one follower: each step takes the time that the test says."""

    is_coherent = True

    def __init__(self, clock: MovableClock) -> None:
        self.clock = clock
        self.takes = timedelta(0)
        self.is_away = False
        self.begun = self.reads = 0
        self.rows: list[Change] = []

    def follow(self, realm: str) -> "Played":
        assert realm == "main"
        return self

    def waker(self) -> Waker | None:
        return None

    async def begin(self) -> None:
        self.begun += 1
        await self._step()

    async def read(self) -> Sequence[Change]:
        self.reads += 1
        await self._step()
        rows, self.rows = self.rows, []
        return rows

    async def close(self) -> None:
        pass

    async def _step(self) -> None:
        self.clock.advance(self.takes)
        if self.is_away:
            raise StoreUnavailable("played")


class Told:
    """What the loop told the cache."""

    def __init__(self) -> None:
        self.fresh: list[float] = []
        self.evicted: list[tuple[tuple[str, str], ...]] = []
        self.emptied = 0

    def empty(self) -> None:
        self.emptied += 1


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110  the loop under test rings no bell
            await asyncio.sleep(0.01)


def following(feed: Played, told: Told) -> Following:
    return Following(
        clock=feed.clock,
        feed=feed,
        realm="main",
        bound=BOUND,
        wakers=[],
        evict=told.evicted.append,
        empty=told.empty,
        fresh=told.fresh.append,
    )


@pytest.fixture
def feed() -> Played:
    return Played(MovableClock(START))


@pytest.mark.invariant("I-08")
async def test_fresh_counts_from_the_start_of_a_read(feed: Played) -> None:
    told = Told()
    made = following(feed, told)
    feed.takes = timedelta(seconds=1.5)
    await made.begin()
    assert told.fresh == [2.0], "from the end of the beginning"
    running = asyncio.create_task(made.run())
    await until(lambda: feed.reads > 0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert told.fresh[1] == 1.5 + 2.0, "from the end of the read"
    assert made.status.age is not None
    assert made.status.age >= 1.5


@pytest.mark.invariant("I-07", "I-08")
async def test_a_read_that_fails_begins_anew_with_an_empty_cache(feed: Played) -> None:
    told = Told()
    made = following(feed, told)
    await made.begin()
    assert (feed.begun, told.emptied) == (1, 1)
    feed.is_away = True
    running = asyncio.create_task(made.run())
    await until(lambda: feed.begun > 1)  # the read failed, and so does beginning anew
    assert len(told.fresh) == 1
    feed.is_away = False
    await until(lambda: told.emptied > 1)
    reads = feed.reads
    change = Change(
        realm="main", id="1", topic="user", subject="ada", at=START, expires_at=START + BOUND
    )
    feed.rows.append(change)
    await until(lambda: bool(told.evicted))
    assert told.evicted == [(("user", "ada"),)]
    assert feed.reads > reads
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.invariant("I-08")
def test_the_clock_counts_the_time_asleep(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def tell(which: int) -> float:
        asked.append(which)
        return 42.0

    monkeypatch.setattr(time, "clock_gettime", tell)
    assert SystemClock().monotonic() == 42.0
    assert asked == [getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)]


@pytest.mark.invariant("I-10")
def test_no_app_and_carriage_can_be_read_as_others() -> None:
    leads = [
        _lead(app, carriage)
        for app in ("main/a", "main/ab", "main/abearer", "other/a")
        for carriage in ("bearer", "cookie")
    ]
    assert len(set(leads)) == len(leads)
    for one in leads:
        for other in leads:
            assert one is other or not other.startswith(one)
    assert _lead("a", "bbearer") != _lead("ab", "bearer")
