"""The change feed on SQLite: it commits in order, so a number that only grows says what is new.

`data_version` moves when another connection commits. It does not for the connection's own
commits, nor inside a read transaction, so one is kept that does nothing but ask for it (I-07).
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from watchword.kernel.errors import StoreUnavailable
from watchword.storage.feed import Change
from watchword.stores.sql.changes import FIELDS, PATIENCE, TABLE, away, change_of
from watchword.stores.sql.engine import Pool
from watchword.stores.sql.tables import POSITION

T = TypeVar("T")

_POLLED: Final = 0.01  # seconds; 4 µs each
_LAST: Final = f"SELECT coalesce(max(seq), 0) AS last FROM sqlite_sequence WHERE name = '{TABLE}'"  # noqa: S608  a name of ours

# One statement, so that the last number is of the snapshot that shows these rows. The plus keeps
# SQLite from walking through all of a realm, which its statistics may suggest.
_READ: Final = f"""
SELECT here.last, {FIELDS} FROM ({_LAST}) AS here
LEFT JOIN {TABLE} AS c ON c.{POSITION} > ? AND +c.realm = ?
ORDER BY c.{POSITION}
"""  # noqa: S608  names of ours


@dataclass(slots=True)
class File:
    """A connection that only reads, and the file that it has open."""

    path: Path
    connection: sqlite3.Connection = field(init=False)
    identity: tuple[int, int] = field(init=False)
    process: int = field(init=False, default_factory=os.getpid)

    def __post_init__(self) -> None:
        """Open it. Only a database that is there: an empty one would never tell of a change."""
        self.path = self.path.absolute()
        self.identity = self._stands()
        self.connection = sqlite3.connect(
            f"{self.path.as_uri()}?mode=rw",
            uri=True,
            timeout=PATIENCE,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            self.connection.execute("PRAGMA query_only = ON")
            self.check()
        except BaseException:
            self.connection.close()
            raise

    def check(self) -> None:
        """Is it still the file of that name? One that was replaced is written by nobody."""
        if self._stands() != self.identity:
            raise StoreUnavailable("the database file was replaced")

    def rows(self, text: str, values: tuple[Any, ...] = ()) -> list[Any]:
        """All rows: a cursor left half read would hold its snapshot."""
        return self.connection.execute(text, values).fetchall()

    def _stands(self) -> tuple[int, int]:
        found = self.path.stat()
        return found.st_dev, found.st_ino


class SqliteFollower:
    """A place in the feed of one realm: the last number given when it read. On its own thread."""

    def __init__(self, path: str, realm: str) -> None:
        self._path = path
        self._realm = realm
        self._last = 0
        self._file: File | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._inherited: list[object] = []  # by a fork: SQLite allows not even to close it

    async def begin(self) -> None:
        """Connect and start at "now"."""
        await self.close()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="watchword-feed")

        def start() -> tuple[File, int]:
            file = File(Path(self._path))
            return file, file.rows(_LAST)[0][0]

        # A start is not asked for every quarter of a bound: a busy machine may take its time.
        self._file, self._last = await self._run(start, patience=5 * PATIENCE)

    async def read(self) -> Sequence[Change]:
        """What was committed since."""
        file = self._file
        if file is None or file.process != os.getpid():
            raise StoreUnavailable("not connected")
        since = (self._last, self._realm)

        def look() -> list[Any]:
            file.check()
            return file.rows(_READ, since)

        rows = await self._run(look)
        self._last, changes = _parsed(rows, self._last)
        return changes

    async def close(self) -> None:
        """Give the connection back."""
        file, thread = self._file, self._thread
        self._file = self._thread = None
        if file is not None and file.process != os.getpid():
            self._inherited += [file, thread]
        elif thread is not None:
            if file is not None:
                thread.submit(file.connection.close)
            thread.shutdown(wait=False)

    async def _run(self, step: Callable[[], T], *, patience: float = PATIENCE) -> T:
        try:
            async with asyncio.timeout(patience):
                return await asyncio.get_running_loop().run_in_executor(self._thread, step)
        except Exception as error:  # noqa: BLE001  it is raised below
            fault = away(error)
        raise fault  # outside the handler: the cause may quote values


class MemoryFollower:
    """The same in memory, where one connection serves everybody."""

    def __init__(self, pool: Pool, realm: str) -> None:
        self._pool = pool
        self._realm = realm
        self._last: int | None = None

    async def begin(self) -> None:
        """Start at "now"."""
        self._last = (await self._rows(_LAST, ()))[0][0]

    async def read(self) -> Sequence[Change]:
        """What was committed since."""
        if self._last is None:
            raise StoreUnavailable("not connected")
        rows = await self._rows(_READ, (self._last, self._realm))
        self._last, changes = _parsed(rows, self._last)
        return changes

    async def close(self) -> None:
        """Nothing is held."""
        self._last = None

    async def _rows(self, statement: str, values: tuple[Any, ...]) -> Sequence[Any]:
        try:
            async with self._pool.connection(writes=False) as connection:
                found = await self._pool.run(connection.exec_driver_sql(statement, values))
                return found.all()
        except Exception as error:  # noqa: BLE001  it is raised below
            fault = away(error)
        raise fault


class DataVersionWaker:
    """Asks for `data_version` while somebody waits, on the event loop: that never waits there.

    In WAL mode it looks at shared memory and takes no lock that anybody holds for long; should
    one be held all the same, it is asked again.
    """

    name = "data_version"

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: File | None = None
        self._version = 0
        self._inherited: list[object] = []  # by a fork: SQLite allows not even to close it

    async def open(self) -> bool:
        """Connect. What other connections commit shows here by how SQLite is made."""
        await self.close()
        fault: Exception | None = None
        try:
            file = await asyncio.to_thread(File, Path(self._path))
            file.rows("PRAGMA busy_timeout = 0")
            version = _version(file)
        except Exception as error:  # noqa: BLE001  it is raised below
            fault = away(error)
        else:
            self._file, self._version = file, 0 if version is None else version
            return True
        raise fault

    def hint(self) -> None:
        """The commit was the hint."""

    async def wait(self) -> None:
        """Return when another connection has committed since the last time."""
        fault: Exception | None = None
        while fault is None:
            await asyncio.sleep(_POLLED)
            file = self._file
            if file is None or file.process != os.getpid():
                raise StoreUnavailable("not connected")
            try:
                version = _version(file)
            except Exception as error:  # noqa: BLE001  it is raised below
                fault = away(error)
            else:
                if version is not None and version != self._version:
                    self._version = version
                    return
        raise fault

    async def close(self) -> None:
        """Give the connection back."""
        file, self._file = self._file, None
        if file is None:
            return
        if file.process != os.getpid():
            self._inherited.append(file)
        else:
            await asyncio.to_thread(file.connection.close)


def _parsed(rows: Sequence[Any], last: int) -> tuple[int, list[Change]]:
    """The last number, and the changes; the row is all but empty if there are none."""
    now: int = rows[0][0]
    if now < last:
        raise StoreUnavailable("the database is an older copy")
    return now, [change_of(row[1:]) for row in rows if row[1] is not None]


def _version(file: File) -> int | None:
    file.check()
    try:
        return file.rows("PRAGMA data_version")[0][0]
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return None
        raise
