"""What happens to passwords."""

from dataclasses import dataclass

from watchword.features.users import UserEvent
from watchword.kernel.events import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordChanged(UserEvent):
    """The user set another password; `why` is change, reset or operator."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInFailed(Event):
    """A sign-in was refused. `user_id` only where the address is somebody's."""

    user_id: str | None
    reason: str
