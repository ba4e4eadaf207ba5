"""The user: who somebody is. How they prove it belongs to other features."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeVar, dataclass_transform, get_args, get_type_hints

from watchword.storage.record import Column, Frozen, Schema, record, schema_of

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


@dataclass_transform(frozen_default=True, kw_only_default=True)
def user_fields(cls: type[U]) -> type[U]:
    """Make a subclass of `User` the record of users, with fields of its own.

    Each own field needs a default, so that users made before it can be read, and says with
    `Own` who may read and who may write it; without one it is the server's alone.

        @user_fields
        class Member(User):
            nickname: Annotated[str, Own(read="self", write="self")] = ""
    """
    base: Schema = schema_of(User)
    made = record(
        name=base.name,
        key=base.key[1:],
        unique=tuple(names[1:] for names in base.unique),
        indexes=tuple(names[1:] for names in base.indexes),
    )(cls)
    for name, column in schema_of(made).columns.items():
        if name not in base.columns and column.default is dataclasses.MISSING:
            raise TypeError(f"{cls.__name__}.{name} needs a default")
    return made


@dataclass(frozen=True, slots=True)
class OwnField:
    """One own field: its type for validation, its rights, its column."""

    name: str
    hint: Any
    own: Own
    column: Column


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
