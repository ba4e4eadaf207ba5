"""The nine verbs. Whatever decides is one script on one record; all around it are hints."""

import asyncio
import heapq
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final, TypeVar

from watchword.kernel.errors import StoreUnavailable
from watchword.storage.errors import Conflict
from watchword.storage.store import Conditions, Plus
from watchword.stores.redis import hints
from watchword.stores.redis.hints import Pending, Write
from watchword.stores.redis.layout import STAMP, Hint, Layout, Slot, layout_of
from watchword.stores.redis.link import Call, Link, Step, finished
from watchword.stores.redis.lists import Lists
from watchword.stores.redis.scripts import INCREMENT, INSERT, TAKE, UPDATE
from watchword.stores.redis.values import (
    Condition,
    Raw,
    absent,
    as_read,
    condition,
    conditions_of,
    encode,
    maybe,
    paired,
    raw_of,
    revived,
    words,
)

R = TypeVar("R")
T = TypeVar("T")

_PATIENCE: Final = (hints.GRACE + 2_000) / 1000
"""Seconds to wait for another writer: by then its hints are orphans."""


class _Again(Exception):
    """Another write came between: read again."""


class _Gone(Exception):
    """The record went, or the conditions hold no more."""


class RedisVerbs:
    """What a Redis server can do. Every verb stands by itself."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._prefix = link.target.prefix
        self._skew = int(link.target.clock_skew * 1000)
        self._lists = Lists(link)

    async def insert(self, record: object) -> None:
        """Add a record."""
        layout = layout_of(self._prefix, type(record))
        raw = raw_of(layout.schema, record)
        key = layout.record_key(raw)
        await finished(_patiently(lambda: self._insert(layout, key, raw)))

    async def get(self, kind: type[R], conditions: Conditions) -> R | None:
        """The record that the pinned key names, if the other conditions hold too."""
        layout = layout_of(self._prefix, kind)
        wanted = conditions_of(layout.schema, conditions)
        key = await self._pinned(layout, wanted)
        if key is None:
            return None
        raw = await self._lists.record(key)
        return revived(kind, raw) if raw and _match(raw, wanted) else None

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
        """Up to `limit` records in this order, past `after`."""

        def place(record: Any) -> Any:
            return tuple(getattr(record, name) for name in order)

        best = heapq.nlargest if descending else heapq.nsmallest
        chosen: list[R] = []
        async for batch in self._matching(kind, conditions):
            found = [revived(kind, raw) for _, raw in batch]
            if after is not None:
                found = [r for r in found if (place(r) < after if descending else place(r) > after)]
            chosen = best(limit, [*chosen, *found], key=place)
        return chosen

    async def count(self, kind: type, conditions: Conditions) -> int:
        """How many match."""
        return sum([len(batch) async for batch in self._matching(kind, conditions)])

    async def update(
        self, kind: type[R], conditions: Conditions, changes: Mapping[str, object]
    ) -> R | None:
        """If the pinned record matches, change it; the record after, or None."""
        if not changes:
            return await self.get(kind, conditions)
        layout = layout_of(self._prefix, kind)
        change = _Change(layout, conditions_of(layout.schema, conditions), changes)
        after = await finished(self._update(change))
        return revived(kind, after) if after else None

    async def take(self, kind: type[R], conditions: Conditions) -> R | None:
        """If the pinned record matches, delete and return it."""
        layout = layout_of(self._prefix, kind)
        wanted = conditions_of(layout.schema, conditions)
        key = await self._pinned(layout, wanted)
        if key is None:
            return None
        taken = await finished(self._take(layout, [key], wanted))
        return revived(kind, taken[0]) if taken else None

    async def erase(self, kind: type, conditions: Conditions) -> int:
        """Delete all that match; how many."""
        layout = layout_of(self._prefix, kind)
        wanted = conditions_of(layout.schema, conditions)
        many = 0
        async for batch in self._matching(kind, conditions):
            many += len(await finished(self._take(layout, [key for key, _ in batch], wanted)))
        return many

    async def increment(
        self,
        record: object,
        *,
        field: str,
        expires: str,  # noqa: ARG002 as the schema says
        now: datetime,
    ) -> int:
        """Add `record.field` to the record of that key; the value afterwards."""
        layout = layout_of(self._prefix, type(record))
        if layout.schema.unique:
            raise TypeError(f"{type(record).__name__} has a unique key, so it is no counter")
        raw = raw_of(layout.schema, record)
        time = encode("instant", now) or b""
        arguments = (field.encode(), raw[field.encode()], time)
        return await finished(_patiently(lambda: self._increment(layout, raw, arguments)))

    async def expire(self, kind: type, *, expires: str, now: datetime, limit: int) -> int:
        """Delete up to `limit` records of any realm whose time is past; how many.

        The server deletes by itself what its own clock says is past; this follows ours.
        """
        layout = layout_of(self._prefix, kind)
        time = encode("instant", now) or b""
        past = Condition(expires.encode(), "<=", (time,), is_number=True)
        latest = self._dies({expires.encode(): time}, expires)
        many = 0
        async for batch in self._lists.dying(layout, latest=latest, limit=limit):
            keys = [key for key, raw in batch if past.matches(raw)][: limit - many]
            many += len(await finished(self._take(layout, keys, (past,))))
            if many >= limit:
                break
        return many

    # One attempt each

    async def _insert(self, layout: Layout, key: bytes, raw: Raw) -> None:
        (time,) = await self._link.read(("TIME",))
        write = self._begin(layout, key, raw, time)
        async with self._led(write, list(layout.hints(raw))):
            fields = _fields({**raw, STAMP: write.stamp})
            said = await self._run(INSERT, key, write.fence, layout, fields)
            if said == b"taken":
                raise Conflict(layout.schema.key[-1])
            if said != b"done":
                raise _Again

    async def _update(self, change: "_Change") -> Raw | None:
        key = await self._pinned(change.layout, change.conditions)
        if key is None:
            return None
        if not change.slots:  # nothing that leads to it changes: one script is all
            return await self._changed(key, change, (), 0, ())
        try:
            return await _patiently(lambda: self._lead_and_update(key, change))
        except _Gone:
            return None

    async def _lead_and_update(self, key: bytes, change: "_Change") -> Raw | None:
        """Change what hints lead by: new ones first, then the record, then the old ones go."""
        layout, expires = change.layout, change.expires
        time, flat = await self._link.read(("TIME",), ("HGETALL", key))
        before = paired(flat)
        if not before or not _match(before, change.conditions):
            return None
        after = change.applied_to(before)
        write = self._begin(layout, key, after, time)
        is_renewed = before.get(expires) != after.get(expires)
        same = frozenset(s for s in change.slots if _values(s, before) == _values(s, after))
        due = [slot for slot in change.slots if is_renewed or slot not in same]
        placed = list(layout.hints(after, due))
        guard = {expires.decode(), *(name for slot in change.slots for name in slot.decided_by)}
        async with self._led(write, placed, own=same):
            stored = await self._changed(
                key,
                change,
                as_read(before, guard),
                write.fence if placed else 0,
                _stamps(write, due, placed, is_renewed=is_renewed),
            )
            if stored is None:
                raise _Gone
        leftover = list(hints.former(layout, key, before, due, but=same))
        if is_renewed and write.dies:
            leftover += hints.shortening(write, (hint for hint in placed if hint.slot in same))
        await hints.tidy(self._link, leftover)
        return stored

    async def _changed(
        self,
        key: bytes,
        change: "_Change",
        guard: tuple[Condition, ...],
        fence: int,
        stamps: Iterable[tuple[bytes, bytes | None]],
    ) -> Raw | None:
        sets = [*change.sets.items(), *stamps]
        arguments: list[bytes] = [*words(change.conditions), *words(guard)]
        arguments.append(b"%d" % len(change.raises))
        for name, by in change.raises.items():
            missing = absent(change.layout.schema.columns[name.decode()])
            arguments += (name, b"%d" % by, maybe(missing))
        arguments.append(b"%d" % len(sets))
        for name, value in sets:
            arguments += (name, maybe(value))
        answer = await self._run(UPDATE, key, fence, change.layout, arguments)
        if answer[0] == b"done":
            return paired(answer[1])
        if answer[0] == b"none":
            return None
        raise _Again

    async def _take(
        self, layout: Layout, keys: list[bytes], wanted: tuple[Condition, ...]
    ) -> list[Raw]:
        if not keys:
            return []
        answers = await self._link.write(*(Call(TAKE, (key,), words(wanted)) for key in keys))
        taken = [(key, paired(flat)) for key, flat in zip(keys, answers, strict=True) if flat]
        gone: list[Step] = []
        for key, raw in taken:
            gone += hints.former(layout, key, raw)
        await hints.tidy(self._link, gone)
        return [raw for _, raw in taken]

    async def _increment(self, layout: Layout, raw: Raw, arguments: tuple[bytes, ...]) -> int:
        key = layout.record_key(raw)
        counted = (*arguments, b"0")
        answer = await self._run(INCREMENT, key, 0, layout, counted)
        if answer[0] == b"done":
            return int(answer[1])
        (time,) = await self._link.read(("TIME",))
        write = self._begin(layout, key, raw, time)
        made = (*arguments, *_fields({**raw, STAMP: write.stamp}))
        placed = list(layout.hints(raw))
        async with self._led(write, placed):
            answer = await self._run(INCREMENT, key, write.fence, layout, made)
            if answer[0] == b"late":
                raise _Again
        if answer[0] == b"made":
            before = paired(answer[2])
            await hints.tidy(self._link, hints.former(layout, key, before) if before else ())
        else:  # another made it first, and we were counted there
            await hints.undo(self._link, write, placed)
        return int(answer[1])

    # What they share

    @asynccontextmanager
    async def _led(
        self, write: Write, placed: list[Hint], *, own: frozenset[Slot] = frozenset()
    ) -> AsyncGenerator[None]:
        """Hints for what is written inside; undone where it says that it was not.

        Where no answer came it may have been written: a record without its hints would be worse
        than hints without their record.
        """
        try:
            if placed:
                await hints.place(self._link, write, placed, own=own)
            yield
        except (Conflict, Pending, ValueError, _Again, _Gone):
            await hints.undo(self._link, write, placed, own=own)
            raise

    async def _run(
        self, script: Any, key: bytes, fence: int, layout: Layout, arguments: Iterable[bytes]
    ) -> Any:
        expires = (layout.schema.expires or "").encode()
        head = (b"%d" % fence, expires, b"%d" % self._skew)
        (answer,) = await self._link.write(Call(script, (key,), (*head, *arguments)))
        return answer

    def _begin(self, layout: Layout, key: bytes, raw: Raw, time: list[bytes]) -> Write:
        dies = self._dies(raw, layout.schema.expires or "")
        return hints.begin(layout, key, raw, dies=dies, time=time)

    def _dies(self, raw: Raw, expires: str) -> int:
        """When the server deletes a record, in milliseconds: as the scripts compute it."""
        ends = raw.get(expires.encode())
        return 0 if ends is None else max(int(ends) // 1000, 0) + 1 + self._skew

    async def _pinned(self, layout: Layout, wanted: tuple[Condition, ...]) -> bytes | None:
        """The key of the one record that these conditions name, if it may be there."""
        named = _equal(wanted)
        if all(name.encode() in named for name in layout.schema.key):
            return layout.record_key(named)
        for fields in layout.schema.unique:
            if all(name.encode() in named for name in fields):
                return await self._lists.owner(layout.pointer(fields, named))
        raise TypeError(f"{layout.schema.name}: name its key or a unique key")

    async def _matching(
        self, kind: type, conditions: Conditions
    ) -> AsyncGenerator[list[tuple[bytes, Raw]]]:
        """Keys and records that match, in batches, each once."""
        layout = layout_of(self._prefix, kind)
        wanted = conditions_of(layout.schema, conditions)
        named = _equal(wanted)
        pinned = any(
            all(name.encode() in named for name in fields)
            for fields in (layout.schema.key, *layout.schema.unique)
        )
        if pinned:
            key = await self._pinned(layout, wanted)
            raw = {} if key is None else await self._lists.record(key)
            if key is not None and raw and _match(raw, wanted):
                yield [(key, raw)]
            return
        async for batch in self._lists.candidates(layout, wanted, named):
            yield [(key, raw) for key, raw in batch if _match(raw, wanted)]


class _Change:
    """What an update does, in stored form."""

    def __init__(
        self, layout: Layout, conditions: tuple[Condition, ...], changes: Mapping[str, object]
    ) -> None:
        columns = layout.schema.columns
        self.layout = layout
        self.conditions = conditions
        self.expires = (layout.schema.expires or "").encode()
        self.sets: dict[bytes, bytes | None] = {}
        self.raises: dict[bytes, int] = {}
        for name, value in changes.items():
            if isinstance(value, Plus):
                encode("integer", value.amount)
                self.raises[name.encode()] = value.amount
            else:
                (self.sets[name.encode()],) = condition(columns[name], value).values
        self.slots = [
            slot
            for slot in layout.slots
            if self.expires.decode() in changes or not changes.keys().isdisjoint(slot.decided_by)
        ]

    def applied_to(self, before: Raw) -> Raw:
        """The record afterwards."""
        after: dict[bytes, bytes | None] = {**before, **self.sets}
        for name, by in self.raises.items():
            there = before.get(name, absent(self.layout.schema.columns[name.decode()]))
            if there is not None:
                after[name] = b"%d" % (int(there) + by)
        return {name: value for name, value in after.items() if value is not None}


def _stamps(
    write: Write, due: list[Slot], placed: list[Hint], *, is_renewed: bool
) -> list[tuple[bytes, bytes | None]]:
    """The marks that make the new hints count and the old ones not."""
    if is_renewed:  # every hint is new
        return [(STAMP, write.stamp), *((slot.stamp, None) for slot in write.layout.slots)]
    led = {hint.slot for hint in placed}
    return [(slot.stamp, write.stamp if slot in led else b"") for slot in due]


def _values(slot: Slot, raw: Raw) -> tuple[bytes | None, ...]:
    return tuple(raw.get(name.encode()) for name in slot.decided_by)


def _equal(wanted: tuple[Condition, ...]) -> Raw:
    """What the conditions say outright."""
    return {
        one.field: one.values[0]
        for one in wanted
        if one.operator == "=" and one.values[0] is not None
    }


def _match(raw: Raw, wanted: tuple[Condition, ...]) -> bool:
    return all(one.matches(raw) for one in wanted)


def _fields(raw: Raw) -> list[bytes]:
    flat: list[bytes] = [b"%d" % len(raw)]
    for name, value in raw.items():
        flat += (name, value)
    return flat


async def _patiently(attempt: Callable[[], Awaitable[T]]) -> T:
    """Try until no other writer is in the way."""
    loop = asyncio.get_running_loop()
    until = loop.time() + _PATIENCE
    wait = 0.005
    while True:
        try:
            return await attempt()
        except _Again:
            pause = 0.0
        except Pending:
            pause = wait * random.uniform(0.5, 1.0)  # noqa: S311 no secret
            wait = min(wait * 2, 0.2)
        if loop.time() > until:
            raise StoreUnavailable("other writers are in the way")
        await asyncio.sleep(pause)
