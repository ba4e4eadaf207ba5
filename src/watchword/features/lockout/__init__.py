"""Lockout: who fails too often waits, longer each time."""

from typing import Any, Unpack

from watchword.features.lockout.events import AccountLocked, AccountUnlocked, SuspiciousActivity
from watchword.features.lockout.mails import LOCKED, SUSPICIOUS, LockoutMail, LockoutMails
from watchword.features.lockout.records import Failures
from watchword.features.lockout.service import Lock, Lockout, Reservation
from watchword.features.lockout.settings import LockoutOptions, LockoutSettings
from watchword.features.users import UserEnded, Users
from watchword.kernel.attempts import AttemptGuard
from watchword.kernel.events import Events
from watchword.kernel.feature import Feature
from watchword.kernel.ports import KnownDevices, MailPurpose, Postbox

__all__ = [
    "AccountLocked",
    "AccountUnlocked",
    "Failures",
    "Lock",
    "Lockout",
    "SuspiciousActivity",
    "lockout",
]


def lockout(**options: Unpack[LockoutOptions]) -> Feature[Lockout]:
    """The feature of lockout."""

    def service(wiring: Any) -> Lockout:
        users = wiring.get(Users)
        return Lockout(
            store=wiring.store,
            settings=wiring.settings,
            clock=wiring.clock,
            users=users,
            devices=wiring.every(KnownDevices),
            signer=wiring.signer("lockout"),
            mails=LockoutMails(users=users, postboxes=wiring.every(Postbox)),
        )

    def offers(service: Lockout) -> dict[type, object]:
        mails = tuple(
            LockoutMail(mails=service.mails, purpose=each) for each in (LOCKED, SUSPICIOUS)
        )
        if not service.settings.enabled:  # what is queued already is sent
            return {MailPurpose: mails}
        return {AttemptGuard: (service, Reservation(lockout=service)), MailPurpose: mails}

    def listens(service: Lockout, events: Events) -> None:
        events.on(UserEnded, service.password_reset)

    return Feature(
        name="lockout",
        needs=("users",),
        service=service,
        settings=LockoutSettings,
        given=dict(options),
        records=(Failures,),
        offers=offers,
        listens=listens,
    )
