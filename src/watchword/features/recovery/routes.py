"""POST /auth/password-reset-request and POST /auth/password-reset."""

from typing import Annotated

from fastapi import Body as JsonBody
from fastapi import Response
from pydantic import Field

from watchword.features.recovery.service import Recovery
from watchword.features.users import Body, Email
from watchword.http.problems import documented
from watchword.http.wiring import Mounting
from watchword.kernel.errors import Busy, ExpiredToken, InvalidToken, MailUnavailable


class ResetRequestBody(Body):
    """What POST /auth/password-reset-request takes."""

    email: Email


class ResetBody(Body):
    """What POST /auth/password-reset takes."""

    token: str = Field(max_length=256)
    new_password: str = Field(json_schema_extra={"format": "password"})


def routes(recovery: Recovery, mounting: Mounting) -> None:
    """Mount the routes of recovery."""
    router = mounting.router

    @router.post("/password-reset-request", status_code=202, responses=documented(MailUnavailable))
    async def ask(body: Annotated[ResetRequestBody, JsonBody()]) -> dict[str, str]:
        """Ask for a mail with a token. The answer is the same for every address."""
        await recovery.request(body.email)
        return {"status": "accepted"}

    @router.post(
        "/password-reset",
        status_code=204,
        responses=documented(InvalidToken, ExpiredToken, Busy),
    )
    async def reset(body: Annotated[ResetBody, JsonBody()]) -> Response:
        """Set another password with the token from the mail. Signs nobody in."""
        await recovery.reset(body.token, new_password=body.new_password)
        return Response(status_code=204)
