"""The schema: compared with Alembic, created in an empty database, otherwise only added to."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from alembic.autogenerate import compare_metadata
from alembic.ddl.base import AddColumn
from alembic.runtime.migration import MigrationContext
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    MetaData,
    Table,
    Text,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.schema import CreateIndex, CreateTable

from watchword.storage.errors import SchemaBehind, SchemaNewer
from watchword.stores.sql.tables import PREFIX, tables_into

MAJOR: Final = 1
"""The major version of the schema: raised when a change is more than an addition."""

_LOCK: Final = 0x77_61_74_63_68_77  # "watchw", so that no other program's lock is met


@dataclass(slots=True)
class Difference:
    """What a database lacks."""

    is_empty: bool
    statements: list[Any] = field(default_factory=list[Any])
    texts: list[str] = field(default_factory=list[str])


def metadata_of(records: Sequence[type]) -> MetaData:
    """All our tables, with the one that keeps the schema's version."""
    metadata = MetaData()
    tables_into(metadata, records)
    version_table(metadata)
    return metadata


def version_table(metadata: MetaData) -> Table:
    """The table with one row: which major version made this schema."""
    return Table(
        PREFIX + "schema",
        metadata,
        Column("name", Text(), primary_key=True),
        Column("major", BigInteger(), nullable=False),
    )


def check(connection: Connection, records: Sequence[type]) -> bool:
    """Compare; False means that the database is empty.

    Raises:
        SchemaBehind, SchemaNewer
    """
    difference = compare(connection, records)
    if difference.is_empty:
        return False
    if difference.texts:
        raise SchemaBehind(tuple(difference.texts))
    return True


def create(connection: Connection, records: Sequence[type]) -> None:
    """Create everything in an empty database; inside a transaction.

    Raises:
        SchemaBehind, SchemaNewer: another worker was first, with another schema.
    """
    lock(connection)
    if not check(connection, records):
        apply(connection, records)


def apply(connection: Connection, records: Sequence[type]) -> tuple[str, ...]:
    """Add what is missing, inside a transaction; what was done."""
    lock(connection)
    difference = compare(connection, records)
    for statement in difference.statements:
        connection.execute(statement)
    return tuple(difference.texts)


def lock(connection: Connection) -> None:
    """Let one worker at a time change the schema; held until the transaction ends.

    SQLite's transactions begin IMMEDIATE, which is the lock.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})


def compare(connection: Connection, records: Sequence[type]) -> Difference:
    """What the database lacks of these records. What it has beyond them is left alone.

    Raises:
        SchemaNewer: its major version is above ours.
    """
    metadata = metadata_of(records)
    present = {name for name in inspect(connection).get_table_names() if name in metadata.tables}
    difference = Difference(is_empty=not present)
    version = metadata.tables[PREFIX + "schema"]
    major: int | None = None
    if version.name in present:
        major = connection.execute(select(version.c.major)).scalar()
        if major is not None and major > MAJOR:
            raise SchemaNewer(f"the schema is of version {major}, this program knows {MAJOR}")
    for statement in _missing(connection, metadata):
        difference.statements.append(statement)
    if version.name not in present:
        difference.statements.append(insert(version).values(name="schema", major=MAJOR))
    elif major is not None and major < MAJOR:
        difference.statements.append(update(version).values(major=MAJOR))
    difference.texts = [_text(connection, statement) for statement in difference.statements]
    return difference


def _missing(connection: Connection, metadata: MetaData) -> Iterator[Any]:
    def ours(name: str | None, kind: str, _: object) -> bool:
        return kind != "table" or name in metadata.tables

    context = MigrationContext.configure(
        connection,
        opts={
            "compare_type": False,
            "compare_server_default": False,
            "include_name": ours,
            "target_metadata": metadata,
        },
    )
    found = cast("list[Any]", compare_metadata(context, metadata))
    for step in found:
        if step[0] == "add_table":
            yield CreateTable(metadata.tables[step[1].name])  # theirs is a copy
    for step in found:
        if step[0] == "add_column":
            yield _added(step[2], step[3])
    for step in found:
        if step[0] == "add_index":
            yield CreateIndex(step[1])


def _added(table: str, column: Column[Any]) -> AddColumn:
    if not column.nullable and column.server_default is None:
        raise TypeError(
            f"{table}.{column.name} joins a table that exists: give it a default or let it be None"
        )
    return AddColumn(table, column)


def _text(connection: Connection, statement: Any) -> str:
    compiled = statement.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
    return " ".join(str(compiled).split())
