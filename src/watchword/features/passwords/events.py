"""What happens to passwords."""

from dataclasses import dataclass
from typing import ClassVar

from watchword.features.users import UserEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordChanged(UserEvent):
    """The user set another password; `why` is change, reset, operator or owed."""

    audited: ClassVar[tuple[str, ...]] = ("why",)

    why: str

    def audited_as(self) -> str:
        """After a reset, that it is done."""
        return "password_reset_completed" if self.why == "reset" else "password_changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordDistrusted(UserEvent):
    """Another password must be set at the next sign-in; `why`: common, compromised, operator."""

    audited: ClassVar[tuple[str, ...]] = ("why",)

    why: str
