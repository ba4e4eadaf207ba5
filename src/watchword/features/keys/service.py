"""The ring: one active key a purpose and algorithm, and all that still verify (I-16)."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, cast

from watchword.crypto.keys import RootSecrets
from watchword.crypto.sealing import SealBroken, Sealer, SealKeyMissing, key_id_of
from watchword.features.keys.events import (
    KeyChanged,
    KeyPublished,
    KeyRetired,
    KeyRevoked,
    KeyRotated,
)
from watchword.features.keys.given import Provider, fetched, private, shared, signing_key
from watchword.features.keys.records import State, StoredKey
from watchword.features.keys.settings import KeySettings
from watchword.kernel.clock import Clock
from watchword.kernel.errors import (
    ConfigurationError,
    KeyInUse,
    KeyNotFound,
    KeysUnavailable,
    StoreUnavailable,
)
from watchword.kernel.ports import SignedLife
from watchword.kernel.principal import Subject
from watchword.storage.errors import Conflict
from watchword.storage.record import place_of
from watchword.storage.store import Paging, Store, one_of, where

if TYPE_CHECKING:
    from watchword.crypto.jose import Algorithm
    from watchword.crypto.signatures import SigningKey

_log = logging.getLogger("watchword.keys")

ACCESS = "access"
RELOAD_EVERY = 30.0  # seconds
RELOAD_UNKNOWN = 5.0  # seconds between reads for unknown kids, whatever the kids (I-16)

_LONGEST_LIFE = timedelta(hours=24)  # of what is signed, where nobody says
_PUBLISHED_BEFORE = timedelta(days=1)  # a key of ours is shown so long before it signs
_LEFT_BEHIND = timedelta(days=1)  # what never came to sign is tidied away after it
_TRIES = 5  # times a change is tried anew when others change the ring under it
_LIVING: tuple[State, ...] = ("next", "active", "retired")
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Known:
    """A key that verifies, until when."""

    key: "SigningKey"
    until: datetime | None


@dataclass(slots=True)
class _Ring:
    """What this process knows of the keys."""

    active: "SigningKey | None" = None
    known: dict[str, _Known] = field(default_factory=dict[str, _Known])
    read_at: float = float("-inf")
    changes: int = 0  # that were noticed
    failures: int = 0  # to read it
    given: "SigningKey | None" = None  # by settings or the provider
    has_asked: bool = False  # for it


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """What became of a wish for another key."""

    kid: str  # that signs now
    is_done: bool  # does another key sign than before?
    next_kid: str | None = None  # the one that comes next, if it has to wait
    ripe_at: datetime | None = None  # when all who verify know it


class _LostError(Exception):
    """Others changed the ring meanwhile: nothing of this change stands where writes commit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """Signing keys of one realm."""

    store: Store
    settings: KeySettings
    clock: Clock
    sealer: Sealer
    secrets: RootSecrets
    reach: timedelta  # in which a change of the ring is known to every worker
    lives: Sequence[SignedLife] = ()
    provider: Provider | None = None
    _ring: _Ring = field(default_factory=_Ring)
    _reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def open(self) -> None:
        """Read the ring; make the first key if no worker has yet; take in a key that is given.

        Raises:
            ConfigurationError: a key is sealed under a secret that is not configured (I-17), or
                the key that is given will not do.
        """
        self._check_seals(await self._rows())
        await self._settle()
        await self._read(strict=True)

    def notice(self, subjects: tuple[Subject, ...]) -> None:
        """A key changed, here or at another worker: the ring is read again before its next use."""
        if any(kind == "key" for kind, _ in subjects):
            self._ring.read_at = float("-inf")
            self._ring.changes += 1

    # What tokens ask

    def active(self) -> "SigningKey":
        """The key that signs, as far as this process has read.

        Raises:
            KeysUnavailable
        """
        key = self._ring.active
        if key is None:
            raise KeysUnavailable(note="the ring has no key that signs")
        return key

    async def signing(self) -> "SigningKey":
        """The key that signs now; the ring is read again if that is due.

        Raises:
            KeysUnavailable, StoreUnavailable
        """
        await self.refresh()
        return self.active()

    def verifying(self, kid: str) -> "SigningKey | None":
        """The key of this id, if tokens signed with it are still believed."""
        known = self._ring.known.get(kid)
        if known is None or (known.until is not None and known.until <= self.clock.now()):
            return None
        return known.key

    async def refresh(self, *, for_unknown: bool = False) -> None:
        """Read the ring again if that is due: every 30 s, or 5 s after the last for a stranger."""
        due = RELOAD_UNKNOWN if for_unknown else RELOAD_EVERY
        ring, failures = self._ring, self._ring.failures
        if self.clock.monotonic() - ring.read_at < due:
            return
        async with self._reading:
            if ring.failures != failures:
                # Or each would wait for all before it, while a store that is away lets them wait.
                raise StoreUnavailable(note="the ring could not be read")
            if self.clock.monotonic() - ring.read_at >= due:
                try:
                    await self._read()
                except StoreUnavailable:
                    ring.failures += 1
                    raise

    def published(self) -> list[dict[str, object]]:
        """The public halves of all that verify, as JWKs; symmetric keys have none."""
        kids = sorted(self._ring.known)
        jwks = (key.public_jwk() for kid in kids if (key := self.verifying(kid)) is not None)
        return [dict(jwk) for jwk in jwks if jwk is not None]

    # What operators ask

    async def ring(self) -> tuple[StoredKey, ...]:
        """Every key there is, the one that signs first, then by state and age."""
        order = ("active", "next", "retired", "revoked")
        rows = await self._rows()
        return tuple(sorted(rows, key=lambda row: (order.index(row.state), _age(row))))

    def ripe_at(self, row: StoredKey) -> datetime:
        """When all who verify know a key that was published: it may sign then (I-16)."""
        shown = row.since or row.created_at
        return shown + self._ripening

    def rotates_at(self, row: StoredKey) -> datetime | None:
        """When the background work replaces an active key; None: only somebody's word does."""
        if row.state != "active" or self._is_given or self.settings.rotate_every == timedelta(0):
            return None
        return (row.activated_at or row.created_at) + self.settings.rotate_every

    async def rotate(self, *, compromised: bool = False) -> Rotation:
        """Let another key sign.

        Makes a `next` if there is none and promotes a ripe one; tokens of both are believed.
        With `compromised` all keys are revoked, those that signed before too, and a fresh one
        signs at once: what they signed is refused at every worker as soon as the feed tells.

        Raises:
            ConfigurationError: a key was sealed under another secret than ours.
            KeyInUse: the key comes from settings.
        """
        await self._read(strict=True)  # seals nothing under a secret that does not open the rest
        if compromised:
            return await self._replace()
        for _ in range(_TRIES):
            rows = await self._rows()
            slot = await self._slot()
            if not any(row.state == "active" for row in rows):
                await self._complete(rows)
                return await self._done()
            coming = next((row for row in rows if row.next_for == slot), None)
            if coming is None:
                if await self._given() is not None:
                    raise KeyInUse(
                        "the key comes from settings: set another private_key or secret there and "
                        "restart; the former one is believed as long as what it signed"
                    )
                await self._publish(await self._fresh(), slot)
                continue
            ripe_at = self.ripe_at(coming)
            if self.clock.now() < ripe_at:
                signing = _signer(rows, slot)
                return Rotation(
                    kid=coming.kid if signing is None else signing.kid,
                    is_done=False,
                    next_kid=coming.kid,
                    ripe_at=ripe_at,
                )
            if await self._promote(rows, coming) or not await self._is_next(coming):
                return await self._done()
        raise KeysUnavailable(note="lost every race")

    async def retire(self, kid: str, *, compromised: bool = False) -> StoredKey:
        """Let a key sign no more, or, `compromised`, believe nothing that it signed, at once.

        A `next` is forgotten: it signed nothing.

        Returns:
            The key as it stood, for a `next`; else as it stands.

        Raises:
            KeyNotFound
            KeyInUse: it is the one that signs: `rotate` replaces it.
        """
        for _ in range(_TRIES):
            rows = await self._rows()
            row = next((each for each in rows if each.kid == kid), None)
            if row is None:
                raise KeyNotFound
            if compromised and row.state != "revoked":
                await self._revoke(kid)
                continue
            if row.state in ("retired", "revoked"):
                return row
            if row.state == "next":
                async with self.store.transaction() as tx:
                    taken = await tx.take(StoredKey, kid=kid, state="next")
                    if taken is not None:
                        await tx.announce(self._event(KeyRetired, kid))
                        return taken
                continue
            if _signer(rows, await self._slot()) is row:
                raise KeyInUse("this key signs: `rotate` lets another one sign")
            async with self.store.transaction() as tx:
                if await self._retire_in(tx, row):
                    await tx.announce(self._event(KeyRetired, kid))
        raise KeysUnavailable(note="lost every race")

    # Background work

    async def tend(self) -> bool:
        """Do what is due: complete, promote, publish, forget. Correct when two do it (I-24)."""
        rows = await self._rows()
        await self._forget(rows)
        if not any(row.state == "active" for row in rows):
            await self._complete(rows)
            return False
        now, slot, given = self.clock.now(), await self._slot(), await self._given()
        coming = next((row for row in rows if row.next_for == slot), None)
        mine = next((row for row in rows if row.active_for == slot), None)
        due = None if mine is None else self.rotates_at(mine)
        if coming is not None:
            # One of another algorithm, or given in settings, waits for nothing but its ripeness.
            is_given = given is not None and self._is_same(coming, given)
            is_wanted = mine is None or is_given or (due is not None and due <= now)
            if is_wanted and self.ripe_at(coming) <= now:
                await self._promote(rows, coming)
        elif due is not None and due - self._lead <= now:
            await self._publish(await self._fresh(), slot)
        return False

    @property
    def _is_given(self) -> bool:
        settings = self.settings
        sources = (self.provider, settings.private_key, settings.secret)
        return any(source is not None for source in sources)

    @property
    def _ripening(self) -> timedelta:
        return self.settings.jwks_max_age + self.reach + self.settings.leeway

    @property
    def _lead(self) -> timedelta:
        shown = min(_PUBLISHED_BEFORE, self.settings.rotate_every / 4)
        return max(self._ripening, shown)

    @property
    def _life(self) -> timedelta:
        """The longest life of what is signed."""
        return max((each.signed_life for each in self.lives), default=_LONGEST_LIFE)

    # The key that is given

    async def _given(self) -> "SigningKey | None":
        ring = self._ring
        if not ring.has_asked:
            settings = self.settings
            if self.provider is not None:
                ring.given = await self._provided(self.provider)
            elif settings.private_key is not None:
                ring.given = private(settings.private_key)
            elif settings.secret is not None:
                ring.given = shared(settings.secret)
            ring.has_asked = True
        return ring.given

    async def _provided(self, provider: Provider) -> "SigningKey":
        text = await fetched(provider)
        try:
            settings = KeySettings.model_validate(
                {
                    **(
                        {"public_key": self.settings.public_key} if self.settings.public_key else {}
                    ),
                    **({"algorithm": self.settings.algorithm} if self._chose_algorithm else {}),
                    ("secret" if self._is_shared else "private_key"): text,
                }
            )
        except ValueError as error:
            raise ConfigurationError([f"the key of the provider {_reason(error)}"]) from None
        wanted = settings.secret if self._is_shared else settings.private_key
        assert wanted is not None  # it was just given
        if self._is_shared and RootSecrets(wanted).current_id in self.secrets.ids:
            raise ConfigurationError(
                [
                    (
                        "the key of the provider is the root secret, which is shared with nobody: "
                        "let it give another one"
                    )
                ]
            )
        return shared(wanted) if self._is_shared else private(wanted)

    @property
    def _chose_algorithm(self) -> bool:
        return "algorithm" in self.settings.model_fields_set

    @property
    def _is_shared(self) -> bool:
        return self._chose_algorithm and self.settings.algorithm == "HS256"

    async def _algorithm(self) -> "Algorithm":
        given = await self._given()
        return self.settings.algorithm if given is None else given.algorithm

    async def _slot(self) -> str:
        return f"{ACCESS}/{await self._algorithm()}"

    async def _settle(self) -> None:
        """Make the ring be what the settings want, as far as that can be at once."""
        for _ in range(_TRIES):
            rows = await self._rows()
            given = await self._given()
            slot = await self._slot()
            if given is not None:
                is_settled = await self._admit(given, rows, slot)
            elif not any(row.state == "active" for row in rows):
                await self._complete(rows)
                is_settled = False
            elif any(row.state != "revoked" and _is_for(row, slot) for row in rows):
                is_settled = True
            else:  # another algorithm: the key of the former one signs until others know this one
                await self._publish(await self._fresh(), slot)
                is_settled = False
            if is_settled:
                await self._admit_old(rows)
                return
        raise KeysUnavailable(note="lost every race")

    async def _admit(self, given: "SigningKey", rows: list[StoredKey], slot: str) -> bool:
        """Take in a key that was made elsewhere; True once it signs or comes next."""
        found = next((row for row in rows if self._is_same(row, given)), None)
        if found is not None and found.state == "revoked":
            raise ConfigurationError(
                [
                    (
                        f"the key {found.kid[:8]}… that keys.private_key or keys.secret gives was "
                        "revoked: give another one"
                    )
                ]
            )
        if found is not None and found.state == "active":
            return True
        if found is not None and found.next_for == slot:
            return True
        if not any(row.state == "active" for row in rows):
            if found is None:
                row = self._row(given, slot, state="active", is_given=True)
                return await self._insert(row, KeyRotated, former=None)
            return await self._activate(found)
        for row in rows:  # what was to come next never signed
            if row.next_for == slot:
                await self.store.take(StoredKey, kid=row.kid, state="next")
        if found is None:
            return await self._publish(given, slot, is_given=True)
        async with self.store.transaction() as tx:  # it signed before, and verifies still
            try:
                again = await tx.update(
                    StoredKey,
                    where(kid=found.kid, state=found.state, next_for=None),
                    state="next",
                    next_for=slot,
                    verifies_until=None,
                    since=self.clock.now(),
                    is_given=True,
                )
            except Conflict:
                return False
            if again is not None:
                await tx.announce(self._event(KeyPublished, found.kid))
        return again is not None

    async def _admit_old(self, rows: list[StoredKey]) -> None:
        """Believe what former secrets signed, from when they are first listed on."""
        for secret in self.settings.old_secrets:
            old = shared(secret)
            if any(self._is_same(row, old) for row in rows):
                continue
            row = self._row(old, None, state="retired", is_given=True)
            await self._insert(row, KeyPublished)

    def _is_same(self, row: StoredKey, key: "SigningKey") -> bool:
        if row.algorithm != key.algorithm:
            return False
        if key.algorithm != "HS256":
            return row.kid == key.kid
        return self._unseal(row).private_bytes() == key.private_bytes()

    # Changes of state

    async def _fresh(self) -> "SigningKey":
        # RSA takes a second to find its primes.
        return await asyncio.to_thread(signing_key().generate, await self._algorithm())

    def _row(
        self, key: "SigningKey", slot: str | None, *, state: State, is_given: bool = False
    ) -> StoredKey:
        now = self.clock.now()
        row = StoredKey(
            realm=self.store.realm,
            kid=key.kid,
            purpose=ACCESS,
            algorithm=key.algorithm,
            state=state,
            active_for=slot if state == "active" else None,
            next_for=slot if state == "next" else None,
            sealed="",
            created_at=now,
            since=now,
            activated_at=now if state == "active" else None,
            verifies_until=self._until(now, None) if state == "retired" else None,
            signs_for=self._life,
            is_given=is_given,
        )
        return replace(row, sealed=self.sealer.seal(key.private_bytes(), **place_of(row, "sealed")))

    async def _insert(self, row: StoredKey, event: type[KeyChanged], **named: object) -> bool:
        """Add a key; False: another worker was first, and its key is read next."""
        try:
            async with self.store.transaction() as tx:
                await tx.insert(row)
                await tx.announce(self._event(event, row.kid, **named))
        except Conflict:
            return False
        return True

    async def _publish(self, key: "SigningKey", slot: str, *, is_given: bool = False) -> bool:
        row = self._row(key, slot, state="next", is_given=is_given)
        return await self._insert(row, KeyPublished)

    async def _complete(self, rows: list[StoredKey]) -> None:
        """No key is active: at the very beginning, or where somebody stopped half-way."""
        coming = _newest(rows, "next")
        if coming is not None:
            await self._activate(coming)
            return
        row = self._row(await self._fresh(), await self._slot(), state="active")
        await self._insert(row, KeyRotated, former=None)

    async def _activate(self, row: StoredKey) -> bool:
        """Let a key sign where none does."""
        try:
            async with self.store.transaction() as tx:
                if not await self._activate_in(tx, row):
                    return False
                await tx.announce(self._event(KeyRotated, row.kid, former=None))
        except Conflict:
            return False
        return True

    async def _activate_in(self, tx: Store, row: StoredKey) -> bool:
        now = self.clock.now()
        activated = await tx.update(
            StoredKey,
            where(kid=row.kid, state=row.state, next_for=row.next_for),
            state="active",
            active_for=f"{row.purpose}/{row.algorithm}",
            next_for=None,
            activated_at=now,
            since=now,
            verifies_until=None,
            signs_for=max(self._life, row.signs_for or timedelta(0)),
        )
        return activated is not None

    async def _retire_in(self, tx: Store, row: StoredKey) -> bool:
        now = self.clock.now()
        retired = await tx.update(
            StoredKey,
            where(kid=row.kid, state="active", active_for=row.active_for, signs_for=row.signs_for),
            state="retired",
            active_for=None,
            since=now,
            verifies_until=self._until(now, row.signs_for),
        )
        return retired is not None

    def _until(self, now: datetime, signs_for: timedelta | None) -> datetime:
        """What was signed until then, here or where the change is known last, is over then."""
        late = max(self.reach, timedelta(seconds=RELOAD_EVERY))
        return now + max(self._life, signs_for or timedelta(0)) + self.settings.leeway + late

    async def _promote(self, rows: list[StoredKey], coming: StoredKey) -> bool:
        """Let the next key sign and retire whatever signed; all of it or, mostly, none.

        Without transactions the former is retired first. In between, and after a stop there, no
        key is active: every worker signs with `coming` then, which all who verify know, and the
        background work completes it.
        """
        former = [row for row in rows if row.state == "active"]
        try:
            async with self.store.transaction() as tx:
                for row in former:
                    if not await self._retire_in(tx, row):
                        raise _LostError
                if not await self._activate_in(tx, coming):
                    raise _LostError
                kid = former[0].kid if former else None
                await tx.announce(self._event(KeyRotated, coming.kid, former=kid))
        except (_LostError, Conflict):
            return False
        return True

    async def _replace(self) -> Rotation:
        """Revoke every key that signs, signed or would come next; a fresh one signs at once.

        The fresh key is written first, so that no worker is without one whatever comes between;
        the revocation of the active key decides between two who do this at once.
        """
        for _ in range(_TRIES):
            rows = await self._rows()
            former = [row for row in rows if row.state == "active"]
            if not former:
                await self._complete(rows)
                continue
            fresh = await self._fresh()
            row = self._row(fresh, None, state="next")
            # One that leaked may have been retired before anybody knew, and would be believed for
            # as long as the longest token lives.
            others = [each for each in rows if each.state in ("next", "retired")]
            try:
                async with self.store.transaction() as tx:
                    await tx.insert(row)
                    for each in former:
                        if not await self._revoke_in(tx, each):
                            raise _LostError
                    for each in others:
                        await self._revoke_in(tx, each)
                    await self._activate_in(tx, row)
                    for each in (*former, *others):
                        await tx.announce(self._event(KeyRevoked, each.kid))
                    await tx.announce(self._event(KeyRotated, row.kid, former=former[0].kid))
            except (_LostError, Conflict):
                await self.store.take(StoredKey, kid=row.kid, state="next")
                if await self._are_revoked([*former, *others]):
                    return await self._done()  # somebody else was as quick
                continue
            return await self._done()
        raise KeysUnavailable(note="lost every race")

    async def _are_revoked(self, before: Sequence[StoredKey]) -> bool:
        """After a lost race: is nothing left of these? What was retired meanwhile is revoked."""
        kids = {each.kid for each in before}
        left = [row for row in await self._rows(*_LIVING) if row.kid in kids]
        for row in left:
            if row.state == "retired":
                await self._revoke(row.kid)
        return all(row.state == "retired" for row in left)

    async def _revoke(self, kid: str) -> None:
        """Believe nothing of one key; if it signed, another one does at once."""
        rows = await self._rows()
        row = next((each for each in rows if each.kid == kid), None)
        if row is None or row.state == "revoked":
            return
        if row.state == "active" and sum(each.state == "active" for each in rows) == 1:
            await self._read(strict=True)
            await self._replace()
            return
        async with self.store.transaction() as tx:
            if await self._revoke_in(tx, row):
                await tx.announce(self._event(KeyRevoked, kid))

    async def _revoke_in(self, tx: Store, row: StoredKey) -> bool:
        revoked = await tx.update(
            StoredKey,
            where(kid=row.kid, state=row.state),
            state="revoked",
            active_for=None,
            next_for=None,
            since=self.clock.now(),
        )
        return revoked is not None

    async def _forget(self, rows: list[StoredKey]) -> None:
        """Delete what verifies nothing any more; what was revoked stays, so that it stays so."""
        now, slot = self.clock.now(), await self._slot()
        for row in rows:
            if _is_over(row, now):
                await self.store.take(
                    StoredKey, kid=row.kid, state="retired", verifies_until=row.verifies_until
                )
            elif (
                row.state == "next"
                and row.next_for != slot
                and (row.since or row.created_at) + self._ripening + _LEFT_BEHIND <= now
                and any(each.state == "active" for each in rows)
            ):
                await self.store.take(StoredKey, kid=row.kid, state="next")

    async def _is_next(self, row: StoredKey) -> bool:
        found = await self.store.get(StoredKey, kid=row.kid)
        return found is not None and found.state == "next"

    async def _done(self) -> Rotation:
        await self._read()
        return Rotation(kid=self.active().kid, is_done=True)

    def _event(self, kind: type[KeyChanged], kid: str, **named: object) -> KeyChanged:
        make = cast("type[KeyRotated]", kind)
        return make(
            realm=self.store.realm, at=self.clock.now(), kid=kid, **cast("dict[str, str]", named)
        )

    # Reading

    async def _rows(self, *states: State) -> list[StoredKey]:
        rows: list[StoredKey] = []
        conditions: dict[str, object] = {"state": one_of(states)} if states else {}
        after: str | None = None
        while True:
            paging = Paging(order=("purpose", "kid"), limit=200, after=after)
            page = await self.store.find(StoredKey, paging, purpose=ACCESS, **conditions)
            rows += page.items
            after = page.next
            if after is None:
                return rows

    async def _read(self, *, strict: bool = False) -> None:
        """Read the ring as it is now. `strict`: every key of it must open."""
        began, changes = self.clock.monotonic(), self._ring.changes
        slot = await self._slot()
        rows = await self._rows(*_LIVING)
        now = self.clock.now()
        known: dict[str, _Known] = {}
        readable: list[StoredKey] = []
        for row in rows:
            if _is_over(row, now):
                continue
            before = self._ring.known.get(row.kid)
            try:
                key = self._unseal(row) if before is None else before.key
            except ConfigurationError:
                if strict:
                    raise
                _log.error(
                    "signing key %s… cannot be opened here: see WATCHWORD_OLD_SECRETS", row.kid[:8]
                )
                continue
            known[row.kid] = _Known(key, row.verifies_until)
            readable.append(row)
        signer = _signer(readable, slot)
        self._ring.active = None if signer is None else known[signer.kid].key
        self._ring.known = known
        # A change that came meanwhile is perhaps not in it (I-09).
        self._ring.read_at = began if changes == self._ring.changes else float("-inf")
        if signer is not None and (signer.signs_for or timedelta(0)) < self._life:
            # What this App signs lives longer than whoever made the key could know.
            await self.store.update(
                StoredKey,
                where(kid=signer.kid, signs_for=signer.signs_for),
                signs_for=self._life,
            )

    def _check_seals(self, rows: Sequence[StoredKey]) -> None:
        for row in rows:
            try:
                is_ours = key_id_of(row.sealed) in self.secrets.ids
            except SealBroken:
                is_ours = False
            if not is_ours:
                raise ConfigurationError([_sealed_elsewhere(row)])

    def _unseal(self, row: StoredKey) -> "SigningKey":
        try:
            plain = self.sealer.open(row.sealed, **place_of(row, "sealed"))
        except (SealBroken, SealKeyMissing) as error:
            raise ConfigurationError([_sealed_elsewhere(row)]) from error
        algorithm = cast("Algorithm", row.algorithm)
        return signing_key().from_private_bytes(row.kid, algorithm, plain)


