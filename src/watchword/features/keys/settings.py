"""Settings of keys."""

from typing import Literal, TypedDict

from pydantic import Field

from watchword.kernel.settings import Settings


class KeySettings(Settings):
    """How tokens are signed."""

    algorithm: Literal["ES256", "RS256", "EdDSA", "HS256"] = Field(
        default="ES256",
        description="HS256 only where one service verifies: whoever verifies can forge",
    )


class KeyOptions(TypedDict, total=False):
    """`KeySettings` as keyword arguments."""

    algorithm: Literal["ES256", "RS256", "EdDSA", "HS256"]
