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
class SignInProven(Event):
    """All that a sign-in owes was brought, and there is no session yet: gates may refuse it."""

    gated: ClassVar[bool] = True

    user_id: str
    email: str
    amr: tuple[str, ...]
    transport: str
    address: str | None
    user_agent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStarted(SessionEvent):
    """Somebody signed in."""

    audited: ClassVar[tuple[str, ...]] = ("amr", "transport")

    amr: tuple[str, ...]
    transport: str

    def audited_as(self) -> str:
        """A sign-in that went well."""
        return "login_success"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEnded(SessionEvent):
    """A session is over."""

    evicts: ClassVar[bool] = True
    audited: ClassVar[tuple[str, ...]] = ("why", "by")

    why: str
    by: str | None = None  # the id of the user who asked for it; None: a rule, or an operator

    def audited_as(self) -> str:
        """What its tokens' owner would call it."""
        named = {"logout": "logout", "revoked": "token_revoked"}
        return named.get(self.why, "session_ended")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRenewed(SessionEvent):
    """A factor was proven again; the cookie, if any, was replaced."""

    evicts: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionCarried(SessionEvent):
    """A session goes on though all others end; said where it is kept outside the database."""

    was: int
    epoch: int

    def audited_as(self) -> None:
        """Not kept: that all others ended is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshTokenReplayed(SessionEvent):
    """A refresh token came that was used before: thief or owner holds an old one."""

    is_failure: ClassVar[bool] = True

    def audited_as(self) -> str:
        """Something to look at."""
        return "suspicious_activity"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsEnded(Event):
    """All of a user's sessions are over, but for one that was kept."""

    audited: ClassVar[tuple[str, ...]] = ("why", "by", "kept")

    user_id: str
    why: str
    by: str | None = None
    kept: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceAdded(SessionEvent):
    """A user who was known elsewhere signed in from a device that is new to them."""

    audited: ClassVar[tuple[str, ...]] = ("browser", "system")

    browser: str | None
    system: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FingerprintChanged(SessionEvent):
    """A session is used by what looks like another browser; it goes on (`binding.fingerprint`)."""

    user_agent: str

    def audited_as(self) -> str:
        """Something to look at."""
        return "suspicious_activity"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceNamed(SessionEvent):
    """A user called one of their devices something; what, is theirs."""
