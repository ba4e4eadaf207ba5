"""Settings of recovery."""

from datetime import timedelta
from typing import TypedDict

from pydantic import Field

from watchword.kernel.settings import Duration, Settings


class RecoverySettings(Settings):
    """How a forgotten password is replaced."""

    ttl: Duration = Field(
        default=timedelta(minutes=15),
        ge=timedelta(minutes=1),
        le=timedelta(hours=24),
        description="life of a reset token",
    )
    page: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s#]+$",
        description="your page that takes the token after a #; unset: the mail holds the token",
    )


class RecoveryOptions(TypedDict, total=False):
    """`RecoverySettings` as keyword arguments."""

    ttl: timedelta | str
    page: str | None
