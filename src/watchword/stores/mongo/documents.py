"""A record's document: the same fields, and what MongoDB needs beside them.

- `_id` is the key and `unique:…` a unique key, each one text: a JSON list that begins with the
  realm. A unique key that holds nothing has no such field, so a sparse index lets it be.
- `ttl:…` is when the record expires as MongoDB's own date, for its TTL index.
- `feed:written` stands in a change only: when the server wrote it.
- Instants and durations are whole microseconds; MongoDB's dates know thousandths only.
- JSON is its text: keys with dots and dollars come back as they were.
"""

import dataclasses
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from bson.int64 import Int64

from watchword.storage.feed import Change
from watchword.storage.record import Column, ColumnKind, Schema, schema_of, to_json

R = TypeVar("R")

PREFIX: Final = "watchword_"
WRITTEN: Final = "feed:written"
"""The field of a change that says when it was written, by the server's clock, not a worker's."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def encode(kind: ColumnKind, value: Any) -> Any:
    """Turn a field's value into the stored one. Never a document: nothing in it is an operator.

    Raises:
        ValueError: no database of ours can hold it.
    """
    if value is None:
        return None
    match kind:
        case "text":
            return _text(value)
        case "integer":
            return _bounded(value)
        case "instant":
            if not isinstance(value, datetime) or value.tzinfo is None:
                raise ValueError("not an instant with a time zone")
            return Int64((value - _EPOCH) // _MICROSECOND)
        case "duration":
            if not isinstance(value, timedelta):
                raise ValueError("not a duration")
            return _bounded(value // _MICROSECOND)
        case "json":
            return to_json(value)
        case "boolean":
            if not isinstance(value, bool):
                raise ValueError("neither true nor false")
            return value
        case "bytes":
            return bytes(value)


def decode(kind: ColumnKind, value: Any) -> Any:
    """Turn a stored value into the field's, before `revive`."""
    if value is None:
        return None
    match kind:
        case "integer":
            return int(value)
        case "instant":
            return _EPOCH + timedelta(microseconds=value)
        case "duration":
            return timedelta(microseconds=value)
        case "json":
            return json.loads(value)
        case _:
            return value


def document_of(schema: Schema, record: object) -> dict[str, Any]:
    """The document of a record."""
    fields = {name: getattr(record, name) for name in schema.columns}
    document = encoded(schema, fields)
    document["_id"] = key_text(schema, schema.key, fields)
    for key in schema.unique:
        text = key_text(schema, key, fields)
        if text is not None:
            document[unique_field(key)] = text
    return document


def encoded(schema: Schema, fields: Mapping[str, Any]) -> dict[str, Any]:
    """These fields as they are stored, with the date of expiry if it is among them."""
    stored = {name: encode(schema.columns[name].kind, value) for name, value in fields.items()}
    expires = schema.expires
    if expires is not None and stored.get(expires) is not None:
        stored[ttl_field(expires)] = fields[expires]
    return stored


def revived(kind: type[R], document: Mapping[str, Any]) -> R:
    """The record of a document. A field that an older worker did not write has its default."""
    values: dict[str, Any] = {}
    for column in schema_of(kind).columns.values():
        if column.name not in document:
            if column.default is not dataclasses.MISSING:
                values[column.name] = column.default
            continue
        value = decode(column.kind, document[column.name])
        revive = column.revive
        values[column.name] = value if value is None or revive is None else revive(value)
    return kind(**values)


def key_text(schema: Schema, key: tuple[str, ...], fields: Mapping[str, Any]) -> str | None:
    """A key's values as one text that no other values have; None if one of them is None."""
    values = [encode(schema.columns[name].kind, fields[name]) for name in key]
    if any(value is None for value in values):
        return None
    plain = [value.hex() if isinstance(value, bytes) else value for value in values]
    return json.dumps(plain, separators=(",", ":"), ensure_ascii=False)


def default_of(column: Column) -> Any:
    """What a document without this field stands for, as it would be stored."""
    if column.default is dataclasses.MISSING:
        return None
    return encode(column.kind, column.default)


def unique_field(key: tuple[str, ...]) -> str:
    """The field that holds a unique key; no record's field can have such a name."""
    return "unique:" + ",".join(key[1:])


def ttl_field(expires: str) -> str:
    """The field that holds the date of expiry."""
    return "ttl:" + expires


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """An index that a collection must have."""

    name: str
    fields: tuple[str, ...]
    is_unique: bool = False  # of one field, sparse
    seconds: int | None = None  # TTL: how long after the date


_SLACK: Final = timedelta(hours=6)
"""Past its time a record stays this long for our own `expire`; then MongoDB removes it."""


def indexes_of(schema: Schema) -> tuple[Index, ...]:
    """The indexes of a record's collection, besides that on `_id`."""
    made = [
        Index(name="uq_" + ",".join(key[1:]), fields=(unique_field(key),), is_unique=True)
        for key in schema.unique
    ]
    if schema.expires is not None:
        field = ttl_field(schema.expires)
        made.append(
            Index(
                name="ttl_" + schema.expires, fields=(field,), seconds=int(_SLACK.total_seconds())
            )
        )
    if is_feed(schema):  # with the key, so that a follower learns from the index what is new
        made.append(Index(name="feed_written", fields=("realm", WRITTEN, "_id")))
    # Lists in a key's order and look-ups by its first fields, as a SQL database's own index
    # on the key allows. None is left out for another that begins the same: an older worker
    # would miss it.
    for fields in dict.fromkeys((*schema.indexes, schema.key, *schema.unique)):
        made.append(Index(name="ix_" + ",".join(fields), fields=fields))  # noqa: PERF401
    return tuple(made)


def is_feed(schema: Schema) -> bool:
    """Is this the change feed's collection?"""
    return schema.name == schema_of(Change).name


def conflicts(schema: Schema) -> dict[str, str]:
    """The field that a violated key names, by the key's name in the database."""
    named = {"_id_": schema.key[-1]}
    for key in schema.unique:
        named["uq_" + ",".join(key[1:])] = key[-1]
    return named


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("not a text")
    if "\x00" in value:
        raise ValueError("a text with NUL cannot be stored")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("half a surrogate pair cannot be stored") from None
    return str.__str__(value)  # a Digest is stored as the text it is


def _bounded(value: Any) -> Int64:
    if not isinstance(value, int) or not -(2**63) <= value < 2**63:
        raise ValueError("not a whole number of 64 bits")
    return Int64(value)
