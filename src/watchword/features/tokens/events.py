"""What happens to refresh tokens, besides what happens to their sessions."""

from dataclasses import dataclass
from typing import ClassVar

from watchword.features.sessions import SessionEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRefreshed(SessionEvent):
    """A refresh token was replaced by its successor; told before that is handed out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenExpired(SessionEvent):
    """The right refresh token came too late."""

    is_failure: ClassVar[bool] = True
