"""How long the store takes, verb by verb; and a span around each, where spans are wanted."""

import time
from collections.abc import Awaitable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Final, TypeVar

from watchword.kernel.errors import StoreUnavailable
from watchword.kernel.tally import Durations
from watchword.kernel.tracing import OFF, Tracing
from watchword.storage.errors import Conflict

if TYPE_CHECKING:  # it imports this module
    from watchword.storage.store import Conditions, Verbs

R = TypeVar("R")
T = TypeVar("T")

_EDGES: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Watch:
    """Times what one App asks of its stores, once it is switched on."""

    def __init__(self, tracing: Tracing = OFF) -> None:
        self.is_on = False
        self.times: dict[tuple[str, str], Durations] = {}  # by verb and outcome
        self._tracing = tracing

    async def timed(self, verb: str, call: Awaitable[T], record: str = "") -> T:
        """Wait for it, and count how long it took.

        Its outcome is `ok`, `conflict`, `unavailable` or `error`.
        """
        began = time.perf_counter()
        outcome = "error"
        try:
            with self._tracing.span(f"store.{verb}", record=record):
                answer = await call
            outcome = "ok"
        except Conflict:
            outcome = "conflict"
            raise
        except StoreUnavailable:
            outcome = "unavailable"
            raise
        finally:
            key = verb, outcome
            if key not in self.times:
                self.times[key] = Durations(_EDGES)
            self.times[key].add(time.perf_counter() - began)
        return answer

    def verbs(self, verbs: "Verbs") -> "Verbs":
        """The same verbs, timed."""
        return WatchedVerbs(verbs, self) if self._watches() else verbs

    def transaction(
        self, transaction: "AbstractAsyncContextManager[Verbs]"
    ) -> "AbstractAsyncContextManager[Verbs]":
        """The same transaction: its beginning and its end are timed, not what is done in it."""
        return WatchedTransaction(transaction, self) if self._watches() else transaction

    def _watches(self) -> bool:
        return self.is_on or self._tracing.is_heard


@dataclass(frozen=True, slots=True)
class WatchedTransaction:
    """A driver's transaction, timed."""

    inner: "AbstractAsyncContextManager[Verbs]"
    watch: Watch

    async def __aenter__(self) -> "Verbs":
        return await self.watch.timed("begin", self.inner.__aenter__())

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        verb = "commit" if kind is None else "rollback"
        return await self.watch.timed(verb, self.inner.__aexit__(kind, error, trace))


@dataclass(frozen=True, slots=True)
class WatchedVerbs:
    """A driver's verbs, timed."""

    inner: "Verbs"
    watch: Watch

    async def insert(self, record: object) -> object:
        """As `Verbs` has it."""
        call = self.inner.insert(record)
        return await self.watch.timed("insert", call, type(record).__name__)

    async def get(self, kind: type[R], conditions: "Conditions") -> R | None:
        """As `Verbs` has it."""
        return await self.watch.timed("get", self.inner.get(kind, conditions), kind.__name__)

    async def find(
        self,
        kind: type[R],
        conditions: "Conditions",
        *,
        order: tuple[str, ...],
        descending: bool,
        after: tuple[object, ...] | None,
        limit: int,
    ) -> list[R]:
        """As `Verbs` has it."""
        call = self.inner.find(
            kind, conditions, order=order, descending=descending, after=after, limit=limit
        )
        return await self.watch.timed("find", call, kind.__name__)

    async def count(self, kind: type, conditions: "Conditions") -> int:
        """As `Verbs` has it."""
        return await self.watch.timed("count", self.inner.count(kind, conditions), kind.__name__)

    async def update(
        self, kind: type[R], conditions: "Conditions", changes: Mapping[str, object]
    ) -> R | None:
        """As `Verbs` has it."""
        call = self.inner.update(kind, conditions, changes)
        return await self.watch.timed("update", call, kind.__name__)

    async def take(self, kind: type[R], conditions: "Conditions") -> R | None:
        """As `Verbs` has it."""
        return await self.watch.timed("take", self.inner.take(kind, conditions), kind.__name__)

    async def erase(self, kind: type, conditions: "Conditions") -> int:
        """As `Verbs` has it."""
        return await self.watch.timed("erase", self.inner.erase(kind, conditions), kind.__name__)

    async def increment(self, record: object, *, field: str, expires: str, now: datetime) -> int:
        """As `Verbs` has it."""
        call = self.inner.increment(record, field=field, expires=expires, now=now)
        return await self.watch.timed("increment", call, type(record).__name__)

    async def expire(self, kind: type, *, expires: str, now: datetime, limit: int) -> int:
        """As `Verbs` has it."""
        call = self.inner.expire(kind, expires=expires, now=now, limit=limit)
        return await self.watch.timed("expire", call, kind.__name__)
