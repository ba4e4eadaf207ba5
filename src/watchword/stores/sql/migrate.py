"""The schema: compared with Alembic, created in an empty database, otherwise only added to."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, cast

from alembic.autogenerate import compare_metadata
from alembic.ddl.base import AddColumn
from alembic.runtime.migration import MigrationContext
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Dialect,
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

from watchword.storage.errors import FaultyRows, SchemaBehind, SchemaNewer
from watchword.storage.record import schema_of
from watchword.stores.sql.adopted import BATCH, Adopted, Survey, fill, finish, look
from watchword.stores.sql.tables import PREFIX, Backend, tables_into

MAJOR: Final = 1
"""The major version of the schema: raised when a change is more than an addition."""

_LOCK: Final = 0x77_61_74_63_68_77  # "watchw", so that no other program's lock is met


@dataclass(slots=True)
class Difference:
    """What a database lacks."""

    is_empty: bool
    dialect: Dialect
    statements: list[Any] = field(default_factory=list[Any])
    adopted: list[Adopted] = field(default_factory=list[Adopted])
    late: list[Any] = field(default_factory=list[Any])  # once adopted rows are filled

    @property
    def texts(self) -> tuple[str, ...]:
        """The statements, as they are told."""
        return tuple(_text(self.dialect, statement) for statement in self.statements)

    @property
    def late_texts(self) -> tuple[str, ...]:
        """Those that come last."""
        return tuple(_text(self.dialect, statement) for statement in self.late)

    def plan(self, surveys: Sequence[Survey]) -> tuple[str, ...]:
        """Every step, with what was found in each adopted table."""
        told = zip(self.adopted, surveys, strict=True)
        filled = (
            f"-- fill {each.derived.name} of {said.pending} rows of {each.adoption.table} from "
            f"{each.adoption.columns[each.adoption.source]}, {BATCH} at a time"
            for each, said in told
            if said.pending
        )
        return (*self.texts, *filled, *self.late_texts)


@lru_cache(maxsize=4)  # a start asks several times, and hundreds of Apps of one process the same
def metadata_of(records: tuple[type, ...], backend: Backend) -> MetaData:
    """All our tables, with the one that keeps the schema's version."""
    metadata = MetaData()
    ours = [kind for kind in records if schema_of(kind).adoption is None]
    tables_into(metadata, ours, backend=backend)
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
    _refuse(difference)
    return True


def create(connection: Connection, records: Sequence[type]) -> None:
    """Create everything in an empty database; inside a transaction.

    Raises:
        SchemaBehind, SchemaNewer: another worker was first, with another schema.
    """
    lock(connection)
    difference = compare(connection, records)
    if difference.is_empty:
        for statement in difference.statements:
            connection.execute(statement)
    else:
        _refuse(difference)


def apply(connection: Connection, records: Sequence[type]) -> tuple[str, ...]:
    """Add what is missing, inside a transaction; what was done."""
    lock(connection)
    difference = compare(connection, records)
    for statement in difference.statements:
        connection.execute(statement)
    return difference.texts


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
    backend: Backend = "sqlite" if connection.dialect.name == "sqlite" else "postgresql"
    metadata = metadata_of(tuple(records), backend)
    present = {name for name in inspect(connection).get_table_names() if name in metadata.tables}
    difference = Difference(
        is_empty=not present, dialect=connection.dialect, adopted=look(connection, records)
    )
    if difference.adopted:
        difference.is_empty = False  # somebody else's table is changed on request only
    version = metadata.tables[PREFIX + "schema"]
    major: int | None = None
    if version.name in present:
        major = connection.execute(select(version.c.major)).scalar()
        if major is not None and major > MAJOR:
            raise SchemaNewer(f"the schema is of version {major}, this program knows {MAJOR}")
    # With none of ours there Alembic would read all tables, and warn of what others' have.
    missing = _missing(connection, metadata) if present else _everything(metadata)
    difference.statements.extend(missing)
    if version.name not in present:
        difference.statements.append(insert(version).values(name="schema", major=MAJOR))
    elif major is not None and major < MAJOR:
        difference.statements.append(update(version).values(major=MAJOR))
    for each in difference.adopted:
        difference.statements.extend(each.columns)
        difference.late.extend(each.indexes)
    return difference


def _refuse(difference: Difference) -> None:
    if difference.statements or difference.late:
        raise SchemaBehind((*difference.texts, *difference.late_texts))


def faults(difference: Difference, surveys: Sequence[Survey]) -> tuple[str, ...]:
    """Which rows of adopted tables cannot be users."""
    told = zip(difference.adopted, surveys, strict=True)
    return tuple(line for each, said in told for line in said.told(each))


def fill_batch(
    connection: Connection, records: Sequence[type], kind: type, faulty: set[str], after: str | None
) -> str | None:
    """Fill one batch of an adopted table's rows; the last id, or None at the end."""
    lock(connection)
    return fill(connection, _of(connection, records, kind), faulty, after)


def finish_all(connection: Connection, records: Sequence[type], *, skip_faulty: bool) -> None:
    """Fill what is left of adopted tables and add their indexes; inside a transaction.

    Raises:
        FaultyRows: rows that came since they were looked at.
    """
    lock(connection)
    difference = compare(connection, records)
    for each in difference.adopted:
        said = finish(connection, each, skip_faulty=skip_faulty)
        if said is not None:
            raise FaultyRows(said.told(each))
    for statement in difference.late:
        connection.execute(statement)


def _of(connection: Connection, records: Sequence[type], kind: type) -> Adopted:
    return next(each for each in look(connection, records) if each.kind is kind)


def _everything(metadata: MetaData) -> Iterator[Any]:
    for table in metadata.sorted_tables:
        yield CreateTable(table)
    for table in metadata.sorted_tables:
        for index in sorted(table.indexes, key=lambda each: str(each.name)):
            yield CreateIndex(index)


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


def _text(dialect: Dialect, statement: Any) -> str:
    compiled = statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True})
    return " ".join(str(compiled).split())
