"""Conditions as a filter. A value stands behind an operator of ours, never in its place."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Final, cast

from watchword.storage.record import Column, Schema
from watchword.storage.store import Comparison, Conditions
from watchword.stores.mongo.documents import default_of, encode, key_text, unique_field

Filter = dict[str, Any]

NOTHING: Final[Filter] = {"_id": {"$in": []}}
_ORDERS: Final = {"<": "$lt", "<=": "$lte", ">": "$gt", ">=": "$gte"}


def filter_of(schema: Schema, conditions: Conditions) -> Filter:
    """What matches all conditions. Those that name a key ask for its one text."""
    clauses: list[Filter] = []
    rest = dict(conditions)
    for key in (schema.key, *schema.unique):
        clause = _by_key(schema, key, rest)
        if clause is not None:
            clauses.append(clause)
            for name in key:
                del rest[name]
            break
    clauses += [_condition(schema.columns[name], value) for name, value in rest.items()]
    return all_of(*clauses)


def all_of(*clauses: Filter) -> Filter:
    """What matches each of these."""
    if len(clauses) == 1:
        return clauses[0]
    return {"$and": list(clauses)} if clauses else {}


def equal(schema: Schema, fields: Mapping[str, Any]) -> list[Filter]:
    """One clause a field: it still holds this."""
    return [_condition(schema.columns[name], value) for name, value in fields.items()]


def past(schema: Schema, order: tuple[str, ...], after: tuple[object, ...], way: str) -> Filter:
    """What comes after these values in this order; `way` is `$gt`, or `$lt` descending."""
    there = [
        encode(schema.columns[name].kind, value) for name, value in zip(order, after, strict=True)
    ]
    steps: list[Filter] = []
    for place, name in enumerate(order):
        tied: Filter = {order[n]: {"$eq": there[n]} for n in range(place)}
        steps.append({**tied, name: {way: there[place]}})
    return {"$or": steps}


def _by_key(schema: Schema, key: tuple[str, ...], conditions: Conditions) -> Filter | None:
    """The key's text, or some texts if its last field is one of several."""
    if not all(name in conditions for name in key):
        return None
    values = {name: _plain(conditions[name]) for name in key}
    field = "_id" if key == schema.key else unique_field(key)
    last = values[key[-1]]
    if any(_is_open(values[name]) for name in key[:-1]):
        return None
    if isinstance(last, Comparison) and last.operator == "in":
        choices = cast("tuple[object, ...]", last.value)
        if any(value is None for value in choices):
            return None
        texts = [key_text(schema, key, {**values, key[-1]: value}) for value in choices]
        return {field: {"$in": texts}}
    return None if _is_open(last) else {field: {"$eq": key_text(schema, key, values)}}


def _plain(value: object) -> object:
    return value.value if isinstance(value, Comparison) and value.operator == "=" else value


def _is_open(value: object) -> bool:
    return value is None or isinstance(value, Comparison)


def _condition(column: Column, value: object) -> Filter:
    comparison = value if isinstance(value, Comparison) else Comparison("=", value)
    kind, operator = column.kind, comparison.operator
    if operator == "in":
        choices = cast("tuple[object, ...]", comparison.value)
        there: Any = [encode(kind, choice) for choice in choices]
    else:
        there = encode(kind, comparison.value)
    if operator in _ORDERS and kind == "bytes":
        raise TypeError(f"{column.name}: MongoDB orders bytes by their number first")
    if operator in _ORDERS and there is None:
        return NOTHING
    word = {"=": "$eq", "!=": "$ne", "in": "$in", **_ORDERS}[operator]
    clause: Filter = {word: there}
    # A document of an older worker lacks the field and stands for its default. MongoDB takes
    # a field that is not there for one that holds null.
    default = default_of(column)
    wanted, natural = _holds(operator, default, there), _holds(operator, None, there)
    if natural and not wanted:
        clause["$exists"] = True
    elif wanted and not natural:
        return {"$or": [{column.name: clause}, {column.name: {"$exists": False}}]}
    return {column.name: clause}


def _holds(operator: str, here: Any, there: Any) -> bool:
    if operator == "=":
        return here == there
    if operator == "!=":
        return here != there
    if operator == "in":
        return here in there
    if here is None:
        return False
    return {"<": here < there, "<=": here <= there, ">": here > there, ">=": here >= there}[
        operator
    ]


def has_default(column: Column) -> bool:
    """Does a document without this field stand for one that holds a value?"""
    return column.default is not dataclasses.MISSING and column.default is not None
