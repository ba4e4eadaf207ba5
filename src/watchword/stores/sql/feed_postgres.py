"""The change feed on PostgreSQL: rows by the snapshots that show them, wake-ups by NOTIFY.

Transactions commit in another order than they begin, so "newer than the newest I saw" would lose
what an older one commits later. A follower keeps the snapshot of its last read instead: all at or
above its xmin is looked at again, and what that snapshot showed already is skipped (I-07).
"""

import asyncio
import contextlib
import os
import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from watchword.kernel.errors import StoreUnavailable
from watchword.storage.feed import Change
from watchword.stores.sql.changes import FIELDS, PATIENCE, TABLE, away, change_of
from watchword.stores.sql.engine import Target, connected, require
from watchword.stores.sql.tables import POSITION

CHANNEL: Final = "watchword_change"

_QUIET: Final = 30.0  # seconds without a hint until the line is proven once more
_ANSWER: Final = 5.0  # seconds that this may take

# Another server may answer behind a pooler; its transactions have other numbers.
_HERE: Final = """
SELECT pg_is_in_recovery() AS replica, pg_postmaster_start_time()::text AS server,
    pg_current_snapshot()::text AS snapshot
"""

# One statement, so that the snapshot is the one that shows these rows.
_READ: Final = f"""
SELECT here.replica, here.server, here.snapshot, {FIELDS}
FROM ({_HERE}) AS here
LEFT JOIN {TABLE} AS c
    ON c.realm = $1
    AND c.{POSITION} >= pg_snapshot_xmin($2::text::pg_snapshot)::text::bigint
    AND NOT pg_visible_in_snapshot(c.{POSITION}::text::xid8, $2::text::pg_snapshot)
    AND pg_visible_in_snapshot(c.{POSITION}::text::xid8, here.snapshot::pg_snapshot)
ORDER BY c.{POSITION}
"""  # noqa: S608  names of ours


