"""POST /auth/register, /auth/login and /auth/password/change."""

from typing import Annotated, Any, cast

from fastapi import Body as JsonBody
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import Field, ValidationError, create_model
from starlette.responses import JSONResponse

from watchword.features.passwords.service import Passwords
from watchword.features.sign_in import Entrance
from watchword.features.users import (
    Body,
    Email,
    User,
    Username,
    given_fields,
    seen,
    view_of,
    writable,
)
from watchword.http.body import FORM, content_type, form_of, read_bounded, takes_form
from watchword.http.depends import CurrentIdentity
from watchword.http.problems import MAX_FAULTS, documented
from watchword.http.wiring import Mounting
from watchword.kernel.errors import (
    AccountDisabled,
    BreachCheckUnavailable,
    Busy,
    CsrfRefused,
    EmailNotVerified,
    ExpiredToken,
    Forbidden,
    InvalidClient,
    InvalidCredentials,
    InvalidToken,
    MailUnavailable,
    MalformedBody,
    NotAuthenticated,
    PasswordChangeRequired,
    RefusedByHook,
    RegistrationClosed,
    UnsupportedMediaType,
    UserAlreadyExists,
)
from watchword.kernel.ports import Postbox, Registrations
from watchword.kernel.principal import Identity

# Bounds what the models read; the policy names its own, smaller limit.
PlainPassword = Annotated[str, Field(json_schema_extra={"format": "password"})]


class LoginBody(Body):
    """What POST /auth/login takes as JSON."""

    email: Email
    password: PlainPassword
    transport: str | None = Field(default=None, max_length=32, examples=["bearer", "cookie"])
    remember: bool = Field(default=False, description="stay signed in for longer")


class ClientLoginBody(LoginBody):
    """The same, where only certain clients may bring passwords."""

    client_id: str | None = Field(default=None, max_length=128)
    client_secret: str | None = Field(
        default=None, max_length=1024, json_schema_extra={"format": "password"}
    )


class PasswordChangeBody(Body):
    """What POST /auth/password/change takes."""

    current_password: PlainPassword
    new_password: PlainPassword


class ChangeOwedBody(Body):
    """What POST /auth/password/change-required takes."""

    challenge: Annotated[str, Field(max_length=128)]
    new_password: PlainPassword


def routes(passwords: Passwords, mounting: Mounting) -> None:
    """Mount the routes of passwords."""
    _mount_register(passwords, mounting)
    _mount_login(passwords, mounting)
    _mount_account(passwords, mounting)
    _mount_owed(passwords, mounting)


def _mount_register(passwords: Passwords, mounting: Mounting) -> None:
    router, wiring, kind = mounting.router, mounting.wiring, passwords.users.kind
    view = view_of(kind)
    registrations, postboxes = wiring.every(Registrations), wiring.every(Postbox)
    name_required = passwords.users.settings.username_required
    register_body = create_model(
        "RegisterBody",
        __base__=Body,
        email=(Email, ...),
        password=(PlainPassword, ...),
        username=(Username, ...) if name_required else (Username | None, None),
        **writable(kind),
    )

    @router.post(
        "/register",
        status_code=201,
        response_model=view,
        responses={
            202: {"description": "Taken in; the address gets a mail. Says nothing of accounts."},
            **documented(UserAlreadyExists, RegistrationClosed, MailUnavailable, Busy),
        },
    )
    async def register(
        body: Annotated[register_body, JsonBody()],  # type: ignore[valid-type]
    ) -> Response:
        """Sign up. 202 to everyone alike where the address must be verified first."""
        fields = dict(given_fields(cast("Any", body)))
        if any(each.silent for each in registrations):
            for postbox in postboxes:
                postbox.ensure_available()
        user = await passwords.register(**fields)
        if user is None:
            return Response(
                b'{"status":"accepted"}', status_code=202, media_type="application/json"
            )
        return JSONResponse(seen(view, user), status_code=201)


