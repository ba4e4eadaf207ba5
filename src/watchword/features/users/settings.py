"""Settings of users."""

from typing import TypedDict

from pydantic import Field

from watchword.kernel.settings import Settings


class UserSettings(Settings):
    """What a user must and may have."""

    username_required: bool = Field(
        default=False, description="must a name be given at registration?"
    )
    settings_limit: int = Field(
        default=16 * 1024,
        ge=256,
        le=1024 * 1024,
        description="largest user_settings, in bytes of JSON",
    )


class UserOptions(TypedDict, total=False):
    """`UserSettings` as keyword arguments."""

    username_required: bool
    settings_limit: int
