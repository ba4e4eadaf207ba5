"""Settings of lockout."""

from datetime import timedelta
from typing import Literal, Self, TypedDict

from pydantic import Field, model_validator

from watchword.kernel.settings import Duration, Settings


class LockoutSettings(Settings):
    """How often one may fail, and how long one waits then."""

    enabled: bool = Field(
        default=True,
        description="off: who fails too often waits no longer",
    )
    strategy: Literal["exponential", "fixed"] = Field(
        default="exponential",
        description="twice as long after each further failure, or always as long (`duration`)",
    )
    threshold: int = Field(
        default=5,
        ge=1,
        le=100,
        description="failures at one account from one address, or from one known device",
    )
    window: Duration = Field(
        default=timedelta(minutes=15),
        ge=timedelta(seconds=1),
        le=timedelta(days=1),
        description="failures are forgotten when none came for this long; locked time not counted",
    )
    base: Duration = Field(
        default=timedelta(seconds=30),
        ge=timedelta(seconds=1),
        description="exponential: how long one waits after the failure that reaches the threshold",
    )
    cap: Duration = Field(
        default=timedelta(hours=1),
        le=timedelta(days=1),
        description="exponential: the longest that one waits after a failure",
    )
    duration: Duration = Field(
        default=timedelta(minutes=15),
        ge=timedelta(seconds=1),
        le=timedelta(days=1),
        description="fixed: how long one waits after each failure past the threshold",
    )
    address_threshold: int = Field(
        default=50,
        ge=1,
        le=100_000,
        description="failures from one address within `window`, at whatever accounts",
    )
    account_threshold: int = Field(
        default=100,
        ge=5,
        le=100,
        description=(
            "failures in a row at one account, from wherever; past it only a known device need "
            "not wait (NIST SP 800-63B §3.2.2: at most 100)"
        ),
    )
    reset_on_success: bool = Field(
        default=True,
        description="the right password clears the count of that account from that address",
    )
    mail: bool = Field(
        default=True,
        description=(
            "tell owners whose account was locked, or signed in to after many failures: one mail "
            "of each a day"
        ),
    )

    @model_validator(mode="after")
    def _is_in_order(self) -> Self:
        if self.cap < self.base:
            raise ValueError("cap is shorter than base: nobody would ever wait for base")
        return self


class LockoutOptions(TypedDict, total=False):
    """`LockoutSettings` as keyword arguments."""

    enabled: bool
    strategy: Literal["exponential", "fixed"]
    threshold: int
    window: timedelta | str
    base: timedelta | str
    cap: timedelta | str
    duration: timedelta | str
    address_threshold: int
    account_threshold: int
    reset_on_success: bool
    mail: bool
