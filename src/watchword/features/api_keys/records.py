"""An API key at rest: its digest, and what it may."""

from datetime import datetime

from watchword.kernel.secrets import Digest
from watchword.storage.record import record


@record(
    name="api_key",
    key=("id",),
    unique=(("digest",),),
    indexes=(("user_id", "created_at", "id"),),
    expires="delete_at",
)
class ApiKey:
    """A key of one user."""

    realm: str
    id: str  # names it in lists; proves nothing
    user_id: str
    epoch: int  # the user's when it was made (I-01)
    name: str  # what its owner calls it
    hint: str  # its first letters after the prefix: 24 of 256 bits, to tell one from another
    digest: Digest
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime  # the end of the overlap, once it was rotated
    delete_at: datetime  # when the row may go
    last_used_at: datetime | None = None  # coarse: minutes behind
    predecessor_id: str | None = None  # the key that it took over from
    successor_id: str | None = None  # the key that took over from it
    ended_at: datetime | None = None
    ended_why: str | None = None
