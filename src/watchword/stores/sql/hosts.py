"""What a table of somebody else's is like: its columns, its keys, from the catalogue itself.

SQLAlchemy's reflection warns of types and indexes that it does not know, and others' tables have
all of them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True, kw_only=True)
class HostColumn:
    """One column."""

    name: str
    type: str  # lower case on PostgreSQL, upper case on SQLite
    is_required: bool  # NOT NULL
    is_given: bool  # the database has a value where an insert names none
    is_made: bool  # only the database writes it


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One table."""

    name: str
    owner: str | None  # its schema, where one was named
    columns: Mapping[str, HostColumn]
    keys: Mapping[str, tuple[str | None, ...]]  # columns of unique indexes; None: an expression
    indexes: frozenset[str]
    numbered: str | None = field(default=None)  # the column that SQLite numbers

    def is_key(self, column: str) -> bool:
        """Does this column alone name one row?"""
        return (column,) in self.keys.values() or column == self.numbered


def host_of(connection: Connection, named: str) -> Host | str:
    """The table of this name, or what is wrong with it."""
    if connection.dialect.name == "sqlite":
        return _sqlite(connection, named)
    return _postgres(connection, named)


_TABLE = """
SELECT c.oid, c.relkind::text AS kind, c.relispartition
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = :name AND c.relkind NOT IN ('i', 'I', 'c', 't', 'S')
AND CASE WHEN CAST(:owner AS text) IS NULL THEN pg_table_is_visible(c.oid)
    ELSE n.nspname = CAST(:owner AS text) END
"""
_COLUMNS = """
SELECT a.attname::text, format_type(COALESCE(NULLIF(t.typbasetype, 0), t.oid), NULL),
  a.attnotnull OR t.typnotnull,
  a.atthasdef OR a.attidentity <> '' OR t.typdefault IS NOT NULL,
  a.attgenerated <> ''
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = :oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_INDEXES = """
SELECT c.relname::text, i.indisunique AND i.indpred IS NULL AND i.indisvalid,
  ARRAY(SELECT a.attname::text FROM unnest(i.indkey) WITH ORDINALITY AS k(number, place)
    LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
    WHERE k.place <= i.indnkeyatts ORDER BY k.place)
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = :oid
"""


def _postgres(connection: Connection, named: str) -> Host | str:
    owner, _, name = named.rpartition(".")
    found = connection.execute(text(_TABLE), {"name": name, "owner": owner or None}).first()
    if found is None:
        return f"there is no table {named}: create it first, it is yours"
    if found.kind != "r":
        return f"{named} is a view or partitioned: only a plain table can hold users"
    oid = {"oid": found.oid}
    columns = {
        row[0]: HostColumn(
            name=row[0],
            type=str(row[1]).rpartition(".")[2],
            is_required=row[2],
            is_given=row[3] or row[4],
            is_made=row[4],
        )
        for row in connection.execute(text(_COLUMNS), oid)
    }
    indexes = connection.execute(text(_INDEXES), oid).all()
    return Host(
        name=name,
        owner=owner or None,
        columns=columns,
        keys={row[0]: tuple(row[2]) for row in indexes if row[1]},
        indexes=frozenset(row[0] for row in indexes),
    )


def _sqlite(connection: Connection, named: str) -> Host | str:
    if "." in named:
        return f"{named}: tables in a schema of their own are for PostgreSQL"
    asked = text("SELECT name, type, sql FROM sqlite_master WHERE lower(name) = lower(:name)")
    found = connection.execute(asked, {"name": named}).first()
    if found is None:
        return f"there is no table {named}: create it first, it is yours"
    if found.type != "table" or found.sql.upper().startswith("CREATE VIRTUAL"):
        return f"{named} is no plain table: only one can hold users"
    table = {"name": found.name}
    rows = connection.execute(
        text('SELECT name, type, "notnull", dflt_value, pk, hidden FROM pragma_table_xinfo(:name)'),
        table,
    ).all()
    key = [row.name for row in rows if row.pk]
    types = {row.name: row.type.upper() for row in rows}
    counted = re.search(r"WITHOUT\s+ROWID", found.sql, re.IGNORECASE) is None
    numbered = key[0] if len(key) == 1 and types[key[0]] == "INTEGER" and counted else None
    columns = {
        row.name: HostColumn(
            name=row.name,
            type=row.type.upper(),
            is_required=bool(row.notnull),
            is_given=row.dflt_value is not None or row.name == numbered or row.hidden in (2, 3),
            is_made=row.hidden in (2, 3),
        )
        for row in rows
    }
    keys: dict[str, tuple[str | None, ...]] = {}
    listed = connection.execute(
        text('SELECT name, "unique" AS is_unique, partial FROM pragma_index_list(:name)'), table
    ).all()
    for index in listed:
        if index.is_unique and not index.partial:
            parts: Any = connection.execute(
                text("SELECT name FROM pragma_index_info(:name) ORDER BY seqno"),
                {"name": index.name},
            )
            keys[index.name] = tuple(part[0] for part in parts)
    return Host(
        name=found.name,
        owner=None,
        columns=columns,
        keys=keys,
        indexes=frozenset(index.name for index in listed),
        numbered=numbered,
    )
