"""Seals: what was kept is signed in batches, so that a later change of it shows (I-23).

A sealer does the same on every store, with transactions or without: it completes what the last
seal left to do, takes entries that are in no batch, and inserts the next seal, whose number is
unique. Of two at once one gets the number; the other begins anew. An entry says itself whether it
is in a batch, so one that was committed late is in a later batch, and none is passed over.
"""

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from watchword.crypto.base64url import decoded
from watchword.crypto.keys import RootSecrets
from watchword.features.audit.entries import digest, entry_digest, personal_digest, written_at
from watchword.features.audit.records import AuditBatch, AuditEntry, AuditSeal
from watchword.features.audit.settings import AuditSettings
from watchword.kernel.clock import Clock
from watchword.kernel.secrets import same, unpadded
from watchword.storage.errors import Conflict
from watchword.storage.record import to_json
from watchword.storage.store import Comparison, Paging, Store, gt, le, lt, where

if TYPE_CHECKING:
    from watchword.crypto.signatures import SigningKey

_log = logging.getLogger("watchword.audit")

SETTLED: Final = timedelta(seconds=60)
"""How old an entry is before it is sealed: by then what began before has committed, as a rule."""

BATCH: Final = 200
_AT_ONCE: Final = 25  # entries marked in one transaction: others want to write too
_OVERDUE: Final = timedelta(minutes=10)
_LATE: Final = timedelta(hours=1)
_PURPOSE: Final = "audit-seal"
_MANY: Final = 500

R = TypeVar("R")

