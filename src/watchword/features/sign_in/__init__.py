"""Sign-in: a chain of steps between the first factor and a session, and what is still owed."""

from typing import Any, Unpack

from watchword.features.sessions import Sessions
from watchword.features.sign_in.entrance import Entrance
from watchword.features.sign_in.events import SignInFailed, SignInOwed
from watchword.features.sign_in.records import Challenge
from watchword.features.sign_in.routes import routes
from watchword.features.sign_in.service import Pending, Renewed, SignIns
from watchword.features.sign_in.settings import SignInOptions, SignInSettings
from watchword.features.users import UserDeleted, Users
from watchword.kernel.events import Events
from watchword.kernel.feature import Feature
from watchword.kernel.ports import Proof, SignInStep

__all__ = [
    "Challenge",
    "Entrance",
    "Pending",
    "Renewed",
    "SignInFailed",
    "SignInOwed",
    "SignIns",
    "sign_in",
]


def sign_in(**options: Unpack[SignInOptions]) -> Feature[SignIns]:
    """The feature that every way of signing in ends in."""

    def service(wiring: Any) -> SignIns:
        return SignIns(
            store=wiring.store,
            settings=wiring.settings,
            clock=wiring.clock,
            users=wiring.get(Users),
            sessions=wiring.get(Sessions),
            steps=wiring.every(SignInStep),
            proofs=wiring.every(Proof),
            attempts=wiring.attempts,
        )

    def listens(service: SignIns, events: Events) -> None:
        events.join(UserDeleted, service.forget_user)

    return Feature(
        name="sign_in",
        needs=("users", "sessions"),
        service=service,
        settings=SignInSettings,
        given=dict(options),
        records=(Challenge,),
        listens=listens,
        routes=routes,
        wants=("limiter", "events"),
    )
