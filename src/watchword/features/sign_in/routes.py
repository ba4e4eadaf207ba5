"""POST /auth/login/continue."""

from typing import Annotated

from fastapi import Body as JsonBody
from fastapi import Request, Response
from pydantic import Field

from watchword.features.sessions import sign_in_answer
from watchword.features.sign_in.service import SignIns
from watchword.features.users import Body, view_of
from watchword.http.client import client_of
from watchword.http.problems import documented
from watchword.http.wiring import Mounting
from watchword.kernel.errors import EmailNotVerified, ExpiredToken, InvalidToken


class ContinueBody(Body):
    """What POST /auth/login/continue takes."""

    challenge: Annotated[str, Field(max_length=128)]


def routes(sign_ins: SignIns, mounting: Mounting) -> None:
    """Mount the routes of sign-in."""
    view = view_of(sign_ins.users.kind)

    @mounting.router.post(
        "/login/continue", responses=documented(InvalidToken, ExpiredToken, EmailNotVerified)
    )
    async def go_on(request: Request, body: Annotated[ContinueBody, JsonBody()]) -> Response:
        """Go on with a sign-in once what it owed was brought."""
        started = await sign_ins.proceed(body.challenge, client=client_of(request))
        return await sign_in_answer(started, view)
