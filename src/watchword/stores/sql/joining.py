"""A caller's own connection or session: we write through it, its owner commits."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, event, exc
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.util import await_only

from watchword.stores.sql.verbs import Fixed, SqlVerbs

J = TypeVar("J", Connection, Session)
Then = Callable[[], Coroutine[Any, Any, None]]

_ALIVE: Final = "SELECT 1"


def joined(connection: Any) -> SqlVerbs:
    """Verbs over a caller's connection."""
    if isinstance(connection, AsyncSession):
        session = connection

        async def of_session() -> AsyncConnection:
            return await session.connection()

        return SqlVerbs(Fixed(of_session, _plainly))
    if isinstance(connection, AsyncConnection):
        own = connection

        async def itself() -> AsyncConnection:
            return own

        return SqlVerbs(Fixed(itself, _plainly))
    raise TypeError("join an AsyncConnection or an AsyncSession of SQLAlchemy")


@asynccontextmanager
async def savepoint(connection: Any) -> AsyncGenerator[None, None]:
    """Undo what the block wrote through the caller's connection if it raises."""
    own: AsyncConnection = (
        await connection.connection() if isinstance(connection, AsyncSession) else connection
    )
    if own.dialect.name == "sqlite":
        await own.run_sync(_begin_really)
    async with own.begin_nested():
        yield


def _begin_really(connection: Connection) -> None:
    # Python's driver begins at the first write only: a savepoint before that would be the
    # transaction itself, and its release a commit.
    raw: Any = connection.connection.driver_connection
    if not raw.in_transaction:
        connection.exec_driver_sql("BEGIN")


class Commits:
    """Whom to tell of the commits of callers' connections and sessions.

    One set of listeners a connection, for as long as it lives: SQLAlchemy does not let a
    listener go while it is calling it.
    """

    def __init__(self) -> None:
        self._waiting: WeakKeyDictionary[Connection | Session, list[Then]] = WeakKeyDictionary()

    def tell(self, connection: Any, then: Then) -> None:
        """Run `then` once, after the commit and before the caller hears of it."""
        if isinstance(connection, AsyncSession):
            self._of(connection.sync_session, self._hear_session).append(then)
        elif isinstance(connection, AsyncConnection) and connection.sync_connection is not None:
            self._of(connection.sync_connection, self._hear_connection).append(then)
        else:
            raise TypeError("join a started AsyncConnection or an AsyncSession of SQLAlchemy")

    def _of(self, own: J, hear: Callable[[J], None]) -> list[Then]:
        if own not in self._waiting:
            self._waiting[own] = []
            hear(own)
        return self._waiting[own]

    def _hear_connection(self, connection: Connection) -> None:
        # SQLAlchemy tells of a commit before it happens and of its end not at all, so the
        # commit is made here; the one that follows finds nothing to do.
        def committing(own: Connection) -> None:
            if (waiting := self._taken(own)) and _is_sound(own):
                own.dialect.do_commit(own.connection)
                _run(waiting)

        event.listen(connection, "commit", committing)
        event.listen(connection, "rollback", self._taken)

    def _hear_session(self, session: Session) -> None:
        def committing(own: Session) -> None:
            if own.in_nested_transaction() or not self._waiting[own]:
                return
            if not _is_sound(own.connection()):
                self._taken(own)

        def committed(own: Session) -> None:
            if not own.in_nested_transaction():  # the release of a savepoint is no commit
                _run(self._taken(own))

        event.listen(session, "before_commit", committing)
        event.listen(session, "after_commit", committed)
        event.listen(session, "after_rollback", self._taken)

    def _taken(self, own: Connection | Session) -> list[Then]:
        waiting, self._waiting[own] = self._waiting[own], []
        return waiting


def _run(waiting: list[Then]) -> None:
    for then in waiting:
        await_only(then())


async def _plainly(step: Awaitable[Any]) -> Any:
    return await step


def _is_sound(connection: Connection) -> bool:
    """Will COMMIT commit? PostgreSQL answers it with a silent rollback after a failed statement."""
    try:
        connection.exec_driver_sql(_ALIVE)
    except exc.DBAPIError:
        return False
    return True
