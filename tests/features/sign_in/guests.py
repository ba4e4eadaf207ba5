"""Features of a third party that stand between a password and a session."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Body as JsonBody
from fastapi import Request, Response

from watchword.features.sign_in import Entrance, SignIns
from watchword.features.users import Body, User
from watchword.http.client import client_of
from watchword.http.wiring import Mounting
from watchword.kernel.errors import InvalidCredentials, WatchwordError
from watchword.kernel.feature import Feature
from watchword.kernel.moment import transaction_open
from watchword.kernel.ports import Owed, SignInStep
from watchword.storage.record import record
from watchword.storage.store import Store

PIN = "4711"


class TermsNotAccepted(WatchwordError):
    code = "terms_not_accepted"
    status = 403
    title = "Accept the terms first"


class PinRequired(WatchwordError):
    code = "mfa_required"
    status = 401
    title = "Another factor is needed"


@record(name="accepted_terms", key=("user_id",))
class AcceptedTerms:
    realm: str
    user_id: str
    version: int


# One for all who sign in: what is said to one of them must not be heard by another.
NOT_ACCEPTED = TermsNotAccepted()


@dataclass(frozen=True, kw_only=True)
class Terms:
    """A step with a record of its own."""

    store: Store
    sign_ins: SignIns

    step: str = "accepted_terms"
    after: tuple[str, ...] = ("verified_address", "never_installed")

    async def owed(self, user: User, *, proven: tuple[str, ...], purpose: str) -> Owed | None:
        accepted = await self.store.get(AcceptedTerms, user_id=user.id)
        if purpose != "sign_in" or accepted is not None:
            return None
        assert "pwd" in proven
        return Owed(error=NOT_ACCEPTED)


class AcceptBody(Body):
    challenge: str
    version: int


def _terms_routes(terms: Terms, mounting: Mounting) -> None:
    @mounting.router.post("/terms/accept", status_code=204)
    async def accept(request: Request, body: Annotated[AcceptBody, JsonBody()]) -> Response:
        pending = await terms.sign_ins.challenge(body.challenge, client=client_of(request))
        await terms.store.put(
            AcceptedTerms(realm=terms.store.realm, user_id=pending.user.id, version=body.version)
        )
        return Response(status_code=204)


def terms() -> Feature[Terms]:
    """People accept the terms, after their address is theirs."""
    return Feature(
        name="terms",
        needs=("sign_in",),
        service=lambda wiring: Terms(store=wiring.store, sign_ins=wiring.get(SignIns)),
        records=(AcceptedTerms,),
        offers=lambda service: {SignInStep: service},
        routes=_terms_routes,
    )


@dataclass(frozen=True, kw_only=True)
class Pins:
    """A step that is a factor: nothing but the challenge knows whether it was proven."""

    sign_ins: SignIns

    step: str = "pin"
    after: tuple[str, ...] = ()

    async def owed(self, user: User, *, proven: tuple[str, ...], purpose: str) -> Owed | None:
        return None if "pin" in proven else Owed(error=PinRequired(), named="mfa_token")


class PinBody(Body):
    mfa_token: str
    pin: str


def _pin_routes(pins: Pins, mounting: Mounting) -> None:
    entrance = Entrance(sign_ins=pins.sign_ins, wiring=mounting.wiring)

    @mounting.router.post("/pin")
    async def prove(request: Request, body: Annotated[PinBody, JsonBody()]) -> Response:
        pending = await pins.sign_ins.challenge(body.mfa_token, client=client_of(request))
        if body.pin != PIN:
            raise InvalidCredentials(note="pin")
        pending = await pins.sign_ins.credit(pending, "pin")
        if pending.challenge.purpose == "reauthenticate":
            return Response(status_code=204)  # then POST /auth/reauthenticate/continue
        return await entrance.proceed(request, pending)


def pin() -> Feature[Pins]:
    """A second factor."""
    return Feature(
        name="pin",
        needs=("sign_in",),
        service=lambda wiring: Pins(sign_ins=wiring.get(SignIns)),
        offers=lambda service: {SignInStep: service},
        routes=_pin_routes,
    )


@dataclass(kw_only=True)
class Step:
    """A step of which nothing matters but its place."""

    step: str
    after: tuple[str, ...] = ()
    does: Callable[[], None] = lambda: None
    seen: list[str] = field(default_factory=list[str])

    async def owed(self, user: Any, *, proven: tuple[str, ...], purpose: str) -> Owed | None:
        assert not transaction_open.get()
        self.seen.append(self.step)
        self.does()
        return None


def stepping(*steps: Step) -> list[Feature[Any]]:
    """A feature for each step."""
    return [
        Feature(
            name=f"guest_{number}",
            service=lambda _, step=step: step,
            offers=lambda service: {SignInStep: service},
        )
        for number, step in enumerate(steps)
    ]
