"""A record's table: derived from its schema, the same on every database but for column types."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final, Literal, cast

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    func,
    literal,
    literal_column,
    text,
)
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.types import TypeDecorator, TypeEngine

from watchword.kernel.errors import ConfigurationError
from watchword.storage.feed import Change
from watchword.storage.record import Adoption, ColumnKind, Schema, final, schema_of, to_json
from watchword.storage.record import Column as Field
from watchword.stores.sql.forms import TYPES, Form, formed, unformed

Backend = Literal["sqlite", "postgresql"]

PREFIX: Final = "watchword_"
POSITION: Final = "position"
"""The column of a change that says when it was committed; no field of the record (I-07)."""

_CHANGE: Final = schema_of(Change).name
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Stored(TypeDecorator[Any]):
    """A column of one kind: checks what goes in, so that every database refuses the same."""

    impl = Text
    cache_ok = True

    def __init__(self, kind: ColumnKind, form: Form = "own") -> None:
        super().__init__()
        self.kind: ColumnKind = kind
        self.form: Form = form

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Choose the database's own type."""
        postgres = dialect.name == "postgresql"
        if self.form != "own":
            return dialect.type_descriptor(TYPES[self.form])
        match self.kind:
            case "text":
                # Byte order everywhere: no comparison may depend on a server's locale.
                chosen: TypeEngine[Any] = Text(collation="C") if postgres else Text()
            case "json":
                chosen = Text()
            case "boolean":
                chosen = Boolean()
            case "instant":
                chosen = TIMESTAMP(timezone=True) if postgres else BigInteger()
            case "integer" | "duration":
                chosen = BigInteger()
            case "bytes":
                chosen = LargeBinary()
        return dialect.type_descriptor(chosen)

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """Turn a field's value into what the driver takes."""
        return encode(self.kind, value, postgres=dialect.name == "postgresql", form=self.form)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:  # noqa: ARG002
        """Turn what the driver gives into a field's value."""
        return decode(self.kind, value, form=self.form)

    def coerce_compared_value(self, op: Any, value: Any) -> TypeEngine[Any]:  # noqa: ARG002
        """Treat what a column is compared with as one of its own values."""
        return self


