"""Audit: who did what, when, from where and with what result, and seals over it."""

from typing import Any, Unpack

from watchword.features.audit.service import Audit
from watchword.features.audit.settings import AuditOptions, AuditSettings
from watchword.kernel.feature import Feature

__all__ = ["Audit", "audit"]


def audit(**options: Unpack[AuditOptions]) -> Feature[Audit]:
    """The feature of audit."""

    def service(wiring: Any) -> Audit:
        return Audit(store=wiring.store, settings=wiring.settings, clock=wiring.clock)

    return Feature(
        name="audit",
        service=service,
        settings=AuditSettings,
        given=dict(options),
    )
