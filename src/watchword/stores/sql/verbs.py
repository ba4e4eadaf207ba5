"""The nine verbs over one SQLAlchemy connection, each a single statement."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any, Protocol, TypeVar, cast

from sqlalchemy import CursorResult, Table
from sqlalchemy.ext.asyncio import AsyncConnection

from watchword.storage.record import Schema, schema_of
from watchword.storage.store import Conditions
from watchword.stores.sql import statements
from watchword.stores.sql.adopted import Tables
from watchword.stores.sql.faults import is_lost, translated
from watchword.stores.sql.tables import absent

R = TypeVar("R")


class Source(Protocol):
    """Where a statement finds its connection."""

    def connection(self, *, writes: bool) -> AbstractAsyncContextManager[AsyncConnection]:
        """Give out a connection for one statement."""
        ...

    async def run(self, step: Awaitable[Any]) -> Any:
        """Run one statement on it."""
        ...


class Fixed:
    """Always the same connection, inside somebody's transaction.

    PostgreSQL gives up the whole transaction after a failed statement; a savepoint around
    those that a unique key may refuse keeps it usable. SQLite undoes the statement alone.
    """

    def __init__(
        self,
        connection: Callable[[], Awaitable[AsyncConnection]],
        run: Callable[[Awaitable[Any]], Awaitable[Any]],
    ) -> None:
        self._connection = connection
        self._run = run

    @asynccontextmanager
    async def connection(self, *, writes: bool) -> AsyncGenerator[AsyncConnection]:
        """Give out the connection, with a savepoint where one is needed."""
        connection = await self._connection()
        if writes and connection.dialect.name == "postgresql":
            async with connection.begin_nested():
                yield connection
        else:
            yield connection

    async def run(self, step: Awaitable[Any]) -> Any:
        """Run one statement."""
        return await self._run(step)


class SqlVerbs:
    """What a SQL database can do; the connection comes from a source."""

    def __init__(self, source: Source, tables: Tables, *, reads_again: bool = False) -> None:
        self._source = source
        self._tables = tables
        self._reads_again = reads_again  # a pooled connection may have died unheard

    async def insert(self, record: object) -> object:
        """Add a record; as it stands, if the database gave it its key."""
        schema = schema_of(type(record))
        table = self._tables.of(type(record))
        statement = statements.add(table, schema, record)
        rows, _ = await self._execute(schema, statement, writes=True, table=table)
        return replace(cast("Any", record), **{schema.key[-1]: rows[0][0]}) if rows else None

    async def get(self, kind: type[R], conditions: Conditions) -> R | None:
        """The record that the pinned key names, if the other conditions hold too."""
        schema = schema_of(kind)
        statement = statements.get(self._tables.of(kind), schema, conditions)
        return _one(kind, await self._execute(schema, statement, writes=False))

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
        schema = schema_of(kind)
        statement = statements.find(
            self._tables.of(kind),
            schema,
            conditions,
            order=order,
            descending=descending,
            after=after,
            limit=limit,
        )
        rows, _ = await self._execute(schema, statement, writes=False)
        return [revived(kind, schema, row) for row in rows]

    async def count(self, kind: type, conditions: Conditions) -> int:
        """How many match."""
        statement = statements.count(self._tables.of(kind), conditions)
        rows, _ = await self._execute(schema_of(kind), statement, writes=False)
        return cast("int", rows[0][0])

    async def update(
        self, kind: type[R], conditions: Conditions, changes: Mapping[str, object]
    ) -> R | None:
        """If the pinned record matches, change it; the record after, or None."""
        if not changes:
            return await self.get(kind, conditions)
        schema = schema_of(kind)
        table = self._tables.of(kind)
        statement = statements.change(table, schema, conditions, changes)
        return _one(kind, await self._execute(schema, statement, writes=True, table=table))

    async def take(self, kind: type[R], conditions: Conditions) -> R | None:
        """If the pinned record matches, delete and return it."""
        schema = schema_of(kind)
        statement = statements.take(self._tables.of(kind), schema, conditions)
        return _one(kind, await self._execute(schema, statement, writes=True))

    async def erase(self, kind: type, conditions: Conditions) -> int:
        """Delete all that match; how many."""
        statement = statements.remove(self._tables.of(kind), conditions)
        _, many = await self._execute(schema_of(kind), statement, writes=True)
        return many

    async def increment(self, record: object, *, field: str, expires: str, now: datetime) -> int:
        """Add `record.field` to the record of that key; the value afterwards."""
        kind = type(record)
        schema = schema_of(kind)
        by_dialect = statements.increment(
            self._tables.of(kind), schema, record, field=field, expires=expires, now=now
        )
        rows, _ = await self._execute(schema, by_dialect, writes=True)
        return cast("int", rows[0][0])

    async def expire(self, kind: type, *, expires: str, now: datetime, limit: int) -> int:
        """Delete up to `limit` records of any realm whose time is past; how many."""
        schema = schema_of(kind)
        statement = statements.expire(
            self._tables.of(kind), schema, expires=expires, now=now, limit=limit
        )
        rows, _ = await self._execute(schema, statement, writes=True)
        return len(rows)

    async def _execute(
        self, schema: Schema, statement: Any, *, writes: bool, table: Table | None = None
    ) -> tuple[list[Any], int]:
        fault = None
        for again in (self._reads_again and not writes, False):
            try:
                return await self._once(statement, writes=writes)
            except Exception as error:
                fault = translated(error, schema, table)
                if fault is None:
                    raise
                if again and is_lost(error):
                    continue
            break
        assert fault is not None
        raise fault  # outside the handler: the cause may quote values

    async def _once(self, statement: Any, *, writes: bool) -> tuple[list[Any], int]:
        async with self._source.connection(writes=writes) as connection:
            if isinstance(statement, dict):
                statement = cast("dict[str, Any]", statement)[connection.dialect.name]
            result: CursorResult[Any] = await self._source.run(connection.execute(statement))
            return (list(result.all()) if result.returns_rows else []), result.rowcount


def revived(kind: type[R], schema: Schema, row: Any) -> R:
    """The record of a row, whose columns are in the schema's order."""
    values: dict[str, Any] = {}
    for column, value in zip(schema.columns.values(), row, strict=True):
        if value is None:
            values[column.name] = absent(schema, column)
        else:
            values[column.name] = value if column.revive is None else column.revive(value)
    return kind(**values)


def _one(kind: type[R], answer: tuple[list[Any], int]) -> R | None:
    rows, _ = answer
    return revived(kind, schema_of(kind), rows[0]) if rows else None
