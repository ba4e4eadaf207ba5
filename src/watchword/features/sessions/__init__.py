"""Sessions: who is signed in, since when, and until when."""

from typing import Any, Unpack

from watchword.features.sessions.events import (
    RefreshTokenReplayed,
    SessionEnded,
    SessionRenewed,
    SessionStarted,
)
from watchword.features.sessions.records import Session
from watchword.features.sessions.routes import routes, sign_in_answer
from watchword.features.sessions.service import Sessions, Started, agent_digest
from watchword.features.sessions.settings import SessionOptions, SessionSettings
from watchword.features.sessions.transports import CookieTransport, Prepared, Transport
from watchword.features.users import UserDeleted, Users
from watchword.kernel.events import Events
from watchword.kernel.feature import Feature
from watchword.kernel.ports import Authenticator

__all__ = [
    "CookieTransport",
    "Prepared",
    "RefreshTokenReplayed",
    "Session",
    "SessionEnded",
    "SessionRenewed",
    "SessionStarted",
    "Sessions",
    "Started",
    "Transport",
    "agent_digest",
    "sessions",
    "sign_in_answer",
]


def sessions(**options: Unpack[SessionOptions]) -> Feature[Sessions]:
    """The feature of sessions, with the cookie that carries them."""

    def service(wiring: Any) -> Sessions:
        return Sessions(
            store=wiring.store,
            settings=wiring.settings,
            clock=wiring.clock,
            users=wiring.get(Users),
            client_id=wiring.core.client_id,
            transports=wiring.every(Transport),
            cookie=CookieTransport(
                cookies=wiring.cookies,
                csrf=wiring.csrf,
                idle_timeout=wiring.settings.idle_timeout,
                absolute_timeout=wiring.settings.absolute_timeout,
            ),
            clients=wiring.clients,
        )

    def listens(service: Sessions, events: Events) -> None:
        events.join(UserDeleted, service.forget_user)

    return Feature(
        name="sessions",
        needs=("users",),
        service=service,
        settings=SessionSettings,
        given=dict(options),
        records=(Session,),
        apart=lambda settings: {} if settings.store is None else {Session: settings.store},
        offers=lambda service: {Authenticator: service, Transport: service.cookie},
        listens=listens,
        routes=routes,
    )
