"""What happens to passwords."""

from dataclasses import dataclass

from watchword.features.users import UserEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordChanged(UserEvent):
    """The user set another password; `why` is change, reset or operator."""

    why: str
