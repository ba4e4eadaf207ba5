"""The change feed: `change` is polled, with an overlap for rows that appear late."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from watchword.kernel.errors import StoreUnavailable
from watchword.storage.feed import Change, Follower, Waker
from watchword.storage.record import schema_of
from watchword.stores.mongo.documents import PREFIX, WRITTEN, revived
from watchword.stores.mongo.faults import translated
from watchword.stores.mongo.filters import Filter
from watchword.stores.mongo.target import Clients, Document, Target, finished

OVERLAP: Final = timedelta(seconds=60)
"""How much older than the newest row one may be and still be found.

A row has its time before a majority holds it and it can be read, and after a failover another
server's clock gives the times. What is later still, the bound of I-06 makes good.
"""


class MongoFeed:
    """Rows are written before or after the state they report, never with it (I-06)."""

    def __init__(self, target: Target) -> None:
        self._target = target

    @property
    def is_coherent(self) -> bool:
        """No: state and row are two writes, so caches live 2 s at most."""
        return False

    def follow(self, realm: str) -> Follower:
        """A place in the feed; nothing is connected yet."""
        return MongoFollower(self._target, realm)

    def waker(self) -> Waker | None:
        """None: it is polled."""
        return None


class MongoFollower:
    """One worker's place in the feed of one realm, on a client of its own, to the primary.

    The newest row's time, less the overlap, is where each read begins; what was given is known
    by its key. A read that finds nothing new costs one look into an index.
    """

    def __init__(self, target: Target, realm: str) -> None:
        self._clients = Clients(target)
        self._realm = realm
        self._is_begun = False
        self._newest: datetime | None = None
        self._given: dict[str, datetime] = {}

    async def begin(self) -> None:
        """Start at "now": what is committed already is skipped.

        Raises:
            StoreUnavailable
        """
        self._is_begun = False
        newest = await self._keys(None, limit=1)
        self._newest, self._given = None, {}
        if newest:
            self._advance(await self._keys(max(newest.values())))
        self._is_begun = True

    async def read(self) -> Sequence[Change]:
        """What was committed since, each row once, in the order of the server's times.

        Raises:
            StoreUnavailable: begin again.
        """
        if not self._is_begun:
            raise StoreUnavailable("NotBegun")
        keys = await self._keys(self._newest)
        new = [key for key in keys if key not in self._given]
        rows: list[Document] = []
        if new:
            rows = await self._ask({"_id": {"$in": new}}, order=1)
        self._advance(keys)
        return [revived(Change, row) for row in rows]

    async def close(self) -> None:
        """Give the connections back."""
        self._is_begun = False
        await self._clients.close()

    def _advance(self, keys: dict[str, datetime]) -> None:
        self._given |= keys
        if self._given:
            self._newest = max(self._given.values())
            since = self._newest - OVERLAP
            self._given = {key: at for key, at in self._given.items() if at >= since}

    async def _keys(self, newest: datetime | None, *, limit: int = 0) -> dict[str, datetime]:
        matching: Filter = {"realm": {"$eq": self._realm}}
        if newest is not None:
            matching[WRITTEN] = {"$gte": newest - OVERLAP}
        only = {"_id": 1, WRITTEN: 1}
        rows = await self._ask(matching, order=-1, only=only, limit=limit)
        return {row["_id"]: row[WRITTEN] for row in rows}

    async def _ask(
        self,
        matching: Filter,
        *,
        order: int,
        only: dict[str, int] | None = None,
        limit: int = 0,
    ) -> list[Document]:
        collection = self._clients.database()[PREFIX + schema_of(Change).name]
        by = [("realm", order), (WRITTEN, order), ("_id", order)]

        async def read() -> list[Document]:
            async with collection.find(matching, only, sort=by, limit=limit) as cursor:
                return await cursor.to_list()

        try:
            return await finished(read())
        except Exception as error:
            fault = translated(error)
            if fault is None:
                raise
        raise fault  # outside the handler: the cause may quote values
