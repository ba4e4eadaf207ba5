"""What happens to sign-ins."""

from dataclasses import dataclass

from watchword.kernel.events import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInFailed(Event):
    """A sign-in was refused. `user_id` only where the address is somebody's."""

    user_id: str | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInOwed(Event):
    """A factor was proven and something else is owed: there is no session yet."""

    user_id: str
    purpose: str  # sign_in or reauthenticate
    owed: str  # the code of the refusal that said so
