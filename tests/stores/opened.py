"""A driver that is open for a while, and a store on it."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from watchword.kernel.events import Events
from watchword.storage.store import Driver, Store
from watchword.stores.sql import SqlDriver, driver
from watchword.testing.racer import RECORDS


class Opened(SqlDriver):
    """A driver that also tells of its connections."""

    async def pragma(self, *names: str) -> list[Any]:
        """How SQLite is set, on a connection that writes."""
        async with self._pool.connection(writes=True) as connection:
            found = [await connection.exec_driver_sql(f"PRAGMA {name}") for name in names]
            return [one.scalar() for one in found]

    @asynccontextmanager
    async def writing(self) -> AsyncGenerator[AsyncConnection, None]:
        """A connection in a transaction, for what the verbs do not do."""
        async with self._pool.transaction() as connection:
            yield connection


@asynccontextmanager
async def opened(
    url: str, records: Sequence[type] = RECORDS, **options: object
) -> AsyncGenerator[Opened, None]:
    """Open a database and close it at the end."""
    made = driver(url, **options)
    made.__class__ = Opened
    assert isinstance(made, Opened)
    try:
        await made.open(records)
        yield made
    finally:
        await made.close()


def store_of(made: Driver, events: Events | None = None) -> Store:
    """A store of the realm "main"."""
    return Store(driver=made, events=events or Events(), realm="main")
