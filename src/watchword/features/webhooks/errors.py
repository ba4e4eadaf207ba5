"""What may go wrong with a webhook."""

from watchword.kernel.errors import WatchwordError


class WebhookEndpointNotFound(WatchwordError):
    """No such endpoint. For operators."""

    code = "webhook_endpoint_not_found"
    status = 404
    title = "No such endpoint"


class WebhookEndpointsLimited(WatchwordError):
    """There are as many endpoints as there may be (`webhooks.max_endpoints`)."""

    code = "webhook_endpoints_limited"
    status = 409
    title = "There are too many endpoints: remove one first"


class WebhooksUnsealable(WatchwordError):
    """This process lacks the secret of the servers, so what endpoints wait for cannot be kept.

    For operators: a command that is run without the servers' secret.
    """

    code = "webhooks_unsealable"
    status = 503
    title = "Endpoints of webhooks hear of this, which takes the secret of the servers"


class DeliveryFailed(Exception):
    """An endpoint did not take what was sent.

    Args:
        note: a class name or a status; never a server's words.
        is_gone: it answered 410, and wants nothing any more.
        wait: seconds that it asked to be left alone, if it did.
    """

    def __init__(self, note: str, *, is_gone: bool = False, wait: int | None = None) -> None:
        super().__init__(note)
        self.note = note
        self.is_gone = is_gone
        self.wait = wait


class TargetRefused(Exception):
    """An address that nothing is sent to: not https, or not of the public internet."""
