"""What happens on the way to a proven address."""

from dataclasses import dataclass, field

from watchword.kernel.events import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationRequested(Event):
    """Somebody asked for another mail; whether the address is anybody's, nobody has looked."""

    account: str = field(repr=False)  # key of the address
