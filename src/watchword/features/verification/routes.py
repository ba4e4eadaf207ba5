"""POST /auth/verify-email-request and POST /auth/verify-email."""

from typing import Annotated

from fastapi import Body as JsonBody
from fastapi import Response
from pydantic import Field

from watchword.features.users import Body, Email, OptionalUser
from watchword.features.verification.service import Verification
from watchword.http.problems import documented
from watchword.http.wiring import Mounting
from watchword.kernel.errors import (
    CsrfRefused,
    ExpiredToken,
    InvalidCredentials,
    InvalidToken,
    MailUnavailable,
)


class VerificationRequestBody(Body):
    """What POST /auth/verify-email-request takes."""

    email: Email


class VerificationBody(Body):
    """What POST /auth/verify-email takes."""

    token: str = Field(max_length=256)
    password: str | None = Field(default=None, json_schema_extra={"format": "password"})


def routes(verification: Verification, mounting: Mounting) -> None:
    """Mount the routes of verification."""
    router = mounting.router

    @router.post("/verify-email-request", status_code=202, responses=documented(MailUnavailable))
    async def ask(body: Annotated[VerificationRequestBody, JsonBody()]) -> dict[str, str]:
        """Ask for a mail with a token. The answer is the same for every address."""
        await verification.request(body.email)
        return {"status": "accepted"}

    @router.post(
        "/verify-email",
        status_code=204,
        responses=documented(InvalidToken, ExpiredToken, InvalidCredentials, CsrfRefused),
    )
    async def verify(body: Annotated[VerificationBody, JsonBody()], user: OptionalUser) -> Response:
        """Prove the address. Without its session or password, older ways in are removed."""
        await verification.verify(
            body.token, password=body.password, acting=user.id if user else None
        )
        return Response(status_code=204)
