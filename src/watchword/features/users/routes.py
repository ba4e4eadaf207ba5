"""GET, PATCH and DELETE /auth/me."""

from typing import Annotated, Any, cast

from fastapi import Body as JsonBody
from fastapi import Response

from watchword.features.users.records import User
from watchword.features.users.service import Users
from watchword.features.users.shapes import change_body, given_fields, view_of
from watchword.http.depends import FRESH_FOR, CurrentIdentity, requires
from watchword.http.problems import documented
from watchword.http.wiring import Mounting
from watchword.kernel.errors import (
    CsrfRefused,
    Fault,
    Forbidden,
    InvalidInput,
    InvalidToken,
    NotAuthenticated,
    NotFresh,
    UserInUse,
)
from watchword.kernel.principal import Identity


def routes(users: Users[Any], mounting: Mounting) -> None:
    """Mount the routes of users."""
    router, cookies = mounting.router, mounting.wiring.cookies
    view, change = view_of(users.kind), change_body(users.kind)
    refusals = documented(NotAuthenticated, InvalidToken, Forbidden)

    @router.get("/me", response_model=view, responses=refusals)
    async def me(identity: CurrentIdentity) -> Any:
        """Who is signed in."""
        return _user(identity)

    @router.patch("/me", response_model=view, responses=documented(NotAuthenticated, CsrfRefused))
    async def change_me(
        identity: CurrentIdentity,
        body: Annotated[change, JsonBody()],  # type: ignore[valid-type]
    ) -> Any:
        """Change one's own name, settings and writable fields."""
        changes = dict(given_fields(cast("Any", body)))
        if changes.get("username", "") is None and users.settings.username_required:
            raise InvalidInput([Fault("username", "missing", "is required")])
        if changes.get("user_settings", {}) is None:
            changes["user_settings"] = {}
        return await users.change(_user(identity).id, **changes)

    @router.delete(
        "/me",
        status_code=204,
        responses=documented(NotAuthenticated, NotFresh, CsrfRefused, UserInUse),
        dependencies=[requires(fresh=FRESH_FOR)],
    )
    async def delete_me(identity: CurrentIdentity) -> Response:
        """Delete one's own account; needs a sign-in at most five minutes old."""
        await users.delete(_user(identity).id)
        response = Response(status_code=204)
        if identity.carriage == "cookie":
            cookies.clear(response)
        return response


def _user(identity: Identity) -> User:
    if not isinstance(identity.user, User):
        raise Forbidden("only for users")
    return identity.user
