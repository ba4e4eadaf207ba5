"""What happens to endpoints and to what is sent there. None of it is sent anywhere itself."""

from dataclasses import dataclass
from typing import ClassVar

from watchword.kernel.events import Event
from watchword.kernel.principal import Subject

TOPIC = "webhook"


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookEndpointEvent(Event):
    """Something that happened to one endpoint; every worker reads the list anew."""

    evicts: ClassVar[bool] = True
    audited: ClassVar[tuple[str, ...]] = ("endpoint_id",)

    endpoint_id: str

    def subjects(self) -> tuple[Subject, ...]:
        """The endpoint."""
        return ((TOPIC, self.endpoint_id),)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookEndpointAdded(WebhookEndpointEvent):
    """An endpoint hears of events from now on."""

    audited: ClassVar[tuple[str, ...]] = ("endpoint_id", "events")

    url: str
    events: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookEndpointEnabled(WebhookEndpointEvent):
    """An endpoint hears of events again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookEndpointDisabled(WebhookEndpointEvent):
    """An endpoint hears of nothing; `why` is by_operator, or gone: it answered 410."""

    audited: ClassVar[tuple[str, ...]] = ("endpoint_id", "why")

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSecretRotated(WebhookEndpointEvent):
    """What is sent to an endpoint is signed with another secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookEndpointRemoved(WebhookEndpointEvent):
    """An endpoint is gone, with all that waited for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookUndeliverable(Event):
    """An event was given up: the endpoint was away for too long, or wants nothing any more."""

    is_failure: ClassVar[bool] = True
    audited: ClassVar[tuple[str, ...]] = ("delivery_id", "endpoint_id", "kind", "reason")

    delivery_id: str
    endpoint_id: str
    kind: str
    attempts: int
    reason: str
