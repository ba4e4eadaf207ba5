"""Settings of sign-in."""

from datetime import timedelta
from typing import TypedDict

from pydantic import Field

from watchword.kernel.settings import Duration, Settings


class SignInSettings(Settings):
    """How long a sign-in may be half done."""

    challenge_ttl: Duration = Field(
        default=timedelta(minutes=5),
        ge=timedelta(seconds=30),
        le=timedelta(minutes=15),
        description="how long what is owed may be brought; then one begins anew",
    )
    challenge_tries: int = Field(
        default=5, ge=1, le=10, description="tries on one challenge; past that, it is over"
    )
    hide_disabled: bool = Field(
        default=False,
        description="answer `invalid_credentials` for a disabled account, right password or not",
    )
    login_floor: Duration | None = Field(
        default=None,
        le=timedelta(seconds=5),
        description=(
            "no failed sign-in is answered sooner; left out: what the slowest stored kind of "
            "password takes, measured at the start and whenever a slower one is met"
        ),
    )


class SignInOptions(TypedDict, total=False):
    """`SignInSettings` as keyword arguments."""

    challenge_ttl: timedelta | str
    challenge_tries: int
    hide_disabled: bool
    login_floor: timedelta | str | None
