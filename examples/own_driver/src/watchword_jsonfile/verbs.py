"""The nine verbs, each decided under the file's lock: of two callers one wins."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from watchword.storage.errors import Conflict
from watchword.storage.record import Schema, schema_of
from watchword.storage.store import Conditions, Plus, le
from watchword_jsonfile.file import JsonFile
from watchword_jsonfile.rows import (
    Row,
    bounded,
    completed,
    encode,
    encoded,
    matches,
    record_of,
    row_of,
)

R = TypeVar("R")
T = TypeVar("T")


class JsonVerbs:
    """The protocol `Verbs` says what each promises."""

    def __init__(self, file: JsonFile) -> None:
        self._file = file

    async def insert(self, record: object) -> None:
        schema, row = schema_of(type(record)), row_of(record)

        def step(rows: list[Row]) -> None:
            _refuse_taken(schema, rows, row)
            rows.append(row)

        await self._change(schema, step)

    async def get(self, kind: type[R], conditions: Conditions) -> R | None:
        found = await self._matching(kind, conditions)
        return record_of(kind, found[0]) if found else None

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
        def place(row: Row) -> tuple[Any, ...]:
            return tuple(row[name] for name in order)

        found = sorted(await self._matching(kind, conditions), key=place, reverse=descending)
        if after is not None:
            columns = schema_of(kind).columns
            pairs = zip(order, after, strict=True)
            last = tuple(encode(columns[name].kind, value) for name, value in pairs)
            found = [r for r in found if (place(r) < last if descending else place(r) > last)]
        return [record_of(kind, row) for row in found[:limit]]

    async def count(self, kind: type, conditions: Conditions) -> int:
        return len(await self._matching(kind, conditions))

    async def update(
        self, kind: type[R], conditions: Conditions, changes: Mapping[str, object]
    ) -> R | None:
        schema = schema_of(kind)
        asked = encoded(schema, conditions)

        def step(rows: list[Row]) -> Row | None:
            for place, row in enumerate(rows):
                if matches(row, asked):
                    after = {**row, **_changed(schema, row, changes)}
                    _refuse_taken(schema, rows[:place] + rows[place + 1 :], after)
                    rows[place] = after
                    return after
            return None

        after = await self._change(schema, step)
        return None if after is None else record_of(kind, after)

    async def take(self, kind: type[R], conditions: Conditions) -> R | None:
        taken = await self._remove(kind, conditions)
        return record_of(kind, taken[0]) if taken else None

    async def erase(self, kind: type, conditions: Conditions) -> int:
        return len(await self._remove(kind, conditions))

    async def increment(self, record: object, *, field: str, expires: str, now: datetime) -> int:
        schema, row = schema_of(type(record)), row_of(record)
        present = encode("instant", now)

        def step(rows: list[Row]) -> int:
            for place, there in enumerate(rows):
                if all(there[name] == row[name] for name in schema.key):
                    if there[expires] is None or there[expires] > present:
                        there[field] = bounded(there[field] + row[field])
                    else:
                        rows[place] = row
                    return int(rows[place][field])
            rows.append(row)
            return int(row[field])

        return await self._change(schema, step)

    async def expire(self, kind: type, *, expires: str, now: datetime, limit: int) -> int:
        return len(await self._remove(kind, {expires: le(now)}, limit=limit))

    async def _matching(self, kind: type, conditions: Conditions) -> list[Row]:
        schema = schema_of(kind)
        asked = encoded(schema, conditions)

        def read() -> list[Row]:
            with self._file.reading() as tables:
                rows = completed(schema, tables.get(schema.name, []))
                return [row for row in rows if matches(row, asked)]

        return await on_thread(read)

    async def _remove(
        self, kind: type, conditions: Conditions, *, limit: int | None = None
    ) -> list[Row]:
        schema = schema_of(kind)
        asked = encoded(schema, conditions)

        def step(rows: list[Row]) -> list[Row]:
            chosen = [row for row in rows if matches(row, asked)][:limit]
            for row in chosen:
                rows.remove(row)
            return chosen

        return await self._change(schema, step)

    async def _change(self, schema: Schema, step: Callable[[list[Row]], T]) -> T:
        def change() -> T:
            with self._file.changing() as tables:
                rows = tables[schema.name] = completed(schema, tables.get(schema.name, []))
                return step(rows)

        return await on_thread(change)


async def on_thread(step: Callable[[], T]) -> T:
    """Neither the lock nor the disk stops the loop.

    Who is cancelled hears of it when the step is over: nothing of theirs happens later.
    """
    running = asyncio.ensure_future(asyncio.to_thread(step))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.gather(running, return_exceptions=True)
        raise


def _changed(schema: Schema, row: Row, changes: Mapping[str, object]) -> Row:
    after: Row = {}
    for name, value in changes.items():
        if not isinstance(value, Plus):
            after[name] = encode(schema.columns[name].kind, value)
        elif row[name] is not None:
            after[name] = bounded(row[name] + value.amount)
    return after


def _refuse_taken(schema: Schema, rows: Sequence[Row], row: Row) -> None:
    """Raise Conflict if another row has a key of this one. A key with None in it is nobody's."""
    for key in (schema.key, *schema.unique):
        mine = [row[name] for name in key]
        if None not in mine and any([other[name] for name in key] == mine for other in rows):
            raise Conflict(key[-1])
