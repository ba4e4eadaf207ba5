"""What went wrong, in our words: taken, impossible, or away. Never SQL text, never values."""

import sqlite3
from typing import Any, Final

from sqlalchemy import Table, exc

from watchword.kernel.errors import StoreUnavailable
from watchword.storage.errors import Conflict, Referenced
from watchword.storage.record import Schema
from watchword.stores.sql.tables import conflicts

# SQLSTATE classes that say "not now": connection, rollback (deadlock, serialization), resources,
# operator, system, internal, authorization, catalog, object in use, read-only transaction.
_AWAY: Final = ("08", "40", "53", "55", "57", "58", "XX", "28", "3D", "25006")
_BUSY: Final = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_INTERRUPT,
)


def translated(
    error: BaseException, schema: Schema | None = None, table: Table | None = None
) -> Exception | None:
    """What to raise instead of a driver's error; None if it is a mistake of ours."""
    cause = _cause(error)
    if isinstance(cause, exc.TimeoutError):
        return StoreUnavailable("PoolTimeout")
    if isinstance(cause, OSError | EOFError | TimeoutError):
        return StoreUnavailable(type(cause).__name__)
    if isinstance(cause, ValueError | OverflowError) and not _is_closed(cause):
        return ValueError("a value that the database cannot hold")
    if isinstance(cause, sqlite3.Error):
        return _sqlite(cause, schema, table)
    state: Any = getattr(cause, "sqlstate", None)
    if isinstance(state, str):
        return _postgres(cause, state, schema, table)
    if type(cause).__module__.startswith("asyncpg") or _is_closed(cause):
        return StoreUnavailable(type(cause).__name__)  # the client noticed a lost connection
    if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
        return StoreUnavailable(type(cause).__name__)
    return None


def is_lost(error: BaseException) -> bool:
    """Did the connection die under a statement, so that another one may answer?"""
    cause = _cause(error)
    if isinstance(cause, ConnectionError):
        return True
    state: Any = getattr(cause, "sqlstate", None)
    if isinstance(state, str):
        return state.startswith("08") or state in ("57P01", "57P02")  # shut down, crashed
    # What asyncpg says without the server: a value that it refuses, or a dead connection.
    return type(cause).__module__.startswith("asyncpg") and not isinstance(cause, ValueError)


def _is_closed(cause: BaseException) -> bool:
    text = str(cause).lower()
    return isinstance(cause, ValueError) and text in ("no active connection", "connection closed")


def _cause(error: BaseException) -> BaseException:
    """The driver's own error: SQLAlchemy wraps it, its asyncpg adapter once more."""
    if isinstance(error, exc.StatementError) and error.orig is not None:
        error = error.orig
    below = error.__cause__
    if below is not None and type(below).__module__.startswith("asyncpg"):
        return below
    if isinstance(below, OSError | TimeoutError):
        return below
    return error


def _postgres(
    cause: BaseException, state: str, schema: Schema | None, table: Table | None
) -> Exception | None:
    if state == "23505" and schema is not None:
        key: Any = getattr(cause, "constraint_name", None)
        return Conflict(conflicts(schema, table).get(key, schema.key[-1]))
    if state == "23503":
        return Referenced()
    if state.startswith(_AWAY):
        return StoreUnavailable(type(cause).__name__)
    if state.startswith(("22", "23")):
        return ValueError("a value that the database cannot hold")
    return None


def _sqlite(cause: sqlite3.Error, schema: Schema | None, table: Table | None) -> Exception | None:
    code = getattr(cause, "sqlite_errorcode", None)
    if code is None:
        return StoreUnavailable(type(cause).__name__) if "closed" in str(cause) else None
    if code in (sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY):
        # The text ends with the key: "… failed: watchword_user.realm, watchword_user.email".
        text = str(cause)
        if schema is None or schema.adoption is None:
            return Conflict(text.rpartition(".")[2])
        named = conflicts(schema, table)
        return Conflict(
            next((named[key] for key in named if text.endswith((f".{key}", f"'{key}'"))), "id")
        )
    if "FOREIGN KEY" in str(cause):
        return Referenced()
    if code & 0xFF in _BUSY:
        return StoreUnavailable(getattr(cause, "sqlite_errorname", type(cause).__name__))
    if code & 0xFF in (sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG):
        return ValueError("a value that the database cannot hold")
    return None
