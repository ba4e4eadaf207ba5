"""The verbs on webhooks."""

from dataclasses import dataclass

from watchword.features.webhooks.settings import WebhookSettings
from watchword.kernel.clock import Clock
from watchword.storage.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhooks:
    """Webhooks of one realm."""

    store: Store
    settings: WebhookSettings
    clock: Clock
