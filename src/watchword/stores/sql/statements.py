"""The statement of each verb. Values are always bound, never part of the text."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast

from sqlalchemy import (
    ColumnElement,
    Delete,
    Insert,
    Table,
    and_,
    bindparam,
    case,
    delete,
    false,
    func,
    insert,
    literal,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from watchword.storage.record import Schema
from watchword.storage.store import Comparison, Conditions, Plus
from watchword.stores.sql.tables import Stored, compared, encode


def get(table: Table, schema: Schema, conditions: Conditions) -> Any:
    """Ask for the one record that a pinned key names."""
    return select(*_columns(table, schema)).where(*matching(table, conditions))


def find(
    table: Table,
    schema: Schema,
    conditions: Conditions,
    *,
    order: tuple[str, ...],
    descending: bool,
    after: tuple[object, ...] | None,
    limit: int,
) -> Any:
    """Ask for a part of a list that starts past `after`."""
    columns = [compared(table.c[name]) for name in order]
    statement: Any = get(table, schema, conditions).limit(limit)
    if after is not None:
        here = tuple_(*columns)
        there = tuple_(
            *(_bound(table.c[name], value) for name, value in zip(order, after, strict=True))
        )
        statement = statement.where(here < there if descending else here > there)
    return statement.order_by(*(c.desc() if descending else c.asc() for c in columns))


def count(table: Table, conditions: Conditions) -> Any:
    """Ask how many match."""
    return select(func.count()).select_from(table).where(*matching(table, conditions))


def add(table: Table, schema: Schema, record: object) -> Insert:
    """Insert a record."""
    values = values_of(schema, record)
    if schema.adoption is not None:
        return _add_to_adopted(table, schema, values)
    return insert(table).values(values)


def _add_to_adopted(table: Table, schema: Schema, values: dict[str, Any]) -> Any:
    """Insert into a table of somebody else's, which may give the key, and whose key is typed."""
    name = schema.key[-1]
    stored = cast("Stored", table.c[name].type)
    if stored.form == "integer" and not values[name]:
        del values[name]
    elif encode(stored.kind, values[name], postgres=True, form=stored.form) is None:
        raise ValueError(f"{table.name} is keyed otherwise: no such id can be stored")
    return insert(table).values(values).returning(table.c[name])


def change(
    table: Table, schema: Schema, conditions: Conditions, changes: Mapping[str, object]
) -> Any:
    """Change the pinned record where the conditions hold, and return it."""
    values: dict[str, Any] = {
        name: _sum(table.c[name], literal(value.amount, Stored("integer")))
        if isinstance(value, Plus)
        else value
        for name, value in changes.items()
    }
    statement: Any = update(table).where(*matching(table, conditions)).values(values)
    return statement.returning(*_columns(table, schema))


def remove(table: Table, conditions: Conditions) -> Delete:
    """Delete what matches."""
    return delete(table).where(*matching(table, conditions))


def take(table: Table, schema: Schema, conditions: Conditions) -> Any:
    """Delete the pinned record and return it."""
    return remove(table, conditions).returning(*_columns(table, schema))


def increment(
    table: Table, schema: Schema, record: object, *, field: str, expires: str, now: datetime
) -> Any:
    """Insert a counter or raise the one that stands; one past its time starts anew."""
    values = values_of(schema, record)

    def upsert(make: Any) -> Any:
        statement: Any = make(table).values(values)
        past = table.c[expires] <= literal(now, table.c[expires].type)
        fresh = statement.excluded
        replaced: dict[str, Any] = {
            name: case((past, fresh[name]), else_=table.c[name])
            for name in values
            if name not in schema.key and name != field
        }
        replaced[field] = case((past, fresh[field]), else_=_sum(table.c[field], fresh[field]))
        return statement.on_conflict_do_update(
            index_elements=[table.c[name] for name in schema.key], set_=replaced
        ).returning(table.c[field])

    made: dict[str, Any] = {
        "postgresql": upsert(postgresql.insert),
        "sqlite": upsert(sqlite.insert),
    }
    return made


def expire(table: Table, schema: Schema, *, expires: str, now: datetime, limit: int) -> Any:
    """Delete a bounded batch of what is past its time.

    The batch is a CTE, which is computed once: a plain subquery may be planned into a loop
    and delete more than its limit. Rows that another worker holds are skipped.
    """
    past = table.c[expires] <= literal(now, table.c[expires].type)
    key = [table.c[name] for name in schema.key]
    batch = (
        select(*key)
        .where(past)
        .order_by(table.c[expires])
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("batch")
    )
    chosen = select(*(batch.c[name] for name in schema.key))
    # Returned rows are counted: SQLite's driver counts none for a statement that begins WITH.
    return delete(table).where(tuple_(*key).in_(chosen), past).returning(table.c.realm)


def values_of(schema: Schema, record: object) -> dict[str, Any]:
    """The fields of a record."""
    return {name: getattr(record, name) for name in schema.columns}


def matching(table: Table, conditions: Conditions) -> list[ColumnElement[bool]]:
    """The conditions as SQL. None is a value for equality, never for an order."""
    return [_condition(table.c[name], value) for name, value in conditions.items()]


def _condition(column: Any, value: object) -> ColumnElement[bool]:
    if not isinstance(value, Comparison):
        return column.is_(None) if value is None else compared(column) == _bound(column, value)
    if value.operator == "in":
        return _one_of(column, cast("tuple[object, ...]", value.value))
    if value.operator == "!=":
        if value.value is None:
            return column.is_not(None)
        return column.is_distinct_from(literal(value.value, column.type))
    if value.value is None:
        return column.is_(None) if value.operator == "=" else false()
    there = _bound(column, value.value)
    column = compared(column)
    match value.operator:
        case "=":
            return column == there
        case "<":
            return column < there
        case "<=":
            return column <= there
        case ">":
            return column > there
        case ">=":
            return column >= there


def _bound(column: Any, value: object) -> Any:
    return compared(column, literal(value, column.type))


def _one_of(column: Any, values: tuple[object, ...]) -> ColumnElement[bool]:
    some = [value for value in values if value is not None]
    choices: list[ColumnElement[bool]] = []
    if some:
        # One parameter, which SQLAlchemy unfolds: a literal each would be compiled each.
        choices.append(column.in_(bindparam(None, some, type_=column.type, expanding=True)))
    if len(some) < len(values):
        choices.append(column.is_(None))
    return or_(*choices) if choices else and_(false())


def _sum(one: Any, other: Any) -> ColumnElement[int]:
    return one.op("+")(other)  # a plain + is that of texts, the type's common ground


def _columns(table: Table, schema: Schema) -> list[Any]:
    return [table.c[name] for name in schema.columns]
