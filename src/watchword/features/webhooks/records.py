"""Who hears of what, and what is on its way to them."""

from datetime import datetime

from watchword.storage.record import record


@record(
    name="webhook_endpoint",
    key=("id",),
    indexes=(("created_at", "id"),),
    sealed=("secret", "former_secret"),
)
class WebhookEndpoint:
    """An address of others that events are sent to."""

    realm: str
    id: str
    url: str
    events: tuple[str, ...]  # patterns: `user.created`, `session.*`, `*`
    with_email: bool = False  # do events of users carry the address?
    secret: str  # sealed; signs what is sent
    former_secret: str | None = None  # sealed; signs too until then
    former_until: datetime | None = None
    is_active: bool = True
    disabled_why: str | None = None  # by_operator, or gone: it answered 410
    created_at: datetime


@record(
    name="webhook_delivery",
    key=("id",),
    indexes=(
        ("is_given_up", "due_at", "id"),
        ("endpoint_id", "is_given_up", "due_at", "id"),
    ),
    expires="expires_at",
    sealed=("body",),
)
class WebhookDelivery:
    """An event on its way to an endpoint: gone when it arrived; its body, when it was given up."""

    realm: str
    id: str  # the `webhook-id` of every try
    endpoint_id: str
    kind: str  # session.ended, …
    body: str | None  # sealed (I-12)
    announced_at: datetime
    due_at: datetime  # when to try next, or the end of a worker's lease
    attempts: int = 0  # tries begun
    is_given_up: bool = False  # a dead letter, kept for an operator to see
    last_error: str | None = None  # a class name or a status, never a server's words
    expires_at: datetime  # when it is forgotten, delivered or not
