"""Attempts: what is counted before anybody looks whether it is right (I-20)."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

from watchword.kernel.occasion import occasion
from watchword.kernel.principal import Client


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try, as far as it is known before anything is looked up."""

    action: str  # what is tried, as the limits name it: login, register, refresh, …
    account: str | None  # the key of the address that it is about, whether or not anybody's
    client: Client | None  # None: no request, but a command or a task


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


@dataclass(slots=True)
class Tried:
    """How an attempt went, as whoever looked says. None: nobody came to look."""

    is_right: bool | None = None


@dataclass(slots=True)
class Floor:
    """No failed sign-in is answered sooner than this, so that its time tells nothing (I-20)."""

    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Attempts:
    """The attempts of one App, and who stands before them."""

    guards: Sequence[AttemptGuard]  # live: complete once the App is built
    floor: Floor = field(default_factory=Floor)

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
        attempt = self._attempt(action, account, client)
        for guard in self._in_turn():
            await guard.before(attempt)

    @asynccontextmanager
    async def trying(
        self, action: str, *, account: str | None = None, client: Client | None = None
    ) -> AsyncGenerator[Tried]:
        """Count an attempt first; inside the block look, and say how it went.

        The arguments are those of `count`. A wrong one is answered no sooner than the floor.

        Raises:
            TooManyAttempts, StoreUnavailable: nothing was looked at.
        """
        began = time.monotonic()
        attempt = self._attempt(action, account, client)
        guards = self._in_turn()
        for guard in guards:
            await guard.before(attempt)
        tried = Tried()
        try:
            yield tried
        finally:
            if tried.is_right is not None:
                for guard in guards:
                    await guard.after(attempt, is_right=tried.is_right)
            if tried.is_right is False:
                left = began + self.floor.seconds - time.monotonic()
                if left > 0:
                    await asyncio.sleep(left)

    def _attempt(self, action: str, account: str | None, client: Client | None) -> Attempt:
        if client is None:
            now = occasion()
            client = None if now is None else now.client
        return Attempt(action=action, account=account, client=client)

    def _in_turn(self) -> list[AttemptGuard]:
        return sorted(self.guards, key=lambda guard: guard.turn)
