"""The verbs on devices: where a user was seen before."""

from collections.abc import Sequence
from dataclasses import dataclass

from watchword.features.sessions.records import Device, Session
from watchword.features.sessions.transports import DEVICE_LIVES
from watchword.kernel.clock import Clock
from watchword.kernel.principal import Client
from watchword.kernel.secrets import Digest
from watchword.storage.errors import Conflict
from watchword.storage.store import Paging, Store, where

MOST = 50  # of one user; who throws cookies away makes a new one at every sign-in


@dataclass(frozen=True, slots=True, kw_only=True)
class Devices:
    """Devices of the users of one realm. None of them proves anything."""

    store: Store
    clock: Clock

    async def met(
        self, tx: Store, user_id: str, digest: Digest, *, user_agent: str, epoch: int
    ) -> Device | None:
        """Note that a user signed in from this device again; None if it is new to them."""
        now = self.clock.now()
        return await tx.update(
            Device,
            where(user_id=user_id, digest=digest),
            epoch=epoch,
            user_agent=user_agent,
            seen_at=now,
            expires_at=now + DEVICE_LIVES,
        )

    async def add(self, tx: Store, session: Session) -> Sequence[Device]:
        """Keep the device that this session was begun from.

        Returns:
            All that its user has now; none if another sign-in was the first from this one.
        """
        now = self.clock.now()
        device = Device(
            realm=tx.realm,
            user_id=session.user_id,
            digest=digest_in(session),
            epoch=session.epoch,
            user_agent=session.user_agent,
            first_seen_at=now,
            seen_at=now,
            expires_at=now + DEVICE_LIVES,
        )
        try:
            await tx.insert(device)
        except Conflict:  # of two first sign-ins at once the other one was first
            await self.met(
                tx,
                device.user_id,
                device.digest,
                user_agent=device.user_agent,
                epoch=device.epoch,
            )
            return ()
        paging = Paging(order=("seen_at", "digest"), descending=True, limit=MOST + 10)
        known = (await tx.find(Device, paging, user_id=session.user_id)).items
        for forgotten in known[MOST:]:
            await tx.take(Device, user_id=forgotten.user_id, digest=forgotten.digest)
        return known

    async def is_known(self, user_id: str, client: Client, *, epoch: int) -> bool:
        """Did this user sign in, in this epoch, from the device whose cookie this client brings?

        Only its cookie says so: what a client calls itself anybody can say. A thief who was in
        once is no longer known when the password was reset (I-01).
        """
        if client.device is None:
            return False
        device = await self.store.get(Device, user_id=user_id, digest=client.device)
        if device is None or device.epoch != epoch:
            return False
        return device.expires_at > self.clock.now()

    async def carry(self, tx: Store, session: Session, *, was: int, epoch: int) -> None:
        """A session was kept over a raised epoch: its device stays known."""
        await tx.update(
            Device,
            where(user_id=session.user_id, digest=digest_in(session), epoch=was),
            epoch=epoch,
        )

    async def name(self, session: Session, name: str | None) -> None:
        """Call a device something; the sessions that it begins from now on bear the name."""
        await self.store.update(
            Device, where(user_id=session.user_id, digest=digest_in(session)), name=name
        )

    async def forget_user(self, tx: Store, user_id: str) -> None:
        """Forget where a user was seen."""
        await tx.erase(Device, user_id=user_id)


def digest_in(session: Session) -> Digest:
    """What the device of a session is known by: its cookie, else what it calls itself."""
    return Digest(session.device or session.agent_digest)
