"""Settings of tokens."""

from collections.abc import Sequence
from datetime import timedelta
from typing import TypedDict

from pydantic import Field

from watchword.kernel.settings import Duration, Settings


class TokenSettings(Settings):
    """How long access and refresh tokens live, and what access tokens must say."""

    access_ttl: Duration = Field(
        default=timedelta(minutes=15),
        ge=timedelta(seconds=1),
        le=timedelta(hours=24),
        description="life of an access token; in a cookie at most 15m",
    )
    refresh_ttl: Duration = Field(
        default=timedelta(days=7),
        ge=timedelta(seconds=2),
        description="life of a refresh token; each refresh starts it anew",
    )
    remember_ttl: Duration = Field(
        default=timedelta(days=30),
        ge=timedelta(seconds=2),
        description="the same for whoever asked to stay signed in",
    )
    family_max_age: Duration = Field(
        default=timedelta(days=30),
        ge=timedelta(seconds=2),
        description="after this long, however often refreshed, one signs in again",
    )
    refresh_grace: Duration = Field(
        default=timedelta(seconds=10),
        ge=timedelta(0),
        le=timedelta(seconds=60),
        description="how long the token just replaced gets the same successor (I-14)",
    )
    leeway: Duration = Field(
        default=timedelta(seconds=0),
        ge=timedelta(0),
        le=timedelta(minutes=2),
        description="how far the clocks of issuer and verifier may differ",
    )
    audiences: tuple[str, ...] = Field(
        default=(),
        description=(
            "further audiences of one trust domain: tokens name them besides our own, and each "
            "can replay its visitors' tokens at the others"
        ),
    )
    required_claims: tuple[str, ...] = Field(
        default=(), description="claims of your hook without which no token is made or taken"
    )
    cookie_pair: bool = Field(
        default=False,
        description=(
            "offer the transport cookie_pair: both tokens in cookies, for guards at the edge"
        ),
    )


class TokenOptions(TypedDict, total=False):
    """`TokenSettings` as keyword arguments."""

    access_ttl: timedelta | str
    refresh_ttl: timedelta | str
    remember_ttl: timedelta | str
    family_max_age: timedelta | str
    refresh_grace: timedelta | str
    leeway: timedelta | str
    audiences: Sequence[str]
    required_claims: Sequence[str]
    cookie_pair: bool