def _mount_login(passwords: Passwords, mounting: Mounting) -> None:
    router, sessions = mounting.router, passwords.sessions
    entrance = Entrance(sign_ins=passwords.sign_ins, wiring=mounting.wiring)
    kind = LoginBody if passwords.settings.client_id is None else ClientLoginBody

    @router.post(
        "/login",
        responses={
            200: {
                "description": "The tokens of the transport, and the user.",
                "content": {"application/json": {"schema": _login_answer()}},
            },
            **documented(
                InvalidCredentials,
                InvalidClient,
                EmailNotVerified,
                AccountDisabled,
                PasswordChangeRequired,
                RefusedByHook,
                CsrfRefused,
                UnsupportedMediaType,
                Busy,
            ),
        },
        openapi_extra={"requestBody": _login_request(kind)},
    )
    @takes_form
    async def login(request: Request) -> Response:
        """Sign in with address and password, as JSON or as a form of this very origin."""
        if content_type(request) == FORM:
            entrance.admit_form(request)
        body = await _login_body(request, kind)
        if isinstance(body, ClientLoginBody):
            passwords.check_client(body.client_id, body.client_secret)
        transport = sessions.transport(body.transport or sessions.default_transport)
        entrance.admit(request, transport.name)
        user = await passwords.sign_in(email=body.email, password=body.password)
        return await entrance.finish(
            request,
            user,
            amr=(passwords.method,),
            transport=transport,
            remember=body.remember,
        )


def _mount_account(passwords: Passwords, mounting: Mounting) -> None:
    @mounting.router.post(
        "/password/change",
        status_code=204,
        responses=documented(NotAuthenticated, InvalidCredentials, InvalidToken, CsrfRefused, Busy),
    )
    async def change(
        identity: CurrentIdentity, body: Annotated[PasswordChangeBody, JsonBody()]
    ) -> Response:
        """Set another password; every other session ends."""
        user, session_id = _acting(identity)
        await passwords.change(
            user,
            current=body.current_password,
            new=body.new_password,
            keep_session=session_id,
        )
        return Response(status_code=204)


def _mount_owed(passwords: Passwords, mounting: Mounting) -> None:
    entrance = Entrance(sign_ins=passwords.sign_ins, wiring=mounting.wiring)

    @mounting.router.post(
        "/password/change-required",
        responses=documented(
            InvalidToken,
            ExpiredToken,
            PasswordChangeRequired,
            RefusedByHook,
            CsrfRefused,
            Busy,
            BreachCheckUnavailable,
        ),
    )
    async def change_required(
        request: Request, body: Annotated[ChangeOwedBody, JsonBody()]
    ) -> Response:
        """Set the password that a sign-in owes, and go on with it; answers as login does."""
        pending = await entrance.pending(request, body.challenge)
        return await entrance.proceed(
            request, await passwords.change_owed(pending, new=body.new_password)
        )


def _acting(identity: Identity) -> tuple[User, str]:
    if not isinstance(identity.user, User) or identity.principal.session_id is None:
        raise Forbidden("only for users")
    return identity.user, identity.principal.session_id


async def _login_body(request: Request, kind: type[LoginBody]) -> LoginBody:
    media_type = content_type(request)
    if media_type == "application/json":
        if not await read_bounded(request):
            raise MalformedBody
        values = await request.json()
    elif media_type == FORM:
        values = await form_of(request)
        # The names of RFC 6749 §4.3.2; what else it may carry means nothing here.
        values = {
            **({"email": values["username"]} if "username" in values else {}),
            **{key: values[key] for key in kind.model_fields if key != "email" and key in values},
        }
    else:
        raise UnsupportedMediaType
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise RequestValidationError(
            [
                {**item, "loc": ("body", *item["loc"])}
                for item in error.errors(include_input=False, include_url=False)[:MAX_FAULTS]
            ]
        ) from None


def _login_answer() -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["user"],
        "properties": {
            "access_token": {"type": "string"},
            "token_type": {"type": "string", "const": "Bearer"},
            "expires_in": {"type": "integer", "description": "seconds"},
            "refresh_token": {"type": "string"},
            "user": {"type": "object"},
        },
    }


def _login_request(kind: type[LoginBody]) -> dict[str, Any]:
    form = {
        "type": "object",
        "required": ["username", "password"],
        "properties": {
            "username": {"type": "string", "description": "the e-mail address"},
            "password": {"type": "string", "format": "password"},
        },
    }
    return {
        "required": True,
        "content": {
            "application/json": {"schema": kind.model_json_schema()},
            FORM: {"schema": form},
        },
    }
