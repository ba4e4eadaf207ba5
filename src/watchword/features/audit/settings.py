"""Settings of audit."""

from datetime import timedelta
from typing import Literal, TypedDict

from pydantic import Field

from watchword.kernel.settings import Duration, Settings


class AuditSettings(Settings):
    """What is kept of what happens, for how long, and what comes before what."""

    enabled: bool = Field(default=True, description="off: nothing that happens is kept")
    retention: Duration = Field(
        default=timedelta(days=90),
        ge=timedelta(days=1),
        le=timedelta(days=3660),
        description="how long an entry is kept; the seal over it stays",
    )
    failure: Literal["fail", "log"] = Field(
        default="fail",
        description=(
            "what becomes of an action whose entry cannot be written: it fails too, with 503; or "
            "it goes on, and the log says that an entry is missing"
        ),
    )
    ip_mode: Literal["hash", "plain", "off"] = Field(
        default="hash",
        description=(
            "how addresses are kept: as a keyed hash, by which one can be searched for and which "
            "nobody can read back; as they are; or not at all"
        ),
    )
    ip_retention: Duration = Field(
        default=timedelta(days=30),
        ge=timedelta(hours=1),
        le=timedelta(days=3660),
        description=(
            "with ip_mode=plain: after this long address, user agent and the hash of the account "
            "are erased; the rest of the entry stays"
        ),
    )
    refreshes: bool = Field(
        default=True, description="keep an entry of every refresh of a token, the most frequent"
    )
    seal: bool = Field(
        default=True,
        description="sign what was kept, in batches, so that a later change of it shows",
    )


class AuditOptions(TypedDict, total=False):
    """`AuditSettings` as keyword arguments."""

    enabled: bool
    retention: timedelta | str
    failure: Literal["fail", "log"]
    ip_mode: Literal["hash", "plain", "off"]
    ip_retention: timedelta | str
    refreshes: bool
    seal: bool
