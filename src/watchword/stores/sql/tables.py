"""A record's table: derived from its schema, the same on every database but for column types."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final, cast

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Index,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    literal,
)
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.types import TypeDecorator, TypeEngine

from watchword.storage.record import Column as Field
from watchword.storage.record import ColumnKind, Schema, schema_of, to_json

PREFIX: Final = "watchword_"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Stored(TypeDecorator[Any]):
    """A column of one kind: checks what goes in, so that every database refuses the same."""

    impl = Text
    cache_ok = True

    def __init__(self, kind: ColumnKind) -> None:
        super().__init__()
        self.kind: ColumnKind = kind

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Choose the database's own type."""
        postgres = dialect.name == "postgresql"
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
        return encode(self.kind, value, postgres=dialect.name == "postgresql")

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:  # noqa: ARG002
        """Turn what the driver gives into a field's value."""
        return decode(self.kind, value)

    def coerce_compared_value(self, op: Any, value: Any) -> TypeEngine[Any]:  # noqa: ARG002
        """Treat what a column is compared with as one of its own values."""
        return self


def encode(kind: ColumnKind, value: Any, *, postgres: bool) -> Any:
    """Turn a field's value into the stored one.

    Raises:
        ValueError: no database of ours can hold it.
    """
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


def decode(kind: ColumnKind, value: Any) -> Any:
    """Turn a stored value into the field's, before `revive`."""
    if value is None:
        return None
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


def tables_into(metadata: MetaData, records: Sequence[type]) -> None:
    """Add the tables of these records to a caller's MetaData, for its own Alembic."""
    for schema in final(records):
        _build(schema, metadata)


def final(records: Iterable[type]) -> list[Schema]:
    """The schemas, one a name: a record that extends another stands for both."""
    chosen: dict[str, Schema] = {}
    for kind in records:
        schema = schema_of(kind)
        known = chosen.get(schema.name)
        if known is None or len(schema.columns) > len(known.columns):
            chosen[schema.name] = schema
    return list(chosen.values())


def conflicts(schema: Schema) -> dict[str, str]:
    """The field that a violated key names, by the key's name in the database."""
    name = PREFIX + schema.name
    named = {_name("pk", name): schema.key[-1]}
    for fields in schema.unique:
        named[_name("uq", name, *fields[1:])] = fields[-1]
    return named


def _build(schema: Schema, metadata: MetaData) -> Table:
    name = PREFIX + schema.name
    table = Table(
        name,
        metadata,
        *(_column(field) for field in schema.columns.values()),
        PrimaryKeyConstraint(*schema.key, name=_name("pk", name)),
    )
    # Unique indexes rather than constraints: only those can join a table that exists on SQLite.
    for fields in schema.unique:
        columns = [table.c[field] for field in fields]
        Index(_name("uq", name, *fields[1:]), *columns, unique=True)
    plain = list(schema.indexes)
    if schema.expires is not None:
        plain.append((schema.expires,))
    for fields in dict.fromkeys(plain):
        rest = fields[1:] if fields[0] == "realm" else fields
        Index(_name("ix", name, *rest), *(table.c[field] for field in fields))
    return table


def _column(field: Field) -> Column[Any]:
    kind = Stored(field.kind)
    default = None
    if field.default is not dataclasses.MISSING and field.default is not None:
        # An older worker, which does not know the column, must still be able to insert.
        default = literal(field.default, kind)
    return Column(
        field.name,
        kind,
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
