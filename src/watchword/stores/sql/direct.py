"""Single look-ups without SQLAlchemy's execution: what it compiled, on the driver itself.

A miss of the gate's cache is one `get`. With 16 at once on asyncio's own loop, on a busy machine
of two cores, it took 30 to 48 µs of CPU on SQLite and 67 to 69 on PostgreSQL, the record of
eleven fields included; through SQLAlchemy on SQLite in memory 600 and more.
The statement is compiled once a shape of conditions.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

from sqlalchemy import Dialect, Select, bindparam, select

from watchword.kernel.errors import StoreUnavailable
from watchword.storage.record import ColumnKind, Schema, schema_of
from watchword.storage.store import Comparison, Conditions
from watchword.stores.sql.adopted import Tables
from watchword.stores.sql.engine import Target, connected, pragmas, require
from watchword.stores.sql.faults import is_lost, translated
from watchword.stores.sql.forms import Form
from watchword.stores.sql.tables import Stored, absent, compared, decode, encode

R = TypeVar("R")
Shape = tuple[type, tuple[tuple[str, str], ...]]


@dataclass(frozen=True, slots=True)
class Lookup:
    """A compiled look-up: its text, what each parameter is, how a row becomes a record."""

    text: str
    parameters: tuple[tuple[str, ColumnKind, Form], ...]  # field, kind, form, in the text's order
    columns: tuple[tuple[str, Callable[[Any], Any] | None, Any], ...]  # the last: for nothing


class Reader(Protocol):
    """Runs a look-up and gives back its row."""

    def fetch(self, text: str, values: tuple[Any, ...]) -> Awaitable[Any | None]:
        """The first row."""
        ...

    async def close(self) -> None:
        """Give back what is held."""
        ...


class Lookups:
    """`get` outside a transaction, for equality and order conditions."""

    def __init__(self, dialect: Dialect, reader: Reader, tables: Tables) -> None:
        self._tables = tables
        self._dialect = dialect
        self._postgres = dialect.name == "postgresql"
        self._reader = reader
        self._known: dict[Shape, Lookup] = {}

    async def get(self, kind: type[R], conditions: Conditions) -> R | None:
        """The record that the pinned key names, if the other conditions hold too."""
        shape = (kind, tuple((n, operator_of(v)) for n, v in conditions.items()))
        lookup = self._known.get(shape)
        if lookup is None:
            lookup = self._known[shape] = self._compile(kind, shape[1])
        postgres = self._postgres
        values = tuple(
            encode(field_kind, bare(conditions[name]), postgres=postgres, form=form)
            for name, field_kind, form in lookup.parameters
        )
        try:
            row = await self._reader.fetch(lookup.text, values)
        except Exception as error:
            fault = translated(error, schema_of(kind))
            if fault is None:
                raise
        else:
            if row is None:
                return None
            return kind(
                **{
                    name: (
                        nothing if value is None else value if convert is None else convert(value)
                    )
                    for (name, convert, nothing), value in zip(lookup.columns, row, strict=True)
                }
            )
        raise fault  # outside the handler: the cause may quote values

    def _compile(self, kind: type, shape: tuple[tuple[str, str], ...]) -> Lookup:
        schema = schema_of(kind)
        table = self._tables.of(kind)
        statement: Select[Any] = select(*(table.c[name] for name in schema.columns))
        for name, operator in shape:
            column = table.c[name]
            if operator == "none":
                statement = statement.where(column.is_(None))
            else:
                bound = bindparam(name, type_=column.type)
                there = compared(column, bound)
                seen = compared(column)
                statement = statement.where(seen.op(operator, is_comparison=True)(there))
        compiled: Any = statement.compile(dialect=self._dialect)
        order = cast("list[str]", compiled.positiontup or [])
        return Lookup(
            str(compiled),
            tuple((name, schema.columns[name].kind, _form(table.c[name])) for name in order),
            tuple(
                (
                    name,
                    _converter(schema, name, postgres=self._postgres, form=_form(table.c[name])),
                    absent(schema, column),
                )
                for name, column in schema.columns.items()
            ),
        )


def suits(conditions: Conditions) -> bool:
    """Can a look-up of fixed text answer these conditions?"""
    return all(
        not isinstance(value, Comparison)
        or (value.operator not in ("in", "!=") and value.value is not None)
        for value in conditions.values()
    )


def operator_of(value: object) -> str:
    """What a condition does with its parameter."""
    if value is None:
        return "none"
    return value.operator if isinstance(value, Comparison) else "="


def bare(value: object) -> object:
    """What a condition compares with."""
    return value.value if isinstance(value, Comparison) else value


def _form(column: Any) -> Form:
    return cast("Stored", column.type).form


def _converter(
    schema: Schema, name: str, *, postgres: bool, form: Form
) -> Callable[[Any], Any] | None:
    column = schema.columns[name]
    revive, kind = column.revive, column.kind
    if form != "own":
        nothing = absent(schema, column)

        def read(value: Any) -> Any:
            found = decode(kind, value, form=form)
            return nothing if found is None else found

        return read
    if kind in ("text", "integer", "bytes") or (postgres and kind in ("instant", "boolean")):
        return revive
    if revive is None:
        return lambda value: decode(kind, value)
    return lambda value: revive(decode(kind, value))


class PostgresReader:
    """A few connections of asyncpg that only look up.

    asyncpg's own pool starts two tasks a look-up, which cost as much as the look-up. Here a
    connection that did not end its statement well is thrown away, so none needs a reset.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._asyncpg = require("asyncpg", "watchword[postgres]")
        self._idle: list[Any] = []
        self._free = asyncio.Semaphore(target.read_pool_size)

    async def fetch(self, text: str, values: tuple[Any, ...]) -> Any | None:
        """The first row; asked again on a new connection if this one was dead."""
        if self._free.locked():
            async with asyncio.timeout(self._target.pool_timeout):
                await self._free.acquire()
        else:
            await self._free.acquire()  # at once
        try:
            try:
                return await self._once(text, values)
            except Exception as error:
                if not is_lost(error):
                    raise
            await self.close()  # the others are as old
            return await self._once(text, values)
        finally:
            self._free.release()

    async def close(self) -> None:
        """Close every idle connection."""
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.terminate()

    async def _once(self, text: str, values: tuple[Any, ...]) -> Any:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                break
        else:
            connection = await connected(self._asyncpg, self._target)
        try:
            row = await connection.fetchrow(text, *values)
        except BaseException:
            connection.terminate()
            raise
        self._idle.append(connection)
        return row


