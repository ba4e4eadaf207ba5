"""Stored forms: what a field's value is in a hash, and whether a stored record matches."""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar, cast

from watchword.kernel.errors import StoreUnavailable
from watchword.storage.record import Column, ColumnKind, Schema, schema_of, to_json
from watchword.storage.store import Comparison, Conditions

R = TypeVar("R")
Raw = dict[bytes, bytes]
"""A record as stored: what holds nothing has no field."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_NUMBERS: Final = ("integer", "instant", "duration")


def encode(kind: ColumnKind, value: Any) -> bytes | None:
    """Turn a field's value into the stored one.

    Raises:
        ValueError: no store of ours can hold it.
    """
    if value is None:
        return None
    match kind:
        case "text":
            if not isinstance(value, str):
                raise ValueError("not a text")
            if "\x00" in value:
                raise ValueError("a text with NUL cannot be stored")
            return value.encode()  # half a surrogate pair: UnicodeEncodeError is a ValueError
        case "integer":
            return _decimal(value)
        case "instant":
            if not isinstance(value, datetime) or value.tzinfo is None:
                raise ValueError("not an instant with a time zone")
            return _decimal((value - _EPOCH) // _MICROSECOND)
        case "duration":
            if not isinstance(value, timedelta):
                raise ValueError("not a duration")
            return _decimal(value // _MICROSECOND)
        case "json":
            return to_json(value).encode()
        case "boolean":
            if not isinstance(value, bool):
                raise ValueError("neither true nor false")
            return b"1" if value else b"0"
        case "bytes":
            return bytes(value)


def decode(column: Column, value: bytes | None) -> Any:
    """Turn a stored value into the field's."""
    if value is None:
        return None
    plain: Any
    match column.kind:
        case "text":
            plain = value.decode()
        case "integer":
            plain = int(value)
        case "instant":
            plain = _EPOCH + timedelta(microseconds=int(value))
        case "duration":
            plain = timedelta(microseconds=int(value))
        case "boolean":
            plain = value == b"1"
        case "json":
            plain = json.loads(value)
        case "bytes":
            plain = value
    return plain if column.revive is None else column.revive(plain)


def raw_of(schema: Schema, record: object) -> Raw:
    """The stored form of a record."""
    found: Raw = {}
    for name, column in schema.columns.items():
        value = encode(column.kind, getattr(record, name))
        if value is not None:
            found[name.encode()] = value
    return found


def revived(kind: type[R], raw: Raw) -> R:
    """The record of a hash. A field that an older worker did not know has its default."""
    values: dict[str, Any] = {}
    for name, column in schema_of(kind).columns.items():
        stored = raw.get(name.encode())
        if stored is None and not column.optional:
            if column.default is dataclasses.MISSING:
                raise StoreUnavailable(f"a {schema_of(kind).name} without {name}")
            values[name] = column.default
        else:
            values[name] = decode(column, stored)
    return kind(**values)


def paired(flat: list[bytes]) -> Raw:
    """The hash of a reply, which is a list of names and values."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition in stored form, for the script that decides and for lists read here."""

    field: bytes
    operator: str
    values: tuple[bytes | None, ...]
    is_number: bool = False
    absent: bytes | None = None  # what a record of an older worker holds, which lacks the field

    def words(self) -> tuple[bytes, ...]:
        """As a script takes it."""
        return (
            self.field,
            self.operator.encode(),
            b"n" if self.is_number else b"b",
            maybe(self.absent),
            b"%d" % len(self.values),
            *map(maybe, self.values),
        )

    def matches(self, raw: Raw) -> bool:
        """Does it hold for this record? The same answer as the script's."""
        there = raw.get(self.field, self.absent)
        if self.operator in ("=", "in"):
            return there in self.values
        if self.operator == "!=":
            return there not in self.values
        given = self.values[0]
        if there is None or given is None:
            return False
        one, other = cast("Any", (there, given))
        if self.is_number:
            one, other = int(there), int(given)
        match self.operator:
            case "<":
                return one < other
            case "<=":
                return one <= other
            case ">":
                return one > other
            case _:
                return one >= other


def maybe(value: bytes | None) -> bytes:
    """A value as a script takes it."""
    return b"-" if value is None else b"=" + value


def condition(column: Column, value: object) -> Condition:
    """The stored form of one condition."""
    operator, given = "=", (value,)
    if isinstance(value, Comparison):
        operator = value.operator
        given = cast("tuple[object, ...]", value.value) if operator == "in" else (value.value,)
    stored = tuple(encode(column.kind, one) for one in given)
    is_number = column.kind in _NUMBERS
    return Condition(column.name.encode(), operator, stored, is_number, absent(column))


def absent(column: Column) -> bytes | None:
    """The stored form of what a field holds that a record lacks."""
    if column.optional or column.default is dataclasses.MISSING:
        return None
    return encode(column.kind, column.default)


def conditions_of(schema: Schema, conditions: Conditions) -> tuple[Condition, ...]:
    """The stored form of conditions."""
    return tuple(condition(schema.columns[name], value) for name, value in conditions.items())


def as_read(raw: Raw, fields: Iterable[str]) -> tuple[Condition, ...]:
    """Conditions that these fields still hold what was read."""
    return tuple(Condition(name.encode(), "=", (raw.get(name.encode()),)) for name in fields)


def words(conditions: tuple[Condition, ...]) -> tuple[bytes, ...]:
    """Conditions as a script takes them."""
    flat: list[bytes] = [b"%d" % len(conditions)]
    for each in conditions:
        flat += each.words()
    return tuple(flat)


def _decimal(value: Any) -> bytes:
    if not isinstance(value, int) or not -(2**63) <= value < 2**63:
        raise ValueError("not a whole number of 64 bits")
    return b"%d" % value
