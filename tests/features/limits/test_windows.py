"""Windows slide, fill up and open again alike, wherever they are kept."""

import asyncio
import random
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.features.limits.conftest import Place
from tests.told import telling
from watchword import Watchword
from watchword.storage.errors import Conflict
from watchword.storage.store import Paging, Store, where
from watchword.storage.windows import (
    LOST,
    SLOTS,
    Ask,
    AttemptWindow,
    Contended,
    MemoryWindows,
    StoreWindows,
    Windows,
    micros,
    windows_of,
)

T0 = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
MINUTE = 60_000_000
FIVE = Ask("five", 5, 5 * MINUTE)
CROWD = Ask("crowd", 250, MINUTE)  # three tries a slot


def after(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


@pytest.fixture
async def auth(place: Place) -> AsyncGenerator[Watchword, None]:
    """An App that is open, and counts in this place."""
    async with telling(place.url, environ=place.environ, background=False) as story:
        yield story.auth


@pytest.fixture
async def windows(place: Place, auth: Watchword) -> Windows:
    return MemoryWindows() if place.name == "memory" else windows_of(auth.store)


@pytest.mark.capability("S0-89", "S0-90")
@pytest.mark.invariant("I-20")
async def test_a_window_slides_try_by_try(windows: Windows) -> None:
    for second in (0, 10, 20, 30, 40):
        assert (await windows.take([FIVE], now=after(second))).is_counted
    refused = await windows.take([FIVE], now=after(50))
    assert (refused.is_counted, refused.seen[0].used) == (False, 5)
    assert refused.seen[0].opens == 250_000_000  # to the microsecond
    assert not (await windows.take([FIVE], now=after(299.999999))).is_counted
    # The first has left; nothing that was refused meanwhile took its place.
    assert (await windows.take([FIVE], now=after(300))).is_counted
    again = await windows.take([FIVE], now=after(300))
    assert (again.is_counted, again.seen[0].opens) == (False, 10_000_000)


@pytest.mark.invariant("I-20")
async def test_a_try_is_counted_at_all_of_its_keys_or_at_none(windows: Windows) -> None:
    one, other = Ask("one", 2, MINUTE), Ask("other", 9, MINUTE)
    assert (await windows.take([one], now=T0)).is_counted
    assert (await windows.take([other, one], now=T0)).is_counted
    for _ in range(3):
        refused = await windows.take([other, one], now=T0)
        assert [seen.is_full for seen in refused.seen] == [False, True]
    found = await windows.look([other, one, Ask("third", 1, MINUTE)], now=T0)
    assert [seen.used for seen in found] == [1, 2, 0]
    await windows.forget(["one"])
    assert (await windows.take([other, one], now=T0)).is_counted


@pytest.mark.invariant("I-20")
async def test_a_clock_that_goes_back_opens_nothing(windows: Windows) -> None:
    for _ in range(5):
        await windows.take([FIVE], now=T0)
    back = await windows.take([FIVE], now=after(-200))
    assert (back.is_counted, back.seen[0].opens) == (False, 500_000_000)
    assert not (await windows.take([FIVE], now=after(299))).is_counted
    # One that was a year ahead opens nothing either, and closes nothing for a year.
    behind = T0 - timedelta(days=365)
    mended = await windows.take([FIVE], now=behind)
    assert (mended.is_counted, mended.seen[0].opens) == (False, 300_000_000)
    assert (await windows.take([FIVE], now=behind + timedelta(seconds=300))).is_counted


@pytest.mark.invariant("I-20")
async def test_many_tries_share_a_hundred_slots_and_none_is_let_in_early(windows: Windows) -> None:
    for n in range(CROWD.tries):
        assert (await windows.take([CROWD], now=after(n / 10))).is_counted
    full = await windows.take([CROWD], now=after(25))
    # The slot of the first three goes with the third of them.
    assert (full.is_counted, full.seen[0].opens) == (False, 35_200_000)
    assert not (await windows.take([CROWD], now=after(60.1))).is_counted
    for _ in range(3):
        assert (await windows.take([CROWD], now=after(60.2))).is_counted
    assert not (await windows.take([CROWD], now=after(60.2))).is_counted


async def test_what_is_refused_writes_nothing_and_what_is_over_is_tidied(
    place: Place, auth: Watchword, windows: Windows
) -> None:
    now = auth.clock.now()
    for _ in range(3):
        await windows.take([Ask("k", 3, MINUTE), CROWD], now=now)
    if isinstance(windows, StoreWindows):
        before = await rows(auth.store)
        assert len(before) == 2
        assert not (await windows.take([Ask("k", 3, MINUTE), CROWD], now=now)).is_counted
        assert await rows(auth.store) == before
        await auth.purge()
        assert await rows(auth.store) == before
        auth.clock.advance(timedelta(seconds=61))  # type: ignore[attr-defined]
        await auth.purge()
        assert await rows(auth.store) == ()
    elif place.name == "redis":
        link: Any = getattr(windows, "_link")  # noqa: B009
        key = getattr(windows, "_key")("k")  # noqa: B009
        (before,) = await link.read(("GET", key))
        assert not (await windows.take([Ask("k", 3, MINUTE)], now=now)).is_counted
        (kept, lives) = await link.read(("GET", key), ("PTTL", key))
        assert kept == before
        assert 50_000 < lives <= 66_000


async def rows(store: Store) -> tuple[AttemptWindow, ...]:
    return (await store.find(AttemptWindow, Paging(order=("key",)))).items


@pytest.mark.invariant("I-20")
async def test_fifty_at_once_are_fifty(windows: Windows) -> None:
    outcomes = await asyncio.gather(*(windows.take([FIVE, CROWD], now=T0) for _ in range(50)))
    assert sum(outcome.is_counted for outcome in outcomes) == 5
    outcomes = await asyncio.gather(*(windows.take([CROWD], now=T0) for _ in range(60)))
    assert all(outcome.is_counted for outcome in outcomes)  # tabs of one browser
    (seen,) = await windows.look([CROWD], now=T0)
    assert seen.used == 65


class Outrun(Store):
    """A store in which somebody else always writes first."""

    __slots__ = ()

    async def update(self, kind: Any, where: Any, /, **changes: object) -> Any:
        await super().update(kind, only(where), version=changes["version"])
        return await super().update(kind, where, **changes)


def only(pinned: Any) -> Any:
    return where(key=pinned.conditions["key"])


@pytest.mark.invariant("I-20")
async def test_twenty_lost_races_are_a_refusal(sqlite_url: str) -> None:
    async with telling(sqlite_url, background=False) as story:
        store = story.auth.store
        await StoreWindows(store).take([CROWD], now=T0)
        outrun = Outrun(driver=store.driver, events=store.events, realm=store.realm)
        before = await rows(store)
        with pytest.raises(Contended):
            await StoreWindows(outrun).take([CROWD], now=T0)
        ((row,), (was,)) = await rows(store), before
        assert row.times == was.times
        assert LOST == 20


async def test_of_two_first_tries_both_count(sqlite_url: str) -> None:
    class Late(Store):
        """Somebody else makes the record just before we do."""

        __slots__ = ()

        async def insert(self, record: Any) -> Any:
            if not await rows(store):
                await StoreWindows(store).take([FIVE], now=T0)
                raise Conflict("key")
            return await super().insert(record)

    async with telling(sqlite_url, background=False) as story:
        store = story.auth.store
        late = Late(driver=store.driver, events=store.events, realm=store.realm)
        outcome = await StoreWindows(late).take([FIVE], now=T0)
        assert (outcome.is_counted, outcome.seen[0].used) == (True, 2)


@pytest.mark.capability("DEF-09")
async def test_memory_is_bounded_and_the_least_tried_make_room() -> None:
    windows = MemoryWindows(most=100)
    for n in range(1000):
        await windows.take([FIVE, Ask(f"stranger {n}", 5, MINUTE)], now=T0)
        await windows.forget(["five"])
        assert len(windows) <= 100
    assert (await windows.look([Ask("stranger 3", 5, MINUTE)], now=T0))[0].used == 0
    flooded = MemoryWindows(most=10)
    await flooded.take([Ask("one", SLOTS * 1000, MINUTE)], now=T0)
    for _ in range(5000):
        await flooded.take([Ask("one", SLOTS * 1000, MINUTE)], now=T0)
    assert len(flooded._windows["one"].times) <= SLOTS


STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.one_of(st.integers(-20, 120), st.integers(-100_000, 100_000)),
        st.booleans(),
    ),
    max_size=60,
)


