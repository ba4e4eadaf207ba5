"""What happens to sign-ins."""

from dataclasses import dataclass

from watchword.kernel.events import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInFailed(Event):
    """A sign-in was refused. `user_id` only where the address is somebody's."""

    user_id: str | None
    reason: str
