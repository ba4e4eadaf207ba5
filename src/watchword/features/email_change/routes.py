"""POST /auth/email/change, /auth/email/confirm and /auth/email/undo."""

from typing import Annotated

from fastapi import Body as JsonBody
from fastapi import Response
from pydantic import Field

from watchword.features.email_change.service import EmailChanges
from watchword.features.users import Body, Email, OptionalUser, User
from watchword.http.depends import CurrentIdentity
from watchword.http.problems import documented
from watchword.http.wiring import Mounting
from watchword.kernel.errors import (
    Busy,
    CsrfRefused,
    ExpiredToken,
    Forbidden,
    InvalidCredentials,
    InvalidToken,
    MailUnavailable,
    NotAuthenticated,
)


class EmailChangeBody(Body):
    """What POST /auth/email/change takes."""

    new_email: Email
    current_password: str = Field(json_schema_extra={"format": "password"})


class ConfirmBody(Body):
    """What POST /auth/email/confirm takes; the password where no session comes with it."""

    token: str = Field(max_length=256)
    password: str | None = Field(default=None, json_schema_extra={"format": "password"})


class UndoBody(Body):
    """What POST /auth/email/undo takes."""

    token: str = Field(max_length=256)


def routes(changes: EmailChanges, mounting: Mounting) -> None:
    """Mount the routes of email_change."""
    router = mounting.router

    @router.post(
        "/email/change",
        status_code=202,
        responses=documented(
            NotAuthenticated, InvalidCredentials, MailUnavailable, CsrfRefused, Busy
        ),
    )
    async def change(
        identity: CurrentIdentity, body: Annotated[EmailChangeBody, JsonBody()]
    ) -> dict[str, str]:
        """Ask for another address; it gets a mail. Until it confirms, the old one signs in."""
        if not isinstance(identity.user, User):
            raise Forbidden("only for users")
        await changes.request(
            identity.user,
            new_email=body.new_email,
            current_password=body.current_password,
            session_id=identity.principal.session_id,
        )
        return {"status": "accepted"}

    @router.post(
        "/email/confirm",
        status_code=204,
        responses=documented(
            InvalidToken, ExpiredToken, NotAuthenticated, InvalidCredentials, CsrfRefused, Busy
        ),
    )
    async def confirm(body: Annotated[ConfirmBody, JsonBody()], user: OptionalUser) -> Response:
        """Confirm the new address: its token, and the account's session or password."""
        await changes.confirm(body.token, acting=user.id if user else None, password=body.password)
        return Response(status_code=204)

    @router.post("/email/undo", status_code=204, responses=documented(InvalidToken, ExpiredToken))
    async def undo(body: Annotated[UndoBody, JsonBody()]) -> Response:
        """Take a change back with the token that the old address got. All sessions end."""
        await changes.undo(body.token)
        return Response(status_code=204)
