"""POST /auth/login/continue, /auth/reauthenticate and /auth/reauthenticate/continue."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, cast

from fastapi import Body as JsonBody
from fastapi import Request, Response
from pydantic import Field, create_model

from watchword.features.sign_in.entrance import Entrance
from watchword.features.sign_in.service import Renewed, SignIns
from watchword.features.users import Body
from watchword.http.client import client_of
from watchword.http.depends import Reauthenticating
from watchword.http.problems import documented
from watchword.http.wiring import Mounting
from watchword.kernel.errors import (
    Busy,
    CsrfRefused,
    EmailNotVerified,
    ExpiredToken,
    Fault,
    Forbidden,
    InvalidCredentials,
    InvalidInput,
    InvalidToken,
    NotAuthenticated,
    RefusedByHook,
)
from watchword.kernel.ports import Proof
from watchword.kernel.principal import Identity


class ContinueBody(Body):
    """What the routes take that go on with what was begun."""

    challenge: Annotated[str, Field(max_length=128)]


def routes(sign_ins: SignIns, mounting: Mounting) -> None:
    """Mount the routes of sign-in."""
    entrance = Entrance(sign_ins=sign_ins, wiring=mounting.wiring)

    @mounting.router.post(
        "/login/continue",
        responses=documented(
            InvalidToken, ExpiredToken, EmailNotVerified, RefusedByHook, CsrfRefused
        ),
    )
    async def go_on(request: Request, body: Annotated[ContinueBody, JsonBody()]) -> Response:
        """Go on with a sign-in once what it owed was brought."""
        return await entrance.proceed(request, await entrance.pending(request, body.challenge))

    if sign_ins.proofs:
        _mount_reauthenticate(sign_ins, mounting)


def _mount_reauthenticate(sign_ins: SignIns, mounting: Mounting) -> None:
    router, sessions = mounting.router, sign_ins.sessions
    refusals = (NotAuthenticated, InvalidToken, ExpiredToken, CsrfRefused)
    proofs = {each.method: each for each in sign_ins.proofs}
    reauthenticate_body = _body_of(sign_ins.proofs)

    def answered(renewed: Renewed) -> Response:
        response, session = Response(status_code=204), renewed.session
        if renewed.cookie is not None:
            left = session.expires_at - sign_ins.clock.now()
            sessions.cookie.give(response, renewed.cookie, session_id=session.id, lives=left)
        return response

    @router.post(
        "/reauthenticate",
        status_code=204,
        responses=documented(*refusals, InvalidCredentials, Busy),
    )
    async def reauthenticate(
        request: Request,
        identity: Reauthenticating,
        body: Annotated[reauthenticate_body, JsonBody()],  # type: ignore[valid-type]
    ) -> Response:
        """Prove a factor again, for what needs a fresh sign-in."""
        method, presented = _read(cast("Any", body), proofs)
        renewed = await sign_ins.reauthenticate(
            _session_of(identity), method=method, presented=presented, client=client_of(request)
        )
        return answered(renewed)

    @router.post("/reauthenticate/continue", status_code=204, responses=documented(*refusals))
    async def go_on(
        request: Request,
        identity: Reauthenticating,
        body: Annotated[ContinueBody, JsonBody()],
    ) -> Response:
        """Go on with proving oneself again, once what it owed was brought."""
        client = client_of(request)
        pending = await sign_ins.challenge(
            body.challenge,
            client=client,
            purpose="reauthenticate",
            session_id=_session_of(identity),
        )
        return answered(await sign_ins.renew(pending, client=client))


def _session_of(identity: Identity) -> str:
    if identity.user is None or identity.principal.session_id is None:
        raise Forbidden("only for users")
    return identity.principal.session_id


def _body_of(proofs: Sequence[Proof]) -> type[Body]:
    """The method, and a field for each thing that one of the proofs asks for."""
    is_shared = len({each.field for each in proofs}) == 1
    of_form = Field(default=... if is_shared else None, json_schema_extra={"format": "password"})
    fields: dict[str, Any] = {
        "method": (Literal[tuple(sorted(each.method for each in proofs))], ...),
        **{each.field: (str if is_shared else str | None, of_form) for each in proofs},
    }
    return create_model("ReauthenticateBody", __base__=Body, **fields)


def _read(body: Any, proofs: dict[str, Proof]) -> tuple[str, str]:
    """The method and what it asks for. Raises InvalidInput: it is missing, or another's came."""
    proof = proofs[body.method]
    given = body.model_dump(exclude_unset=True, exclude={"method"})
    faults = [
        Fault(name, "unknown_field", f"is not for method {proof.method}")
        for name in given
        if name != proof.field
    ]
    if given.get(proof.field) is None:
        faults.append(Fault(proof.field, "missing", f"method {proof.method} asks for it"))
    if faults:
        raise InvalidInput(faults)
    return proof.method, given[proof.field]