Asked = tuple[str, tuple[Any, ...], "asyncio.Future[Any]"]
Answered = list[tuple["asyncio.Future[Any]", Any, BaseException | None]]


class SqliteReader:
    """One thread with a connection that only reads. WAL: it never waits for the writer.

    Look-ups that arrive while the thread is at work go to it together, so a hop between
    threads, which costs more than the look-up, is shared.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._work: queue.SimpleQueue[list[Asked] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._waiting: list[Asked] = []
        self._is_busy = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def fetch(self, text: str, values: tuple[Any, ...]) -> Awaitable[Any | None]:
        """The first row."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._start(loop)
        answer: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((text, values, answer))
        if not self._is_busy:
            self._is_busy = True
            loop.call_soon(self._send)
        return answer

    async def close(self) -> None:
        """End the thread; it closes its connection."""
        self._stop()

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._stop()
        self._loop = loop
        self._work = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=self._read, args=(self._work, loop), name="watchword-sqlite", daemon=True
        )
        self._thread.start()

    def _stop(self) -> None:
        if self._thread is not None:
            self._work.put(None)
            self._thread = self._loop = None
            for _, _, answer in self._waiting:
                if not answer.done():
                    answer.set_exception(StoreUnavailable("closed"))
            self._waiting = []
            self._is_busy = False

    def _send(self) -> None:
        batch, self._waiting = self._waiting, []
        self._work.put(batch)

    def _answer(self, answered: Answered) -> None:
        for future, row, error in answered:
            if future.done():
                continue  # its task was cancelled
            if error is None:
                future.set_result(row)
            else:
                future.set_exception(error)
        if self._waiting:
            self._send()
        else:
            self._is_busy = False

    def _read(
        self, work: "queue.SimpleQueue[list[Asked] | None]", loop: asyncio.AbstractEventLoop
    ) -> None:
        connection: sqlite3.Connection | None = None
        while (batch := work.get()) is not None:
            answered: Answered = []
            for text, values, future in batch:
                try:
                    if connection is None:
                        connection = self._connect()
                    # All rows: a cursor left half read would hold its snapshot.
                    rows = connection.execute(text, values).fetchall()
                    answered.append((future, rows[0] if rows else None, None))
                except Exception as error:  # noqa: BLE001 its asker gets it
                    answered.append((future, None, error))
            try:
                loop.call_soon_threadsafe(self._answer, answered)
            except RuntimeError:
                break  # the loop is gone, and with it everyone who waited
        if connection is not None:
            connection.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._target.dsn, isolation_level=None)
        for pragma in (*pragmas(self._target), "PRAGMA query_only = ON"):
            connection.execute(pragma)
        return connection
