"""Rows: what a record is in JSON, and which rows a condition matches."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar, cast

from watchword.storage.record import ColumnKind, Schema, schema_of, to_json
from watchword.storage.store import Comparison, Conditions

R = TypeVar("R")
Row = dict[str, Any]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def encode(kind: ColumnKind, value: Any) -> Any:
    """A field's value as JSON that compares and sorts as the value does.

    Raises:
        ValueError: no store of Watchword's can hold it.
    """
    if value is None:
        return None
    match kind:
        case "text":
            if not isinstance(value, str) or "\x00" in value:
                raise ValueError("not a text, or one with NUL")
            value.encode()  # half a surrogate pair: UnicodeEncodeError is a ValueError
            return str.__str__(value)
        case "integer":
            return bounded(value)
        case "boolean":
            if not isinstance(value, bool):
                raise ValueError("neither true nor false")
            return value
        case "instant":
            if not isinstance(value, datetime) or value.tzinfo is None:
                raise ValueError("not an instant with a time zone")
            return bounded((value - _EPOCH) // _MICROSECOND)
        case "duration":
            if not isinstance(value, timedelta):
                raise ValueError("not a duration")
            return bounded(value // _MICROSECOND)
        case "bytes":
            return bytes(value).hex()
        case "json":
            return to_json(value)  # as text: in JSON 1 is 1.0, and they are not equal here


def decode(kind: ColumnKind, value: Any) -> Any:
    """The field's value of what `encode` made."""
    if value is None:
        return None
    match kind:
        case "instant":
            return _EPOCH + timedelta(microseconds=value)
        case "duration":
            return timedelta(microseconds=value)
        case "bytes":
            return bytes.fromhex(value)
        case "json":
            return json.loads(value)
        case _:
            return value


def bounded(value: Any) -> int:
    """A whole number of 64 bits. Raises ValueError."""
    if not isinstance(value, int) or not -(2**63) <= value < 2**63:
        raise ValueError("not a whole number of 64 bits")
    return value


def row_of(record: object) -> Row:
    """The row of a record."""
    columns = schema_of(type(record)).columns.values()
    return {column.name: encode(column.kind, getattr(record, column.name)) for column in columns}


def record_of(kind: type[R], row: Row) -> R:
    """The record of a row."""
    values: dict[str, Any] = {}
    for column in schema_of(kind).columns.values():
        value = decode(column.kind, row[column.name])
        values[column.name] = value if value is None or not column.revive else column.revive(value)
    return kind(**values)


def completed(schema: Schema, rows: Sequence[Row]) -> list[Row]:
    """Rows with the fields that an older version did not know, as their defaults say."""
    defaults = {
        column.name: encode(column.kind, column.default)
        for column in schema.columns.values()
        if column.default is not dataclasses.MISSING
    }
    return [{**defaults, **row} for row in rows]


def encoded(schema: Schema, conditions: Conditions) -> dict[str, Comparison]:
    """Conditions on stored values, each a comparison. Raises ValueError."""
    found: dict[str, Comparison] = {}
    for name, given in conditions.items():
        asked = given if isinstance(given, Comparison) else Comparison("=", given)
        kind, value = schema.columns[name].kind, asked.value
        if asked.operator == "in":
            several = cast("tuple[object, ...]", value)
            stored: Any = tuple(encode(kind, each) for each in several)
        else:
            stored = encode(kind, value)
        found[name] = Comparison(asked.operator, stored)
    return found


def matches(row: Row, conditions: Mapping[str, Comparison]) -> bool:
    """Do all of these hold?"""
    return all(_holds(row[name], asked) for name, asked in conditions.items())


def _holds(there: Any, asked: Comparison) -> bool:
    given: Any = asked.value
    match asked.operator:
        case "=":
            return there == given
        case "!=":
            return there != given
        case "in":
            return there in given
        case _ if there is None or given is None:
            return False  # nothing is neither more nor less than anything
        case "<":
            return there < given
        case "<=":
            return there <= given
        case ">":
            return there > given
        case ">=":
            return there >= given
