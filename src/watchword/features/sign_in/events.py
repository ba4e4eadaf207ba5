"""What happens to sign-ins."""

from dataclasses import dataclass, field
from typing import ClassVar

from watchword.kernel.events import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInFailed(Event):
    """A sign-in was refused. `user_id` only where the address is somebody's."""

    is_failure: ClassVar[bool] = True
    audited: ClassVar[tuple[str, ...]] = ("reason", "factor")

    user_id: str | None
    reason: str
    factor: str | None = None  # what was tried, as RFC 8176 names it
    account: str | None = field(default=None, repr=False)  # key of the address, whosever it is

    def audited_as(self) -> str:
        """A sign-in that failed."""
        return "login_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInOwed(Event):
    """A factor was proven and something else is owed: there is no session yet."""

    audited: ClassVar[tuple[str, ...]] = ("purpose", "owed")

    user_id: str
    purpose: str  # sign_in or reauthenticate
    owed: str  # the code of the refusal that said so
