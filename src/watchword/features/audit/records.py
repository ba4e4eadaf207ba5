"""What is kept of what happened, and the seals over it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from watchword.storage.record import record


@record(
    name="audit_entry",
    key=("id",),
    indexes=(
        ("at", "id"),
        ("action", "at", "id"),
        ("user_id", "at", "id"),
        ("account", "at", "id"),
        ("address", "at", "id"),
        ("seal", "at", "id"),
    ),
    expires="expires_at",
)
class AuditEntry:
    """One thing that happened. What of it is personal can be erased under its seal (I-23)."""

    realm: str
    id: str
    at: datetime
    action: str  # an `AuthAction`, or the name of an event of others
    event: str  # the class of the event, in snake case
    result: Literal["success", "failure"]
    user_id: str | None  # whom it is about
    actor: str  # who did it: user:ID, client:ID, service:ID, anonymous, command or system
    session_id: str | None
    request_id: str | None
    app: str | None  # the `client_id` that the request was made to
    details: Mapping[str, Any]  # of the event, only what it lets be kept; bounded
    account: str | None  # keyed hash of the address of mail that was tried or asked for
    address: str | None  # where it came from: keyed hash, or plain (`audit.ip_mode`)
    user_agent: str | None
    salt: str | None  # of `personal`; without it nobody can try what the erased fields were
    personal: str  # digest of the three fields before, salted
    seal: int = 0  # the number of its batch; 0: not sealed yet
    place: int = 0  # its place there, from 1
    expires_at: datetime  # once it is sealed, that of its whole batch


@record(name="audit_seal", key=("n",))
class AuditSeal:
    """A signature over a batch of entries and over the seal before. It is never deleted."""

    realm: str
    n: int  # 1, 2, 3, …: of two sealers at once one gets it
    count: int
    first_at: datetime
    last_at: datetime
    root: str  # digest of the list of the batch
    previous: str  # digest of the seal before; empty for the first
    entries_until: datetime  # when its entries and the list may go
    at: datetime
    kid: str  # thumbprint of the key that signed
    signature: str


@record(name="audit_batch", key=("root",), expires="expires_at")
class AuditBatch:
    """The list that a seal signs: the ids and digests of its entries, in order."""

    realm: str
    root: str
    ids: tuple[str, ...]
    digests: tuple[str, ...]
    expires_at: datetime


@record(name="audit_erasure", key=("user_id",), indexes=(("at", "user_id"),))
class AuditErasure:
    """A user is gone: what entries about them say of their person is to be erased."""

    realm: str
    user_id: str
    at: datetime