def _sealed_elsewhere(row: StoredKey) -> str:
    return (
        f"signing key {row.kid[:8]}… was sealed under another secret: "
        "restore WATCHWORD_SECRET, or list the former one in WATCHWORD_OLD_SECRETS"
    )


def _reason(error: ValueError) -> str:
    """What our own validators said, without what pydantic puts around it."""
    errors = getattr(error, "errors", None)
    if errors is None:
        return str(error)
    (first, *_) = errors(include_input=False, include_url=False)
    return str(first["msg"]).removeprefix("Value error, ")


def _age(row: StoredKey) -> tuple[datetime, str]:
    return (row.activated_at or row.created_at, row.kid)


def _is_for(row: StoredKey, slot: str) -> bool:
    return slot in (row.active_for, row.next_for)


def _is_over(row: StoredKey, now: datetime) -> bool:
    return row.state == "retired" and (row.verifies_until or _NEVER) <= now


def _newest(rows: Sequence[StoredKey], state: State) -> StoredKey | None:
    return max((row for row in rows if row.state == state), key=_age, default=None)


def _signer(rows: Sequence[StoredKey], slot: str) -> StoredKey | None:
    """The key that signs: ours; else another active one; else, for a moment, the next."""
    mine = next((row for row in rows if row.active_for == slot and row.state == "active"), None)
    return mine or _newest(rows, "active") or _newest(rows, "next")
