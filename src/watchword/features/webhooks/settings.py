"""Settings of webhooks."""

from typing import TypedDict

from watchword.kernel.settings import Settings


class WebhookSettings(Settings):
    """To be written."""


class WebhookOptions(TypedDict, total=False):
    """`WebhookSettings` as keyword arguments."""
