"""The verbs on limits."""

from dataclasses import dataclass

from watchword.features.limits.settings import LimitSettings
from watchword.kernel.clock import Clock
from watchword.storage.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of one realm."""

    store: Store
    settings: LimitSettings
    clock: Clock
