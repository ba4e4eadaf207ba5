"""Leases: background work runs, as a rule, in one worker. They guard nothing (I-24)."""

import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from watchword.kernel.clock import Clock
from watchword.storage.errors import Conflict
from watchword.storage.record import record
from watchword.storage.store import Store, where


@record(name="lease", key=("name",))
class Lease:
    """Who does a piece of work, until when."""

    realm: str
    name: str
    holder: str  # random, one a started App
    until: datetime


@dataclass(slots=True)
class Leases:
    """The leases of one started App. Clocks that differ make two run a job, which is no harm."""

    store: Store
    clock: Clock
    holder: str = field(default_factory=lambda: secrets.token_hex(8))
    _ours: dict[str, datetime] = field(default_factory=dict[str, datetime])
    _theirs: dict[str, datetime] = field(default_factory=dict[str, datetime])

    async def hold(self, name: str, *, lives: timedelta) -> bool:
        """Is this work ours?

        A lease is renewed when half its life is over; whoever has it not asks once a life.

        Raises:
            StoreUnavailable
        """
        now = self.clock.now()
        if self._ours.get(name, now) > now + lives / 2:
            return True
        if self._theirs.get(name, now) > now:
            return False
        until = now + lives
        lease = await self.store.get(Lease, name=name)
        if lease is None:
            fresh = Lease(realm=self.store.realm, name=name, holder=self.holder, until=until)
            try:
                await self.store.insert(fresh)
            except Conflict:
                return self._lost(name, until)
            return self._won(name, until)
        # One whose end lies further off than any life was written by a clock that ran ahead.
        if lease.holder != self.holder and now < lease.until <= until + lives:
            return self._lost(name, lease.until)
        held = await self.store.update(
            Lease,
            where(name=name, holder=lease.holder, until=lease.until),
            holder=self.holder,
            until=until,
        )
        return self._lost(name, until) if held is None else self._won(name, until)

    async def let_go(self, name: str, *, lives: timedelta) -> None:
        """Let others have it for a life: what fails here may work there.

        Raises:
            StoreUnavailable
        """
        if self._ours.pop(name, None) is not None:
            self._theirs[name] = self.clock.now() + lives
            await self.store.take(Lease, name=name, holder=self.holder)

    async def give_up(self) -> None:
        """Let others take over at once: this App stops."""
        ours, self._ours = self._ours, {}
        for name in ours:
            await self.store.take(Lease, name=name, holder=self.holder)

    def _won(self, name: str, until: datetime) -> bool:
        self._ours[name] = until
        self._theirs.pop(name, None)
        return True

    def _lost(self, name: str, until: datetime) -> bool:
        self._theirs[name] = until
        self._ours.pop(name, None)
        return False
