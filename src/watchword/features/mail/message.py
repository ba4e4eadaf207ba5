"""A mail ready to leave, and who takes it from here."""

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A mail ready to leave. Its text form shows neither address nor body."""

    recipient: str = field(repr=False)  # exactly one address, without a name
    subject: str = field(repr=False)  # one line
    text: str = field(repr=False)
    html: str = field(repr=False)
    sender: str  # an address
    sender_name: str = ""


class EmailSender(Protocol):
    """Takes one mail to where it goes. Write your own for SendGrid, SES and the like."""

    async def send(self, message: Message) -> None:
        """Return when somebody else has taken responsibility for the mail.

        Raises:
            SendFailed: with `permanent` if another try cannot help. Anything else that is
                raised counts as a failure that passes.
        """
        ...