def encode(kind: ColumnKind, value: Any, *, postgres: bool, form: Form = "own") -> Any:
    """Turn a field's value into the stored one.

    Raises:
        ValueError: no database of ours can hold it.
    """
    if form != "own":
        checked = encode(kind, value, postgres=True)
        return None if checked is None and form != "blank" else formed(form, checked)
    if value is None:
        return None
    match kind:
        case "text":
            if not isinstance(value, str):
                raise ValueError("not a text")
            if "\x00" in value or not (value.isascii() or _is_unicode(value)):
                raise ValueError("a text with NUL or half a surrogate pair cannot be stored")
        case "integer":
            return _bounded(value)
        case "instant":
            if not isinstance(value, datetime) or value.tzinfo is None:
                raise ValueError("not an instant with a time zone")
            return value if postgres else (value - _EPOCH) // _MICROSECOND
        case "duration":
            if not isinstance(value, timedelta):
                raise ValueError("not a duration")
            return _bounded(value // _MICROSECOND)
        case "json":
            return to_json(value)
        case "boolean":
            if not isinstance(value, bool):
                raise ValueError("neither true nor false")
        case "bytes":
            return bytes(value)
    return value


def decode(kind: ColumnKind, value: Any, *, form: Form = "own") -> Any:
    """Turn a stored value into the field's, before `revive`."""
    if value is None:
        return None
    if form != "own":
        return unformed(form, value)
    match kind:
        case "instant":
            # SQLite holds microseconds; PostgreSQL's driver makes the instant itself.
            return _EPOCH + timedelta(microseconds=value) if type(value) is int else value
        case "duration":
            return timedelta(microseconds=value)
        case "boolean":
            return bool(value)
        case "json":
            return json.loads(value)
        case _:
            return value


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _bounded(value: Any) -> int:
    if not isinstance(value, int) or not -(2**63) <= value < 2**63:
        raise ValueError("not a whole number of 64 bits")
    return value


@cache
def table_of(kind: type) -> Table:
    """The table of a record class, in a MetaData of its own.

    A record may extend another and take its table, so two classes can share a name.
    """
    return _build(schema_of(kind), MetaData())


def tables_into(
    metadata: MetaData, records: Sequence[type], *, backend: Backend = "postgresql"
) -> None:
    """Add the tables of these records to a caller's MetaData, for its own Alembic.

    They differ by database where the change feed keeps its order.
    """
    for schema in final(records):
        if schema.adoption is not None:
            _extend(schema, schema.adoption, metadata)
            continue
        table = _build(schema, metadata, backend=backend)
        if schema.name == _CHANGE and backend == "postgresql":
            Index(_name("ix", table.name, POSITION), table.c.realm, table.c[POSITION])


def _extend(schema: Schema, adoption: Adoption, metadata: MetaData) -> None:
    """Add our columns and indexes to the owner's table in the owner's MetaData."""
    table = metadata.tables.get(adoption.table)
    if table is None:
        raise ConfigurationError(
            [f"{adoption.table} holds your users: put that table into the MetaData first"]
        )
    ours = columns_beside(schema, adoption)
    for column in ours.values():
        if column.name not in table.c:
            column.key = column.name  # as the owner's code knows columns
            table.append_column(column)
    named = {
        field: ours[field] if field in ours else table.columns[adoption.columns[field]]
        for field in schema.columns
    }
    _index(schema, PREFIX + table.name, named)


def columns_beside(schema: Schema, adoption: Adoption) -> dict[str, Column[Any]]:
    """Our columns in a table of somebody else's, whose own code inserts rows without them."""
    filled = {adoption.derived, *adoption.fill()}
    made: dict[str, Column[Any]] = {}
    for field in schema.columns.values():
        if field.name in adoption.columns:
            continue
        name = PREFIX + field.name
        if field.name == "realm":
            made[field.name] = _column(
                dataclasses.replace(field, default=adoption.realm), name=name
            )
        elif field.name in filled:
            # No default: what holds nothing here waits for us to fill it, and is nobody's.
            made[field.name] = Column(name, Stored(field.kind), key=field.name)
        else:
            made[field.name] = _column(field, name=name)
    return made


def adopted_table(
    schema: Schema,
    adoption: Adoption,
    forms: Mapping[str, Form],
    *,
    name: str,
    owner: str | None,
    columns: Mapping[str, str],
) -> Table:
    """The table of somebody else's that holds these records; its columns go by our fields."""
    ours = columns_beside(schema, adoption)
    made = [
        ours[field.name]
        if field.name in ours
        else Column(
            columns[field.name],
            Stored(field.kind, forms[field.name]),
            key=field.name,
            autoincrement=False,
        )
        for field in schema.columns.values()
    ]
    table = Table(name, MetaData(), *made, schema=owner)
    _index(schema, PREFIX + name, {field: table.c[field] for field in schema.columns})
    return table


def stored_name(adoption: Adoption, field: str) -> str:
    """The column of a field in an adopted table."""
    return adoption.columns.get(field, PREFIX + field)


def absent(schema: Schema, field: Field) -> Any:
    """What a field holds whose column holds nothing; only others' tables have such columns."""
    adoption = schema.adoption
    if field.optional or adoption is None:
        return None
    if field.name in adoption.absent:
        return adoption.absent[field.name]
    if field.default is not dataclasses.MISSING:
        return field.default
    return _EPOCH if field.kind == "instant" else ""


def compared(column: Any, value: Any = None) -> Any:
    """What an order or a comparison sees of a column, or of a value beside it.

    SQLite has texts for times, of several spellings.
    """
    seen = column if value is None else value
    if isinstance(column.type, Stored) and column.type.form == "iso":
        return func.strftime(literal_column("'%Y-%m-%d %H:%M:%f'"), seen)
    return seen


def conflicts(schema: Schema, table: Table | None = None) -> dict[str, str]:
    """The field that a violated key names, by the key's name in the database."""
    if table is not None and "conflicts" in table.info:
        return cast("dict[str, str]", table.info["conflicts"])
    name = PREFIX + schema.name
    named = {_name("pk", name): schema.key[-1]}
    for fields in schema.unique:
        named[_name("uq", name, *fields[1:])] = fields[-1]
    return named


def _build(schema: Schema, metadata: MetaData, *, backend: Backend | None = None) -> Table:
    name = PREFIX + schema.name
    columns = [_column(field) for field in schema.columns.values()]
    if schema.name == _CHANGE and backend is not None:
        columns.append(_position(backend))
    # SQLite never gives a number of this kind again, whatever was deleted, if it is the key.
    numbered = schema.name == _CHANGE and backend == "sqlite"
    table = Table(
        name,
        metadata,
        *columns,
        PrimaryKeyConstraint(*((POSITION,) if numbered else schema.key), name=_name("pk", name)),
        sqlite_autoincrement=numbered,
    )
    if numbered:
        key = [table.c[field] for field in schema.key]
        Index(_name("uq", name, *schema.key[1:]), *key, unique=True)
    _index(schema, name, {field: table.c[field] for field in schema.columns})
    return table


def _index(schema: Schema, name: str, columns: Mapping[str, Column[Any]]) -> None:
    # Unique indexes rather than constraints: only those can join a table that exists on SQLite.
    for fields in schema.unique:
        unique = [columns[field] for field in fields]
        Index(_name("uq", name, *fields[1:]), *unique, unique=True)
    plain = list(schema.indexes)
    if schema.expires is not None:
        plain.append((schema.expires,))
    for fields in dict.fromkeys(plain):
        rest = fields[1:] if fields[0] == "realm" else fields
        Index(_name("ix", name, *rest), *(compared(columns[field]) for field in fields))


def _position(backend: Backend) -> Column[Any]:
    """Where a change stands: its transaction on PostgreSQL, its number on SQLite.

    The databases fill it in themselves, also for an insert through a caller's connection.
    """
    if backend == "sqlite":
        return Column(POSITION, Integer(), autoincrement=False)
    mine = text("CAST(CAST(pg_current_xact_id() AS text) AS bigint)")
    return Column(POSITION, BigInteger(), nullable=False, server_default=mine)


def _column(field: Field, *, name: str | None = None) -> Column[Any]:
    kind = Stored(field.kind)
    default = None
    if field.default is not dataclasses.MISSING and field.default is not None:
        # An older worker, which does not know the column, must still be able to insert.
        default = literal(field.default, kind)
    return Column(
        name or field.name,
        kind,
        key=field.name,
        nullable=field.optional,
        server_default=cast("Any", default),
        autoincrement=False,
    )


def _name(prefix: str, *parts: str) -> str:
    """A name that never changes and fits PostgreSQL's 63 bytes."""
    whole = "_".join((prefix, *parts))
    if len(whole) <= 63:
        return whole
    return f"{whole[:52]}_{hashlib.sha256(whole.encode()).hexdigest()[:10]}"
