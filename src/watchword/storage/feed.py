"""The change feed: rows that tell every worker what became untrue (I-06 to I-09).

Wake-ups are hints, rows are the truth. A `Change` is written in the transaction of the state it
reports where the driver has transactions; a `Following` reads what is new every quarter of its
bound, sooner when a `Waker` says so, and evicts.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, Protocol

from watchword.storage.record import record

KEPT_FOR: Final = timedelta(minutes=10)
"""How long a change row stays. A follower that was away longer starts anew, its cache empty."""


@record(name="change", key=("id",), expires="expires_at")
class Change:
    """Something that a cache may hold became untrue."""

    realm: str
    id: str  # random: a follower skips what it applied by it
    topic: str  # of the subject: user, session, api_key, client, key, role, policy, app
    subject: str  # its id
    at: datetime  # when it was written, for the measure of lag; decides nothing
    expires_at: datetime


class Waker(Protocol):
    """Hints from worker to worker that there may be something to read. May lose any of them."""

    @property
    def name(self) -> str:
        """What it is, for operators: `notify`, `data_version`, `redis`."""
        ...

    async def open(self) -> bool:
        """Connect and prove by a round trip that hints arrive; False if they do not (I-08).

        Raises:
            StoreUnavailable
        """
        ...

    def hint(self) -> None:
        """Something was committed: tell the others, best effort. Returns at once, never raises."""
        ...

    async def wait(self) -> None:
        """Return when there may be something to read, a hint of one's own included or not.

        Raises:
            StoreUnavailable: it can hear nothing any more; open it again.
        """
        ...

    async def close(self) -> None:
        """Give the connection back."""
        ...


class Follower(Protocol):
    """One worker's place in the feed of one realm, on a connection of its own, to the primary."""

    async def begin(self) -> None:
        """Connect, anew if need be, and start at "now": what is committed already is skipped.

        Raises:
            StoreUnavailable
        """
        ...

    async def read(self) -> Sequence[Change]:
        """What was committed since, each row once, whatever the order of commits (I-07).

        Raises:
            StoreUnavailable: begin again.
        """
        ...

    async def close(self) -> None:
        """Give the connection back."""
        ...


class Feed(Protocol):
    """How a database tells its workers what changed."""

    @property
    def is_coherent(self) -> bool:
        """Do change rows commit together with the state they report (I-06)?"""
        ...

    def follow(self, realm: str) -> Follower:
        """A place in the feed; nothing is connected yet."""
        ...

    def waker(self) -> Waker | None:
        """Hints of the database's own; None where polling is all there is."""
        ...
