"""What every change feed promises, as tests: a driver's author subclasses one of these.

    class TestOurFeed(CoherentFeedContract):
        factory = "our_package:driver"

        @pytest.fixture
        def driver_url(self) -> str:
            return "ours://an-empty-database"

`FeedContract` is for all that several processes share, `CoherentFeedContract` for those whose
changes commit with the state that they report. Runs under pytest with pytest-asyncio in auto mode.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import ClassVar

import pytest

from watchword.kernel.errors import StoreUnavailable
from watchword.kernel.events import Events
from watchword.storage.feed import KEPT_FOR, Change, Feed, Follower, Waker
from watchword.storage.store import Driver, Store
from watchword.testing.feed_writer import FEED_RECORDS, Undone, change
from watchword.testing.racer import load

SOON = 1.0  # seconds in which a hint arrives
PROCESSES, WRITERS = 5, 10


@asynccontextmanager
async def following(driver: Driver, realm: str = "main") -> AsyncGenerator[Follower]:
    """A follower that has begun."""
    follower = feed_of(driver).follow(realm)
    await follower.begin()
    try:
        yield follower
    finally:
        await follower.close()


@asynccontextmanager
async def listening(driver: Driver) -> AsyncGenerator[Waker]:
    """A waker that hears."""
    waker = feed_of(driver).waker()
    assert waker is not None
    assert await waker.open() is True
    try:
        yield waker
    finally:
        await waker.close()


def feed_of(driver: Driver) -> Feed:
    """The feed of a driver that has one."""
    assert driver.feed is not None
    return driver.feed


def store_of(driver: Driver, realm: str = "main") -> Store:
    """A store on it."""
    return Store(driver=driver, events=Events(), realm=realm)


async def said(follower: Follower) -> list[str]:
    """The subjects of what is new."""
    return [one.subject for one in await follower.read()]


class LocalFeedContract:
    """What a feed promises within one process. `FeedContract` adds the other processes."""

    factory: ClassVar[str]

    @pytest.fixture
    def driver_url(self) -> str:
        """The URL of an empty database: a subclass says which."""
        raise NotImplementedError("override driver_url")

    @pytest.fixture
    async def driver(self, driver_url: str) -> AsyncGenerator[Driver, None]:
        """The driver that writes, open."""
        driver = load(self.factory)(driver_url)
        await driver.open(FEED_RECORDS)
        yield driver
        await driver.close()

    @pytest.fixture
    async def other(self, driver: Driver) -> Driver:
        """The driver that follows: the same one."""
        return driver

    @pytest.fixture
    def store(self, driver: Driver) -> Store:
        """What writes."""
        return store_of(driver)

    @pytest.mark.invariant("I-07")
    async def test_a_change_is_read_once_and_whole(self, store: Store, other: Driver) -> None:
        async with following(other) as follower:
            assert await follower.read() == []
            written = [change("ann", at=datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC))]
            await store.insert(written[0])
            assert list(await follower.read()) == written
            assert await follower.read() == []
            async with store.transaction() as transaction:
                for name in ("bob", "eve"):
                    written.append(change(name))
                    await transaction.insert(written[-1])
            found = sorted(await follower.read(), key=lambda one: one.subject)
            assert found == written[1:]
            assert await follower.read() == []

    async def test_two_followers_do_not_take_from_each_other(
        self, store: Store, other: Driver
    ) -> None:
        async with following(other) as one, following(other) as two:
            await store.insert(change("ann"))
            assert await said(one) == await said(two) == ["ann"]
            assert await said(one) == await said(two) == []

    @pytest.mark.invariant("I-07")
    async def test_a_follower_starts_at_now_and_whenever_it_begins_again(
        self, store: Store, other: Driver
    ) -> None:
        await store.insert(change("before"))
        async with following(other) as follower:
            assert await said(follower) == []
            await store.insert(change("ann"))
            assert await said(follower) == ["ann"]
            await store.insert(change("missed"))
            await follower.begin()
            assert await said(follower) == []
            await store.insert(change("bob"))
            assert await said(follower) == ["bob"]

    async def test_nothing_is_read_before_it_begins_or_after_it_was_closed(
        self, store: Store, other: Driver
    ) -> None:
        follower = feed_of(other).follow("main")
        with pytest.raises(StoreUnavailable):
            await follower.read()
        await follower.begin()
        await follower.close()
        await store.insert(change("ann"))
        with pytest.raises(StoreUnavailable):
            await follower.read()
        await follower.begin()
        assert await said(follower) == []
        await follower.close()

    @pytest.mark.invariant("I-11")
    async def test_realms_do_not_meet(self, driver: Driver, other: Driver) -> None:
        async with following(other) as here, following(other, "second") as there:
            await store_of(driver).insert(change("ann"))
            await store_of(driver, "second").insert(change("bob", realm="second"))
            await store_of(driver).insert(change("eve"))
            assert sorted(await said(here)) == ["ann", "eve"]
            assert await said(there) == ["bob"]
            assert await said(here) == await said(there) == []

    @pytest.mark.invariant("I-07")
    async def test_rows_that_expire_meanwhile_disturb_nobody(
        self, store: Store, other: Driver
    ) -> None:
        now = datetime.now(UTC)
        async with following(other) as follower:
            for number in range(5):
                await store.insert(change(f"old-{number}", at=now - 2 * KEPT_FOR))
                await store.insert(change(f"new-{number}"))
                assert len(await said(follower)) == 2
                assert await store.expire(Change, now=now) == 1
                assert await said(follower) == []
            assert await store.count(Change) == 5

    @pytest.mark.invariant("I-07")
    async def test_a_feed_that_was_emptied_goes_on(self, store: Store, other: Driver) -> None:
        """A place that starts again at 1 would stand before those who read on."""
        async with following(other) as early:
            for number in range(10):
                await store.insert(change(f"old-{number}"))
            assert len(await said(early)) == 10
            assert await store.expire(Change, now=datetime.now(UTC) + 2 * KEPT_FOR) == 10
            assert await said(early) == []
            async with following(other) as late:
                await store.insert(change("ann"))
                assert await said(early) == await said(late) == ["ann"]
                assert await store.expire(Change, now=datetime.now(UTC) + 2 * KEPT_FOR) == 1
                for name in ("bob", "eve"):
                    await store.insert(change(name))
                    assert await said(early) == await said(late) == [name]

    async def test_a_change_is_a_record_like_any_other(self, store: Store) -> None:
        one = change("ann")
        await store.insert(one)
        assert await store.get(Change, id=one.id) == one
        assert await store.count(Change, subject="ann") == 1
        assert await store.erase(Change, subject="ann") == 1


class FeedContract(LocalFeedContract):
    """What a feed promises to several processes, hints included."""

    @pytest.fixture
    async def other(self, driver: Driver, driver_url: str) -> AsyncGenerator[Driver, None]:
        """The driver that follows: another one, on the same database."""
        assert driver.feed is not None
        other = load(self.factory)(driver_url)
        await other.open(FEED_RECORDS)
        yield other
        await other.close()

    @pytest.mark.slow
    @pytest.mark.invariant("I-07")
    async def test_fifty_writers_in_five_processes_and_a_reader_lose_and_repeat_nothing(
        self, driver: Driver, driver_url: str
    ) -> None:
        processes = [
            await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "watchword.testing.feed_writer",
                *(self.factory, driver_url, str(WRITERS), "4", f"writer-{number}"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            )
            for number in range(PROCESSES)
        ]
        for process in processes:
            assert process.stdout is not None
            async with asyncio.timeout(60):
                assert await process.stdout.readline() == b"ready\n"
        read: list[str] = []
        async with following(driver) as follower:
            ended = asyncio.Event()

            async def poll() -> None:
                while not ended.is_set():
                    read.extend(await said(follower))
                    await asyncio.sleep(0.001)

            polling = asyncio.create_task(poll())
            answers = await asyncio.gather(*(p.communicate(b"go\n") for p in processes))
            ended.set()
            await polling
            read.extend(await said(follower))
        assert [process.returncode for process in processes] == [0] * PROCESSES
        written = [subject for answer, _ in answers for subject in json.loads(answer)]
        assert len(written) >= PROCESSES * WRITERS * 3
        assert len(read) == len(set(read))
        assert set(read) == set(written)

    @pytest.mark.invariant("I-08")
    async def test_a_commit_wakes_another_within_a_second(
        self, store: Store, driver: Driver, other: Driver
    ) -> None:
        async with (
            listening(driver) as here,
            listening(other) as there,
            following(other) as follower,
        ):
            for number in range(10):
                waiting = asyncio.create_task(there.wait())
                await asyncio.sleep(0.02)
                await store.insert(change(f"{number}"))
                here.hint()
                assert await heard(there, waiting, follower) == [f"{number}"]

    @pytest.mark.invariant("I-08")
    async def test_a_hint_between_two_waits_is_kept(
        self, store: Store, driver: Driver, other: Driver
    ) -> None:
        async with listening(driver) as here, listening(other) as there:
            await store.insert(change("ann"))
            here.hint()
            await asyncio.sleep(0.3)
            async with asyncio.timeout(SOON):
                await there.wait()

    @pytest.mark.invariant("I-08")
    async def test_many_hints_at_once_wake_until_all_is_read(
        self, store: Store, driver: Driver, other: Driver
    ) -> None:
        read: list[str] = []
        async with (
            listening(driver) as here,
            listening(other) as there,
            following(other) as follower,
        ):

            async def write(number: int) -> None:
                await store.insert(change(f"{number}"))
                for _ in range(20):
                    here.hint()

            async def follow() -> None:
                while len(read) < 100:
                    await there.wait()
                    read.extend(await said(follower))

            async with asyncio.timeout(30):
                await asyncio.gather(follow(), *(write(number) for number in range(100)))
        assert sorted(read) == sorted(str(number) for number in range(100))

    async def test_a_waker_that_is_closed_says_so_and_hints_to_nobody(self, other: Driver) -> None:
        waker = feed_of(other).waker()
        assert waker is not None
        waker.hint()
        with pytest.raises(StoreUnavailable):
            await waker.wait()
        assert await waker.open() is True

        async def listen() -> None:
            while True:  # a hint may come for nothing
                await waker.wait()

        hearing = asyncio.create_task(listen())
        await asyncio.sleep(0.05)
        assert not hearing.done()
        await waker.close()
        async with asyncio.timeout(SOON):
            with pytest.raises(StoreUnavailable):
                await hearing
        waker.hint()
        with pytest.raises(StoreUnavailable):
            await waker.wait()
        assert await waker.open() is True
        await waker.close()


class CoherentFeedContract(FeedContract):
    """For a feed whose changes commit with the state that they report (I-06)."""

    async def test_it_says_so(self, driver: Driver) -> None:
        assert driver.is_transactional
        assert feed_of(driver).is_coherent

    @pytest.mark.invariant("I-07")
    async def test_what_was_rolled_back_is_never_read(self, store: Store, other: Driver) -> None:
        async with following(other) as follower:

            async def undone() -> None:
                async with store.transaction() as transaction:
                    await transaction.insert(change("never"))
                    assert await said(follower) == []
                    raise Undone

            with pytest.raises(Undone):
                await undone()
            assert await said(follower) == []
            await store.insert(change("ann"))
            assert await said(follower) == ["ann"]

    @pytest.mark.invariant("I-07")
    async def test_a_commit_that_comes_late_is_read_once_like_the_others(
        self, store: Store, other: Driver
    ) -> None:
        async with following(other) as follower:
            async with store.transaction() as transaction:
                await transaction.insert(change("late"))
                newer = [asyncio.create_task(insert(store, f"newer-{n}")) for n in range(3)]
                await asyncio.wait(newer, timeout=0.3)  # where there is one writer they wait
                early = await said(follower) + await said(follower)
                assert "late" not in early
                done = [task for task in newer if task.done()]
                assert len(early) == len(done)
            await asyncio.gather(*newer)
            read = early + await said(follower)
            assert sorted(read) == ["late", "newer-0", "newer-1", "newer-2"]
            assert await said(follower) == []

    @pytest.mark.invariant("I-07")
    async def test_what_was_open_when_a_follower_began_is_read(
        self, store: Store, other: Driver
    ) -> None:
        follower = feed_of(other).follow("main")
        async with store.transaction() as transaction:
            await transaction.insert(change("late"))
            await follower.begin()
        assert await said(follower) == ["late"]
        assert await said(follower) == []
        await follower.close()


async def insert(store: Store, subject: str) -> None:
    """Write a change that commits by itself."""
    await store.insert(change(subject))


async def heard(waker: Waker, waiting: "asyncio.Task[None]", follower: Follower) -> list[str]:
    """What a waker's owner reads; a hint may come for nothing, so it waits on."""
    async with asyncio.timeout(SOON):
        while True:
            await waiting
            if read := await said(follower):
                return read
            waiting = asyncio.create_task(waker.wait())
