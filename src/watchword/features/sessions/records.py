"""The session: the one stateful thing, one row. Tokens and cookies only point at it.

And the device: where its user was seen before. It proves nothing.
"""

from datetime import datetime

from watchword.kernel.secrets import Digest
from watchword.storage.record import record


@record(
    name="session",
    key=("id",),
    unique=(("cookie_digest",), ("refresh_family",)),
    indexes=(("user_id", "ended_at", "started_at", "id"), ("refresh_grace_until", "id")),
    expires="delete_at",
)
class Session:
    """Someone signed in, somewhere, until then."""

    realm: str
    id: str  # the `sid` of tokens; proves nothing
    user_id: str
    epoch: int  # the user's when the first factor was asked for (I-01)
    amr: tuple[str, ...]  # factors used, as RFC 8176 names them
    auth_time: datetime  # when the last of them was proven
    transport: str
    app: str  # the slug of the app that signed them in
    device: str | None = None  # digest of the device cookie
    device_name: str | None = None  # what its user calls it
    address: str | None = None  # last seen: sealed, a keyed hash, or plain (`ip_mode`)
    user_agent: str = ""  # last seen; shortened
    agent_digest: Digest  # of what the client called itself at sign-in
    binding: str | None = None  # keyed hash of the address that it is bound to
    fingerprint: Digest | None = None  # of the browser that it is bound to
    remembered: bool = False
    started_at: datetime
    seen_at: datetime
    idle_expires_at: datetime
    expires_at: datetime  # the absolute end
    delete_at: datetime  # when the row may go: a while after the session is over
    cookie_digest: Digest | None = None
    refresh_family: Digest | None = None  # of the 128 bits that select the family
    refresh_current: Digest | None = None  # of the 256 bits that prove the generation
    refresh_previous: Digest | None = None
    refresh_expires_at: datetime | None = None
    refresh_rotations: int = 0
    refresh_rotated_at: datetime | None = None
    refresh_agent: Digest | None = None  # of the client that rotated
    refresh_device: Digest | None = None
    refresh_successor: str | None = None  # sealed under a key that only its predecessor gives
    refresh_grace_until: datetime | None = None
    ended_at: datetime | None = None
    ended_why: str | None = None


@record(
    name="device",
    key=("user_id", "digest"),
    indexes=(("user_id", "seen_at", "digest"),),
    expires="expires_at",
)
class Device:
    """A browser or a program that a user signed in from. Known again by what it sends, no proof."""

    realm: str
    user_id: str
    digest: Digest  # of its cookie; of the user agent, where it has none and brings tokens
    epoch: int  # the user's at the last sign-in from it
    name: str | None = None
    user_agent: str = ""
    first_seen_at: datetime
    seen_at: datetime  # the last sign-in
    expires_at: datetime