What = Literal[
    "entry_edited",
    "entry_missing",
    "entry_reordered",
    "entry_inserted",
    "list_missing",
    "list_edited",
    "seal_edited",
    "seal_missing",
    "tail_cut",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is not as it was sealed."""

    what: What
    seal: int | None  # the number of the batch
    entry_id: str | None = None
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What a look at all seals found."""

    faults: tuple[Fault, ...]
    seals: int
    entries: int  # that were compared
    expired: int  # entries of batches whose time is over
    erased: int  # entries whose personal fields are gone
    unsealed: int
    overdue: bool  # has an entry waited for its seal for over ten minutes?
    late: int  # seals made over an hour after the oldest of what they sign, as after a pause
    head: str  # digest of the last seal; empty if there is none

    @property
    def is_whole(self) -> bool:
        """Is all as it was sealed?"""
        return not self.faults


@dataclass(slots=True)
class _State:
    """What one process knows."""

    complete: int = 0  # every batch up to this one is marked
    newest: tuple[int, str] | None = None  # number and head of the last seal that was seen
    keys: "dict[str, SigningKey]" = field(default_factory=dict[str, "SigningKey"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Seals:
    """The seals of one realm."""

    store: Store
    settings: AuditSettings
    clock: Clock
    secrets: RootSecrets
    _state: _State = field(default_factory=_State)

    def ring(self) -> "tuple[SigningKey, ...]":
        """The keys that may have signed, the one that signs first: one a root secret.

        Their public halves verify seals elsewhere.
        """
        known = self._state.keys
        if not known:
            # Its library costs a sixth of what `import fastapi` does: not at the start.
            from watchword.crypto.signatures import SigningKey  # noqa: PLC0415

            for key_id in self.secrets.ids:
                key = SigningKey.from_seed(self.secrets.subkey(_PURPOSE, key_id=key_id))
                known[key.kid] = key
        return tuple(known.values())

    # Sealing

    async def seal(self, *, settled: timedelta = SETTLED) -> bool:
        """Seal one batch, if there is one; True if there may be more.

        Args:
            settled: how old an entry must be.

        Raises:
            StoreUnavailable
        """
        last = await self._last()
        await self._look_back(last)
        if last is not None:
            await self._mark(last)
        now = self.clock.now()
        page = await self.store.find(
            AuditEntry,
            Paging(order=("at", "id"), limit=BATCH),
            seal=0,
            at=le(now - settled),
        )
        if not page.items:
            return False
        batch, seal = self._sealed(last, page.items, now)
        with suppress(Conflict):  # the same list, of a sealer that came no further
            await self.store.insert(batch)
        try:
            await self.store.insert(seal)
        except Conflict:
            return True  # another was quicker
        self._state.newest = (seal.n, head_of(seal))
        await self._mark(seal, batch)
        # Elsewhere than in the database: whoever cuts the end off does not reach it (I-23).
        _log.info(
            "audit seal %d: %d entries, head %s, key %s",
            seal.n,
            seal.count,
            head_of(seal),
            seal.kid,
        )
        return page.next is not None

    def _sealed(
        self, last: AuditSeal | None, entries: Sequence[AuditEntry], now: datetime
    ) -> tuple[AuditBatch, AuditSeal]:
        ids = tuple(entry.id for entry in entries)
        digests = tuple(entry_digest(entry) for entry in entries)
        root = _root(ids, digests)
        until = max(entry.expires_at for entry in entries)
        key = self.ring()[0]
        unsigned = AuditSeal(
            realm=self.store.realm,
            n=1 if last is None else last.n + 1,
            count=len(ids),
            first_at=entries[0].at,
            last_at=entries[-1].at,
            root=root,
            previous="" if last is None else head_of(last),
            entries_until=until,
            at=now,
            kid=key.kid,
            signature="",
        )
        seal = replace(unsigned, signature=unpadded(key.signature(_message(unsigned))))
        batch = AuditBatch(
            realm=self.store.realm, root=root, ids=ids, digests=digests, expires_at=until
        )
        return batch, seal

    async def _mark(self, seal: AuditSeal, batch: AuditBatch | None = None) -> None:
        """Let the entries of a batch say so; also what another sealer left of it."""
        if seal.n <= self._state.complete:
            return
        if batch is None:
            batch = await self.store.get(AuditBatch, root=seal.root)
            if batch is None:
                self._state.complete = seal.n  # its time is over
                return
        places = {entry_id: place for place, entry_id in enumerate(batch.ids, 1)}
        left = batch.ids
        for start in range(0, len(left), _AT_ONCE):
            async with self.store.transaction() as tx:
                for entry_id in left[start : start + _AT_ONCE]:
                    await tx.update(
                        AuditEntry,
                        where(id=entry_id, seal=0),
                        seal=seal.n,
                        place=places[entry_id],
                        expires_at=seal.entries_until,
                    )
        self._state.complete = seal.n

    async def _look_back(self, last: AuditSeal | None) -> None:
        """Is the seal still there that this process saw last?

        Whoever takes the newest seals away, and the marks off their entries, would have what they
        made of these sealed anew. Nobody is stopped here, but the log has it, and the head.
        """
        seen, self._state.newest = self._state.newest, last and (last.n, head_of(last))
        if seen is None:
            return
        n, head = seen
        known = last if last is not None and last.n == n else await self.store.get(AuditSeal, n=n)
        if known is not None and head_of(known) == head:
            return
        self._state.complete = 0
        _log.error(
            "audit seal %d is gone or is another: the database was restored, or somebody changed "
            "what was kept; `watchword audit verify --head %s` finds no such seal",
            n,
            head,
        )

    async def _last(self) -> AuditSeal | None:
        paging = Paging(order=("n",), descending=True, limit=1)
        page = await self.store.find(AuditSeal, paging)
        return page.items[0] if page.items else None

    # Verifying

    async def verify(self, *, heads: Sequence[str] = ()) -> Verified:
        """Compare everything with its seals.

        Args:
            heads: digests of seals that are known from elsewhere, such as the log: each must be
                there, or the end was cut off.

        Raises:
            StoreUnavailable
        """
        faults: list[Fault] = []
        known = {key.kid: key for key in self.ring()}
        seen: set[str] = set()
        count = compared = expired = erased = late = 0
        before: AuditSeal | None = None
        over: list[range] = []  # numbers of batches whose time is over
        last = await self._last()
        newest = 0 if last is None else last.n  # it and later ones may be marked right now
        async for seal in self._all(AuditSeal, ("n",)):
            count += 1
            faults += _chained(before, seal)
            if not _is_signed(seal, known):
                detail = "the seal is not as it was signed, or by no key of a configured secret"
                faults.append(Fault(what="seal_edited", seal=seal.n, detail=detail))
            late += seal.at - seal.first_at > _LATE
            seen.add(head_of(seal))
            before = seal
            if seal.entries_until <= self.clock.now():
                expired += seal.count
                start = over.pop().start if over and over[-1].stop == seal.n else seal.n
                over.append(range(start, seal.n + 1))
                continue
            found, gone = await self._compare(seal, faults, is_new=seal.n >= newest)
            compared += found
            erased += gone
        faults += await self._beyond(0 if before is None else before.n)
        faults += await self._in_expired(over)
        faults += [
            Fault(what="tail_cut", seal=None, detail=f"no seal has the digest {head[:64]}")
            for head in heads
            if head not in seen
        ]
        unsealed = await self.store.count(AuditEntry, seal=0)
        waiting = await self.store.find(
            AuditEntry,
            Paging(order=("at", "id"), limit=1),
            seal=0,
            at=le(self.clock.now() - _OVERDUE),
        )
        return Verified(
            faults=tuple(faults),
            seals=count,
            entries=compared,
            expired=expired,
            erased=erased,
            unsealed=unsealed,
            overdue=bool(waiting.items),
            late=late,
            head="" if before is None else head_of(before),
        )

    async def _compare(
        self, seal: AuditSeal, faults: list[Fault], *, is_new: bool
    ) -> tuple[int, int]:
        """Hold the entries of one batch against its list; how many, and how many were erased."""
        batch = await self.store.get(AuditBatch, root=seal.root)
        if batch is None:
            detail = "the list of the batch is gone"
            faults.append(Fault(what="list_missing", seal=seal.n, detail=detail))
            return 0, 0
        if (
            len(batch.ids) != len(batch.digests)
            or len(batch.ids) != seal.count
            or _root(batch.ids, batch.digests) != seal.root
        ):
            detail = "the list of the batch is not as it was sealed"
            faults.append(Fault(what="list_edited", seal=seal.n, detail=detail))
            return 0, 0
        there = {entry.id: entry async for entry in self._all(AuditEntry, ("at", "id"), seal.n)}
        erased = 0
        for place, (entry_id, wanted) in enumerate(zip(batch.ids, batch.digests, strict=True), 1):
            entry = there.pop(entry_id, None)
            if entry is None:
                # Marked as another batch's, or by a sealer that is at it right now.
                entry = await self.store.get(AuditEntry, id=entry_id)
                if entry is None:
                    faults.append(_fault("entry_missing", seal, entry_id))
                    continue
                is_at_it = is_new and entry.seal == 0
                is_marked = (entry.seal, entry.place) == (seal.n, place)  # since it was looked for
                if not (is_at_it or is_marked):
                    faults.append(_fault("entry_reordered", seal, entry_id))
            elif entry.place != place:
                faults.append(_fault("entry_reordered", seal, entry_id))
            if not same(entry_digest(entry), wanted) or not _is_personal_whole(entry):
                faults.append(_fault("entry_edited", seal, entry_id))
            erased += entry.salt is None
        faults += [_fault("entry_inserted", seal, entry_id) for entry_id in there]
        return len(batch.ids), erased

    async def _beyond(self, newest: int) -> list[Fault]:
        """Entries of batches that have no seal: the end of the chain was cut off, or put in."""
        faults: list[Fault] = []
        paging = Paging(order=("at", "id"), limit=20)
        for entry in (await self.store.find(AuditEntry, paging, seal=gt(newest))).items:
            if await self.store.get(AuditSeal, n=entry.seal) is None:  # not made meanwhile
                detail = f"entry {entry.id} was sealed, and seal {entry.seal} is not there"
                faults.append(
                    Fault(what="tail_cut", seal=entry.seal, entry_id=entry.id, detail=detail)
                )
        for entry in (await self.store.find(AuditEntry, paging, seal=lt(0))).items:
            detail = f"entry {entry.id} names a seal that cannot be"
            faults.append(
                Fault(what="entry_inserted", seal=entry.seal, entry_id=entry.id, detail=detail)
            )
        return faults

    async def _in_expired(self, over: Sequence[range]) -> list[Fault]:
        """Entries that name a batch whose time is over, and have not to go with it."""
        if not over:
            return []
        now = self.clock.now()
        left = self._all(AuditEntry, ("seal", "at", "id"), le(over[-1].stop - 1))
        return [
            Fault(
                what="entry_inserted",
                seal=entry.seal,
                entry_id=entry.id,
                detail=f"entry {entry.id} {_SAID['entry_inserted']}",
            )
            async for entry in left
            if entry.expires_at > now and any(entry.seal in each for each in over)
        ]

    async def _all(
        self, kind: type[R], order: tuple[str, ...], seal: int | Comparison | None = None
    ) -> AsyncGenerator[R]:
        after: str | None = None
        while True:
            paging = Paging(order=order, limit=_MANY, after=after)
            conditions = {} if seal is None else {"seal": seal}
            page = await self.store.find(kind, paging, **conditions)
            for each in page.items:
                yield each
            after = page.next
            if after is None:
                return


def head_of(seal: AuditSeal) -> str:
    """The digest of a seal, signature included: what the next one names, and the log."""
    return digest([_signed_part(seal), seal.signature])


def _signed_part(seal: AuditSeal) -> list[object]:
    return [
        "watchword audit seal v1",
        seal.realm,
        seal.n,
        seal.count,
        written_at(seal.first_at),
        written_at(seal.last_at),
        seal.root,
        seal.previous,
        written_at(seal.entries_until),
        written_at(seal.at),
        seal.kid,
    ]


def _message(seal: AuditSeal) -> bytes:
    return to_json(_signed_part(seal)).encode()


def _is_signed(seal: AuditSeal, known: "dict[str, SigningKey]") -> bool:
    key = known.get(seal.kid)
    if key is None:
        return False
    try:
        signature = decoded(seal.signature)
    except ValueError:
        return False
    return key.signed(_message(seal), signature)


def _root(ids: Sequence[str], digests: Sequence[str]) -> str:
    return digest(["watchword audit batch v1", list(ids), list(digests)])


def _chained(before: AuditSeal | None, seal: AuditSeal) -> list[Fault]:
    """Does it come right after the one before, and name it?"""
    wanted = 1 if before is None else before.n + 1
    if seal.n != wanted:
        missing = str(wanted) if seal.n == wanted + 1 else f"{wanted} to {seal.n - 1}"
        detail = f"there is no seal {missing}"
        return [Fault(what="seal_missing", seal=wanted, detail=detail)]
    if seal.previous != ("" if before is None else head_of(before)):
        detail = "the seal before it is not the one that it names"
        return [Fault(what="seal_edited", seal=seal.n, detail=detail)]
    return []


def _is_personal_whole(entry: AuditEntry) -> bool:
    fields = (entry.account, entry.address, entry.user_agent)
    if entry.salt is None:
        return fields == (None, None, None)
    return same(personal_digest(entry.salt, *fields), entry.personal)


_SAID: Final = {
    "entry_edited": "is not as it was sealed",
    "entry_missing": "was sealed and is gone",
    "entry_reordered": "is not in its place",
    "entry_inserted": "came into a batch that was sealed without it",
}


def _fault(what: What, seal: AuditSeal, entry_id: str) -> Fault:
    detail = f"entry {entry_id} {_SAID[what]}"
    return Fault(what=what, seal=seal.n, entry_id=entry_id, detail=detail)
