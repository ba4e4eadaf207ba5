"""Everything that happens is an event, announced inside the transaction that makes it true."""

import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, ClassVar, TypeVar

from watchword.kernel.principal import Subject

_log = logging.getLogger("watchword.events")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened. Subclasses are named in the past tense."""

    evicts: ClassVar[bool] = False  # does it make a cached identity untrue?
    gated: ClassVar[bool] = False  # is it asked before something is done, of gates only?
    is_failure: ClassVar[bool] = False  # was something refused, or did it go wrong?
    audited: ClassVar[tuple[str, ...]] = ()  # fields of its own that audit keeps: never a secret

    realm: str
    at: datetime

    def audited_as(self) -> str | None:
        """The name of what happened, for those who read it later; None: it need not be kept."""
        return snake_case(type(self).__name__)

    def subjects(self) -> tuple[Subject, ...]:
        """Whom it is about, for eviction; only asked where `evicts`."""
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRefused(Event):
    """A request was refused that should not have come: not allowed, forged, one too many."""

    is_failure: ClassVar[bool] = True
    audited: ClassVar[tuple[str, ...]] = ("code", "status", "note")

    code: str  # of the refusal
    status: int
    note: str | None  # what only logs and audit see


@cache
def snake_case(name: str) -> str:
    """`SessionEnded` as `session_ended`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


_TOPICS = ("user", "session", "api_key", "client", "key", "role", "policy", "app", "webhook")

E = TypeVar("E", bound=Event)
Hook = Callable[[Any], Awaitable[None]]
Partner = Callable[[Any, Any], Awaitable[None]]


class Events:
    """Who listens to what, of one App.

    Two kinds of listeners: a *partner* writes its own records in the same transaction (and
    may undo it by raising); a *hook* runs after the commit, never after a rollback, and what
    it raises is logged and goes no further (I-04).
    """

    def __init__(self) -> None:
        self._partners: list[tuple[type[Event], Partner]] = []
        self._hooks: list[tuple[type[Event], Hook]] = []
        self._gates: list[tuple[type[Event], Hook]] = []
        self._evictors: list[Callable[[tuple[Subject, ...]], None]] = []
        self._wakers: list[Callable[[], None]] = []

    def join(self, kind: type[E], partner: Callable[[Any, E], Awaitable[None]]) -> None:
        """Let `partner(transaction, event)` take part in the transaction of each such event."""
        self._partners.append((kind, partner))

    def on(self, kind: type[E], hook: Callable[[E], Awaitable[None]]) -> None:
        """Call `hook(event)` after the commit of each such event."""
        self._hooks.append((kind, hook))

    def gate(self, kind: type[E], hook: Callable[[E], Awaitable[None]]) -> None:
        """Ask `hook(event)` before what such an event stands for is done; raising refuses it."""
        self._gates.append((kind, hook))

    async def ask(self, event: Event) -> None:
        """Ask the gates, in the order in which they came, until one refuses.

        No transaction is open (I-04), and nothing is done yet: there is nothing to undo.

        Raises:
            RefusedByHook
        """
        for kind, hook in self._gates:
            if isinstance(event, kind):
                await hook(event)

    def evict_with(self, evictor: Callable[[tuple[Subject, ...]], None]) -> None:
        """Have `evictor(subjects)` called before and after the commit of what evicts (I-09)."""
        self._evictors.append(evictor)

    def wake_with(self, waker: Callable[[], None]) -> None:
        """Have `waker()` called after the commit of what evicts, so that others hear of it."""
        self._wakers.append(waker)

    def has_partner(self, event: Event) -> bool:
        """Does anybody write when this happens?"""
        return any(isinstance(event, kind) for kind, _ in self._partners)

    def listeners(self) -> list[tuple[type[Event], Callable[..., Any], bool]]:
        """Who listens to what, and whether as a partner; for the reference."""
        return [
            *((kind, partner, True) for kind, partner in self._partners),
            *((kind, hook, False) for kind, hook in self._hooks),
        ]

    async def announce(self, transaction: object, event: Event) -> None:
        """Inside the transaction: mark what becomes untrue, let the partners write."""
        self.evict(event)
        for kind, partner in self._partners:
            if isinstance(event, kind):
                await partner(transaction, event)

    async def committed(self, event: Event) -> None:
        """After the commit: evict here, wake the others, then run the hooks."""
        self.evict(event)
        if event.evicts:
            for wake in self._wakers:
                wake()
        for kind, hook in self._hooks:
            if isinstance(event, kind):
                try:
                    await hook(event)
                except Exception:  # noqa: BLE001  a hook is not ours
                    _log.exception("a hook on %s failed", type(event).__name__)

    def evict(self, event: Event) -> None:
        """Tell every evictor whom the event makes untrue."""
        if event.evicts:
            self.evict_subjects(event.subjects())

    def evict_subjects(self, subjects: tuple[Subject, ...]) -> None:
        """Tell every evictor that these are untrue: here, or at another worker (I-07)."""
        for evictor in self._evictors:
            evictor(subjects)

    def evict_all(self) -> None:
        """Tell every evictor that all may be untrue: of each topic, with no id.

        Changes at other workers may have been missed (I-08, I-25).
        """
        self.evict_subjects(tuple((topic, "") for topic in _TOPICS))
