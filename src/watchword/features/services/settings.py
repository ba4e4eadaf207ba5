"""Settings of services."""

from datetime import timedelta
from typing import TypedDict

from pydantic import Field

from watchword.kernel.settings import Duration, Settings


class ServiceSettings(Settings):
    """How long the tokens of services live."""

    ttl: Duration = Field(
        default=timedelta(hours=1),
        ge=timedelta(seconds=1),
        le=timedelta(hours=24),
        description="life of a service token, where its maker does not say; 24h at most",
    )
    leeway: Duration = Field(
        default=timedelta(seconds=0),
        ge=timedelta(0),
        le=timedelta(minutes=2),
        description="how far the clocks of issuer and verifier may differ",
    )


class ServiceOptions(TypedDict, total=False):
    """`ServiceSettings` as keyword arguments."""

    ttl: timedelta | str
    leeway: timedelta | str
