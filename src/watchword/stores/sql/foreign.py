"""Somebody else's table, read in order and never written."""

import asyncio
import warnings
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit
from uuid import UUID

from sqlalchemy import URL, Connection, column, exc, inspect, select
from sqlalchemy import table as named_table
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from watchword.kernel.errors import ConfigurationError, StoreUnavailable
from watchword.stores.sql.engine import CONNECT_TIMEOUT, require
from watchword.stores.sql.faults import translated

_STATEMENT_TIMEOUT = 60.0  # seconds; a batch by its key takes milliseconds


class ForeignTable:
    """A table of a SQLite or PostgreSQL database that is not ours, by batches of its key."""

    def __init__(self, engine: AsyncEngine, name: str) -> None:
        self._engine = engine
        schema, _, self._name = name.rpartition(".")
        self._schema = schema or None
        self._types: dict[str, Any] = {}
        self.columns: tuple[str, ...] = ()
        self.key: str | None = None  # the primary key, where it is one column

    async def open(self) -> None:
        """Look which columns there are.

        Raises:
            ConfigurationError: there is no such table.
            StoreUnavailable
        """
        await self._run(self._look)

    def _look(self, connection: Connection) -> None:
        inspector = inspect(connection)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", exc.SAWarning)  # types unknown here: all the same
                found = inspector.get_columns(self._name, schema=self._schema)
                key = inspector.get_pk_constraint(self._name, schema=self._schema)
        except exc.NoSuchTableError:
            found, key = [], None
        if not found:
            names = sorted(inspector.get_table_names(schema=self._schema))
            raise ConfigurationError(
                [f"there is no table {self._name!r}; there are: {', '.join(names) or 'none'}"]
            )
        self._types = {each["name"]: each["type"] for each in found}
        self.columns = tuple(self._types)
        keys = key["constrained_columns"] if key is not None else []
        self.key = keys[0] if len(keys) == 1 else None

    async def read(
        self, columns: Sequence[str], *, key: str, after: object, limit: int
    ) -> list[Mapping[str, Any]]:
        """Up to `limit` rows past the one whose key is `after`, in order of the key.

        Raises:
            StoreUnavailable
        """
        # Columns without types: what the driver gives is what we get, and a text that is no
        # date does not stop everything.
        untyped: list[Any] = [column(name) for name in dict.fromkeys((key, *columns))]
        rows: Any = select(*untyped)
        rows = rows.select_from(
            named_table(self._name, schema=self._schema)
            if self._schema
            else named_table(self._name)
        )
        if after is not None:
            rows = rows.where(column(key) > self._revived(key, after))
        rows = rows.order_by(column(key)).limit(limit)

        def read(connection: Connection) -> Sequence[Any]:
            return connection.execute(rows).mappings().all()

        return [dict(row) for row in await self._run(read)]

    def _revived(self, key: str, value: object) -> object:
        """A key that was kept as text is compared as what it was."""
        kind = getattr(self._types[key], "python_type", None) if isinstance(value, str) else None
        is_uuid = kind is UUID and self._engine.dialect.name == "postgresql"
        return UUID(str(value)) if is_uuid else value

    async def _run(self, step: Any) -> Any:
        try:
            async with asyncio.timeout(_STATEMENT_TIMEOUT), self._engine.connect() as connection:
                return await connection.run_sync(step)
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001  a source is not ours: whatever it is, say so
            fault = translated(error)
            if not isinstance(fault, StoreUnavailable):
                fault = StoreUnavailable(f"the source: {type(error).__name__}")
        raise fault  # outside the handler: the cause may quote values

    async def close(self) -> None:
        """Give the connection back."""
        await self._engine.dispose()


def table(url: str, name: str) -> ForeignTable:
    """A table of the database that a SQLAlchemy URL names; the driver in it is chosen by us.

    Raises:
        ConfigurationError: names what is wrong, never the URL, which may hold a password.
    """
    parts = urlsplit(url)
    backend = parts.scheme.partition("+")[0]
    if backend == "sqlite":
        engine = _sqlite(unquote(parts.path.removeprefix("/")))
    elif backend in ("postgresql", "postgres"):
        engine = _postgres(urlunsplit(parts._replace(scheme="postgresql")))
    else:
        raise ConfigurationError(["--source: the scheme must be sqlite or postgresql"])
    return ForeignTable(engine, name)


def _sqlite(path: str) -> AsyncEngine:
    require("aiosqlite", "watchword")
    return create_async_engine(
        URL.create(
            "sqlite+aiosqlite",
            database=f"file:{quote(path)}",
            query={"mode": "ro", "uri": "true"},  # nothing is made, nothing is changed
        ),
        hide_parameters=True,
    )


def _postgres(dsn: str) -> AsyncEngine:
    asyncpg = require("asyncpg", "watchword[postgres]")

    async def connect() -> Any:
        return await asyncpg.connect(
            dsn=dsn,
            timeout=CONNECT_TIMEOUT,
            command_timeout=_STATEMENT_TIMEOUT,
            server_settings={
                "application_name": "watchword import",
                "default_transaction_read_only": "on",
            },
        )

    return create_async_engine(
        "postgresql+asyncpg://", async_creator=connect, hide_parameters=True, pool_size=1
    )
