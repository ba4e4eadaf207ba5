"""What happens on the way to another password."""

from dataclasses import dataclass, field

from watchword.kernel.events import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordResetRequested(Event):
    """Somebody asked for a reset; whether the address is anybody's, nobody has looked."""

    account: str = field(repr=False)  # key of the address