class Line:
    """A connection outside the pools. One that failed is not used again."""

    def __init__(self, target: Target) -> None:
        patience = min(target.command_timeout or PATIENCE, PATIENCE)
        self._target = replace(target, command_timeout=patience)
        self._asyncpg = require("asyncpg", "watchword[postgres]")
        self._connection: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = os.getpid()
        self._inherited: list[object] = []  # by a fork: collected, it would be ended for the parent

    @property
    def connection(self) -> Any:
        """What is connected here, by this process.

        Raises:
            StoreUnavailable
        """
        if self._connection is None or not self.is_mine or self._connection.is_closed():
            raise StoreUnavailable("not connected")
        return self._connection

    @property
    def is_mine(self) -> bool:
        """Was it opened by what runs now? A forked child has a loop of its own."""
        try:
            return self._loop is asyncio.get_running_loop()
        except RuntimeError:
            return False

    async def connect(self) -> Any:
        """Connect, anew if need be, to the primary (I-19)."""
        await self.close()
        # Behind a pooler a statement that was prepared may be another server's.
        connection = await connected(self._asyncpg, self._target, statement_cache_size=0)
        self._connection, self._process = connection, os.getpid()
        self._loop = asyncio.get_running_loop()
        return connection

    def drop(self) -> None:
        """Let go of a connection that failed."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._process != os.getpid():
            self._inherited.append(connection)
        elif self.is_mine:
            connection.terminate()

    async def close(self) -> None:
        """Give the connection back."""
        if self._connection is not None and self.is_mine:
            with contextlib.suppress(Exception):
                await self._connection.close(timeout=PATIENCE)
        self.drop()


class PostgresFollower:
    """A place in the feed of one realm: the snapshot that its last read saw."""

    def __init__(self, target: Target, realm: str) -> None:
        self._line = Line(target)
        self._realm = realm
        self._server = ""
        self._snapshot = ""

    async def begin(self) -> None:
        """Connect and start at "now"."""
        try:
            connection = await self._line.connect()
            here = await connection.fetchrow(_HERE)
        except Exception as error:  # noqa: BLE001  it is raised below
            fault = away(error)
        else:
            self._server, self._snapshot = here["server"], here["snapshot"]
            return
        self._line.drop()
        raise fault  # outside the handler: the cause may quote values

    async def read(self) -> Sequence[Change]:
        """What was committed since."""
        connection = self._line.connection
        try:
            rows = await connection.fetch(_READ, self._realm, self._snapshot)
            replica, server, snapshot = tuple(rows[0])[:3]
            if replica or server != self._server:
                raise StoreUnavailable("another server answers")
        except Exception as error:  # noqa: BLE001  it is raised below
            fault = away(error)
        except BaseException:  # cancelled: its answer may still be under way
            self._line.drop()
            raise
        else:
            self._snapshot = snapshot
            return [change_of(tuple(row)[3:]) for row in rows if row["id"] is not None]
        self._line.drop()
        raise fault

    async def close(self) -> None:
        """Give the connection back."""
        await self._line.close()


class NotifyWaker:
    """LISTEN on one connection, which also sends: it is idle but for that.

    NOTIFY is never sent inside the transaction of a state: it would make commits take turns.
    """

    name = "notify"

    def __init__(self, target: Target) -> None:
        self._target = target
        self._line = Line(target)
        self._heard = asyncio.Event()
        self._heard_at = 0.0
        self._proof: tuple[str, asyncio.Event] | None = None
        self._owes = False
        self._sending: asyncio.Task[None] | None = None

    async def open(self) -> bool:
        """Connect, and prove that what another connection sends is heard.

        Through a pooler that shares connections LISTEN works and hears nothing.
        """
        await self.close()
        self._heard = asyncio.Event()
        try:
            connection = await self._line.connect()
            connection.add_termination_listener(self._end)
            await connection.add_listener(CHANNEL, self._hear)
            hears = await self._prove()
        except Exception as error:  # noqa: BLE001  it is raised below
            fault = away(error)
        except BaseException:
            self._line.drop()
            raise
        else:
            if not hears:
                await self._line.close()
            self._heard_at = asyncio.get_running_loop().time()
            return hears  # what was sent before may have been missed: the first wait returns
        self._line.drop()
        raise fault

    def hint(self) -> None:
        """Send one NOTIFY soon; hints that come while one is being sent cause one more."""
        self._owes = True
        if not self._line.is_mine or (self._sending is not None and not self._sending.done()):
            return
        with contextlib.suppress(StoreUnavailable):
            self._sending = asyncio.create_task(self._send(self._line.connection))

    async def wait(self) -> None:
        """Return when somebody sent something since the last time."""
        _ = self._line.connection
        if not self._heard.is_set():
            self._prove_again()
        await self._heard.wait()
        self._heard.clear()
        _ = self._line.connection

    async def close(self) -> None:
        """Give the connection back."""
        sending, self._sending = self._sending, None
        if sending is not None and self._line.is_mine:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        await self._line.close()
        self._owes = False

    async def _prove(self) -> bool:
        token = secrets.token_hex(8)
        proven = asyncio.Event()
        self._proof = (token, proven)
        other = Line(self._target)
        try:
            await (await other.connect()).execute(f"NOTIFY {CHANNEL}, '{token}'")
            async with asyncio.timeout(PATIENCE):
                await proven.wait()
        except TimeoutError:
            return False
        finally:
            self._proof = None
            await other.close()
        return True

    def _prove_again(self) -> None:
        """Send a hint when all was quiet, and give up if not even that is heard.

        One a while for all workers together: whoever sends it, everybody hears it.
        """
        quiet = asyncio.get_running_loop().time() - self._heard_at
        if quiet > _QUIET + _ANSWER:
            self._line.drop()
            raise StoreUnavailable("it was not heard what was sent")
        if quiet > _QUIET:
            self.hint()

    async def _send(self, connection: Any) -> None:
        try:
            while self._owes:
                self._owes = False
                await connection.execute(f"NOTIFY {CHANNEL}")
        except Exception:  # noqa: BLE001  best effort: rows are the truth, `wait` says that it is lost
            connection.terminate()

    def _hear(self, _: Any, __: int, ___: str, payload: str) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        self._heard.set()
        if self._proof is not None and payload == self._proof[0]:
            self._proof[1].set()

    def _end(self, connection: Any) -> None:
        with contextlib.suppress(StoreUnavailable):
            if self._line.connection is not connection:
                return  # one before this
        self._heard.set()
