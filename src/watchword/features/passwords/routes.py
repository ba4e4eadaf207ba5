"""POST /auth/register, /auth/login, /auth/reauthenticate and /auth/password/change."""

from typing import Annotated, Any, Literal, cast

from fastapi import Body as JsonBody
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import Field, ValidationError, create_model
from starlette.responses import JSONResponse

from watchword.features.passwords.service import Passwords
from watchword.features.sessions import sign_in_answer
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
from watchword.http.client import client_of
from watchword.http.csrf import Csrf
from watchword.http.depends import CurrentIdentity
from watchword.http.problems import MAX_FAULTS, documented
from watchword.http.wiring import Mounting
from watchword.kernel.errors import (
    AccountDisabled,
    Busy,
    CsrfRefused,
    EmailNotVerified,
    Forbidden,
    InvalidCredentials,
    InvalidToken,
    MailUnavailable,
    MalformedBody,
    NotAuthenticated,
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


class ReauthenticateBody(Body):
    """What POST /auth/reauthenticate takes."""

    method: Literal["password"]
    password: PlainPassword


class PasswordChangeBody(Body):
    """What POST /auth/password/change takes."""

    current_password: PlainPassword
    new_password: PlainPassword


def routes(passwords: Passwords, mounting: Mounting) -> None:
    """Mount the routes of passwords."""
    _mount_register(passwords, mounting)
    _mount_login(passwords, mounting)
    _mount_account(passwords, mounting)


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
    router, csrf, sessions = mounting.router, mounting.wiring.csrf, passwords.sessions
    view = view_of(passwords.users.kind)

    @router.post(
        "/login",
        responses={
            200: {
                "description": "The tokens of the transport, and the user.",
                "content": {"application/json": {"schema": _login_answer()}},
            },
            **documented(
                InvalidCredentials,
                EmailNotVerified,
                AccountDisabled,
                CsrfRefused,
                UnsupportedMediaType,
                Busy,
            ),
        },
        openapi_extra={"requestBody": _login_request()},
    )
    @takes_form
    async def login(request: Request) -> Response:
        """Sign in with address and password, as JSON or as a form of this very origin."""
        body = await _login_body(request, csrf)
        transport = sessions.transport(body.transport or sessions.default_transport)
        if transport.name != "bearer":
            _refuse_cross_site(request, csrf, required=False)
        user = await passwords.sign_in(email=body.email, password=body.password)
        started = await passwords.sign_ins.finish(
            user,
            amr=(passwords.method,),
            transport=transport,
            client=client_of(request),
            remember=body.remember,
        )
        return await sign_in_answer(started, view)


def _mount_account(passwords: Passwords, mounting: Mounting) -> None:
    router, sessions = mounting.router, passwords.sessions

    @router.post(
        "/reauthenticate",
        status_code=204,
        responses=documented(NotAuthenticated, InvalidCredentials, InvalidToken, CsrfRefused, Busy),
    )
    async def reauthenticate(
        request: Request,
        identity: CurrentIdentity,
        body: Annotated[ReauthenticateBody, JsonBody()],
    ) -> Response:
        """Prove the password again, for what needs a fresh sign-in."""
        user, session_id = _acting(identity)
        session = await sessions.get(session_id)
        if session is None:
            raise NotAuthenticated
        cookie = await passwords.reauthenticate(
            session, user, password=body.password, client=client_of(request)
        )
        response = Response(status_code=204)
        if cookie is not None:
            sessions.cookie.give(response, cookie, session_id=session.id)
        return response

    @router.post(
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


def _acting(identity: Identity) -> tuple[User, str]:
    if not isinstance(identity.user, User) or identity.principal.session_id is None:
        raise Forbidden("only for users")
    return identity.user, identity.principal.session_id


async def _login_body(request: Request, csrf: Csrf) -> LoginBody:
    kind = content_type(request)
    if kind == "application/json":
        if not await read_bounded(request):
            raise MalformedBody
        values = await request.json()
    elif kind == FORM:
        _refuse_cross_site(request, csrf, required=True)
        values = await form_of(request)
        # The names of RFC 6749 §4.3.2; what else it may carry means nothing here.
        values = {
            **({"email": values["username"]} if "username" in values else {}),
            **{key: values[key] for key in ("password", "transport") if key in values},
        }
    else:
        raise UnsupportedMediaType
    try:
        return LoginBody.model_validate(values)
    except ValidationError as error:
        raise RequestValidationError(
            [
                {**item, "loc": ("body", *item["loc"])}
                for item in error.errors(include_input=False, include_url=False)[:MAX_FAULTS]
            ]
        ) from None


def _refuse_cross_site(request: Request, csrf: Csrf, *, required: bool) -> None:
    # A form needs no preflight: another site could sign its visitor in as somebody (I-21).
    headers = cast("list[tuple[bytes, bytes]]", request.scope["headers"])
    cross = csrf.is_cross_site(headers)
    if cross or (required and cross is None):
        raise CsrfRefused(note="sign-in from another site")


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


def _login_request() -> dict[str, Any]:
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
            "application/json": {"schema": LoginBody.model_json_schema()},
            FORM: {"schema": form},
        },
    }
