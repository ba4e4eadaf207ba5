"""A record: a frozen dataclass that declares its key, unique keys, indexes and expiry."""

import dataclasses
import json
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import (
    Annotated,
    Any,
    Literal,
    NoReturn,
    TypeVar,
    Union,
    cast,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

from watchword.kernel.secrets import Digest

R = TypeVar("R")

ColumnKind = Literal["text", "integer", "boolean", "instant", "duration", "bytes", "json"]
Ids = Literal["text", "integer", "uuid"]


class Frozen(dict[str, Any]):
    """A JSON object that cannot be changed: cached records are shared (I-10)."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("a record does not change; store an update instead")

    __setitem__ = __delitem__ = __ior__ = _refuse  # pyright: ignore[reportAssignmentType]
    clear = pop = popitem = setdefault = update = _refuse  # pyright: ignore[reportAssignmentType]


def freeze(value: Any) -> Any:
    """A JSON value whose objects and lists cannot be changed."""
    if isinstance(value, Mapping):
        mapping = cast("Mapping[str, Any]", value)
        return Frozen({name: freeze(item) for name, item in mapping.items()})
    if isinstance(value, list | tuple):
        return tuple(freeze(item) for item in cast("list[Any]", value))
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One field of a record as drivers see it."""

    name: str
    kind: ColumnKind
    optional: bool
    default: object  # dataclasses.MISSING if there is none
    revive: Callable[[Any], Any] | None  # from the stored form, where it needs more than the kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoption:
    """A table of the application's own whose rows are these records.

    Its rows are older than us and its columns are its owner's: we only add columns, and fill
    those. A row is pending while its `derived` field holds nothing; a row from which it cannot
    be derived is faulty.
    """

    table: str  # PostgreSQL: with its schema, where that is not on the search path
    columns: Mapping[str, str]  # field to the owner's column; all other fields become our columns
    ids: Ids  # what the key's column holds
    realm: str  # of every row that we did not insert
    derived: str  # the field that is computed when a row is adopted, the last of a unique key
    source: str  # from this field
    derive: Callable[[str], str]  # by this; raises ValueError
    fill: Callable[[], Mapping[str, object]]  # our fields of one pending row, if they are empty
    reset: Mapping[str, object]  # our fields of a row whose derived field is computed
    raised: str  # our number that every adoption raises
    absent: Mapping[str, object]  # what a field holds whose column holds nothing
    named_by: str  # the field by which other records name one of these


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """What a driver derives a table or a collection from. `realm` leads every key (I-11).

    A driver that knows no tables of others refuses a record with an `adoption`.
    """

    name: str
    columns: Mapping[str, Column]
    key: tuple[str, ...]
    unique: tuple[tuple[str, ...], ...]
    indexes: tuple[tuple[str, ...], ...]
    expires: str | None
    adoption: Adoption | None = None
    sealed: tuple[str, ...] = ()  # fields that hold what `crypto.sealing.Sealer` sealed, or nothing

    @property
    def table(self) -> str | None:
        """The application's own table that holds these records; None: one of ours does."""
        return None if self.adoption is None else self.adoption.table

    @property
    def stored_as(self) -> Mapping[str, str]:
        """The owner's column of each field that was mapped."""
        return {} if self.adoption is None else self.adoption.columns

    def pins(self, names: frozenset[str]) -> bool:
        """Do equalities on these fields match at most one record?"""
        return any(names.issuperset(key) for key in (self.key, *self.unique))


@dataclass_transform(frozen_default=True, kw_only_default=True)
def record(
    *,
    name: str,
    key: tuple[str, ...],
    unique: tuple[tuple[str, ...], ...] = (),
    indexes: tuple[tuple[str, ...], ...] = (),
    expires: str | None = None,
    adoption: Adoption | None = None,
    sealed: tuple[str, ...] = (),
) -> Callable[[type[R]], type[R]]:
    """Make a class a record; all names are without `realm`, which is put first everywhere.

    `sealed` names the texts that are sealed at the place that `place_of` says, so that
    `watchword secret reseal` finds them (I-17).

    A record that extends another takes that one's place in the database and adds its fields.
    The class must have a field `realm: str`.
    """

    def make(cls: type[R]) -> type[R]:
        made = dataclass(frozen=True, slots=True, kw_only=True)(cls)
        columns = _columns(made)
        if "realm" not in columns:
            raise TypeError(f"{cls.__name__} has no field realm")
        led = tuple(("realm", *names) for names in unique)
        schema = Schema(
            name=name,
            columns=columns,
            key=("realm", *key),
            unique=led,
            indexes=tuple(("realm", *names) for names in indexes),
            expires=expires,
            adoption=adoption,
            sealed=sealed,
        )
        for names in (schema.key, *schema.unique, *schema.indexes, sealed):
            for field in names:
                if field not in columns:
                    raise TypeError(f"{cls.__name__} has no field {field}")
        if expires is not None and columns[expires].kind != "instant":
            raise TypeError(f"{cls.__name__}.{expires} is no instant")
        made.__watchword_schema__ = schema  # type: ignore[attr-defined]
        return made

    return make


def schema_of(kind: type) -> Schema:
    """The schema of a record class."""
    schema = getattr(kind, "__watchword_schema__", None)
    if not isinstance(schema, Schema):
        raise TypeError(f"{kind.__name__} is no record: decorate it with @record")
    return schema


def final(records: Iterable[type]) -> list[Schema]:
    """The schemas, one a name: a record that extends another stands for both."""
    chosen: dict[str, Schema] = {}
    for kind in records:
        schema = schema_of(kind)
        known = chosen.get(schema.name)
        if known is None or len(schema.columns) > len(known.columns):
            chosen[schema.name] = schema
    return list(chosen.values())


def place_of(record: object, field: str) -> dict[str, str]:
    """Where a sealed field stands: what `Sealer` binds it to (I-17)."""
    schema = schema_of(type(record))
    key = [getattr(record, name) for name in schema.key if name != "realm"]
    return {
        "realm": str(getattr(record, "realm")),  # noqa: B009  any record
        "record": schema.name,
        "key": str(key[0]) if len(key) == 1 else to_json([str(part) for part in key]),
        "field": field,
    }


def _columns(cls: type) -> dict[str, Column]:
    hints = get_type_hints(cls, include_extras=False)
    columns: dict[str, Column] = {}
    for field in dataclasses.fields(cls):
        kind, optional, revive = _kind_of(hints[field.name], f"{cls.__name__}.{field.name}")
        default = field.default
        if default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        columns[field.name] = Column(
            name=field.name, kind=kind, optional=optional, default=default, revive=revive
        )
    return columns


def _kind_of(hint: Any, where: str) -> tuple[ColumnKind, bool, Callable[[Any], Any] | None]:
    supertype = getattr(hint, "__supertype__", None)
    if supertype is not None:
        return _kind_of(supertype, where)
    origin = get_origin(hint)
    if origin is Annotated:
        return _kind_of(get_args(hint)[0], where)
    if origin in (Union, types.UnionType):
        rest = [arg for arg in get_args(hint) if arg is not type(None)]
        if len(rest) != 1:
            raise TypeError(f"{where}: one type, or one type and None")
        kind, _, revive = _kind_of(rest[0], where)
        return kind, True, revive
    if origin is Literal:
        return "text", False, None
    if origin in (tuple, dict) or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return "json", False, freeze
    if hint is Digest:
        return "text", False, Digest
    kinds: dict[Any, ColumnKind] = {
        str: "text",
        bool: "boolean",
        int: "integer",
        datetime: "instant",
        timedelta: "duration",
        bytes: "bytes",
    }
    if hint not in kinds:
        raise TypeError(f"{where}: a record cannot hold {hint!r}")
    return kinds[hint], False, None


def to_json(value: object) -> str:
    """The stored form of a JSON field: compact, keys in order, nothing but JSON."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True, allow_nan=False)
