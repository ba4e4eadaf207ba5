"""One worker's ear: reads the change feed, evicts, and says how fresh the cache may call itself."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from watchword.kernel.clock import Clock
from watchword.kernel.errors import StoreUnavailable
from watchword.kernel.principal import Subject
from watchword.kernel.tally import Durations
from watchword.storage.feed import Change, Feed, Follower, Waker

_log = logging.getLogger("watchword.feed")

_READS_A_BOUND: Final = 4  # I-08
_TRIED_AGAIN: Final = 15.0  # seconds until a waker that cannot be heard is opened again
_APART: Final = 0.01  # seconds between reads that go on: a change anywhere makes all workers read
_AT_ONCE: Final = 20 * _APART  # so many reads follow their hints without a pause


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedStatus:
    """How well a worker hears, for operators."""

    is_fresh: bool
    age: float | None  # seconds since the start of the last read that succeeded
    wakers: tuple[str, ...]  # what wakes it; empty means that it polls
    deaf: tuple[str, ...]  # what should wake it and was not heard at the start
    lags: "Lags"


_EDGES: Final = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0)  # seconds


class Lags(Durations):
    """How long changes took from their writing to their eviction here."""

    def __init__(self) -> None:
        super().__init__(_EDGES)


class Following:
    """Follows the feed of one realm until it is cancelled. One a process and App.

    Fresh means read lately (I-08): clock − *start* of the last read that succeeded < bound,
    which the cache tests at every hit.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        feed: Feed,
        realm: str,
        bound: timedelta,
        wakers: Sequence[Waker],
        evict: Callable[[tuple[Subject, ...]], None],
        empty: Callable[[], None],
        fresh: Callable[[float], None],
    ) -> None:
        self._clock = clock
        self._follower: Follower = feed.follow(realm)
        self._bound = bound.total_seconds()
        self._all = tuple(wakers)
        self._process = os.getpid()
        self._heard: list[Waker] = []
        self._deaf: list[Waker] = []
        self._evict, self._empty, self._fresh = evict, empty, fresh
        self._read_at: float | None = None
        self._begun = False
        self._lags = Lags()

    @property
    def status(self) -> FeedStatus:
        """How well this worker hears now."""
        age = None if self._read_at is None else self._clock.monotonic() - self._read_at
        return FeedStatus(
            is_fresh=age is not None and age < self._bound,
            age=age,
            wakers=tuple(waker.name for waker in self._heard),
            deaf=tuple(waker.name for waker in self._deaf),
            lags=self._lags,
        )

    def hint(self) -> None:
        """Something was committed here: tell the others, best effort."""
        if self._process == os.getpid():  # a forked child has wakers of its own
            for waker in self._heard:
                waker.hint()

    async def begin(self) -> None:
        """Start at "now" with an empty cache, and find out which wakers can be heard.

        Raises:
            StoreUnavailable
        """
        for waker in self._all:
            if not await self._open(waker):
                _log.warning(
                    "%s does not wake this worker (is there a pooler in between?): "
                    "it reads the change feed every %.1f s instead",
                    waker.name,
                    self._bound / _READS_A_BOUND,
                )
        await self._begin()

    async def run(self) -> None:
        """Read whenever something may have happened, and every quarter of the bound."""
        reopening = asyncio.create_task(self._reopen(), name="watchword feed wakers")
        try:
            await self._follow()
        finally:
            reopening.cancel()
            await asyncio.gather(reopening, return_exceptions=True)

    async def _follow(self) -> None:
        loop, due = asyncio.get_running_loop(), 0.0
        while True:
            await self._wait()
            try:
                if self._begun:
                    await self._read()
                else:
                    await self._begin()
                    _log.warning("the change feed is followed again")
            except StoreUnavailable as error:
                if self._begun:
                    _log.warning("the change feed cannot be read: %s", error.note)
                # What was missed meanwhile is not read later: the cache starts anew instead.
                self._begun = False
            except Exception:  # noqa: BLE001  a mistake of ours: the cache goes stale, and this goes on
                _log.exception("the change feed failed")
                self._begun = False
            due = max(due, loop.time()) + _APART
            if (early := due - _AT_ONCE - loop.time()) > 0:
                await asyncio.sleep(early)

    async def close(self) -> None:
        """Give every connection back."""
        for closing in (self._follower, *self._all):
            with contextlib.suppress(StoreUnavailable):
                await closing.close()
        self._heard.clear()
        self._begun = False

    async def _begin(self) -> None:
        began = self._clock.monotonic()
        await self._follower.begin()
        self._empty()
        self._begun = True
        self._succeeded(began)

    async def _read(self) -> None:
        began = self._clock.monotonic()
        changes = await self._follower.read()
        for change in changes:
            self._apply(change)
        self._succeeded(began)

    def _apply(self, change: Change) -> None:
        self._evict(((change.topic, change.subject),))
        self._lags.add((self._clock.now() - change.at).total_seconds())

    def _succeeded(self, began: float) -> None:
        self._read_at = began
        self._fresh(began + self._bound)

    async def _wait(self) -> None:
        """Until a hint, and no longer than a quarter of the bound."""
        waits = [asyncio.ensure_future(self._listen(waker)) for waker in self._heard]
        pause = asyncio.ensure_future(asyncio.sleep(self._bound / _READS_A_BOUND))
        try:
            await asyncio.wait([pause, *waits], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (pause, *waits):
                task.cancel()
            await asyncio.gather(pause, *waits, return_exceptions=True)

    async def _listen(self, waker: Waker) -> None:
        try:
            await waker.wait()
        except StoreUnavailable as error:
            _log.warning("%s no longer wakes this worker: %s", waker.name, error.note)
        except Exception:  # noqa: BLE001  a mistake of the waker's: asked again at once, it fails again
            _log.exception("%s no longer wakes this worker", waker.name)
        else:
            return
        self._heard.remove(waker)
        self._deaf.append(waker)

    async def _open(self, waker: Waker) -> bool:
        try:
            hears = await waker.open()
        except StoreUnavailable:
            hears = False
        except Exception:  # noqa: BLE001  a mistake of the waker's: rows are read all the same
            _log.exception("%s failed", waker.name)
            hears = False
        (self._heard if hears else self._deaf).append(waker)
        return hears

    async def _reopen(self) -> None:
        while True:
            await asyncio.sleep(_TRIED_AGAIN)
            for waker in tuple(self._deaf):
                self._deaf.remove(waker)
                if await self._open(waker):
                    _log.warning("%s wakes this worker again", waker.name)
