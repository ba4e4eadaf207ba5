"""Settings of sessions."""

from datetime import timedelta
from typing import Literal, TypedDict

from pydantic import Field, field_validator

from watchword.kernel.secrets import Secret
from watchword.kernel.settings import Duration, SecretText, Settings

_STORES = ("redis", "rediss")


class SessionSettings(Settings):
    """How long browser sessions live, and how many a user may have."""

    idle_timeout: Duration = Field(
        default=timedelta(minutes=30),
        ge=timedelta(seconds=10),
        description="a cookie session ends when it was not used for this long",
    )
    absolute_timeout: Duration = Field(
        default=timedelta(hours=8),
        ge=timedelta(minutes=1),
        description="a cookie session ends this long after it began, used or not",
    )
    remember_idle: Duration = Field(
        default=timedelta(days=30),
        ge=timedelta(minutes=1),
        description="as idle_timeout, for who asked to stay signed in",
    )
    remember_absolute: Duration = Field(
        default=timedelta(days=30),
        ge=timedelta(minutes=1),
        description="as absolute_timeout, for who asked to stay signed in",
    )
    store: SecretText | None = Field(
        default=None,
        description=(
            "redis:// to keep sessions there instead of the database; users stay in the database, "
            "so bans, resets and end-all never depend on it"
        ),
    )
    max_sessions: int = Field(
        default=10, ge=1, le=1000, description="sessions of one user; the oldest is ended"
    )
    kept_after_end: Duration = Field(
        default=timedelta(days=1),
        description="how long an ended session's row stays, so that a replay is noticed",
    )
    ip_mode: Literal["sealed", "hash", "plain"] = Field(
        default="sealed",
        description=(
            "how addresses are kept: encrypted, so that their owners see them in the list; as a "
            "keyed hash, which nobody can read back; or as they are"
        ),
    )
    page: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s#]+$",
        description="your page that lists a user's sessions; named in mails about them",
    )

    @field_validator("store")
    @classmethod
    def _is_redis(cls, store: Secret | None) -> Secret | None:
        if store is not None and store.reveal().partition(":")[0].lower() not in _STORES:
            raise ValueError("must be redis://… or rediss://…; left out, the database keeps them")
        return store


class SessionOptions(TypedDict, total=False):
    """`SessionSettings` as keyword arguments."""

    idle_timeout: timedelta | str
    absolute_timeout: timedelta | str
    remember_idle: timedelta | str
    remember_absolute: timedelta | str
    store: Secret | str | None
    max_sessions: int
    kept_after_end: timedelta | str
    ip_mode: Literal["sealed", "hash", "plain"]
    page: str | None
