"""The driver: one SQLite or PostgreSQL database."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, MetaData, text

from watchword.storage.errors import Conflict, FaultyRows
from watchword.storage.feed import Feed
from watchword.storage.store import Conditions, Verbs
from watchword.stores.sql import joining, migrate
from watchword.stores.sql.adopted import Survey, Tables, look, survey
from watchword.stores.sql.direct import Lookups, PostgresReader, SqliteReader, suits
from watchword.stores.sql.engine import Pool, Target, parse
from watchword.stores.sql.faults import translated
from watchword.stores.sql.feed import SqlFeed
from watchword.stores.sql.migrate import Difference
from watchword.stores.sql.tables import tables_into
from watchword.stores.sql.verbs import Fixed, SqlVerbs

R = TypeVar("R")
T = TypeVar("T")

_TRIES: Final = 5  # of a batch of adopted rows


def driver(url: str, **options: object) -> "SqlDriver":
    """Make a driver for `sqlite:///path`, `sqlite://` (in memory) or `postgresql://…`.

    Options, as arguments or in the URL's query: `pool_size` and `read_pool_size`
    (connections), `pool_timeout`, `command_timeout` and `busy_timeout` (seconds).

    Raises:
        ConfigurationError: the URL cannot be used, or a package is missing.
    """
    return SqlDriver(parse(url, options))


class SqlDriver:
    """A SQLite or PostgreSQL database. It connects when it is first used."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._pool = Pool(target)
        self._feed = SqlFeed(self._pool)
        self._tables = Tables()
        self._commits = joining.Commits()
        self._lookups: Lookups | None = None
        if target.backend == "postgresql":
            self._reader: PostgresReader | SqliteReader | None = PostgresReader(target)
        else:
            # In memory there is one connection, which look-ups must take turns on.
            self._reader = None if target.in_memory else SqliteReader(target)
        if self._reader is not None:
            self._lookups = Lookups(self._pool.engine.dialect, self._reader, self._tables)
        self._verbs = _Autonomous(self._pool, self._tables, self._lookups)

    @property
    def is_transactional(self) -> bool:
        """Both databases have transactions."""
        return True

    @property
    def feed(self) -> Feed | None:
        """The change feed."""
        return self._feed

    @property
    def verbs(self) -> Verbs:
        """Verbs that commit by themselves."""
        return self._verbs

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Verbs]:
        """Verbs that commit together at the end, or not at all if the block raises."""
        outside = True
        try:
            async with self._pool.transaction() as connection:

                async def itself() -> Any:
                    return connection

                outside = False
                yield SqlVerbs(Fixed(itself, self._pool.run), self._tables)
                outside = True
        except Exception as error:
            fault = translated(error) if outside else None
            if fault is None:
                raise
        else:
            return
        raise fault  # outside the handler: the cause may quote values

    def savepoint(self, connection: Any) -> AbstractAsyncContextManager[None]:
        """Part of a caller's transaction that is undone if the block raises."""
        return joining.savepoint(connection)

    def joined(self, connection: Any) -> Verbs:
        """Verbs that write through a caller's own connection and leave the commit to it."""
        return joining.joined(connection, self._tables)

    async def after_commit(
        self,
        connection: Any,
        tried: Callable[[], None],
        then: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        """When the caller commits: `tried`, whether it worked or not; `then`, if it did.

        Neither if what is written now is rolled back, with a savepoint or with everything.
        """
        await self._commits.tell(connection, tried, then)

    async def open(self, records: Sequence[type]) -> None:
        """Connect and compare the schema; create it in an empty database, under a lock.

        A table of somebody else's is not changed here, only by `migrate`.

        Raises:
            ConfigurationError: such a table is not fit.
            SchemaBehind, SchemaNewer, StoreUnavailable
        """
        self._tables.know(await self._look(lambda connection: look(connection, records)))
        if not await self._look(lambda connection: migrate.check(connection, records)):
            await self._change(lambda connection: migrate.create(connection, records))

    async def close(self) -> None:
        """Give every connection back."""
        if self._reader is not None:
            await self._reader.close()
        await self._pool.close()

    async def ping(self) -> None:
        """Ask the database for a sign of life. Raises StoreUnavailable."""
        await self._look(lambda connection: connection.execute(text("SELECT 1")))

    def tables_into(self, metadata: MetaData, records: Sequence[type]) -> None:
        """Add the tables of these records to a caller's MetaData, for its own Alembic."""
        tables_into(metadata, records, backend=self._target.backend)

    async def plan(self, records: Sequence[type]) -> tuple[str, ...]:
        """What `migrate` would do, one statement each; empty if there is nothing to do."""
        difference = await self._look(lambda connection: migrate.compare(connection, records))
        surveys = await self._survey(difference)
        faulty = migrate.faults(difference, surveys)
        return (*difference.plan(surveys), *(f"-- cannot be users: {each}" for each in faulty))

    async def migrate(
        self, records: Sequence[type], *, skip_faulty: bool = False
    ) -> tuple[str, ...]:
        """Bring the schema up to these records, under a lock; what was done.

        Args:
            records: all that there are.
            skip_faulty: rows of an adopted table that cannot be users become nobody's.

        Raises:
            ConfigurationError, FaultyRows: nothing was changed.
            SchemaNewer, StoreUnavailable
        """
        difference = await self._look(lambda connection: migrate.compare(connection, records))
        if not difference.adopted:
            return await self._change(lambda connection: migrate.apply(connection, records))
        surveys = await self._survey(difference)
        faulty = migrate.faults(difference, surveys)
        if faulty and not skip_faulty:
            raise FaultyRows(faulty)
        done = difference.plan(surveys)
        if done:
            await self._change(lambda connection: migrate.apply(connection, records))
            for each, said in zip(difference.adopted, surveys, strict=True):
                await self._fill(records, each.kind, said.faulty)
            await self._change(lambda c: migrate.finish_all(c, records, skip_faulty=skip_faulty))
        self._tables.know(await self._look(lambda connection: look(connection, records)))
        return (*done, *(f"-- nobody's: {each}" for each in faulty))

    async def _survey(self, difference: Difference) -> list[Survey]:
        """Look at all rows of adopted tables that are pending; as long as it takes."""

        def step(connection: Connection) -> list[Survey]:
            return [survey(connection, each) for each in difference.adopted]

        if not difference.adopted:
            return []
        if self._target.backend == "postgresql":
            return await self._change(step)  # a temporary table lives on one connection
        try:
            async with self._pool.connection(writes=False) as connection:
                return await self._pool.run(connection.run_sync(step))
        except Exception as error:
            fault = translated(error)
            if fault is None:
                raise
        raise fault

    async def _fill(self, records: Sequence[type], kind: type, faulty: set[str]) -> None:
        after: str | None = None
        tries = 0
        while True:
            try:
                after = await self._change(
                    partial(
                        migrate.fill_batch, records=records, kind=kind, faulty=faulty, after=after
                    )
                )
            except (Conflict, ValueError):  # somebody signed up with such an address meanwhile
                tries += 1
                if tries == _TRIES:
                    raise
                continue
            tries = 0
            if after is None:
                return

    async def _look(self, step: Callable[[Connection], T]) -> T:
        try:
            async with asyncio.timeout(60), self._pool.connection(writes=False) as connection:
                return await self._pool.run(connection.run_sync(step))
        except Exception as error:
            fault = translated(error)
            if fault is None:
                raise
        raise fault

    async def _change(self, step: Callable[[Connection], T]) -> T:
        # An index on a large table, or another worker's turn, may take longer than a statement.
        patient = self._target.backend == "postgresql"
        pool = Pool(replace(self._target, command_timeout=None)) if patient else self._pool
        try:
            async with pool.transaction() as connection:
                return await pool.run(connection.run_sync(step))
        except Exception as error:
            fault = translated(error)
            if fault is None:
                raise
        finally:
            if patient:
                await pool.close()
        raise fault


class _Autonomous(SqlVerbs):
    """Verbs that commit by themselves; plain look-ups take the short way."""

    def __init__(self, pool: Pool, tables: Tables, lookups: Lookups | None) -> None:
        super().__init__(pool, tables, reads_again=True)
        self._lookups = lookups

    async def get(self, kind: type[R], conditions: Conditions) -> R | None:
        """The record that the pinned key names, if the other conditions hold too."""
        if self._lookups is not None and suits(conditions):
            return await self._lookups.get(kind, conditions)
        return await super().get(kind, conditions)
