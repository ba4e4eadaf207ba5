"""Settings of email_change."""

from datetime import timedelta
from typing import TypedDict

from pydantic import Field

from watchword.kernel.settings import Duration, Settings


class EmailChangeSettings(Settings):
    """How an address is exchanged for another."""

    ttl: Duration = Field(
        default=timedelta(hours=24),
        ge=timedelta(minutes=1),
        description="life of the token that confirms the new address",
    )
    undo_ttl: Duration = Field(
        default=timedelta(hours=72),
        ge=timedelta(hours=1),
        description="how long the old address can take the change back; it is nobody else's then",
    )
    page: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s#]+$",
        description="your page that takes a token after a #; unset: the mail holds the token",
    )


class EmailChangeOptions(TypedDict, total=False):
    """`EmailChangeSettings` as keyword arguments."""

    ttl: timedelta | str
    undo_ttl: timedelta | str
    page: str | None