@pytest.fixture
async def redis_windows(redis_url: str, sqlite_url: str) -> AsyncGenerator[Windows, None]:
    environ = {"WATCHWORD_LIMITS__STORE": redis_url}
    async with telling(sqlite_url, environ=environ, background=False) as story:
        yield windows_of(story.auth.store)


@given(steps=STEPS)
def test_memory_counts_as_a_list_of_all_tries_would(steps: list[tuple[int, int, bool]]) -> None:
    """The model keeps every try. Where slots are shared ours may only be the stricter one."""
    windows, kept, now = MemoryWindows(), dict[str, list[int]](), micros(T0)
    asks = [Ask("a", 3, 60), Ask("b", 7, 100), Ask("c", 150, 1000)]
    for which, step, both in steps:
        now += abs(step)  # a clock that goes on
        chosen = [asks[which], asks[(which + 1) % 3]] if both else [asks[which]]
        full = False
        for ask in chosen:
            kept[ask.key] = [at for at in kept.get(ask.key, []) if at + ask.window > now]
            full = full or len(kept[ask.key]) >= ask.tries
        outcome = windows.taken(chosen, now)
        if outcome.is_counted:
            assert not full
            for ask in chosen:
                kept[ask.key].append(now)
        else:
            assert full or "c" in {ask.key for ask in chosen}


async def test_redis_and_the_store_count_as_memory_does(
    redis_windows: Windows, sqlite_url: str
) -> None:
    """One logic is written twice, in Python and in the script: random walks hold them together."""
    chance = random.Random(20)
    memory = MemoryWindows()
    asks = [Ask("a", 3, 60), Ask("b", 7, 100), Ask("c", 150, 1000)]
    now = T0
    for _ in range(1500):
        far = chance.random() < 0.02
        now += timedelta(microseconds=chance.randint(*((-5000, 5000) if far else (-3, 9))))
        chosen = chance.sample(asks, chance.randint(1, 3))
        assert await redis_windows.take(chosen, now=now) == await memory.take(chosen, now=now)
        assert await redis_windows.look(asks, now=now) == await memory.look(asks, now=now)
