"""A caller's own connection or session: we write through it, its owner commits."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, event, exc
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.util import await_only

from watchword.stores.sql.adopted import Tables
from watchword.stores.sql.verbs import Fixed, SqlVerbs

_ALIVE: Final = "SELECT 1"


def joined(connection: Any, tables: Tables) -> SqlVerbs:
    """Verbs over a caller's connection."""
    if not isinstance(connection, AsyncSession) and (
        not isinstance(connection, AsyncConnection) or connection.sync_connection is None
    ):
        raise TypeError("join a started AsyncConnection or an AsyncSession of SQLAlchemy")

    async def present() -> AsyncConnection:
        return await _present(connection)

    return SqlVerbs(Fixed(present, _plainly), tables)


@asynccontextmanager
async def savepoint(connection: Any) -> AsyncGenerator[None, None]:
    """Undo what the block wrote through the caller's connection if it raises."""
    own = await _present(connection)
    if own.dialect.name == "sqlite":
        await own.run_sync(_begin_really)
    async with own.begin_nested():
        yield


async def _present(connection: AsyncConnection | AsyncSession) -> AsyncConnection:
    """The connection itself; a session has another one in each transaction."""
    return await connection.connection() if isinstance(connection, AsyncSession) else connection


def _begin_really(connection: Connection) -> None:
    # Python's driver begins at the first write only: a savepoint before that would be the
    # transaction itself, and its release a commit.
    raw: Any = connection.connection.driver_connection
    if not raw.in_transaction:
        connection.exec_driver_sql("BEGIN")


class _Waiting(NamedTuple):
    tried: Callable[[], None]
    then: Callable[[], Coroutine[Any, Any, None]]


class _Heard(NamedTuple):
    """What the next commit sets off, and how much of it each open savepoint leaves if undone."""

    waiting: list[_Waiting]
    before: list[int]


class Commits:
    """Whom to tell of the commits of callers' connections and sessions.

    A session is heard on its connection, where a commit is a commit and no savepoint's release.
    One set of listeners a connection, for as long as it lives: SQLAlchemy does not let a
    listener go while it is calling it.
    """

    def __init__(self) -> None:
        self._heard: WeakKeyDictionary[Connection, _Heard] = WeakKeyDictionary()

    async def tell(
        self,
        connection: AsyncConnection | AsyncSession,
        tried: Callable[[], None],
        then: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        """When the caller commits: `tried`, whether it worked or not; `then`, if it did."""
        present = await _present(connection)
        if not present.in_transaction():
            await present.begin()  # as the first statement would have
        own: Any = present.sync_connection
        if own not in self._heard:
            self._heard[own] = _Heard([], [])
            event.listen(own, "commit", self._committing)
            event.listen(own, "rollback", self._taken)
            event.listen(own, "savepoint", self._saving)
            event.listen(own, "release_savepoint", self._releasing)
            event.listen(own, "rollback_savepoint", self._undoing)
        self._heard[own].waiting.append(_Waiting(tried, then))

    def _committing(self, own: Connection) -> None:
        # SQLAlchemy tells of a commit before it happens and of its end not at all, so the
        # commit is made here; the one that follows finds nothing to do.
        waiting = self._taken(own)
        if not waiting or not _is_sound(own):
            return
        try:
            _commit(own)
        finally:
            for one in waiting:
                one.tried()
        for one in waiting:
            await_only(one.then())

    def _saving(self, own: Connection, _: object) -> None:
        waiting, before = self._heard[own]
        before.append(len(waiting))

    def _releasing(self, own: Connection, *_: object) -> int:
        # One that we did not see begin was there before anything was waiting.
        before = self._heard[own].before
        return before.pop() if before else 0

    def _undoing(self, own: Connection, *_: object) -> None:
        kept = self._releasing(own)
        del self._heard[own].waiting[kept:]

    def _taken(self, own: Connection) -> list[_Waiting]:
        heard, self._heard[own] = self._heard[own], _Heard([], [])
        return heard.waiting


def _commit(connection: Connection) -> None:
    dialect = connection.dialect
    try:
        dialect.do_commit(connection.connection)
    except dialect.loaded_dbapi.Error as error:  # as the caller knows it from SQLAlchemy
        base = dialect.loaded_dbapi.Error
        raise exc.DBAPIError.instance(None, None, error, base, dialect=dialect) from error


async def _plainly(step: Awaitable[Any]) -> Any:
    return await step


def _is_sound(connection: Connection) -> bool:
    """Will COMMIT commit? PostgreSQL answers it with a silent rollback after a failed statement."""
    try:
        connection.exec_driver_sql(_ALIVE)
    except exc.DBAPIError:
        return False
    return True
