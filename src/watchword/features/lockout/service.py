"""The verbs on lockout: refuse who failed too often, count, forget, show, clear."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from watchword.crypto.signing import Signer
from watchword.features.lockout.events import AccountLocked, AccountUnlocked, SuspiciousActivity
from watchword.features.lockout.mails import LOCKED, SUSPICIOUS, LockoutMails
from watchword.features.lockout.records import Failures, Kind
from watchword.features.lockout.settings import LockoutSettings
from watchword.features.users import User, UserEnded, Users
from watchword.kernel.attempts import Attempt
from watchword.kernel.clock import Clock
from watchword.kernel.errors import TooManyAttempts
from watchword.kernel.events import Event
from watchword.kernel.ports import KnownDevices
from watchword.kernel.quotas import network_of, whole_seconds
from watchword.storage.errors import Conflict
from watchword.storage.store import Page, Paging, Store, gt, one_of, plus, where

ACTIONS = frozenset({"login"})
"""Attempts at which a secret of an account is checked, as the limits name them."""

_NOBODY = "-"  # no user's id
_MOST_RACES = 20  # lost; then it is refused (I-20)
_IN_A_ROW = timedelta(days=30)  # NIST counts failures in a row, however slow they come
_RESET = "password_reset"  # why a user's sessions end then
_KEPT = "lockout"
_BATCH = 200


@dataclass(slots=True)
class _Seen:
    """What the guards know of one attempt."""

    rows: dict[str, Failures]  # by id, as they were before
    counted: Failures | None = None  # the row in which it counts, with it in it
    kind: Kind = "pair"  # of that row


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """Failures that count now, as an operator sees them."""

    id: str
    what: Kind
    failures: int
    until: datetime | None  # how long one waits; None: nobody waits
    forgotten_at: datetime  # if no further one comes


@dataclass(frozen=True, slots=True, kw_only=True)
class Lockout:
    """Lockout of one realm.

    As a guard it stands first: who is locked out is refused before anything is counted or looked
    up. `Reservation` stands last: a try counts before its password is looked at, so that many at
    once are as many failures (I-20); it is taken back where nobody came to look.
    """

    store: Store
    settings: LockoutSettings
    clock: Clock
    users: Users[Any]
    devices: Sequence[KnownDevices]
    signer: Signer
    mails: LockoutMails
    actions: frozenset[str] = ACTIONS
    counts: dict[str, int] = field(
        default_factory=lambda: {"locked": 0, "refused": 0, "unlocked": 0}
    )
    """How often, in this process."""

    turn: int = 0

    # As a guard

    async def before(self, attempt: Attempt) -> None:
        """Refuse who is locked out: the address first, then the account from there (S3-05).

        Raises:
            TooManyAttempts: the same for an account that exists and one that does not.
        """
        if attempt.action not in self.actions:
            return
        seen, locked = await self._found(attempt)
        attempt.kept[_KEPT] = seen
        if locked:
            raise self._refusal(locked)

    async def waits(self, attempt: Attempt) -> int:
        """How long it would be locked out, in seconds; nothing is counted."""
        if attempt.action not in self.actions:
            return 0
        _, locked = await self._found(attempt)
        return self._left(locked) if locked else 0

    async def _found(self, attempt: Attempt) -> tuple[_Seen, list[Failures]]:
        """What counts at an attempt, and of that what locks it out."""
        places = _places(attempt)
        ids = {kind: self._id(kind, attempt) for kind in places}
        page = await self.store.find(
            Failures, Paging(order=("id",), limit=len(ids)), id=one_of([*ids.values()])
        )
        seen = _Seen({row.id: row for row in page.items})
        locked = [row for kind in places if (row := self._locked(seen, ids[kind])) is not None]
        if not locked or not await self._is_known(attempt):
            return seen, locked
        seen.kind = "device"
        row = await self.store.get(Failures, id=self._id("device", attempt))
        if row is None:
            return seen, []
        seen.rows[row.id] = row
        return seen, [row] if self._until(row) is not None else []

    async def after(self, attempt: Attempt, *, is_right: bool) -> None:
        """Nothing: the one that counts hears of it."""

    async def reserve(self, attempt: Attempt) -> None:
        """Count it as a failure, until it is known to be none.

        Raises:
            TooManyAttempts: others at the same moment were as many as may be.
        """
        seen = _seen(attempt)
        if seen is None or not attempt.is_judged:
            return
        now = self.clock.now()
        row_id = self._id(seen.kind, attempt)
        row = seen.rows.get(row_id)
        for _ in range(_MOST_RACES):
            if row is None:
                first = self._row(seen.kind, attempt, expires_at=self._expiry(seen.kind, 1))
                try:
                    seen.counted = await self.store.insert(first)
                except Conflict:
                    pass
                else:
                    return
            else:
                if self._until(row) is not None:
                    raise self._refusal([row])
                failures = 1 if row.expires_at <= now else row.failures + 1
                seen.counted = await self.store.update(
                    Failures,
                    where(id=row_id, failures=row.failures, failed_at=row.failed_at),
                    failures=failures,
                    failed_at=now,
                    expires_at=self._expiry(seen.kind, failures),
                )
                if seen.counted is not None:
                    return
            row = await self.store.get(Failures, id=row_id)
            if row is not None:
                seen.rows[row_id] = row
            else:
                seen.rows.pop(row_id, None)
        raise TooManyAttempts(retry_after=1, note="races lost")

    async def release(self, attempt: Attempt) -> None:
        """Nobody looked, so it was no failure."""
        seen = _seen(attempt)
        if seen is None or seen.counted is None:
            return
        counted, before = seen.counted, seen.rows.get(seen.counted.id)
        as_counted = {
            "id": counted.id,
            "failures": counted.failures,
            "failed_at": counted.failed_at,
        }
        if before is None or counted.failures == 1:
            done: object = await self.store.take(Failures, **as_counted)
        else:
            done = await self.store.update(
                Failures,
                where(**as_counted),
                failures=before.failures,
                failed_at=before.failed_at,
                expires_at=before.expires_at,
            )
        if done is None:  # others count in it by now
            await self.store.update(
                Failures, where(id=counted.id, failures=gt(0)), failures=plus(-1)
            )

    async def failed(self, attempt: Attempt) -> None:
        """It was wrong. It counts at the address and at the account too, anybody's or not."""
        seen = _seen(attempt)
        if seen is None or seen.counted is None:
            return
        now = self.clock.now()
        window = self.settings.window
        counted = [seen.counted]
        for kind in _places(attempt):
            if kind != "pair":
                lives = window if kind == "address" else _IN_A_ROW
                counted.append(await self._raised(self._row(kind, attempt, expires_at=now + lives)))
        locked = [row for row in counted if self._until(row) is not None]
        if not locked:
            return
        # Looked up for an unknown address as for a known one.
        user: User | None = await self.users.by_email(attempt.account or "")
        user_id = None if user is None else user.id
        happened: list[Event] = []
        for row in locked:
            until = self._until(row) or now
            whose = None if row.kind == "address" else user_id
            happened.append(
                AccountLocked(
                    realm=self.store.realm,
                    at=now,
                    user_id=whose,
                    what=row.kind,
                    failures=row.failures,
                    until=until,
                )
            )
            if row.kind == "address" and row.failures == self.settings.address_threshold:
                happened.append(self._suspicious(None, "failures_from_one_address", row.failures))
        of_account = any(row.kind != "address" for row in locked)
        await self._tell(happened, LOCKED if of_account else None, attempt)
        self.counts["locked"] += len(locked)

    async def succeeded(self, attempt: Attempt) -> None:
        """It was right: the account's failures are forgotten, the address's are not.

        Else whoever guesses would sign in to an account of their own now and then.
        """
        seen = _seen(attempt)
        if seen is None or seen.counted is None:
            return
        theirs = {self._id(kind, attempt) for kind in ("pair", "account")} | {seen.counted.id}
        alive = [row for row in seen.rows.values() if row.id in theirs and self._counts(row)]
        if self.settings.reset_on_success:
            await self.store.erase(Failures, id=one_of(sorted(theirs)))
        else:
            await self.release(attempt)
        most = max((row.failures for row in alive), default=0)
        if most < self.settings.threshold:
            return
        user: User | None = await self.users.by_email(attempt.account or "")
        user_id = None if user is None else user.id
        happened: list[Event] = [self._suspicious(user_id, "success_after_failures", most)]
        was_locked = any(row.failures >= self._threshold(row.kind) for row in alive)
        if was_locked and self.settings.reset_on_success:
            happened.append(self._unlocked(user_id, "signed_in"))
            self.counts["unlocked"] += 1
        await self._tell(happened, SUSPICIOUS, attempt)

    # For operators

    async def show(self, *, email: str | None = None, address: str | None = None) -> list[Lock]:
        """Failures that count now.

        Args:
            email: at the account of this address, whether or not there is one.
            address: from this address of the network. With `email`: at that account from there.
        """
        found: list[Lock] = []
        after: str | None = None
        while True:
            page = await self._page(email=email, address=address, after=after)
            found += [self._shown(row) for row in page.items if self._counts(row)]
            after = page.next
            if after is None:
                return found

    async def locks(self, *, limit: int = 100, after: str | None = None) -> Page[Lock]:
        """All failures that count now, whoever's: only hashes are known of them."""
        page = await self.store.find(Failures, Paging(order=("id",), limit=limit, after=after))
        return Page(tuple(self._shown(r) for r in page.items if self._counts(r)), page.next)

    async def clear(
        self, *, email: str | None = None, address: str | None = None, by: str | None = None
    ) -> int:
        """Forget failures, as an operator. Takes effect at once.

        Args:
            email: at the account of this address, from wherever.
            address: from this address of the network, at whatever accounts. With `email`: at
                that account from there.
            by: who does it, for the audit trail.

        Returns:
            How many counts were forgotten.
        """
        if email is None and address is None:
            raise TypeError("name an email or an address")
        forgotten = await self._forget(email=email, address=address)
        user: User | None = None if email is None else await self.users.by_email(email)
        await self.store.announce(
            self._unlocked(None if user is None else user.id, "operator", by=by)
        )
        self.counts["unlocked"] += forgotten
        return forgotten

    async def password_reset(self, ended: UserEnded) -> None:
        """Whoever reset the password reads the owner's mail: what failed before is forgotten."""
        if ended.why != _RESET or ended.realm != self.store.realm or not self.settings.enabled:
            return
        user: User | None = await self.users.get(ended.user_id)
        if user is not None and await self._forget(email=user.email):
            await self.store.announce(self._unlocked(user.id, _RESET))

    # Rows

    def _id(self, kind: Kind, attempt: Attempt) -> str:
        """The keyed hash that names a row."""
        account, network = attempt.account or "", _network_of(attempt)
        match kind:
            case "pair":
                parts = (account, network)
            case "device":
                device = attempt.client.device if attempt.client else None
                parts = (account, device or "")
            case "address":
                parts = (network,)
            case _:
                parts = (account,)
        return self._hash(kind, *parts)

    def _hash(self, kind: str, *parts: str) -> str:
        # Each part with its length before it, so that none can lend letters to the next.
        text = "".join(f"{len(part)}:{part}" for part in (kind, *parts))
        return self.signer.mac(text.encode("utf-8", "surrogatepass"))

    def _row(self, kind: Kind, attempt: Attempt, *, expires_at: datetime) -> Failures:
        """A first failure."""
        of_account, of_address = kind != "address", kind in ("pair", "address")
        return Failures(
            realm=self.store.realm,
            id=self._id(kind, attempt),
            kind=kind,
            account=self._hash("of", attempt.account or "") if of_account else "",
            address=self._hash("from", _network_of(attempt)) if of_address else "",
            failures=1,
            failed_at=self.clock.now(),
            expires_at=expires_at,
        )

    async def _raised(self, first: Failures) -> Failures:
        """One more failure in a row that many may count in at once."""
        now = first.failed_at
        failures = await self.store.increment(first, field="failures", now=now)
        raised = None
        if self._waits(first.kind, failures):  # whoever waits waits from the last failure
            raised = await self.store.update(
                Failures,
                where(id=first.id),
                failed_at=now,
                expires_at=max(first.expires_at, self._expiry(first.kind, failures)),
            )
        if raised is not None:
            return raised
        return replace(first, failures=failures)

    def _threshold(self, kind: Kind) -> int:
        settings = self.settings
        return {"address": settings.address_threshold, "account": settings.account_threshold}.get(
            kind, settings.threshold
        )

    def _waits(self, kind: Kind, failures: int) -> timedelta:
        """How long one waits after that many."""
        past = failures - self._threshold(kind)
        if past < 0:
            return timedelta()
        settings = self.settings
        if settings.strategy == "fixed":
            return settings.duration
        # No larger power than it takes to reach the cap.
        doublings = min(past, math.ceil(math.log2(settings.cap / settings.base)))
        return min(settings.base * 2**doublings, settings.cap)

    def _expiry(self, kind: Kind, failures: int) -> datetime:
        """When that many are forgotten: a window after one waits no more."""
        return self.clock.now() + self._waits(kind, failures) + self.settings.window

    def _until(self, row: Failures) -> datetime | None:
        """Until when one waits; None if nobody does."""
        until = row.failed_at + self._waits(row.kind, row.failures)
        return until if until > self.clock.now() else None

    def _counts(self, row: Failures) -> bool:
        return row.kind != "told" and row.expires_at > self.clock.now()

    def _locked(self, seen: _Seen, row_id: str) -> Failures | None:
        row = seen.rows.get(row_id)
        return row if row is not None and self._until(row) is not None else None

    def _left(self, locked: Sequence[Failures]) -> int:
        """For how many seconds one still waits."""
        now = self.clock.now()
        return whole_seconds(max((self._until(row) or now) - now for row in locked))

    def _refusal(self, locked: Sequence[Failures]) -> TooManyAttempts:
        self.counts["refused"] += 1
        return TooManyAttempts(
            retry_after=self._left(locked),
            note="address_locked" if locked[0].kind == "address" else "account_locked",
        )

    async def _is_known(self, attempt: Attempt) -> bool:
        """Does it come from a device of that account? Looked up for nobody's account as well."""
        client = attempt.client
        if client is None or client.device is None:
            return False
        user: User | None = await self.users.by_email(attempt.account or "")
        user_id, epoch = (_NOBODY, 0) if user is None else (user.id, user.epoch)
        known = [await each.is_known(user_id, client, epoch=epoch) for each in self.devices]
        return user is not None and any(known)

    def _conditions(self, email: str | None, address: str | None) -> dict[str, Any]:
        conditions: dict[str, Any] = {}
        if email is not None:
            conditions["account"] = self._hash("of", self.users.key_of(email))
        if address is not None:
            conditions["address"] = self._hash("from", network_of(address))
        return conditions

    async def _page(
        self, *, email: str | None, address: str | None, after: str | None
    ) -> Page[Failures]:
        paging = Paging(order=("id",), limit=_BATCH, after=after)
        return await self.store.find(Failures, paging, **self._conditions(email, address))

    async def _forget(self, *, email: str | None, address: str | None = None) -> int:
        return await self.store.erase(Failures, **self._conditions(email, address))

    def _shown(self, row: Failures) -> Lock:
        return Lock(
            id=row.id,
            what=row.kind,
            failures=row.failures,
            until=self._until(row),
            forgotten_at=row.expires_at,
        )

    # What happened

    def _suspicious(self, user_id: str | None, what: str, failures: int) -> SuspiciousActivity:
        return SuspiciousActivity(
            realm=self.store.realm,
            at=self.clock.now(),
            user_id=user_id,
            what=what,
            failures=failures,
        )

    def _unlocked(self, user_id: str | None, why: str, by: str | None = None) -> AccountUnlocked:
        return AccountUnlocked(
            realm=self.store.realm, at=self.clock.now(), user_id=user_id, why=why, by=by
        )

    async def _tell(self, happened: Sequence[Event], purpose: str | None, attempt: Attempt) -> None:
        async with self.store.transaction() as tx:
            for event in happened:
                await tx.announce(event)
            if purpose is None or not self.settings.mail:
                return
            account, now = attempt.account or "", self.clock.now()
            # One a day, whoever fails how often: a victim's mailbox must not be filled with it.
            told = Failures(
                realm=tx.realm,
                id=self._hash("told", purpose, account),
                kind="told",
                failures=1,
                failed_at=now,
                expires_at=now + timedelta(days=1),
            )
            if await tx.increment(told, field="failures", now=now) == 1:
                await self.mails.queue(tx, purpose, account)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """The guard that counts, once all others have let an attempt through."""

    lockout: Lockout

    turn: int = 100

    async def before(self, attempt: Attempt) -> None:
        """Count it before it is looked at. Raises TooManyAttempts."""
        await self.lockout.reserve(attempt)

    async def after(self, attempt: Attempt, *, is_right: bool) -> None:
        """It was a failure, or none."""
        if is_right:
            await self.lockout.succeeded(attempt)
        else:
            await self.lockout.failed(attempt)

    async def take_back(self, attempt: Attempt) -> None:
        """Nobody came to look."""
        await self.lockout.release(attempt)


def _places(attempt: Attempt) -> tuple[Kind, ...]:
    """Where it counts.

    What names no account is no failure at one, and what no request brought comes from no address:
    else a few failures would lock all the others that name none.
    """
    places: list[Kind] = ["pair"]
    if attempt.client is not None:
        places.insert(0, "address")
    if attempt.account is not None:
        places.append("account")
    return tuple(places)


def _network_of(attempt: Attempt) -> str:
    address = None if attempt.client is None else attempt.client.address
    return "" if address is None else network_of(address)


def _seen(attempt: Attempt) -> _Seen | None:
    seen = attempt.kept.get(_KEPT)
    return seen if isinstance(seen, _Seen) else None
