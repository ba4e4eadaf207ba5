"""GET and POST /auth/api-keys, DELETE /auth/api-keys/{id}, POST /auth/api-keys/{id}/rotate."""

from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import Body as JsonBody
from fastapi import Path, Query, Response
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from watchword.features.api_keys.errors import ApiKeyNotFound, ApiKeyReplaced, ApiKeysLimited
from watchword.features.api_keys.service import LONGEST_NAME, MAX_SCOPES, ApiKeys, IssuedKey
from watchword.features.users import Body, CurrentUser
from watchword.http.depends import FRESH_FOR, requires
from watchword.http.problems import documented
from watchword.http.wiring import Mounting
from watchword.kernel.errors import (
    CsrfRefused,
    Forbidden,
    InvalidToken,
    NotAuthenticated,
    NotFresh,
)
from watchword.kernel.settings import parse_duration


def _duration(value: object) -> object:
    if value is None:
        return None
    try:
        return parse_duration(value)
    except OverflowError:  # more days than there are
        raise ValueError("is too long") from None


Duration = Annotated[timedelta | None, BeforeValidator(_duration)]
KeyId = Annotated[str, Path(max_length=64)]


class ApiKeyBody(Body):
    """What POST /auth/api-keys takes."""

    name: str = Field(max_length=LONGEST_NAME)
    scopes: list[str] = Field(default=[], max_length=MAX_SCOPES)
    expires_in: Duration = Field(default=None, examples=["90d"])
    expires_at: AwareDatetime | None = None


class RotateBody(Body):
    """What POST /auth/api-keys/{id}/rotate may say."""

    overlap: Duration = Field(default=None, examples=["24h"])


class ApiKeyView(BaseModel):
    """A key as its owner sees it in lists: nothing that opens anything."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    name: str
    hint: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None
    successor_id: str | None


class IssuedKeyView(ApiKeyView):
    """A key on the one occasion that it is shown."""

    key: str


class ApiKeyList(BaseModel):
    """A page of keys."""

    items: list[ApiKeyView]
    next: str | None


def routes(keys: ApiKeys, mounting: Mounting) -> None:
    """Mount the routes of api_keys. A key manages no keys: all of them take sessions only."""
    router = mounting.router
    refused = (NotAuthenticated, InvalidToken, Forbidden)
    fresh = [requires(fresh=FRESH_FOR)]  # I-15

    @router.get("/api-keys", response_model=ApiKeyList, responses=documented(*refused))
    async def page(
        user: CurrentUser,
        limit: Annotated[int, Query(ge=1, le=100)] = 50,
        after: Annotated[str | None, Query(max_length=512)] = None,
    ) -> Any:
        """One's own keys that live, the newest first; never the keys themselves."""
        found = await keys.page(user, limit=limit, after=after)
        return {"items": found.items, "next": found.next}

    @router.post(
        "/api-keys",
        status_code=201,
        response_model=IssuedKeyView,
        responses=documented(*refused, NotFresh, CsrfRefused, ApiKeysLimited),
        dependencies=fresh,
    )
    async def create(user: CurrentUser, body: Annotated[ApiKeyBody, JsonBody()]) -> Any:
        """Make a key; needs a fresh sign-in. The answer is the only place where it stands."""
        issued = await keys.create(
            user,
            name=body.name,
            scopes=body.scopes,
            expires_in=body.expires_in,
            expires_at=body.expires_at,
        )
        return _shown(issued)

    @router.delete(
        "/api-keys/{key_id}",
        status_code=204,
        responses=documented(*refused, NotFresh, CsrfRefused, ApiKeyNotFound),
        dependencies=fresh,
    )
    async def end(user: CurrentUser, key_id: KeyId) -> Response:
        """End a key; needs a fresh sign-in."""
        await keys.end(_known(key_id), user_id=user.id, why="by_owner")
        return Response(status_code=204)

    @router.post(
        "/api-keys/{key_id}/rotate",
        status_code=201,
        response_model=IssuedKeyView,
        responses=documented(*refused, NotFresh, CsrfRefused, ApiKeyNotFound, ApiKeyReplaced),
        dependencies=fresh,
    )
    async def rotate(
        user: CurrentUser, key_id: KeyId, body: Annotated[RotateBody | None, JsonBody()] = None
    ) -> Any:
        """Make a key's successor; both work until the overlap is over. Needs a fresh sign-in."""
        overlap = None if body is None else body.overlap
        return _shown(await keys.rotate(user, _known(key_id), overlap=overlap))


def _shown(issued: IssuedKey) -> dict[str, Any]:
    view = ApiKeyView.model_validate(issued.record)
    return {**view.model_dump(), "key": issued.key.reveal()}


def _known(key_id: str) -> str:
    """What cannot be an id names nothing: no database need be asked for it."""
    if not (key_id.isascii() and key_id.isalnum()):
        raise ApiKeyNotFound
    return key_id
