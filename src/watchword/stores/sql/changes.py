"""Change rows as the feed reads them: the same on both databases but for where they stand."""

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from watchword.kernel.errors import StoreUnavailable
from watchword.storage.feed import Change
from watchword.storage.record import schema_of
from watchword.stores.sql.faults import translated
from watchword.stores.sql.tables import PREFIX, decode

_SCHEMA: Final = schema_of(Change)

TABLE: Final = PREFIX + _SCHEMA.name
FIELDS: Final = ", ".join(f"c.{name}" for name in _SCHEMA.columns)

PATIENCE: Final = 2.0
"""Seconds that a read, or a sign of life, may take: it is asked for every quarter of a bound."""


def change_of(values: Sequence[Any]) -> Change:
    """The change of a row whose columns are `FIELDS`."""
    columns = _SCHEMA.columns.values()
    return Change(
        **{
            column.name: decode(column.kind, value)
            for column, value in zip(columns, values, strict=True)
        }
    )


def away(error: Exception) -> Exception:
    """What to raise instead of a driver's error. Whatever it was, its asker begins again."""
    if isinstance(error, StoreUnavailable):
        return error
    fault = translated(error)
    if isinstance(fault, StoreUnavailable):
        return fault
    module = type(error).__module__
    if fault is not None or isinstance(error, sqlite3.Error) or module.startswith("asyncpg"):
        return StoreUnavailable(type(error).__name__)
    return error
