"""POST /auth/logout, and what every sign-in answers."""

from typing import Annotated, Any

from fastapi import Body as JsonBody
from fastapi import Request, Response
from pydantic import Field
from starlette.responses import JSONResponse

from watchword.features.sessions.service import Sessions, Started
from watchword.features.users import Body, UserView, seen
from watchword.http.depends import settled
from watchword.http.gate import Refusal
from watchword.http.problems import documented
from watchword.http.wiring import Mounting
from watchword.kernel.errors import CsrfRefused, InvalidToken, NotAuthenticated
from watchword.kernel.ports import RefreshTokens
from watchword.kernel.principal import Identity

RefreshToken = Annotated[str, Field(max_length=512)]


class LogoutBody(Body):
    """What POST /auth/logout may name."""

    refresh_token: RefreshToken | None = None


async def sign_in_answer(started: Started, view: type[UserView]) -> Response:
    """200 with what the transport gives, and the user."""
    response = JSONResponse({})
    given = await started.prepared.deliver(started.session, started.user, response)
    content = JSONResponse({**given, "user": seen(view, started.user)})
    content.raw_headers.extend(
        (name, value) for name, value in response.raw_headers if name == b"set-cookie"
    )
    content.headers["Cache-Control"] = "no-store"
    return content


def routes(sessions: Sessions, mounting: Mounting) -> None:
    """Mount the routes of sessions."""
    cookies = mounting.wiring.cookies
    refresh_tokens = mounting.wiring.every(RefreshTokens)

    @mounting.router.post(
        "/logout",
        status_code=204,
        responses=documented(NotAuthenticated, InvalidToken, CsrfRefused),
    )
    async def logout(
        request: Request, body: Annotated[LogoutBody | None, JsonBody()] = None
    ) -> Response:
        """End the session of the bearer token, the cookie or the refresh token that comes."""
        found: Any = await settled(request)
        presented = body.refresh_token if body else None
        ended: list[str] = []
        if presented is not None and refresh_tokens:
            ended.append(await refresh_tokens[0].session_of(presented))
        elif presented is not None:
            raise InvalidToken(note="no feature takes refresh tokens")
        if isinstance(found, Identity) and found.principal.session_id is not None:
            ended.append(found.principal.session_id)
        if not ended:
            raise found.error if isinstance(found, Refusal) else NotAuthenticated()
        for session_id in dict.fromkeys(ended):
            await sessions.end(session_id, why="logout")
        response = Response(status_code=204)
        if isinstance(found, Identity) and found.carriage == "cookie":
            cookies.session.clear(response)
            cookies.csrf.clear(response)
        return response
