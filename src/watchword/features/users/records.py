"""The user: who somebody is. How they prove it belongs to other features."""

import dataclasses
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import (
    Any,
    Literal,
    TypeVar,
    dataclass_transform,
    get_args,
    get_type_hints,
    overload,
)

from watchword.kernel.address import address_of
from watchword.kernel.ids import new_id, new_uuid
from watchword.storage.record import Adoption, Column, Frozen, Ids, Schema, record, schema_of

Right = Literal["self", "admin", "nobody"]


@dataclass(frozen=True, slots=True)
class Own:
    """Who may read and who may write a field of one's own: `Annotated[str, Own(write="self")]`."""

    read: Right = "self"
    write: Right = "nobody"


@record(
    name="user",
    key=("id",),
    unique=(("email_key",),),
    indexes=(("created_at", "id"),),
)
class User:
    """A person of one realm."""

    realm: str
    id: str  # opaque; the `sub` of tokens
    email: str  # as it is written to
    email_key: str  # as it is compared: normalised, case folded; no collation has a say
    username: str | None = None  # a name to show; not unique, not a way in
    roles: tuple[str, ...] = ()
    user_settings: Mapping[str, Any] = field(default_factory=Frozen)
    is_verified: bool = False  # has the address been proven?
    is_active: bool = True
    epoch: int = 0  # raising it ends all that began under less (I-01)
    created_at: datetime
    updated_at: datetime


U = TypeVar("U", bound=User)

_OURS = frozenset({"realm", "email_key", "epoch"})  # no column of anybody else's decides these


@overload
@dataclass_transform(frozen_default=True, kw_only_default=True)
def user_fields(cls: type[U], /) -> type[U]: ...


@overload
@dataclass_transform(frozen_default=True, kw_only_default=True)
def user_fields(
    *,
    table: str,
    columns: Mapping[str, str],
    ids: Ids = "text",
    realm: str = "main",
) -> Callable[[type[U]], type[U]]: ...


def user_fields(
    cls: type[Any] | None = None,
    /,
    *,
    table: str | None = None,
    columns: Mapping[str, str] | None = None,
    ids: Ids = "text",
    realm: str = "main",
) -> Any:
    """Make a subclass of `User` the record of users, with fields of its own.

    Each own field needs a default, so that users made before it can be read, and says with
    `Own` who may read and who may write it; without one it is the server's alone.

        @user_fields
        class Member(User):
            nickname: Annotated[str, Own(read="self", write="self")] = ""

    Users may be the rows of a table that you have already:

        @user_fields(table="members", columns={"email": "mail", "created_at": "created"})
        class Member(User): ...

    Args:
        cls: the subclass, where nothing else is said.
        table: your own table; on PostgreSQL `schema.table`, if it is not on the search path.
        columns: which of your columns hold which fields. Every field that is not named here
            gets a column of ours, `watchword_…`; `id` is `id` unless you say otherwise.
        ids: what your key's column holds. With "integer" the database numbers new users.
        realm: whose users your rows are.

    `watchword migrate` adds our columns to it; docs/features/adoption.md tells the rest.
    """

    def make(cls: type[Any]) -> type[Any]:
        adoption = None if table is None else _adoption(table, columns or {}, ids, realm)
        return _made(cls, adoption)

    return make if cls is None else make(cls)


def _made(cls: type[Any], adoption: Adoption | None) -> type[Any]:
    base: Schema = schema_of(User)
    made = record(
        name=base.name,
        key=base.key[1:],
        unique=tuple(names[1:] for names in base.unique),
        indexes=tuple(names[1:] for names in base.indexes),
        adoption=adoption,
    )(cls)
    fields = schema_of(made).columns
    for name, column in fields.items():
        if name not in base.columns and column.default is dataclasses.MISSING:
            raise TypeError(f"{cls.__name__}.{name} needs a default")
    if adoption is not None:
        unknown = sorted(adoption.columns.keys() - fields.keys())
        if unknown:
            raise TypeError(f"{cls.__name__} has no field {unknown[0]} to map")
    return made


def _adoption(table: str, columns: Mapping[str, str], ids: Ids, realm: str) -> Adoption:
    if "email" not in columns:
        raise TypeError(f"{table}: say which column holds the address: columns={{'email': …}}")
    if taken := sorted(_OURS & columns.keys()):
        raise TypeError(f"{taken[0]} is kept by Watchword alone: it is mapped to no column")
    mapped = {"id": "id", **columns}
    if len(set(mapped.values())) < len(mapped):
        raise TypeError(f"{table}: two fields are mapped to one column")
    return Adoption(
        table=table,
        columns=mapped,
        ids=ids,
        realm=realm,
        derived="email_key",
        source="email",
        derive=lambda email: address_of(email).key,
        fill=_filling,
        reset={"is_verified": False},  # whoever proved an address proved another one
        raised="epoch",
        # What is not filled yet is nobody's: no address, no session (-1 fits none), not active.
        named_by="user_id",
        absent={
            "email": "",
            "email_key": "",
            "epoch": -1,
            "is_active": False,
            "is_verified": False,
        },
    )


def _filling() -> Mapping[str, object]:
    now = datetime.now(UTC)
    # Not 0: an id that the application uses once more must not fit what its last bearer left.
    return {"epoch": secrets.randbits(31), "created_at": now, "updated_at": now}


@dataclass(frozen=True, slots=True)
class OwnField:
    """One own field: its type for validation, its rights, its column."""

    name: str
    hint: Any
    own: Own
    column: Column


def fresh_id(kind: type[User], now: datetime) -> str:
    """The id of a new user; empty where the application's own table gives it."""
    adoption = schema_of(kind).adoption
    if adoption is None or adoption.ids == "text":
        return new_id(now)
    return new_uuid(now) if adoption.ids == "uuid" else ""


def own_fields(kind: type[User]) -> tuple[OwnField, ...]:
    """The fields that a subclass adds to `User`."""
    hints = get_type_hints(kind, include_extras=True)
    found: list[OwnField] = []
    for name, column in schema_of(kind).columns.items():
        if name in schema_of(User).columns:
            continue
        marks = [mark for mark in get_args(hints[name])[1:] if isinstance(mark, Own)]
        own = marks[0] if marks else Own(read="nobody", write="nobody")
        found.append(OwnField(name, hints[name], own, column))
    return tuple(found)


@record(name="user_intent", key=("id",), indexes=(("due_at", "id"),))
class UserIntent:
    """What was begun on a user and takes several writes, where no transaction holds them.

    Whoever began it removes it; a worker completes those whose time has come (I-01).
    """

    realm: str
    id: str
    user_id: str
    user_since: datetime  # an id may be used once more: by whom was it held then?
    purpose: Literal["end", "delete"]
    due_at: datetime
