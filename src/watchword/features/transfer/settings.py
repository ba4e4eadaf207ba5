"""Settings of import and export."""

from typing import TypedDict

from pydantic import Field

from watchword.kernel.settings import Settings


class TransferSettings(Settings):
    """How users are brought in and out."""

    batch: int = Field(
        default=500, ge=1, le=5000, description="users read at once, and written in one transaction"
    )


class TransferOptions(TypedDict, total=False):
    """`TransferSettings` as keyword arguments."""

    batch: int
