"""Settings of lockout."""

from typing import TypedDict

from pydantic import Field

from watchword.kernel.settings import Settings


class LockoutSettings(Settings):
    """To be written."""

    enabled: bool = Field(
        default=True,
        description="off: who fails too often waits no longer",
    )


class LockoutOptions(TypedDict, total=False):
    """`LockoutSettings` as keyword arguments."""

    enabled: bool
