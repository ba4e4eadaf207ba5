"""The outbox: who asked for which mail, and nothing that opens anything (I-12)."""

from datetime import datetime

from watchword.kernel.ports import MailRequest
from watchword.storage.record import record


@record(
    name="outbox_mail",
    key=("id",),
    indexes=(("is_given_up", "due_at", "id"),),
    expires="expires_at",
)
class OutboxMail:
    """A mail that was asked for. It has no body and no token: they are made when it leaves."""

    realm: str
    id: str
    purpose: str
    address: str  # normalised, as asked for; may belong to nobody
    challenge: str | None  # an id that the purpose understands; proves nothing
    locale: str
    requested_at: datetime
    due_at: datetime  # when to try next, or the end of a worker's lease
    attempts: int = 0  # tries begun
    is_given_up: bool = False  # a dead letter, kept for an operator to see
    last_error: str | None = None  # a class name, never a server's words
    expires_at: datetime  # when it is forgotten, delivered or not

    def request(self) -> MailRequest:
        """As the purpose sees it."""
        return MailRequest(
            realm=self.realm,
            id=self.id,
            purpose=self.purpose,
            address=self.address,
            challenge=self.challenge,
            locale=self.locale,
            requested_at=self.requested_at,
        )
