"""Connections: how a URL becomes an engine, and how a connection is given out and taken back."""

import asyncio
import importlib
import os
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from sqlalchemy import URL, event, exc
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.util import await_only

from watchword.kernel.errors import ConfigurationError, StoreUnavailable

T = TypeVar("T")

CONNECT_TIMEOUT: Final = 5.0  # seconds
_SQLITE_CONNECTIONS: Final = 4
# Turning to WAL is refused at once, whatever the busy timeout, while another process does it.
_WAL_WAITS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the database is and how much of it we take."""

    backend: Literal["sqlite", "postgresql"]
    dsn: str  # PostgreSQL: the URL without our options · SQLite: a path; empty means in memory
    pool_size: int = 5  # connections for all but single look-ups
    read_pool_size: int = 5  # connections for single look-ups
    pool_timeout: float = 5.0  # seconds to wait for a free one
    command_timeout: float | None = 10.0  # seconds a statement may take (PostgreSQL)
    busy_timeout: float = 30.0  # seconds to wait for another process's write (SQLite)

    @property
    def in_memory(self) -> bool:
        """Is it a SQLite database without a file?"""
        return self.backend == "sqlite" and not self.dsn


def parse(url: str, options: Mapping[str, object]) -> Target:
    """Read a URL and its options, of which the keyword arguments win.

    Raises:
        ConfigurationError: names what is wrong, never the URL, which may hold a password.
    """
    parts = urlsplit(url)
    kinds: dict[str, Any] = {
        "pool_size": int,
        "read_pool_size": int,
        "pool_timeout": float,
        "command_timeout": float,
        "busy_timeout": float,
    }
    query = parse_qsl(parts.query, keep_blank_values=True)
    given: dict[str, object] = {name: value for name, value in query if name in kinds}
    given |= options
    chosen: dict[str, Any] = {}
    for name, value in given.items():
        if name not in kinds:
            raise ConfigurationError([f"database: there is no option {name}"])
        try:
            chosen[name] = kinds[name](value)
        except (TypeError, ValueError):
            chosen[name] = 0
        if chosen[name] <= 0:
            raise ConfigurationError([f"database: {name} must be a number above 0"])
    rest = [(name, value) for name, value in query if name not in kinds]
    if parts.scheme == "sqlite":
        path = unquote(parts.path.removeprefix("/"))
        if rest or parts.netloc:
            raise ConfigurationError(
                ["database: sqlite:///relative/path, sqlite:////absolute/path or sqlite://"]
            )
        return Target(backend="sqlite", dsn="" if path == ":memory:" else path, **chosen)
    if parts.scheme not in ("postgresql", "postgres"):
        raise ConfigurationError(["database: the scheme must be sqlite or postgresql"])
    dsn = urlunsplit(parts._replace(scheme="postgresql", query=urlencode(rest)))
    return Target(backend="postgresql", dsn=dsn, **chosen)


def require(module: str, extra: str) -> Any:
    """Import a database driver when it is needed.

    Raises:
        ConfigurationError: it is not installed; says how to.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            [f"{module} is missing: pip install {extra}"],
        ) from error


async def connected(asyncpg: Any, target: Target, **options: Any) -> Any:
    """Connect to PostgreSQL, and only to a primary: it decides (I-19)."""
    connection = await asyncpg.connect(
        dsn=target.dsn,
        timeout=CONNECT_TIMEOUT,
        command_timeout=target.command_timeout,
        server_settings={"application_name": "watchword"},
        **options,
    )
    try:
        if await connection.fetchval("SELECT pg_is_in_recovery()"):
            raise StoreUnavailable("the server is a replica (pg_is_in_recovery): use the primary")
    except BaseException:
        connection.terminate()
        raise
    return connection


def make_engine(target: Target) -> AsyncEngine:
    """An engine whose connections commit each statement unless a transaction is begun."""
    return _sqlite_engine(target) if target.backend == "sqlite" else _postgres_engine(target)


def _postgres_engine(target: Target) -> AsyncEngine:
    asyncpg = require("asyncpg", "watchword[postgres]")

    async def connect() -> Any:
        return await connected(asyncpg, target)

    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,
        pool_size=target.pool_size,
        max_overflow=0,
        pool_timeout=target.pool_timeout,
    )

    def renew(raw: Any, *_: object) -> None:
        # asyncpg has heard it if the server went away: a test that costs no round trip.
        if raw.driver_connection.is_closed():
            raise exc.DisconnectionError("closed by the server")

    event.listen(engine.sync_engine, "checkout", renew)
    return engine


def _sqlite_engine(target: Target) -> AsyncEngine:
    require("aiosqlite", "watchword")
    pool: dict[str, Any] = (
        {}
        if target.in_memory
        else {
            "pool_size": _SQLITE_CONNECTIONS,
            "max_overflow": 0,
            "pool_timeout": target.busy_timeout,
        }
    )
    engine = create_async_engine(
        URL.create("sqlite+aiosqlite", database=target.dsn or None),  # a path, nothing quoted
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,
        connect_args={"timeout": target.busy_timeout, "async_creator_fn": _sqlite_connection},
        **pool,
    )

    def prepare(raw: Any, _: object) -> None:
        cursor = raw.cursor()
        for pragma in pragmas(target):
            for wait in (*_WAL_WAITS, None):
                try:
                    cursor.execute(pragma)
                    break
                except sqlite3.OperationalError:
                    if wait is None:
                        raise
                    await_only(asyncio.sleep(wait))
        cursor.close()

    event.listen(engine.sync_engine, "connect", prepare)
    return engine


