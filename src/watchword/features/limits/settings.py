"""Settings of limits."""

from typing import TypedDict

from pydantic import Field

from watchword.kernel.settings import Settings


class LimitSettings(Settings):
    """To be written."""

    enabled: bool = Field(default=True, description="off only where a proxy counts instead")


class LimitOptions(TypedDict, total=False):
    """`LimitSettings` as keyword arguments."""

    enabled: bool
