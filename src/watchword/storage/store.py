"""The store: nine verbs, each atomic on one record, bound to one realm.

Services hold a `Store`. It checks every call against the record's schema, puts the realm into
every condition (I-11) and turns a driver's transaction into one that carries events (I-04).
Drivers implement `Driver` and `Verbs` and know neither realms' rules nor features.
"""

import base64
import json
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Generic, Literal, Protocol, TypeVar, cast

from watchword.kernel.errors import Fault, InvalidInput
from watchword.kernel.events import Event, Events
from watchword.kernel.ids import new_id
from watchword.kernel.moment import transaction_open
from watchword.storage.errors import Conflict
from watchword.storage.feed import KEPT_FOR, Change, Feed
from watchword.storage.record import Schema, schema_of
from watchword.storage.watching import Watch

R = TypeVar("R")

Operator = Literal["=", "!=", "<", "<=", ">", ">=", "in"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A condition other than equality on one field."""

    operator: Operator
    value: object


def lt(value: object) -> Comparison:
    """Less than. A field that holds nothing never matches."""
    return Comparison("<", value)


def le(value: object) -> Comparison:
    """Less than or equal."""
    return Comparison("<=", value)


def gt(value: object) -> Comparison:
    """Greater than: `expires_at=gt(now)` stands in every condition on what expires (I-05)."""
    return Comparison(">", value)


def ge(value: object) -> Comparison:
    """Greater than or equal."""
    return Comparison(">=", value)


def other_than(value: object) -> Comparison:
    """Not equal; None is a value like any other."""
    return Comparison("!=", value)


def one_of(values: Sequence[object]) -> Comparison:
    """Equal to one of these."""
    return Comparison("in", tuple(values))


@dataclass(frozen=True, slots=True)
class Plus:
    """Add to a number where it stands, so that no raise is lost."""

    amount: int


def plus(amount: int) -> Plus:
    """`update(User, where(id=…), epoch=plus(1))` raises a number atomically."""
    return Plus(amount)


@dataclass(frozen=True, slots=True)
class Where:
    """Conditions by field; what is no `Comparison` means equality, None included."""

    conditions: Mapping[str, object]


def where(**conditions: object) -> Where:
    """The conditions of an update."""
    return Where(conditions)


Conditions = Mapping[str, object]


class Verbs(Protocol):
    """What a driver can do, alone or inside a transaction. Conditions include the realm.

    Where a verb pins one record, the conditions hold equalities on its key or a unique key.
    Raises `Conflict` where named and `StoreUnavailable` when the database cannot be reached.
    """

    async def insert(self, record: object) -> object:
        """Add a record. Raises Conflict(field) if a key or a unique key is taken.

        Returns:
            The record as it stands, where the database gave it its key; else nothing.
        """
        ...

    async def get(self, kind: type[R], conditions: Conditions) -> R | None:
        """The record that the pinned key names, if the other conditions hold too."""
        ...

    async def find(
        self,
        kind: type[R],
        conditions: Conditions,
        *,
        order: tuple[str, ...],
        descending: bool,
        after: tuple[object, ...] | None,
        limit: int,
    ) -> list[R]:
        """Up to `limit` records in this order, past `after` (values of the order's fields)."""
        ...

    async def count(self, kind: type, conditions: Conditions) -> int:
        """How many match."""
        ...

    async def update(
        self, kind: type[R], conditions: Conditions, changes: Mapping[str, object]
    ) -> R | None:
        """If the pinned record matches, change it; the record after, or None. One winner."""
        ...

    async def take(self, kind: type[R], conditions: Conditions) -> R | None:
        """If the pinned record matches, delete and return it. One winner."""
        ...

    async def erase(self, kind: type, conditions: Conditions) -> int:
        """Delete all that match; how many."""
        ...

    async def increment(self, record: object, *, field: str, expires: str, now: datetime) -> int:
        """Add `record.field` to the record of that key; insert it if there is none.

        One whose `expires` is not after `now` counts as none. The value afterwards.
        """
        ...

    async def expire(self, kind: type, *, expires: str, now: datetime, limit: int) -> int:
        """Delete up to `limit` records of any realm whose time is past; how many."""
        ...


class Driver(Protocol):
    """A database. One a process; safe to open after a fork, never to carry across one."""

    @property
    def is_transactional(self) -> bool:
        """Do the writes of a transaction commit together, and not at all if it raises?

        Where not, each stands at once: services write the record that decides last.
        """
        ...

    @property
    def feed(self) -> Feed | None:
        """The change feed; None where there is none, and caches live 2 s (I-06)."""
        ...

    @property
    def verbs(self) -> Verbs:
        """Verbs that commit by themselves."""
        ...

    def transaction(self) -> AbstractAsyncContextManager[Verbs]:
        """Verbs that commit together at the end, or not at all if the block raises.

        Where the driver is not transactional: verbs that commit by themselves.
        """
        ...

    def joined(self, connection: Any) -> Verbs:
        """Verbs that write through a caller's own connection and leave the commit to it.

        Raises:
            TypeError: no connection of this driver, or a driver without transactions.
        """
        ...

    def savepoint(self, connection: Any) -> AbstractAsyncContextManager[None]:
        """Part of a caller's transaction that is undone if the block raises."""
        ...

    async def after_commit(
        self,
        connection: Any,
        tried: Callable[[], None],
        then: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        """When the caller commits: `tried`, whether it worked or not; `then`, if it did.

        Neither if what is written now is rolled back, with a savepoint or with everything.
        """
        ...

    async def open(self, records: Sequence[type]) -> None:
        """Connect and compare the schema; create it in an empty database, under a lock.

        Raises:
            SchemaBehind, SchemaNewer, StoreUnavailable
        """
        ...

    async def close(self) -> None:
        """Give every connection back."""
        ...

    async def ping(self) -> None:
        """Ask the database for a sign of life. Raises StoreUnavailable."""
        ...

    async def plan(self, records: Sequence[type]) -> tuple[str, ...]:
        """What `migrate` would do, one statement each; empty if there is nothing to do."""
        ...

    async def migrate(
        self, records: Sequence[type], *, skip_faulty: bool = False
    ) -> tuple[str, ...]:
        """Bring the schema up to these records, under a lock; what was done.

        Args:
            records: all that there are.
            skip_faulty: rows of an adopted table that cannot be users become nobody's.

        Raises:
            FaultyRows, SchemaNewer, StoreUnavailable
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Paging:
    """Which part of a list: keyset paging, never OFFSET. `order` ends with the key."""

    order: tuple[str, ...]
    descending: bool = False
    limit: int = 100
    after: str | None = None  # the `next` of the page before


@dataclass(frozen=True, slots=True)
class Page(Generic[R]):
    """Part of a list, and where the next part begins."""

    items: tuple[R, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class _Announced:
    """The events of one transaction of ours, in order."""

    events: list[Event] = field(default_factory=list[Event])


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """A database, bound to a realm. The only thing services know of it."""

    driver: Driver
    events: Events
    realm: str
    apart: Mapping[str, Driver] = field(default_factory=dict[str, Driver])
    """Drivers of records that live outside the database, by the record's name. They take no part
    in its transactions: what is written there stands at once."""
    watch: Watch = field(default_factory=Watch)
    _verbs: Verbs | None = None  # set inside a transaction or a caller's connection
    _announced: _Announced | None = None  # set inside a transaction of ours
    _connection: Any = None  # a caller's own
    _saved: bool = False  # is a savepoint of ours open on the caller's connection?

    @property
    def is_transactional(self) -> bool:
        """Do the writes of a transaction commit together? Else the one that decides is last."""
        return self.driver.is_transactional

    def is_apart(self, kind: type) -> bool:
        """Do its writes stand at once, whatever becomes of the transaction around them?"""
        return schema_of(kind).name in self.apart

    def _verbs_of(self, kind: type) -> Verbs:
        """Those of the transaction that this store stands for, if it is part of one."""
        if self.apart:
            other = self.apart.get(schema_of(kind).name)
            if other is not None:
                return self.watch.verbs(other.verbs)
        return self.watch.verbs(self._verbs if self._verbs is not None else self.driver.verbs)

    def in_realm(self, realm: str) -> "Store":
        """The same database for another realm. Only this verb crosses realms (I-11)."""
        return replace(self, realm=realm)

    async def insert(self, record: R) -> R:
        """Add a record; as it stands then: an application's own table may give it its key.

        Raises:
            Conflict: a unique key is taken; never check first.
        """
        if getattr(record, "realm", None) != self.realm:
            raise ValueError(f"{type(record).__name__} belongs to another realm")
        stored = await self._verbs_of(type(record)).insert(record)
        return record if stored is None else cast("R", stored)

    async def get(self, kind: type[R], /, **conditions: object) -> R | None:
        """The record that a key or a unique key names, if the other conditions hold too."""
        return await self._verbs_of(kind).get(kind, self._pinned(kind, conditions))

    async def find(self, kind: type[R], paging: Paging, /, **conditions: object) -> Page[R]:
        """A page of the records that match.

        Raises:
            InvalidInput: `paging.after` is no cursor of such a list.
        """
        schema = schema_of(kind)
        checked = self._checked(schema, conditions)
        for name in paging.order:
            _check_order(schema, name, checked)
        after = None if paging.after is None else _read_cursor(schema, paging)
        found = await self._verbs_of(kind).find(
            kind,
            checked,
            order=paging.order,
            descending=paging.descending,
            after=after,
            limit=paging.limit + 1,
        )
        items = tuple(found[: paging.limit])
        more = len(found) > paging.limit
        return Page(items, _cursor(items[-1], paging) if more else None)

    async def count(self, kind: type, /, **conditions: object) -> int:
        """How many match."""
        return await self._verbs_of(kind).count(kind, self._checked(schema_of(kind), conditions))

    async def update(self, kind: type[R], where: Where, /, **changes: object) -> R | None:
        """Where this still holds, set that.

        Returns:
            The record afterwards, or None if the conditions did not hold. Of two callers
            that race on the same condition one gets the record (I-05).
        """
        schema = schema_of(kind)
        for name in changes:
            if name not in schema.columns:
                raise TypeError(f"{kind.__name__} has no field {name}")
            if name in schema.key:
                raise TypeError(f"{kind.__name__}.{name} is part of its key")
        return await self._verbs_of(kind).update(
            kind, self._pinned(kind, where.conditions), changes
        )

    async def take(self, kind: type[R], /, **conditions: object) -> R | None:
        """Delete one that matches and return it: how single-use things are consumed."""
        return await self._verbs_of(kind).take(kind, self._pinned(kind, conditions))

    async def put(self, record: object) -> None:
        """Make this the record of its key, whether there was one or not.

        Made of update and insert, so it decides nothing: of two at once the last one stays,
        whole. For what a newer one of its kind replaces, such as a token that was mailed.

        Raises:
            Conflict: another key is taken.
        """
        schema = schema_of(type(record))
        fields = {name: getattr(record, name) for name in schema.columns}
        key = {name: fields[name] for name in schema.key if name != "realm"}
        changes = {name: value for name, value in fields.items() if name not in schema.key}
        if await self.update(type(record), Where(key), **changes) is not None:
            return
        try:
            await self.insert(record)
        except Conflict:
            if await self.update(type(record), Where(key), **changes) is None:
                raise

    async def erase(self, kind: type, /, **conditions: object) -> int:
        """Delete those that match; how many."""
        return await self._verbs_of(kind).erase(kind, self._checked(schema_of(kind), conditions))

    async def increment(self, record: object, *, field: str, now: datetime) -> int:
        """Add `record.field` to the counter of that key; a counter past its time starts anew."""
        schema = schema_of(type(record))
        if getattr(record, "realm", None) != self.realm:
            raise ValueError(f"{type(record).__name__} belongs to another realm")
        if schema.expires is None or schema.columns[field].kind != "integer":
            raise TypeError(f"{type(record).__name__} is no counter of {field}")
        return await self._verbs_of(type(record)).increment(
            record, field=field, expires=schema.expires, now=now
        )

    async def expire(self, kind: type, *, now: datetime, limit: int = 500) -> int:
        """Delete up to `limit` records, of every realm, whose time is past; how many."""
        schema = schema_of(kind)
        if schema.expires is None:
            raise TypeError(f"{kind.__name__} does not expire")
        return await self._verbs_of(kind).expire(kind, expires=schema.expires, now=now, limit=limit)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator["Store"]:
        """A store whose writes commit together; inside one, that one.

        Events announced in it reach their partners in it and their hooks after the commit.
        """
        if self._verbs is not None:
            async with self._nested() as nested:
                yield nested
            return
        announced = _Announced()
        token = transaction_open.set(True)
        try:
            async with self.watch.transaction(self.driver.transaction()) as verbs:
                yield replace(self, _verbs=verbs, _announced=announced)
        finally:
            transaction_open.reset(token)
            # Whichever way it ended: COMMIT may have worked though its answer was lost.
            for event in announced.events:
                self.events.evict(event)
        for event in announced.events:
            await self.events.committed(event)

    @asynccontextmanager
    async def _nested(self) -> AsyncGenerator["Store", None]:
        """Inside a transaction of ours: that one. Inside a caller's: all of it or none.

        Our own transaction is given up by whatever is raised in it. A caller may catch it and
        commit, and must not find half of a verb among their rows then.
        """
        if self._connection is None or self._saved:
            yield self
            return
        async with self.driver.savepoint(self._connection):
            yield replace(self, _saved=True)

    def joining(self, connection: Any) -> "Store":
        """A store that writes through a caller's own connection, whose commits decide."""
        return replace(
            self,
            _verbs=self.driver.joined(connection),
            _announced=None,
            _connection=connection,
            _saved=False,
        )

    async def announce(self, event: Event) -> None:
        """Say what happened, in the transaction that makes it true."""
        if self._connection is not None:
            await self.driver.after_commit(
                self._connection,
                partial(self.events.evict, event),
                partial(self.events.committed, event),
            )
            await self._tell(event)
            return
        if self._announced is None and not event.evicts and not self.events.has_partner(event):
            await self.events.announce(self, event)
            await self.events.committed(event)
            return
        if self._announced is None:
            async with self.transaction() as transaction:
                await transaction.announce(event)
            return
        self._announced.events.append(event)
        await self._tell(event)

    async def _tell(self, event: Event) -> None:
        """Inside the transaction: the partners' rows, and those of the change feed (I-06)."""
        await self.events.announce(self, event)
        feed = self.driver.feed
        if not event.evicts or feed is None:
            return
        for topic, subject in event.subjects():
            if not feed.is_coherent and topic in _NOT_FED:
                continue
            change = Change(
                realm=event.realm,
                id=new_id(event.at),
                topic=topic,
                subject=subject,
                at=event.at,
                expires_at=event.at + KEPT_FOR,
            )
            await self._verbs_of(Change).insert(change)

    def _checked(self, schema: Schema, conditions: Conditions) -> dict[str, object]:
        for name in conditions:
            if name not in schema.columns or name == "realm":
                raise TypeError(f"{schema.name} has no field {name} to ask for")
        return {"realm": self.realm, **conditions}

    def _pinned(self, kind: type, conditions: Conditions) -> dict[str, object]:
        schema = schema_of(kind)
        checked = self._checked(schema, conditions)
        equal = frozenset(
            name
            for name, value in checked.items()
            if value is not None and not isinstance(value, Comparison)
        )
        if not schema.pins(equal):
            raise TypeError(f"{kind.__name__}: name its key or a unique key")
        return checked


# Too many, and too much to lose, for rows that may be missing: 2 s bound them instead (I-06).
_NOT_FED = ("user", "session")


def _check_order(schema: Schema, name: str, conditions: Conditions) -> None:
    """A field orders a list only where nothing is never among its values.

    Raises:
        TypeError: it may be.
    """
    asked = conditions.get(name)
    is_compared = isinstance(asked, Comparison) and asked.operator in {"<", "<=", ">", ">="}
    if schema.columns[name].optional and not is_compared:
        raise TypeError(f"{schema.name}.{name} may hold nothing and so orders no list")


def cursor_of(record: object, paging: Paging) -> str:
    """The `after` by which a list goes on past this record; for lists that are put together."""
    return _cursor(record, paging)


def _cursor(record: object, paging: Paging) -> str:
    values: list[object] = []
    for name in paging.order:
        value = getattr(record, name)
        if isinstance(value, datetime):
            value = (value - _EPOCH) // timedelta(microseconds=1)
        values.append(value)
    packed = json.dumps([list(paging.order), values], separators=(",", ":"))
    return base64.urlsafe_b64encode(packed.encode()).rstrip(b"=").decode()


def _read_cursor(schema: Schema, paging: Paging) -> tuple[object, ...]:
    try:
        packed = paging.after or ""
        padded = packed + "=" * (-len(packed) % 4)
        order, values = cast(
            "tuple[list[str], list[object]]",
            json.loads(base64.b64decode(padded, altchars=b"-_", validate=True)),
        )
        if tuple(order) != paging.order or len(values) != len(order):
            raise ValueError("another list's cursor")
        return tuple(
            _revive(schema, name, value) for name, value in zip(order, values, strict=True)
        )
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        fault = Fault("after", "cursor_invalid", "is no cursor of this list")
        raise InvalidInput([fault]) from error


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _revive(schema: Schema, name: str, value: object) -> object:
    kind = schema.columns[name].kind
    if kind == "instant" and type(value) is int:
        return _EPOCH + timedelta(microseconds=value)
    if kind == "integer" and type(value) is int and abs(value) < 2**63:
        return value
    if kind == "text" and type(value) is str and "\x00" not in value:
        value.encode()  # half a surrogate pair is no text: UnicodeEncodeError is a ValueError
        return value
    raise ValueError("not of the field's kind")
