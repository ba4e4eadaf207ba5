"""Change of address: the new one confirms, the old one can take it back for a while."""

from typing import Any, Unpack

from watchword.features.email_change.endings import ENDS
from watchword.features.email_change.events import (
    EmailChanged,
    EmailChangeRequested,
    EmailChangeUndone,
)
from watchword.features.email_change.records import EmailChange, EmailUndo
from watchword.features.email_change.routes import routes
from watchword.features.email_change.service import EmailChanges, UndoMail
from watchword.features.email_change.settings import EmailChangeOptions, EmailChangeSettings
from watchword.features.passwords import Passwords
from watchword.features.sessions import Sessions
from watchword.features.users import UserDeleted, UserRegistered, Users
from watchword.kernel.events import Events
from watchword.kernel.feature import Feature
from watchword.kernel.ports import Credential, MailPurpose, Postbox

__all__ = [
    "EmailChangeRequested",
    "EmailChangeUndone",
    "EmailChanged",
    "EmailChanges",
    "email_change",
]


def email_change(**options: Unpack[EmailChangeOptions]) -> Feature[EmailChanges]:
    """The feature of changing one's address."""

    def service(wiring: Any) -> EmailChanges:
        return EmailChanges(
            store=wiring.store,
            settings=wiring.settings,
            clock=wiring.clock,
            users=wiring.get(Users),
            passwords=wiring.get(Passwords),
            sessions=wiring.get(Sessions),
            postbox=wiring.one(Postbox),
            credentials=wiring.every(Credential),
            attempts=wiring.attempts,
        )

    def listens(service: EmailChanges, events: Events) -> None:
        events.join(UserRegistered, service.registered)
        events.join(UserDeleted, service.forget_user)

    return Feature(
        name="email_change",
        needs=("users", "sessions", "passwords", "mail"),
        service=service,
        settings=EmailChangeSettings,
        given=dict(options),
        ends=ENDS,
        records=(EmailChange, EmailUndo),
        offers=lambda service: {MailPurpose: (service, UndoMail(changes=service))},
        listens=listens,
        routes=routes,
    )
