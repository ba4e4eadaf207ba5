"""A change of address: asked for, and, once made, still to be taken back."""

from datetime import datetime

from watchword.kernel.secrets import Digest
from watchword.storage.record import record


@record(
    name="email_change",
    key=("user_id",),
    unique=(("id",), ("digest",)),
    expires="expires_at",
)
class EmailChange:
    """A change that waits for the new address. One a user: a new wish voids the one before."""

    realm: str
    user_id: str
    id: str  # what the outbox names it by; proves nothing
    digest: Digest | None = None  # of the token, once it was mailed
    email: str
    epoch: int  # the user's when it was asked for (I-01)
    session_id: str | None  # the session that asked; it outlives the change
    expires_at: datetime


@record(
    name="email_undo",
    key=("id",),
    unique=(("digest",),),
    indexes=(("user_id",), ("email_key",)),
    expires="expires_at",
)
class EmailUndo:
    """A change that was made. Bound to no epoch: it must outlast whoever took the account."""

    realm: str
    id: str
    user_id: str
    digest: Digest | None = None  # of the token, once it was mailed
    email: str  # the old address, as it was
    email_key: str
    epoch: int  # the user's once the change was made; a later change has a greater one
    expires_at: datetime
