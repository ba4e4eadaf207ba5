"""The ring: one active key a purpose and algorithm, and all that still verify."""

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from watchword.crypto.sealing import SealBroken, Sealer, SealKeyMissing
from watchword.features.keys.records import StoredKey
from watchword.features.keys.settings import KeySettings
from watchword.kernel.clock import Clock
from watchword.kernel.errors import ConfigurationError
from watchword.kernel.principal import Subject
from watchword.storage.errors import Conflict
from watchword.storage.store import Paging, Store

if TYPE_CHECKING:
    from watchword.crypto.jose import Algorithm
    from watchword.crypto.signatures import SigningKey

ACCESS = "access"
RELOAD_EVERY = 30.0  # seconds
RELOAD_UNKNOWN = 5.0  # seconds between reads for unknown kids, whatever the kids (I-16)


@dataclass(slots=True)
class _Ring:
    """What this process knows of the keys."""

    active: "SigningKey | None" = None
    verifying: dict[str, "SigningKey"] = field(default_factory=dict[str, "SigningKey"])
    read_at: float = float("-inf")
    changes: int = 0  # that were noticed


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """Signing keys of one realm."""

    store: Store
    settings: KeySettings
    clock: Clock
    sealer: Sealer
    _ring: _Ring = field(default_factory=_Ring)
    _reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def open(self) -> None:
        """Read the ring; make the first key if no worker has yet.

        Raises:
            ConfigurationError: a key is sealed under a secret that is not configured (I-17).
        """
        await self._read()
        if self._ring.active is None:
            await self._make_first()
            await self._read()

    def notice(self, subjects: tuple[Subject, ...]) -> None:
        """A key changed, here or at another worker: the ring is read again before its next use."""
        if any(kind == "key" for kind, _ in subjects):
            self._ring.read_at = float("-inf")
            self._ring.changes += 1

    def active(self) -> "SigningKey":
        """The key that signs now."""
        key = self._ring.active
        if key is None:
            raise RuntimeError("the keys are not open")
        return key

    def verifying(self, kid: str) -> "SigningKey | None":
        """The key of this id, if tokens signed with it are still believed."""
        return self._ring.verifying.get(kid)

    async def refresh(self, *, for_unknown: bool = False) -> None:
        """Read the ring again if that is due: every 30 s, or 5 s after the last for a stranger."""
        due = RELOAD_UNKNOWN if for_unknown else RELOAD_EVERY
        if self.clock.monotonic() - self._ring.read_at < due:
            return
        async with self._reading:
            if self.clock.monotonic() - self._ring.read_at >= due:
                await self._read()

    def published(self) -> list[dict[str, object]]:
        """The public halves of all that verify, as JWKs; symmetric keys have none."""
        jwks = (key.public_jwk() for key in self._ring.verifying.values())
        return [dict(jwk) for jwk in jwks if jwk is not None]

    async def _make_first(self) -> None:
        algorithm = self.settings.algorithm
        # RSA takes a second to find its primes.
        key = await asyncio.to_thread(_signing_key().generate, algorithm)
        now = self.clock.now()
        sealed = self.sealer.seal(key.private_bytes(), **self._place(key.kid))
        stored = StoredKey(
            realm=self.store.realm,
            kid=key.kid,
            purpose=ACCESS,
            algorithm=algorithm,
            state="active",
            active_for=f"{ACCESS}/{algorithm}",
            sealed=sealed,
            created_at=now,
            activated_at=now,
        )
        with contextlib.suppress(Conflict):  # another worker was first; its key is read next
            await self.store.insert(stored)

    async def _read(self) -> None:
        began, changes = self.clock.monotonic(), self._ring.changes
        paging = Paging(order=("purpose", "kid"), limit=200)
        page = await self.store.find(StoredKey, paging, purpose=ACCESS)
        now = self.clock.now()
        verifying: dict[str, SigningKey] = {}
        active: SigningKey | None = None
        for stored in page.items:
            over = stored.verifies_until is not None and stored.verifies_until <= now
            if stored.state == "revoked" or over:
                continue
            key = self._ring.verifying.get(stored.kid) or self._unseal(stored)
            verifying[stored.kid] = key
            if stored.active_for == f"{ACCESS}/{self.settings.algorithm}":
                active = key
        self._ring.active, self._ring.verifying = active, verifying
        # A change that came meanwhile is perhaps not in it (I-09).
        self._ring.read_at = began if changes == self._ring.changes else float("-inf")

    def _unseal(self, stored: StoredKey) -> "SigningKey":
        try:
            plain = self.sealer.open(stored.sealed, **self._place(stored.kid))
        except (SealBroken, SealKeyMissing) as error:
            raise ConfigurationError(
                [
                    (
                        f"signing key {stored.kid[:8]}… was sealed under another secret: "
                        "restore WATCHWORD_SECRET, or list the former one in WATCHWORD_OLD_SECRETS"
                    )
                ]
            ) from error
        algorithm = cast("Algorithm", stored.algorithm)
        return _signing_key().from_private_bytes(stored.kid, algorithm, plain)

    def _place(self, kid: str) -> dict[str, str]:
        return {
            "realm": self.store.realm,
            "record": "signing_key",
            "key": kid,
            "field": "sealed",
        }


def _signing_key() -> "type[SigningKey]":
    # The JOSE library behind it is loaded by whoever opens a ring, not by `import watchword`.
    from watchword.crypto.signatures import SigningKey  # noqa: PLC0415

    return SigningKey
