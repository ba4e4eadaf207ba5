"""Recovery: a forgotten password is replaced through the account's mail."""

from typing import Any, Unpack

from watchword.features.passwords import Passwords
from watchword.features.recovery.endings import ENDS
from watchword.features.recovery.events import PasswordResetRequested
from watchword.features.recovery.records import PasswordReset
from watchword.features.recovery.routes import routes
from watchword.features.recovery.service import Recovery
from watchword.features.recovery.settings import RecoveryOptions, RecoverySettings
from watchword.features.users import UserDeleted, Users
from watchword.kernel.events import Events
from watchword.kernel.feature import Feature
from watchword.kernel.ports import Credential, MailPurpose, Postbox

__all__ = ["PasswordResetRequested", "Recovery", "recovery"]


def recovery(**options: Unpack[RecoveryOptions]) -> Feature[Recovery]:
    """The feature of password resets."""

    def service(wiring: Any) -> Recovery:
        return Recovery(
            store=wiring.store,
            settings=wiring.settings,
            clock=wiring.clock,
            users=wiring.get(Users),
            passwords=wiring.get(Passwords),
            postbox=wiring.one(Postbox),
            credentials=wiring.every(Credential),
            attempts=wiring.attempts,
        )

    def listens(service: Recovery, events: Events) -> None:
        events.join(UserDeleted, service.forget_user)

    return Feature(
        name="recovery",
        needs=("users", "passwords", "mail"),
        service=service,
        settings=RecoverySettings,
        given=dict(options),
        ends=ENDS,
        records=(PasswordReset,),
        offers=lambda service: {MailPurpose: service},
        listens=listens,
        routes=routes,
    )
