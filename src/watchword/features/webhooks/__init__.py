"""Webhooks: events that are sent to the endpoints of others."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Unpack

from watchword.features.webhooks.errors import DeliveryFailed, TargetRefused
from watchword.features.webhooks.events import (
    WebhookEndpointAdded,
    WebhookEndpointDisabled,
    WebhookEndpointEnabled,
    WebhookEndpointRemoved,
    WebhookSecretRotated,
    WebhookUndeliverable,
)
from watchword.features.webhooks.known import Known
from watchword.features.webhooks.records import WebhookDelivery, WebhookEndpoint
from watchword.features.webhooks.sender import HttpSender
from watchword.features.webhooks.service import IssuedEndpoint, Webhooks
from watchword.features.webhooks.settings import WebhookOptions, WebhookSettings
from watchword.kernel.events import Event, Events
from watchword.kernel.feature import Feature, Job

__all__ = [
    "DeliveryFailed",
    "IssuedEndpoint",
    "TargetRefused",
    "WebhookDelivery",
    "WebhookEndpoint",
    "WebhookEndpointAdded",
    "WebhookEndpointDisabled",
    "WebhookEndpointEnabled",
    "WebhookEndpointRemoved",
    "WebhookSecretRotated",
    "WebhookUndeliverable",
    "Webhooks",
    "webhooks",
]


def webhooks(**options: Unpack[WebhookOptions]) -> Feature[Webhooks]:
    """The feature of webhooks."""

    def service(wiring: Any) -> Webhooks:
        settings: WebhookSettings = wiring.settings
        return Webhooks(
            store=wiring.store,
            settings=settings,
            clock=wiring.clock,
            sealer=wiring.sealer,
            sender=HttpSender(
                timeout=settings.timeout,
                allowed=settings.networks,
                development=wiring.development,
                ca=settings.ca,
            ),
            known=Known(clock=wiring.clock, sealer=wiring.sealer),
            development=wiring.development,
        )

    def listens(service: Webhooks, events: Events) -> None:
        events.join(Event, service.keep)
        events.on(Event, service.notice)
        events.evict_with(service.known.evict)

    return Feature(
        name="webhooks",
        service=service,
        settings=WebhookSettings,
        given=dict(options),
        records=(WebhookEndpoint, WebhookDelivery),
        listens=listens,
        jobs=_jobs,
    )


def _jobs(service: Webhooks) -> Sequence[Job]:
    every = timedelta(seconds=1)
    return (Job(name="webhooks", every=every, run=service.deliver_due, wake=service.bell.wait),)
