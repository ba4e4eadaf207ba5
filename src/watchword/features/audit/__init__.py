"""Audit: who did what, when, from where and with what result, and seals over it."""

from datetime import timedelta
from typing import Any, Unpack

from watchword.features.audit.actions import AuthAction
from watchword.features.audit.entries import Writer, view_of
from watchword.features.audit.records import AuditBatch, AuditEntry, AuditErasure, AuditSeal
from watchword.features.audit.seals import Fault, Seals, Verified, head_of
from watchword.features.audit.service import Audit, Summary, line_of
from watchword.features.audit.settings import AuditOptions, AuditSettings
from watchword.features.users import UserDeleted, Users
from watchword.kernel.events import Event, Events, RequestRefused
from watchword.kernel.feature import Feature, Job

__all__ = [
    "Audit",
    "AuditBatch",
    "AuditEntry",
    "AuditErasure",
    "AuditSeal",
    "AuthAction",
    "Fault",
    "Summary",
    "Verified",
    "audit",
    "head_of",
    "line_of",
    "view_of",
]


def audit(**options: Unpack[AuditOptions]) -> Feature[Audit]:
    """The feature of audit."""

    def service(wiring: Any) -> Audit:
        settings: AuditSettings = wiring.settings
        return Audit(
            store=wiring.store,
            settings=settings,
            clock=wiring.clock,
            users=wiring.get(Users),
            writer=Writer(
                realm=wiring.store.realm,
                secrets=wiring.secrets,
                retention=settings.retention,
                ip_mode=settings.ip_mode,
            ),
            seals=Seals(
                store=wiring.store,
                settings=settings,
                clock=wiring.clock,
                secrets=wiring.secrets,
            ),
        )

    def listens(service: Audit, events: Events) -> None:
        if service.settings.enabled:
            events.join(Event, service.keep)
            events.join(UserDeleted, service.forget_user)
            events.on(RequestRefused, service.note)
        events.on(Event, service.count)

    def jobs(service: Audit) -> tuple[Job, ...]:
        erase = Job(name="audit erase", every=timedelta(minutes=1), run=service.erase)
        seal = Job(name="audit seal", every=timedelta(minutes=1), run=service.seal)
        if not service.settings.enabled:
            return ()
        return (erase, seal) if service.settings.seal else (erase,)

    return Feature(
        name="audit",
        needs=("users",),
        after=("email_change", "verification"),  # they may refuse what would be written by then
        service=service,
        settings=AuditSettings,
        given=dict(options),
        records=(AuditEntry, AuditSeal, AuditBatch, AuditErasure),
        provides=("events",),
        listens=listens,
        jobs=jobs,
    )