async def _sqlite_connection(*arguments: Any, **options: Any) -> Any:
    """Connect; where that fails or is cancelled, wait until its thread is through.

    The thread answers to this event loop. If the loop closed first, its last word would be an
    error that nobody can catch.
    """
    import aiosqlite  # noqa: PLC0415  a driver, loaded when it is asked for

    connection = aiosqlite.connect(*arguments, **options)
    thread: Any = getattr(connection, "_thread", None)
    if thread is not None:
        thread.daemon = True  # as SQLAlchemy has it
    try:
        return await connection
    except BaseException:
        if thread is not None:
            await asyncio.shield(asyncio.to_thread(thread.join, 5))
        raise


def pragmas(target: Target) -> tuple[str, ...]:
    """How every connection to SQLite starts.

    FULL, not NORMAL: in WAL mode NORMAL may lose the last commits when the power fails, and
    with them a session that was ended or a code that was spent.
    """
    busy = f"PRAGMA busy_timeout = {int(target.busy_timeout * 1000)}"
    # An adopted table may be pointed at by its owner's others; ours point at nothing.
    keys = "PRAGMA foreign_keys = ON"
    return (busy, "PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", keys)


class Queue:
    """One writer at a time in this process, in order of arrival.

    SQLite has one writer anyway. Waiting here is fair and wakes at once; waiting in its busy
    handler is neither, and holds a thread.
    """

    def __init__(self, *, timeout: float) -> None:
        self._lock = asyncio.Lock()
        self._timeout = timeout
        self._holder: asyncio.Task[Any] | None = None

    def is_held_here(self) -> bool:
        """Does this very task hold it?"""
        return self._holder is not None and self._holder is asyncio.current_task()

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None]:
        """Wait for a turn and hold it."""
        if self.is_held_here():
            raise RuntimeError("inside a transaction, use the store that it gave you")
        try:
            async with asyncio.timeout(self._timeout):
                await self._lock.acquire()
        except TimeoutError:
            raise StoreUnavailable("writers are queueing for too long") from None
        self._holder = asyncio.current_task()
        try:
            yield
        finally:
            self._holder = None
            self._lock.release()


class Pool:
    """An engine's connections, given out so that a cancelled task leaves nothing behind."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._inherited: list[AsyncEngine] = []  # by a fork: not even closed, they are the parent's
        self._make()

    def _make(self) -> None:
        self._process = os.getpid()
        self._engine = make_engine(self.target)
        is_sqlite = self.target.backend == "sqlite"
        self._own_queue = Queue(timeout=self.target.busy_timeout) if is_sqlite else None

    def _leave_the_parents(self) -> None:
        if self._process != os.getpid():
            self._inherited.append(self._engine)
            self._make()

    @property
    def engine(self) -> AsyncEngine:
        """The engine of this process; a forked child gets one of its own."""
        self._leave_the_parents()
        return self._engine

    @property
    def _queue(self) -> Queue | None:
        self._leave_the_parents()
        return self._own_queue

    @asynccontextmanager
    async def connection(self, *, writes: bool) -> AsyncGenerator[AsyncConnection]:
        """A connection for one statement that commits by itself."""
        queue = self._queue
        if queue is None or not (writes or self.target.in_memory):
            async with self.engine.connect() as connection:
                yield connection
            return
        if not writes and queue.is_held_here():  # in memory there is only that one connection
            async with self.engine.connect() as connection:
                yield connection
            return
        async with queue.turn(), self.engine.connect() as connection:
            yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[AsyncConnection]:
        """A connection whose writes commit together, or not at all if the block raises."""
        if self._queue is None:
            async with self.engine.connect() as connection:
                await connection.execution_options(isolation_level="READ COMMITTED")
                async with connection.begin():
                    yield connection
            return
        async with self._queue.turn(), self.engine.connect() as connection:
            try:
                await self.run(connection.exec_driver_sql("BEGIN IMMEDIATE"))
            except asyncio.CancelledError:  # it may have begun all the same
                await finished(_roll_back(connection))
                raise
            try:
                yield connection
            except BaseException:
                await finished(_roll_back(connection))
                raise
            try:
                await self.run(connection.exec_driver_sql("COMMIT"))
            except exc.SQLAlchemyError:
                await finished(_roll_back(connection))
                raise

    async def run(self, step: Awaitable[T]) -> T:
        """Run one statement.

        SQLAlchemy throws away the connection of a cancelled statement. In memory that would be
        the database. In a file the statement goes on in its thread, and the connection that is
        closed under it keeps the write lock until its cursor is collected: so with SQLite the
        statement ends first.
        """
        return await finished(step) if self._queue is not None else await step

    async def close(self) -> None:
        """Close every connection."""
        await self.engine.dispose()


async def finished(step: Awaitable[T]) -> T:
    """Run a step to its end, and only then let a cancellation through."""
    task = asyncio.ensure_future(step)
    interrupted: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            interrupted = error
    if interrupted is not None:
        task.exception()  # seen, so that nobody warns of it
        raise interrupted
    return task.result()


async def _roll_back(connection: AsyncConnection) -> None:
    try:
        if not connection.invalidated:
            await connection.exec_driver_sql("ROLLBACK")
    except exc.SQLAlchemyError:
        await connection.invalidate()
