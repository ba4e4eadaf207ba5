"""What a service may, and where."""

from datetime import datetime

from watchword.storage.record import record


@record(
    name="service_grant",
    key=("id",),
    unique=(("live_as",),),
    indexes=(("created_at", "id"),),
)
class ServiceGrant:
    """A service that may call others. Each of its tokens names this row (I-02)."""

    realm: str
    id: str  # the `gid` of its tokens; proves nothing
    name: str  # a slug
    live_as: str | None  # the name until it ends, so that there is one of that name
    audiences: tuple[str, ...]  # whom it may call: the `audience` of their apps
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None = None  # None: until it is ended
    ended_at: datetime | None = None
