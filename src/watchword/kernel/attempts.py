"""Attempts: what is counted before anybody looks whether it is right (I-20)."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from watchword.kernel.errors import StoreUnavailable, TooManyAttempts, WatchwordError
from watchword.kernel.occasion import occasion
from watchword.kernel.principal import Client
from watchword.kernel.tracing import OFF, Tracing

_HIGHEST_FLOOR = 5.0  # seconds; one odd row must not hold every answer up for longer


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try, as far as it is known before anything is looked up."""

    action: str  # what is tried, as the limits name it: login, register, refresh, …
    account: str | None  # the key of the address that it is about, whether or not anybody's
    client: Client | None  # None: no request, but a command or a task
    is_judged: bool = False  # will it be said whether it was right?
    kept: dict[str, object] = field(default_factory=dict[str, object], compare=False)
    """What guards keep of it between one question and the next, each under a name of its own."""


class AttemptGuard(Protocol):
    """Stands before attempts; hears how they went."""

    turn: int  # those of a lower one are asked first

    async def before(self, attempt: Attempt) -> None:
        """Count it, and refuse what is too much.

        Raises:
            TooManyAttempts: the same for an account that exists and one that does not.
            StoreUnavailable: it cannot be counted.
        """
        ...

    async def after(self, attempt: Attempt, *, is_right: bool) -> None:
        """What was presented was right, or wrong. Not called where that was never looked at."""
        ...


@runtime_checkable
class TakesBack(Protocol):
    """A guard that counts nothing against anybody where nobody came to look."""

    async def take_back(self, attempt: Attempt) -> None:
        """A later guard refused it, the hash queue was full, or the store went away."""
        ...


@runtime_checkable
class MakesWait(Protocol):
    """A guard that can say how long it would refuse an attempt."""

    async def waits(self, attempt: Attempt) -> int:
        """Asked where another guard refused it; counts nothing.

        Returns:
            Whole seconds, rounded up, until it would let it pass; 0 if it would now.

        Raises:
            StoreUnavailable: it cannot say.
        """
        ...


@dataclass(slots=True)
class Tried:
    """How an attempt went, as whoever looked says. None: nobody came to look."""

    is_right: bool | None = None


@dataclass(slots=True)
class Floor:
    """No failed sign-in is answered sooner than this, so that its time tells nothing (I-20)."""

    seconds: float = 0.0
    is_set: bool = False  # by a setting: what is measured changes nothing

    def set_to(self, seconds: float) -> None:
        """What the setting says."""
        self.seconds, self.is_set = seconds, True

    def raise_to(self, seconds: float) -> None:
        """One way of checking a password takes this long: no failure is answered sooner."""
        if not self.is_set:
            self.seconds = max(self.seconds, min(seconds, _HIGHEST_FLOOR))


@dataclass(frozen=True, slots=True)
class Attempts:
    """The attempts of one App, and who stands before them."""

    guards: Sequence[AttemptGuard]  # live: complete once the App is built
    floor: Floor = field(default_factory=Floor)
    tracing: Tracing = OFF
    counts: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    """How often each action was `tried`, and of these `refused`, or found `right` or `wrong`."""

    async def count(
        self, action: str, *, account: str | None = None, client: Client | None = None
    ) -> None:
        """Count an attempt at which nothing is right or wrong: a mail asked for, a refresh.

        Args:
            action: as the limits name it.
            account: the key of the address that it is about.
            client: where it comes from; of the request that this task serves by default.

        Raises:
            TooManyAttempts, StoreUnavailable
        """
        self.counts[action, "tried"] += 1
        attempt = self._attempt(action, account, client)
        try:
            await self._admit(attempt, [])
        except WatchwordError:
            self.counts[action, "refused"] += 1
            raise

    @asynccontextmanager
    async def trying(
        self, action: str, *, account: str | None = None, client: Client | None = None
    ) -> AsyncGenerator[Tried]:
        """Count an attempt first; inside the block look, and say how it went.

        The arguments are those of `count`. A wrong one is answered no sooner than the floor.

        Raises:
            TooManyAttempts, StoreUnavailable: nothing was looked at.
        """
        self.counts[action, "tried"] += 1
        is_refused = True
        try:
            with self.tracing.span("sign_in" if action == "login" else "attempt", action=action):
                attempt = self._attempt(action, account, client, is_judged=True)
                async with self._guarded(attempt) as tried:
                    is_refused = False
                    yield tried
        finally:
            if is_refused:
                self.counts[action, "refused"] += 1

    @asynccontextmanager
    async def _guarded(self, attempt: Attempt) -> AsyncGenerator[Tried]:
        began = time.monotonic()
        passed: list[AttemptGuard] = []
        tried = Tried()
        try:
            await self._admit(attempt, passed)
            yield tried
        finally:
            if tried.is_right is not None:
                self.counts[attempt.action, "right" if tried.is_right else "wrong"] += 1
            for guard in passed:
                if tried.is_right is not None:
                    await guard.after(attempt, is_right=tried.is_right)
                elif isinstance(guard, TakesBack):
                    await guard.take_back(attempt)
            if tried.is_right is False:
                left = began + self.floor.seconds - time.monotonic()
                if left > 0:
                    await asyncio.sleep(left)

    async def _admit(self, attempt: Attempt, passed: list[AttemptGuard]) -> None:
        """Ask every guard in turn. What is said of a refusal is the longest wait of them all.

        Else whoever waited as told would be refused by the next one (S0-90, DEF-04).
        """
        guards = self._in_turn()
        for guard in guards:
            try:
                await guard.before(attempt)
            except TooManyAttempts as refusal:
                longest = refusal.retry_after
                for other in guards:
                    if other is not guard and isinstance(other, MakesWait):
                        with suppress(StoreUnavailable):  # it is refused whatever that one says
                            longest = max(longest, await other.waits(attempt))
                if longest > refusal.retry_after:
                    raise refusal.waiting(longest) from refusal
                raise
            passed.append(guard)

    def _attempt(
        self, action: str, account: str | None, client: Client | None, *, is_judged: bool = False
    ) -> Attempt:
        if client is None:
            now = occasion()
            client = None if now is None else now.client
        return Attempt(action=action, account=account, client=client, is_judged=is_judged)

    def _in_turn(self) -> list[AttemptGuard]:
        return sorted(self.guards, key=lambda guard: guard.turn)
