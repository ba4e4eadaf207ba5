"""What happens to sessions."""

from dataclasses import dataclass
from typing import ClassVar

from watchword.kernel.events import Event
from watchword.kernel.principal import Subject


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEvent(Event):
    """Something that happened to one session."""

    session_id: str
    user_id: str

    def subjects(self) -> tuple[Subject, ...]:
        """The session."""
        return (("session", self.session_id),)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStarted(SessionEvent):
    """Somebody signed in."""

    amr: tuple[str, ...]
    transport: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEnded(SessionEvent):
    """A session is over."""

    evicts: ClassVar[bool] = True
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRenewed(SessionEvent):
    """A factor was proven again; the cookie, if any, was replaced."""

    evicts: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshTokenReplayed(SessionEvent):
    """A refresh token came that was used before: thief or owner holds an old one."""
