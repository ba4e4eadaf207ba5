"""What goes in and out: models made from the record, so that own fields flow through."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from watchword.features.users.records import OwnField, Right, User, own_fields
from watchword.http.body import Line

_LONGEST = timedelta(days=36500)

Username = Annotated[Line, Field(min_length=1, max_length=128)]
Email = Annotated[str, Field(max_length=1024, examples=["ada@example.com"])]


class UserView(BaseModel):
    """A user as its owner sees it. No hash, no epoch, nothing that proves anything."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    email: str
    username: str | None
    roles: list[str]
    user_settings: dict[str, Any]
    is_verified: bool
    is_active: bool
    created_at: datetime
    updated_at: datetime


def view_of(kind: type[User], reader: Right = "self") -> type[UserView]:
    """The model of what this reader sees: the fields of `UserView` and the readable own ones."""
    readable: dict[str, Any] = {
        field.name: (field.hint, ...)
        for field in own_fields(kind)
        if field.own.read == reader or (reader == "admin" and field.own.read == "self")
    }
    if not readable:
        return UserView
    return create_model(f"{kind.__name__}View", __base__=UserView, **readable)


def writable(kind: type[User], writer: Right = "self") -> dict[str, Any]:
    """Model fields for the own fields that this writer may set, each optional."""
    return {
        field.name: (_bounded(field), field.column.default)
        for field in own_fields(kind)
        if field.own.write == writer
    }


def _bounded(field: OwnField) -> Any:
    # What no database holds is refused before it gets there.
    if field.column.kind == "integer":
        return Annotated[field.hint, Field(ge=-(2**63), lt=2**63)]
    if field.column.kind == "duration":
        return Annotated[field.hint, Field(ge=-_LONGEST, le=_LONGEST)]
    return field.hint


class Body(BaseModel):
    """A request's body: unknown and unwritable fields are refused, not ignored (DEF-14)."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


def change_body(kind: type[User]) -> type[Body]:
    """The body of PATCH /auth/me."""
    return create_model(
        "UserChange",
        __base__=Body,
        username=(Username | None, None),
        user_settings=(dict[str, Any] | None, None),
        **writable(kind),
    )


def given_fields(body: BaseModel) -> Mapping[str, Any]:
    """Only what the request really named."""
    return {name: getattr(body, name) for name in body.model_fields_set}


def seen(view: type[UserView], user: object) -> dict[str, Any]:
    """The JSON form of a user."""
    return view.model_validate(user).model_dump(mode="json")
