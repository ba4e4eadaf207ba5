"""What the gate remembers: positive answers only, bounded, and quick to forget."""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from datetime import timedelta

from watchword.kernel.clock import Clock
from watchword.kernel.principal import Identity, Subject

Key = bytes

_MARKS_KEPT = 30.0  # seconds; a read that took longer is not kept (I-09)


class IdentityCache:
    """Identities by the digest of what was presented (I-06, I-09, I-10).

    Everything happens on one event loop, so no step here can be interleaved but at `await`.
    """

    def __init__(self, *, clock: Clock, size: int, max_age: timedelta) -> None:
        self._clock = clock
        self._size = size
        self._max_age = max_age.total_seconds()
        self._entries: OrderedDict[Key, tuple[float, Identity]] = OrderedDict()
        self._by_subject: dict[Subject, set[Key]] = {}
        self._reads: dict[Key, asyncio.Task[Identity]] = {}
        self._evictions = 0
        self.hits = 0
        self.misses = 0
        self._marks: OrderedDict[Subject, tuple[int, float]] = OrderedDict()
        self._fresh_until = math.inf  # until a feed is followed, entries only forget by themselves

    def __len__(self) -> int:
        return len(self._entries)

    def fresh(self, until: float) -> None:
        """The change feed was read: nothing is missed before this time of the clock (I-08)."""
        self._fresh_until = until

    def hit(self, key: Key) -> Identity | None:
        """The identity kept under this key, if its time is not over and the feed is fresh."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        now = self._clock.monotonic()
        if now >= self._fresh_until:
            self.empty()
            return None
        if entry[0] <= now:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        self.hits += 1
        return entry[1]

    async def miss(self, key: Key, read: Callable[[], Awaitable[Identity]]) -> Identity:
        """Read the identity; many misses of one key share one read."""
        self.misses += 1
        task = self._reads.get(key)
        if task is None:
            task = asyncio.create_task(self._read(key, read))
            self._reads[key] = task
            task.add_done_callback(lambda done: self._finished(key, done))
        # A caller that goes away must not take the answer from the others.
        return await asyncio.shield(task)

    def _finished(self, key: Key, task: asyncio.Task[Identity]) -> None:
        if self._reads.get(key) is task:
            del self._reads[key]
        if not task.cancelled():
            task.exception()  # seen, even if everyone who waited has gone

    async def _read(self, key: Key, read: Callable[[], Awaitable[Identity]]) -> Identity:
        began, evictions = self._clock.monotonic(), self._evictions
        identity = await read()
        lives = (identity.valid_until - self._clock.now()).total_seconds()
        until = min(began + self._max_age, self._clock.monotonic() + lives)
        now = self._clock.monotonic()
        kept = now - began < _MARKS_KEPT and now < self._fresh_until
        if kept and not self._evicted_since(identity.subjects, evictions):
            self._keep(key, until, identity)
        return identity

    def evict(self, subjects: tuple[Subject, ...]) -> None:
        """Forget all that rests on these, and let no read that is under way bring it back."""
        if any(kind in _BEARS_ON_ALL for kind, _ in subjects):
            self.empty()
            return
        self._evictions += 1
        # Whoever asks from now on does not share a read that began before.
        self._reads.clear()
        now = self._clock.monotonic()
        for subject in subjects:
            self._marks[subject] = (self._evictions, now)
            self._marks.move_to_end(subject)
            for key in tuple(self._by_subject.get(subject, ())):
                self._drop(key)
        while self._marks and next(iter(self._marks.values()))[1] < now - _MARKS_KEPT:
            self._marks.popitem(last=False)

    def empty(self) -> None:
        """Forget everything; reads under way are not kept either."""
        self.evict(())
        self._marks[_EVERYONE] = (self._evictions, self._clock.monotonic())
        self._marks.move_to_end(_EVERYONE)
        self._entries.clear()
        self._by_subject.clear()

    def _evicted_since(self, subjects: tuple[Subject, ...], evictions: int) -> bool:
        return any(
            self._marks.get(subject, (0, 0.0))[0] > evictions for subject in (*subjects, _EVERYONE)
        )

    def _keep(self, key: Key, until: float, identity: Identity) -> None:
        if self._size == 0:
            return
        self._entries[key] = (until, identity)
        for subject in identity.subjects:
            self._by_subject.setdefault(subject, set()).add(key)
        while len(self._entries) > self._size:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        for subject in entry[1].subjects:
            keys = self._by_subject.get(subject)
            if keys is not None:
                keys.discard(key)
                if not keys:
                    del self._by_subject[subject]


_EVERYONE: Subject = ("", "")
_BEARS_ON_ALL = frozenset({"role", "policy", "key", "app"})  # a change of one empties all (I-10)
