"""Settings of webhooks."""

from collections.abc import Sequence
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import TypedDict

from pydantic import Field, field_validator

from watchword.kernel.settings import Duration, Settings


class WebhookSettings(Settings):
    """Settings of `webhooks`."""

    timeout: Duration = Field(
        default=timedelta(seconds=10),
        ge=timedelta(milliseconds=100),
        le=timedelta(seconds=30),
        description="how long one try may take; less than a worker's lease of 60 s",
    )
    retry_for: Duration = Field(
        default=timedelta(hours=72),
        ge=timedelta(minutes=1),
        le=timedelta(days=14),
        description="how long after an event it is still sent",
    )
    attempts: int = Field(default=30, ge=1, le=1000, description="how often at most it is tried")
    backoff: Duration = Field(
        default=timedelta(seconds=5),
        ge=timedelta(seconds=1),
        le=timedelta(hours=1),
        description="wait after the first failure; four times as long with each, up to 6 hours",
    )
    keep_failed_for: Duration = Field(
        default=timedelta(days=30),
        ge=timedelta(0),
        le=timedelta(days=365),
        description="how long what was given up stays listed, without its body",
    )
    overlap: Duration = Field(
        default=timedelta(hours=24),
        ge=timedelta(0),
        le=timedelta(days=30),
        description="how long the former secret of an endpoint signs too after a rotation",
    )
    parallel: int = Field(
        default=4, ge=1, le=32, description="what a worker sends at once to one endpoint"
    )
    max_endpoints: int = Field(default=50, ge=1, le=500, description="endpoints of one realm")
    allow_networks: tuple[str, ...] = Field(
        default=(),
        description=(
            "networks of yours that endpoints may be in, for example 10.1.0.0/16; otherwise "
            "nothing is sent but to addresses of the public internet"
        ),
    )
    ca: Path | None = Field(
        default=None,
        description="PEM file of the authorities that endpoints' certificates are checked "
        "against, instead of the system's",
    )

    @field_validator("allow_networks")
    @classmethod
    def _are_networks(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for each in given:
            try:
                network = ip_network(each)
            except ValueError:
                raise ValueError(f"{each!r} is no network: write 10.1.0.0/16") from None
            if network.prefixlen == 0:
                raise ValueError(f"{each} is every address: name your own networks")
        return given

    @field_validator("ca")
    @classmethod
    def _is_there(cls, given: Path | None) -> Path | None:
        if given is not None and not given.is_file():
            raise ValueError("is no file")
        return given

    @property
    def networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """`allow_networks`, read."""
        return tuple(ip_network(each) for each in self.allow_networks)


class WebhookOptions(TypedDict, total=False):
    """`WebhookSettings` as keyword arguments."""

    timeout: timedelta | str
    retry_for: timedelta | str
    attempts: int
    backoff: timedelta | str
    keep_failed_for: timedelta | str
    overlap: timedelta | str
    parallel: int
    max_endpoints: int
    allow_networks: Sequence[str]
    ca: Path | str | None
