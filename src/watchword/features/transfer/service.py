"""The verbs: bring users in, with the hashes of their passwords, and give them out again."""

from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from watchword.crypto.foreign import signer_id
from watchword.features.passwords import Password, Passwords
from watchword.features.transfer.arrivals import Arrival, Arrivals, Reading, Refused
from watchword.features.transfer.departures import departure
from watchword.features.transfer.rows import Place, Row, Source
from watchword.features.transfer.seen import Seen
from watchword.features.transfer.settings import TransferSettings
from watchword.features.users import User, UserRegistered, Users
from watchword.kernel.clock import Clock
from watchword.kernel.errors import UserAlreadyExists
from watchword.storage.errors import Conflict
from watchword.storage.record import schema_of
from watchword.storage.store import Paging, Store, one_of

TAKEN = frozenset({"email_taken", "id_taken"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One row that was not brought in. Nothing of the row but its number."""

    line: int
    reason: str
    field: str | None = None


@dataclass(slots=True, kw_only=True)
class Tally:
    """What became of the rows so far."""

    read: int = 0
    created: int = 0  # in a dry run: would be
    already_there: int = 0
    without_password: int = 0  # of those created
    kinds: Counter[str] = field(default_factory=Counter[str])  # of the hashes of those created
    refused: Counter[str] = field(default_factory=Counter[str])  # by reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A batch that is done, and committed."""

    place: Place  # where a later run goes on
    refusals: Sequence[Refusal]
    stopped: bool  # an address or an id was somebody else's, and the rest was not looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """Users of one realm, on their way in or out."""

    store: Store
    settings: TransferSettings
    clock: Clock
    users: Users[Any]
    passwords: Passwords

    def signers(self) -> tuple[str, ...]:
        """The short names of the Firebase signer keys that are configured."""
        return tuple(signer_id(key) for key in self.passwords.settings.firebase_signer_keys)

    async def bring_in(
        self,
        source: Source,
        *,
        reading: Reading,
        tally: Tally,
        limit: int | None = None,
        write: bool = True,
        look: bool = True,
        stop_at_conflict: bool = False,
    ) -> AsyncGenerator[Step]:
        """Bring in the users of a source, a batch at a time.

        Ids, addresses, hashes and times stay as they were; epochs are new. Who is there already,
        by id and address, is counted and left alone, so that a second run goes on where a first
        one was stopped. Each user announces `UserRegistered` with `by_themselves=False`, as one
        that an operator makes: no mail is sent.

        Where there are no transactions a user is written after their password: a stop between
        the two leaves a hash of nobody, which the next run replaces.

        Args:
            source: its rows.
            reading: what they mean.
            tally: counted up as it goes.
            limit: stop after so many rows.
            write: else it is only said what would be done.
            look: else nobody is taken to be here yet.
            stop_at_conflict: write nothing of a batch in which an address or an id is taken.

        Raises:
            Unreadable, StoreUnavailable
        """
        arrivals, seen, left = Arrivals(self.users, reading), Seen(), limit
        if look and not write:  # a first import is tried out on an empty database
            look = bool((await self.users.page(limit=1)).items)
        async with aclosing(source.batches(self.settings.batch)) as batches:
            async for rows in batches:
                chosen = rows if left is None else rows[:left]
                refusals: list[Refusal] = []
                accepted = _read(chosen, arrivals, seen, refusals)
                tally.read += len(chosen)
                new = await self._new(accepted, refusals, tally) if look else accepted
                stopped = stop_at_conflict and _is_conflict(refusals)
                if not stopped:
                    if write and new:
                        new = await self._write(new, refusals, tally)
                        stopped = stop_at_conflict and _is_conflict(refusals)
                    _count(tally, new)
                refusals.sort(key=lambda refusal: refusal.line)
                tally.refused.update(refusal.reason for refusal in refusals)
                yield Step(place=chosen[-1].place, refusals=refusals, stopped=stopped)
                left = None if left is None else left - len(chosen)
                if left == 0 or stopped:
                    return

    async def _new(
        self, arrivals: Sequence[Arrival], refusals: list[Refusal], tally: Tally
    ) -> list[Arrival]:
        """Those who are not here yet: two look-ups, however many there are."""
        by_key, by_id = await self._known(arrivals)
        new: list[Arrival] = []
        for each in arrivals:
            owner, namesake = by_key.get(each.user.email_key), by_id.get(each.user.id)
            if owner is not None and (not each.has_id or owner.id == each.user.id):
                tally.already_there += 1
            elif owner is not None or namesake is not None:
                reason = "email_taken" if owner is not None else "id_taken"
                refusals.append(Refusal(line=each.line, reason=reason))
            else:
                new.append(each)
        return new

    async def _known(
        self, arrivals: Sequence[Arrival]
    ) -> tuple[Mapping[str, User], Mapping[str, User]]:
        keys = [each.user.email_key for each in arrivals]
        ids = [each.user.id for each in arrivals if each.has_id]
        by_key = await self._users("email_key", keys)
        by_id = await self._users("id", ids)
        return {user.email_key: user for user in by_key}, {user.id: user for user in by_id}

    async def _users(self, field: str, values: Sequence[str]) -> Sequence[User]:
        if not values:
            return ()
        paging = Paging(order=("id",), limit=len(values))
        page = await self.store.find(self.users.kind, paging, **{field: one_of(values)})
        return page.items

    async def _write(
        self, arrivals: Sequence[Arrival], refusals: list[Refusal], tally: Tally
    ) -> list[Arrival]:
        """Write them together, or each alone if somebody came between; who was written."""
        if self.store.is_transactional:
            try:
                async with self.store.transaction() as tx:
                    for each in arrivals:
                        await self._add(tx, each)
            except (Conflict, UserAlreadyExists):
                pass
            else:
                return list(arrivals)
        written: list[Arrival] = []
        for each in arrivals:
            try:
                async with self.store.transaction() as tx:
                    await self._add(tx, each)
            except (Conflict, UserAlreadyExists):
                # Whoever took it may be this very user, brought in by another run.
                if await self._new([each], refusals, tally):  # kept free for somebody else
                    refusals.append(Refusal(line=each.line, reason="email_taken"))
            else:
                written.append(each)
        return written

    async def _add(self, tx: Store, arrival: Arrival) -> None:
        """Write a user and their password; the user last, who decides (DESIGN, transaction)."""
        user, password = arrival.user, _password_of(arrival)
        if password is not None:
            await self._add_password(tx, password)
        try:
            await tx.insert(user)
        except Conflict:
            if password is not None and not tx.is_transactional:
                await self._take_back(tx, user, password)
            raise
        registered = UserRegistered(
            realm=user.realm,
            at=self.clock.now(),
            user_id=user.id,
            email=user.email,
            by_themselves=False,
        )
        try:
            await tx.announce(registered)
        except UserAlreadyExists:  # a partner keeps the address for somebody
            if not tx.is_transactional:
                await tx.take(self.users.kind, id=user.id)
                await tx.take(Password, user_id=user.id)
            raise

    async def _add_password(self, tx: Store, password: Password) -> None:
        # Where writes stand at once, a hash must not become the way in of somebody who took the
        # id meanwhile.
        if not tx.is_transactional and await self._is_somebody(tx, password.user_id):
            raise Conflict("id")
        try:
            await tx.insert(password)
        except Conflict:
            # Left by a run that was stopped, where there are no transactions; never somebody's.
            if await self._is_somebody(tx, password.user_id):
                raise
            await tx.put(password)

    async def _take_back(self, tx: Store, user: User, password: Password) -> None:
        """Remove the hash of who was not written, but not of who was, by another run just now."""
        there = await tx.get(self.users.kind, id=user.id)
        if there is None or there.email_key != user.email_key:
            await tx.take(Password, user_id=user.id, hash=password.hash)

    async def _is_somebody(self, tx: Store, user_id: str) -> bool:
        return await tx.get(self.users.kind, id=user_id) is not None

    async def give_out(self, *, hashes: bool = False) -> AsyncGenerator[list[dict[str, Any]]]:
        """All users, the oldest first, a page at a time, as what `bring_in` reads."""
        after: str | None = None
        while True:
            page = await self.users.page(limit=self.settings.batch, after=after)
            stored = await self._hashes(page.items if hashes else ())
            yield [departure(user, stored.get(user.id)) for user in page.items]
            after = page.next
            if after is None:
                return

    async def _hashes(self, users: Sequence[User]) -> Mapping[str, str]:
        if not users:
            return {}
        paging = Paging(order=("user_id",), limit=len(users))
        page = await self.store.find(Password, paging, user_id=one_of([user.id for user in users]))
        return {each.user_id: each.hash for each in page.items}

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of the users here that can be brought in, own ones included."""
        known = schema_of(User).columns
        return tuple(name for name in schema_of(self.users.kind).columns if name not in known)


def _read(
    rows: Sequence[Row], arrivals: Arrivals, seen: Seen, refusals: list[Refusal]
) -> list[Arrival]:
    accepted: list[Arrival] = []
    for row in rows:
        try:
            accepted.append(_once(seen, arrivals.read(row)))
        except Refused as refused:
            refusals.append(Refusal(line=row.line, reason=refused.reason, field=refused.field))
    return accepted


def _is_conflict(refusals: Sequence[Refusal]) -> bool:
    return any(refusal.reason in TAKEN for refusal in refusals)


def _once(seen: Seen, arrival: Arrival) -> Arrival:
    """Refuse an address or an id that came before in the same source."""
    key, own = f"@{arrival.user.email_key}", f"#{arrival.user.id}"
    if key in seen or (arrival.has_id and own in seen):
        raise Refused("duplicate")
    seen.add(key)
    if arrival.has_id:
        seen.add(own)
    return arrival


def _password_of(arrival: Arrival) -> Password | None:
    user = arrival.user
    if arrival.hash is None:
        return None
    return Password(realm=user.realm, user_id=user.id, hash=arrival.hash, set_at=user.created_at)


def _count(tally: Tally, arrivals: Sequence[Arrival]) -> None:
    tally.created += len(arrivals)
    for each in arrivals:
        if each.kind is None:
            tally.without_password += 1
        else:
            tally.kinds[each.kind] += 1
