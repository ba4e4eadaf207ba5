"""Settings of api_keys."""

from collections.abc import Sequence
from datetime import timedelta
from typing import TypedDict

from pydantic import Field

from watchword.kernel.settings import Duration, Settings


class ApiKeySettings(Settings):
    """How long API keys live, how many a user may have, and what they may be made for."""

    ttl: Duration = Field(
        default=timedelta(days=90),
        ge=timedelta(minutes=1),
        description="life of a key whose maker does not say; never over `max_ttl`",
    )
    max_ttl: Duration = Field(
        default=timedelta(days=365),
        ge=timedelta(minutes=1),
        le=timedelta(days=3650),
        description="the longest life of a key",
    )
    max_keys: int = Field(
        default=50, ge=1, le=1000, description="keys of one user; one more is refused"
    )
    overlap: Duration = Field(
        default=timedelta(hours=24),
        ge=timedelta(0),
        description="how long a key that was rotated still works; never over `max_overlap`",
    )
    max_overlap: Duration = Field(
        default=timedelta(days=7),
        ge=timedelta(0),
        le=timedelta(days=30),
        description="the longest overlap that may be asked for",
    )
    scopes: tuple[str, ...] = Field(
        default=(), description="the scopes that there are; unset: any that is one by its form"
    )


class ApiKeyOptions(TypedDict, total=False):
    """`ApiKeySettings` as keyword arguments."""

    ttl: timedelta | str
    max_ttl: timedelta | str
    max_keys: int
    overlap: timedelta | str
    max_overlap: timedelta | str
    scopes: Sequence[str]
