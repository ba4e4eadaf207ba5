"""Settings of verification."""

from datetime import timedelta
from typing import ClassVar, Literal, TypedDict

from pydantic import Field

from watchword.kernel.settings import Duration, Settings

Mode = Literal["required", "optional", "off"]


class VerificationSettings(Settings):
    """Must an address be proven before it signs in?"""

    shorthand: ClassVar[str | None] = "email_verification"

    email_verification: Mode | None = Field(
        default=None,
        description="required, optional or off; unset: required in production, else optional",
    )
    ttl: Duration = Field(
        default=timedelta(hours=24), ge=timedelta(minutes=1), description="life of a token"
    )
    page: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s#]+$",
        description="your page that takes the token after a #; unset: the mail holds the token",
    )


class VerificationOptions(TypedDict, total=False):
    """`VerificationSettings` as keyword arguments."""

    email_verification: Mode | None
    ttl: timedelta | str
    page: str | None
