"""A signing key at rest: sealed, in one of four states."""

from datetime import datetime, timedelta
from typing import Literal

from watchword.storage.record import record

State = Literal["next", "active", "retired", "revoked"]


@record(
    name="signing_key",
    key=("kid",),
    unique=(("active_for",), ("next_for",)),
    indexes=(("purpose", "kid"),),
    sealed=("sealed",),
)
class StoredKey:
    """A key of the ring (I-16)."""

    realm: str
    kid: str  # public: stands in every token's header
    purpose: str
    algorithm: str
    state: State
    active_for: str | None  # "purpose/algorithm" of the active one, so that there is one
    sealed: str  # the private key, sealed
    created_at: datetime
    activated_at: datetime | None = None
    verifies_until: datetime | None = None  # of a retired one
    next_for: str | None = None  # as active_for, of the one that comes next
    since: datetime | None = None  # when it got its state
    signs_for: timedelta | None = None  # the longest life of what it signs
    is_given: bool = False  # made elsewhere
