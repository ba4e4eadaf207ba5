"""Webhooks: events that are sent to the endpoints of others."""

from typing import Any, Unpack

from watchword.features.webhooks.service import Webhooks
from watchword.features.webhooks.settings import WebhookOptions, WebhookSettings
from watchword.kernel.feature import Feature

__all__ = ["Webhooks", "webhooks"]


def webhooks(**options: Unpack[WebhookOptions]) -> Feature[Webhooks]:
    """The feature of webhooks."""

    def service(wiring: Any) -> Webhooks:
        return Webhooks(store=wiring.store, settings=wiring.settings, clock=wiring.clock)

    return Feature(
        name="webhooks",
        service=service,
        settings=WebhookSettings,
        given=dict(options),
    )
