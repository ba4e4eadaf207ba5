"""Windows: when something was tried of late, in one record a key (I-20).

A window slides: a try made at t counts until t + window and no longer. It is kept as the times of
the last tries, in at most 100 slots; where a quota has more tries than that, several share a
slot, which counts until the last of them would.
"""

import asyncio
import random
import secrets
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple, Protocol
from weakref import WeakValueDictionary

from watchword.storage.errors import Conflict
from watchword.storage.record import record, schema_of
from watchword.storage.store import Paging, Store, one_of, where

SLOTS: Final = 100
LOST: Final = 20
"""So many races lost, and the try is refused: whoever tries that often is no one to be let in."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


@record(name="attempt_window", key=("key",), expires="expires_at")
class AttemptWindow:
    """When something was tried of late."""

    realm: str
    key: str  # a keyed hash
    version: int  # random, anew at every write: of two writers at once one finds another's
    times: tuple[int, ...]  # of each slot's last try, microseconds since 1970, the oldest first
    last: int  # tries in the newest slot
    expires_at: datetime


class Ask(NamedTuple):
    """A key, and how many tries it may have in how long."""

    key: str
    tries: int
    window: int  # microseconds

    @property
    def group(self) -> int:
        """How many tries share a slot."""
        return -(-self.tries // SLOTS)


class Seen(NamedTuple):
    """How a key stands."""

    used: int
    opens: int  # microseconds until the oldest slot is free; 0 where there is none
    is_full: bool


class Outcome(NamedTuple):
    """Whether a try was counted, at all of its keys or at none, and how each stands then."""

    is_counted: bool
    seen: tuple[Seen, ...]


class Contended(Exception):
    """Too many others count at the same keys: refuse."""


class Windows(Protocol):
    """Where tries are counted. Atomic on each key, whoever else counts there."""

    @property
    def is_shared(self) -> bool:
        """Do all workers count as one?"""
        ...

    async def take(self, asks: Sequence[Ask], *, now: datetime) -> Outcome:
        """Count one try at all of these keys, unless one of them is full.

        What is refused writes nothing, so a flood costs reads only. Keys come in the same order
        from every worker.

        Raises:
            Contended: refuse it.
            StoreUnavailable: it may have been counted.
        """
        ...

    async def look(self, asks: Sequence[Ask], *, now: datetime) -> tuple[Seen, ...]:
        """How these keys stand; nothing is counted."""
        ...

    async def forget(self, keys: Sequence[str]) -> None:
        """Let these begin anew."""
        ...


class Window:
    """The tries of one key. Time is in microseconds since 1970."""

    __slots__ = ("last", "times")

    def __init__(self, times: Sequence[int] = (), last: int = 0) -> None:
        self.times = array("q", times)
        self.last = last

    def mend(self, ask: Ask, now: int) -> bool:
        """Put right what a clock that was far ahead has written; True if there was any.

        A clock that goes back opens nothing: what lies ahead counts until it is past. What lies
        more than a window ahead counts from now on.
        """
        times = self.times
        if not times or times[-1] <= now + ask.window:
            return False
        self.times = array("q", (min(at, now) for at in times))
        return True

    def gone(self, ask: Ask, now: int) -> int:
        """How many slots have left the window."""
        edge, times = now - ask.window, self.times
        gone = 0
        for at in times:
            if at > edge:
                return gone
            gone += 1
        return gone

    def seen(self, ask: Ask, now: int) -> Seen:
        """How it stands."""
        gone = self.gone(ask, now)
        rest = len(self.times) - gone
        if not rest:
            return Seen(0, 0, is_full=False)
        used = (rest - 1) * ask.group + self.last
        return Seen(used, self.times[gone] + ask.window - now, is_full=used >= ask.tries)

    def add(self, ask: Ask, now: int) -> Seen:
        """Count one more; how it stands then.

        What has left is dropped here, and not when it is looked at: clocks may go back.
        """
        times = self.times
        if times and times[0] <= now - ask.window:
            del times[: self.gone(ask, now)]
        at = times[-1] if times and times[-1] > now else now
        group = ask.group if ask.tries > SLOTS else 1
        if times and self.last < group:
            times[-1] = at
            self.last += 1
        else:
            times.append(at)
            self.last = 1
        used = (len(times) - 1) * group + self.last
        return Seen(used, times[0] + ask.window - now, used >= ask.tries)


def micros(at: datetime) -> int:
    """An instant as windows count it."""
    return (at - _EPOCH) // _MICROSECOND


class MemoryWindows:
    """Windows of one process, for one worker. The least recently tried ones make room."""

    is_shared = False

    def __init__(self, *, most: int = 50_000) -> None:
        """Args: most: keys kept; each takes a kilobyte at most."""
        self._windows: OrderedDict[str, Window] = OrderedDict()
        self._most = most

    def __len__(self) -> int:
        return len(self._windows)

    async def take(self, asks: Sequence[Ask], *, now: datetime) -> Outcome:
        """Count one try at all of these keys, unless one of them is full."""
        return self.taken(asks, micros(now))

    def taken(self, asks: Sequence[Ask], now: int) -> Outcome:
        """The same at once: nothing here waits, so no other task comes in between."""
        kept, is_full = self._windows, False
        found: list[Window] = []
        for ask in asks:
            window = kept.get(ask.key)
            if window is None:
                window = Window()
            elif window.times[-1] > now or len(window.times) * ask.group >= ask.tries:
                window.mend(ask, now)
                is_full = window.seen(ask, now).is_full or is_full
            found.append(window)
        if is_full:
            seen = [window.seen(ask, now) for ask, window in zip(asks, found, strict=True)]
            return Outcome(is_counted=False, seen=tuple(seen))
        standing: list[Seen] = []
        for ask, window in zip(asks, found, strict=True):
            standing.append(window.add(ask, now))
            if len(window.times) == 1:
                kept[ask.key] = window
            kept.move_to_end(ask.key)
        while len(kept) > self._most:
            kept.popitem(last=False)
        return Outcome(is_counted=True, seen=tuple(standing))

    async def look(self, asks: Sequence[Ask], *, now: datetime) -> tuple[Seen, ...]:
        """How these keys stand."""
        at = micros(now)
        seen: list[Seen] = []
        for ask in asks:
            kept = self._windows.get(ask.key) or Window()
            window = Window(kept.times, kept.last)
            window.mend(ask, at)
            seen.append(window.seen(ask, at))
        return tuple(seen)

    async def forget(self, keys: Sequence[str]) -> None:
        """Let these begin anew."""
        for key in keys:
            self._windows.pop(key, None)


@dataclass(slots=True)
class _Counting:
    """One key on its way through `take`."""

    ask: Ask
    stored: AttemptWindow | None
    window: Window
    is_written: bool = False


@dataclass(frozen=True, slots=True)
class StoreWindows:
    """Windows in the store, by its verbs: a record is replaced only by who read it last."""

    store: Store
    # Tasks of one process wait for one another here instead of losing races in the database.
    _locks: WeakValueDictionary[str, asyncio.Lock] = field(
        default_factory=WeakValueDictionary[str, asyncio.Lock]
    )

    @property
    def is_shared(self) -> bool:
        """All workers count as one."""
        return True

    async def take(self, asks: Sequence[Ask], *, now: datetime) -> Outcome:
        """Count one try at all of these keys, unless one of them is full.

        Where writes do not commit together, a key that fills up while the others are written
        leaves those counted, which errs on the side of caution.
        """
        at = micros(now)
        async with AsyncExitStack() as held:
            for ask in asks:
                await held.enter_async_context(self._lock(ask.key))
            waiting = [_Counting(ask, None, Window()) for ask in asks]
            for lost in range(LOST):
                await self._read(waiting, at)
                todo = [each for each in waiting if not each.is_written]
                if any(each.window.seen(each.ask, at).is_full for each in todo):
                    return Outcome(is_counted=False, seen=_seen(waiting, at))
                if await self._write(todo, at):
                    return Outcome(is_counted=True, seen=_seen(waiting, at))
                await asyncio.sleep(random.uniform(0, min(0.001 * 2**lost, 0.05)))  # noqa: S311
        raise Contended

    async def look(self, asks: Sequence[Ask], *, now: datetime) -> tuple[Seen, ...]:
        """How these keys stand."""
        at = micros(now)
        waiting = [_Counting(ask, None, Window()) for ask in asks]
        await self._read(waiting, at)
        return _seen(waiting, at)

    async def forget(self, keys: Sequence[str]) -> None:
        """Let these begin anew."""
        for key in keys:
            await self.store.take(AttemptWindow, key=key)

    def _lock(self, key: str) -> asyncio.Lock:
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        return lock

    async def _read(self, waiting: Sequence[_Counting], now: int) -> None:
        keys = [each.ask.key for each in waiting if not each.is_written]
        if len(keys) == 1:
            one = await self.store.get(AttemptWindow, key=keys[0])
            found = {} if one is None else {one.key: one}
        else:
            paging = Paging(order=("key",), limit=len(keys))
            page = await self.store.find(AttemptWindow, paging, key=one_of(keys))
            found = {each.key: each for each in page.items}
        for each in waiting:
            if each.is_written:
                continue
            each.stored = found.get(each.ask.key)
            each.window = Window()
            if each.stored is not None:
                each.window = Window(each.stored.times, each.stored.last)
                if each.window.mend(each.ask, now):
                    await self._replace(self.store, each)

    async def _write(self, todo: Sequence[_Counting], now: int) -> bool:
        for each in todo:
            each.window.add(each.ask, now)
        if len(todo) > 1 and self.store.is_transactional and not self.store.is_apart(AttemptWindow):
            try:
                async with self.store.transaction() as tx:
                    for each in todo:
                        if not await self._replace(tx, each):
                            raise _Lost  # what was written before it is undone with it
            except (_Lost, Conflict):
                return False
            return True
        for each in todo:
            try:
                each.is_written = await self._replace(self.store, each)
            except Conflict:
                return False
            if not each.is_written:
                return False
        return True

    async def _replace(self, store: Store, counting: _Counting) -> bool:
        """Make it the record of its key, if the one that was read is still there."""
        ask, window, stored = counting.ask, counting.window, counting.stored
        times = tuple(window.times)
        expires_at = _EPOCH + timedelta(microseconds=times[-1] + ask.window)
        version = secrets.randbits(62)
        if stored is None:
            made = AttemptWindow(
                realm=store.realm,
                key=ask.key,
                version=version,
                times=times,
                last=window.last,
                expires_at=expires_at,
            )
            await store.insert(made)
            return True
        changed = await store.update(
            AttemptWindow,
            where(key=ask.key, version=stored.version),
            version=version,
            times=times,
            last=window.last,
            expires_at=expires_at,
        )
        if changed is not None:
            counting.stored = changed
        return changed is not None


def _seen(waiting: Sequence[_Counting], now: int) -> tuple[Seen, ...]:
    return tuple(each.window.seen(each.ask, now) for each in waiting)


class _Lost(Exception):
    """Another writer was there first."""


def windows_of(store: Store) -> Windows:
    """Where this store counts: the driver's own way, where it has one, else by the verbs."""
    driver = store.apart.get(schema_of(AttemptWindow).name, store.driver)
    make = getattr(driver, "windows", None)
    return StoreWindows(store) if make is None else make(store.realm)
