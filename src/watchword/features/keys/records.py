"""A signing key at rest: sealed, in one of four states."""

from datetime import datetime
from typing import Literal

from watchword.storage.record import record

State = Literal["next", "active", "retired", "revoked"]


@record(name="signing_key", key=("kid",), unique=(("active_for",),), indexes=(("purpose", "kid"),))
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
