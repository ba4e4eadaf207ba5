"""The verbs on lockout."""

from dataclasses import dataclass

from watchword.features.lockout.settings import LockoutSettings
from watchword.kernel.clock import Clock
from watchword.storage.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Lockout:
    """Lockout of one realm."""

    store: Store
    settings: LockoutSettings
    clock: Clock
