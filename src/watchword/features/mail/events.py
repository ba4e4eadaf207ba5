"""What the outbox announces. Neither event names the address: the row does."""

from dataclasses import dataclass
from typing import ClassVar

from watchword.kernel.events import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class MailQueued(Event):
    """A request for a mail is in the outbox."""

    outbox_id: str
    purpose: str

    def audited_as(self) -> None:
        """Not kept: whatever asked for the mail is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MailUndeliverable(Event):
    """A mail was given up: refused for good, or tried for too long."""

    is_failure: ClassVar[bool] = True
    audited: ClassVar[tuple[str, ...]] = ("purpose", "attempts", "reason")

    outbox_id: str
    purpose: str
    attempts: int
    reason: str  # the class of the last error
