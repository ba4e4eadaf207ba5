"""The verbs on audit."""

from dataclasses import dataclass

from watchword.features.audit.settings import AuditSettings
from watchword.kernel.clock import Clock
from watchword.storage.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """Audit of one realm."""

    store: Store
    settings: AuditSettings
    clock: Clock
