"""Settings of audit."""

from typing import TypedDict

from pydantic import Field

from watchword.kernel.settings import Settings


class AuditSettings(Settings):
    """To be written."""

    enabled: bool = Field(default=True, description="off: nothing that happens is kept")


class AuditOptions(TypedDict, total=False):
    """`AuditSettings` as keyword arguments."""

    enabled: bool
