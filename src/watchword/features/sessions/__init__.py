"""Sessions: who is signed in, since when, and until when."""

from typing import Any, Unpack

from watchword.features.sessions.agents import Agent, agent_of
from watchword.features.sessions.devices import Devices
from watchword.features.sessions.endings import ENDS
from watchword.features.sessions.events import (
    DeviceAdded,
    DeviceNamed,
    FingerprintChanged,
    RefreshTokenReplayed,
    SessionCarried,
    SessionEnded,
    SessionEvent,
    SessionRenewed,
    SessionsEnded,
    SessionStarted,
    SignInProven,
)
from watchword.features.sessions.mails import LIMIT, NEW_DEVICE, SessionMail, SessionMails
from watchword.features.sessions.records import Device, Session
from watchword.features.sessions.routes import routes, sign_in_answer
from watchword.features.sessions.service import Sessions, Started, agent_digest
from watchword.features.sessions.settings import SessionOptions, SessionSettings
from watchword.features.sessions.transports import (
    DEVICE_LIVES,
    CookieTransport,
    Prepared,
    Transport,
)
from watchword.features.users import UserDeleted, Users
from watchword.kernel.events import Events
from watchword.kernel.feature import Feature
from watchword.kernel.ports import Authenticator, KnownDevices, MailPurpose, Postbox

__all__ = [
    "DEVICE_LIVES",
    "Agent",
    "CookieTransport",
    "Device",
    "DeviceAdded",
    "DeviceNamed",
    "Devices",
    "FingerprintChanged",
    "Prepared",
    "RefreshTokenReplayed",
    "Session",
    "SessionCarried",
    "SessionEnded",
    "SessionEvent",
    "SessionRenewed",
    "SessionStarted",
    "Sessions",
    "SessionsEnded",
    "SignInProven",
    "Started",
    "Transport",
    "agent_digest",
    "agent_of",
    "sessions",
    "sign_in_answer",
]


def sessions(**options: Unpack[SessionOptions]) -> Feature[Sessions]:
    """The feature of sessions, with the cookie that carries them."""

    def service(wiring: Any) -> Sessions:
        settings: SessionSettings = wiring.settings
        users = wiring.get(Users)
        return Sessions(
            store=wiring.store,
            settings=settings,
            clock=wiring.clock,
            users=users,
            client_id=wiring.core.client_id,
            transports=wiring.every(Transport),
            cookie=CookieTransport(
                cookies=wiring.cookies,
                csrf=wiring.csrf,
                idle_timeout=settings.idle_timeout,
                absolute_timeout=settings.absolute_timeout,
                remember_idle=settings.remember_idle,
                remember_absolute=settings.remember_absolute,
            ),
            clients=wiring.clients,
            sealer=wiring.sealer,
            devices=Devices(store=wiring.store, clock=wiring.clock),
            mails=SessionMails(
                store=wiring.store,
                users=users,
                settings=settings,
                postboxes=wiring.every(Postbox),
            ),
        )

    def offers(service: Sessions) -> dict[type, object]:
        return {
            Authenticator: service,
            Transport: service.cookie,
            KnownDevices: service.devices,
            MailPurpose: tuple(
                SessionMail(mails=service.mails, purpose=each) for each in (NEW_DEVICE, LIMIT)
            ),
        }

    def listens(service: Sessions, events: Events) -> None:
        events.join(UserDeleted, service.forget_user)
        events.on(SessionCarried, service.carry)

    return Feature(
        name="sessions",
        needs=("users",),
        service=service,
        settings=SessionSettings,
        given=dict(options),
        ends=ENDS,
        records=(Session, Device),
        apart=lambda settings: {} if settings.store is None else {Session: settings.store},
        offers=offers,
        listens=listens,
        routes=routes,
    )
