"""Leases, on every store: one holder as a rule, and another soon after it is gone."""

import asyncio
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.stores.opened import store_of
from watchword.background import Background
from watchword.kernel.clock import SystemClock
from watchword.kernel.feature import Job
from watchword.starting import driver_of
from watchword.storage.leases import Lease, Leases
from watchword.storage.store import Store
from watchword.testing import MovableClock

ROOT = Path(__file__).resolve().parents[2]
LIFE = timedelta(seconds=15)

pytestmark = pytest.mark.invariant("I-24")


@asynccontextmanager
async def leasing(url: str) -> AsyncGenerator[Store]:
    driver = driver_of(url)
    try:
        await driver.open((Lease,))
        yield store_of(driver)
    finally:
        await driver.close()


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock(datetime.now(UTC))


async def test_one_holds_it_and_another_when_its_time_is_over(
    database_url: str, clock: MovableClock
) -> None:
    async with leasing(database_url) as store:
        first, second = (Leases(store=store, clock=clock) for _ in range(2))
        assert await first.hold("tidy", lives=LIFE)
        assert not await second.hold("tidy", lives=LIFE)
        assert await second.hold("outbox", lives=LIFE), "each piece of work has its own"
        clock.advance(LIFE / 2)
        assert await first.hold("tidy", lives=LIFE), "renewed"
        clock.advance(LIFE * 0.8)
        assert not await second.hold("tidy", lives=LIFE)
        clock.advance(LIFE * 0.3)
        assert await second.hold("tidy", lives=LIFE), "the first is gone"
        assert not await first.hold("tidy", lives=LIFE)


async def test_whoever_stops_gives_it_up_at_once(database_url: str, clock: MovableClock) -> None:
    async with leasing(database_url) as store:
        first, second = (Leases(store=store, clock=clock) for _ in range(2))
        assert await first.hold("tidy", lives=LIFE)
        await first.give_up()
        assert await second.hold("tidy", lives=LIFE)
        await first.give_up()
        assert await store.get(Lease, name="tidy"), "only one's own is given up"


async def test_a_clock_that_ran_ahead_holds_nothing_for_ever(
    database_url: str, clock: MovableClock
) -> None:
    async with leasing(database_url) as store:
        ahead = MovableClock(clock.now() + timedelta(days=365))
        assert await Leases(store=store, clock=ahead).hold("tidy", lives=LIFE)
        assert await Leases(store=store, clock=clock).hold("tidy", lives=LIFE)


async def test_work_goes_on_in_another_process_when_its_holder_is_killed(
    database_url: str,
) -> None:
    async with leasing(database_url) as store, asyncio.timeout(30):
        command = (sys.executable, "-m", "tests.stores.holder", database_url, "2")
        holders = [
            await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=PIPE, stdout=PIPE)
            for _ in range(3)
        ]
        try:
            lines = [await _line(holder) for holder in holders]
            assert sorted(lines) == ["lost", "lost", "won"]
            first = lines.index("won")
            holders[first].kill()
            rest = [holder for number, holder in enumerate(holders) if number != first]
            lines = [await _line(holder) for holder in rest]
            assert sorted(lines) == ["lost", "won"]
            assert await store.count(Lease) == 1
        finally:
            for holder in holders:
                if holder.returncode is None:
                    holder.kill()
                await holder.wait()


async def _line(holder: asyncio.subprocess.Process) -> str:
    assert holder.stdout is not None
    return (await holder.stdout.readline()).decode().strip()


async def test_a_wake_up_is_followed_without_the_lease(database_url: str) -> None:
    """Mail that was asked for here leaves from here, whoever looks for what was left behind."""
    ran, bell = asyncio.Event(), asyncio.Event()

    async def run() -> bool:
        ran.set()
        return False

    async def wake() -> None:
        await bell.wait()
        bell.clear()

    async with leasing(database_url) as store, asyncio.timeout(20):
        assert await Leases(store=store, clock=SystemClock()).hold("outbox", lives=LIFE)
        job = Job(name="outbox", every=timedelta(seconds=1), run=run, wake=wake)
        working = Background([job], Leases(store=store, clock=SystemClock()))
        working.start()
        try:
            await asyncio.sleep(0.2)
            assert not ran.is_set(), "another has the lease"
            bell.set()
            await ran.wait()
        finally:
            await working.stop()
