"""Verification: an address is somebody's once a mail to it came back."""

from typing import Any, Unpack

from watchword.features.users import RegistrationRepeated, UserDeleted, UserRegistered, Users
from watchword.features.verification.endings import ENDS
from watchword.features.verification.events import VerificationRequested
from watchword.features.verification.records import EmailVerification
from watchword.features.verification.routes import routes
from watchword.features.verification.service import AlreadyRegistered, Verification
from watchword.features.verification.settings import VerificationOptions, VerificationSettings
from watchword.kernel.events import Events
from watchword.kernel.feature import Feature
from watchword.kernel.ports import (
    Credential,
    MailPurpose,
    Postbox,
    Registrations,
    SignInStep,
)

__all__ = ["Verification", "VerificationRequested", "verification"]


def verification(**options: Unpack[VerificationOptions]) -> Feature[Verification]:
    """The feature of verified addresses."""

    def service(wiring: Any) -> Verification:
        settings: VerificationSettings = wiring.settings
        default = "optional" if wiring.development else "required"
        return Verification(
            store=wiring.store,
            settings=settings,
            clock=wiring.clock,
            users=wiring.get(Users),
            postbox=wiring.one(Postbox),
            credentials=wiring.every(Credential),
            attempts=wiring.attempts,
            mode=settings.email_verification or default,
        )

    def listens(service: Verification, events: Events) -> None:
        events.join(UserRegistered, service.registered)
        events.join(RegistrationRepeated, service.registered_again)
        events.join(UserDeleted, service.forget_user)

    return Feature(
        name="verification",
        needs=("users", "mail"),
        service=service,
        settings=VerificationSettings,
        given=dict(options),
        ends=ENDS,
        records=(EmailVerification,),
        offers=lambda service: {
            Registrations: service,
            SignInStep: service,
            MailPurpose: (service, AlreadyRegistered(users=service.users)),
        },
        listens=listens,
        routes=routes,
    )
