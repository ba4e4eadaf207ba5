"""The nine verbs, each decided by one command on one document."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Final, TypeVar

from pymongo import ASCENDING, DESCENDING, ReturnDocument
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import DuplicateKeyError

from watchword.kernel.errors import StoreUnavailable
from watchword.storage.record import Schema, schema_of
from watchword.storage.store import Comparison, Conditions, Plus
from watchword.stores.mongo.documents import (
    PREFIX,
    WRITTEN,
    default_of,
    document_of,
    encode,
    encoded,
    is_feed,
    key_text,
    revived,
    ttl_field,
    unique_field,
)
from watchword.stores.mongo.faults import taken_index, translated
from watchword.stores.mongo.filters import (
    Filter,
    all_of,
    equal,
    filter_of,
    has_default,
    past,
)
from watchword.stores.mongo.target import Clients, Document, finished

R = TypeVar("R")
T = TypeVar("T")

Collection = AsyncCollection[Document]

_TRIES: Final = 50
"""How often what needs two commands begins anew when others come between them."""


class MongoVerbs:
    """What a MongoDB database can do. Every verb stands at once."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    async def insert(self, record: object) -> None:
        """Add a record."""
        schema = schema_of(type(record))
        document = document_of(schema, record)
        if is_feed(schema):
            # Only an update is given the server's time. What has the key has a realm, so it
            # does not match, and inserting it is refused as ever.
            there: Filter = {"_id": {"$eq": document.pop("_id")}, "realm": {"$exists": False}}
            written = {"$setOnInsert": document, "$currentDate": {WRITTEN: {"$type": "date"}}}
            await self._run(schema, lambda c: c.update_one(there, written, upsert=True))
            return
        await self._run(schema, lambda collection: collection.insert_one(document))

    async def get(self, kind: type[R], conditions: Conditions) -> R | None:
        """The record that the pinned key names, if the other conditions hold too."""
        schema = schema_of(kind)
        matching = filter_of(schema, conditions)
        found = await self._run(schema, lambda collection: collection.find_one(matching))
        return None if found is None else revived(kind, found)

    async def find(
        self,
        kind: type[R],
        conditions: Conditions,
        *,
        order: tuple[str, ...],
        descending: bool,
        after: tuple[object, ...] | None,
        limit: int,
    ) -> list[R]:
        """Up to `limit` records in this order, past `after`."""
        schema = schema_of(kind)
        for name in order:
            if schema.columns[name].kind == "bytes":
                raise TypeError(f"{schema.name}.{name} holds bytes and so orders no list")
        if limit < 1:
            return []  # MongoDB takes 0 for all
        matching = filter_of(schema, conditions)
        if after is not None:
            way = "$lt" if descending else "$gt"
            matching = all_of(matching, past(schema, order, after, way))
        by = [(name, DESCENDING if descending else ASCENDING) for name in order]

        async def read(collection: Collection) -> list[Document]:
            async with collection.find(matching, sort=by, limit=limit) as cursor:
                return await cursor.to_list()

        return [revived(kind, one) for one in await self._run(schema, read)]

    async def count(self, kind: type, conditions: Conditions) -> int:
        """How many match."""
        schema = schema_of(kind)
        matching = filter_of(schema, conditions)
        return await self._run(schema, lambda collection: collection.count_documents(matching))

    async def update(
        self, kind: type[R], conditions: Conditions, changes: Mapping[str, object]
    ) -> R | None:
        """If the pinned record matches, change it; the record after, or None.

        A unique key of several fields is one text in the document. Where only some of them
        change, the others are read first and stand in the condition; if they have changed in
        between, it is done anew.
        """
        if not changes:
            return await self.get(kind, conditions)
        schema = schema_of(kind)
        matching = filter_of(schema, conditions)
        needed = _needed(schema, conditions, changes)

        async def change(collection: Collection) -> Document | None:
            for _ in range(_TRIES):
                known: dict[str, Any] = {}
                if needed:
                    here = await collection.find_one(matching)
                    if here is None:
                        return None
                    record = revived(kind, here)
                    known = {name: getattr(record, name) for name in needed}
                after = await collection.find_one_and_update(
                    all_of(matching, *equal(schema, known)),
                    _operations(schema, {**_equalities(conditions), **known}, changes),
                    return_document=ReturnDocument.AFTER,
                )
                if after is not None or not needed:
                    return after
            raise StoreUnavailable("Contention")

        await self._fill(schema, matching, changes)
        found = await self._run(schema, change)
        return None if found is None else revived(kind, found)

    async def take(self, kind: type[R], conditions: Conditions) -> R | None:
        """If the pinned record matches, delete and return it."""
        schema = schema_of(kind)
        matching = filter_of(schema, conditions)
        found = await self._run(schema, lambda c: c.find_one_and_delete(matching))
        return None if found is None else revived(kind, found)

    async def erase(self, kind: type, conditions: Conditions) -> int:
        """Delete all that match; how many."""
        schema = schema_of(kind)
        matching = filter_of(schema, conditions)
        done = await self._run(schema, lambda collection: collection.delete_many(matching))
        return done.deleted_count

    async def increment(self, record: object, *, field: str, expires: str, now: datetime) -> int:
        """Add `record.field` to the record of that key; the value afterwards.

        One that stands is raised, one past its time is replaced, and if there is none it is
        inserted: each is one command with its condition, so that of two at once one goes
        through and the other begins anew.
        """
        schema = schema_of(type(record))
        document = document_of(schema, record)
        there: Filter = {"_id": {"$eq": document["_id"]}}
        instant = encode("instant", now)
        stands = all_of(there, {"$or": [{expires: {"$gt": instant}}, {expires: {"$eq": None}}]})
        over = all_of(there, {expires: {"$lte": instant}})
        raised = {"$inc": {field: document[field]}}

        async def count(collection: Collection) -> int:
            for _ in range(_TRIES):
                after = await collection.find_one_and_update(
                    stands, raised, return_document=ReturnDocument.AFTER
                ) or await collection.find_one_and_replace(
                    over, document, return_document=ReturnDocument.AFTER
                )
                if after is not None:
                    return int(after[field])
                try:
                    await collection.insert_one(document)
                except DuplicateKeyError as error:
                    if taken_index(error) != "_id_":
                        raise
                else:
                    return int(document[field])
            raise StoreUnavailable("Contention")

        return await self._run(schema, count)

    async def expire(self, kind: type, *, expires: str, now: datetime, limit: int) -> int:
        """Delete up to `limit` records of any realm whose time is past; how many."""
        if limit < 1:
            return 0
        schema = schema_of(kind)
        field = ttl_field(expires)
        # The date has an index but no microseconds; both together are exact.
        over: Filter = {field: {"$lte": now}, expires: {"$lte": encode("instant", now)}}

        async def remove(collection: Collection) -> int:
            async with collection.find(over, {"_id": 1}, sort=[(field, 1)], limit=limit) as cursor:
                chosen = [one["_id"] for one in await cursor.to_list()]
            if not chosen:
                return 0
            batch: Filter = {"_id": {"$in": chosen}}
            return (await collection.delete_many(all_of(batch, over))).deleted_count

        return await self._run(schema, remove)

    async def _fill(self, schema: Schema, matching: Filter, changes: Mapping[str, object]) -> None:
        """Write down a default that is about to be raised: MongoDB would count from 0."""
        for name, value in changes.items():
            column = schema.columns[name]
            if not isinstance(value, Plus) or not has_default(column) or column.default == 0:
                continue
            absent = all_of(matching, {name: {"$exists": False}})
            filled = {"$set": {name: default_of(column)}}
            await self._run(schema, lambda c, a=absent, f=filled: c.update_one(a, f))

    async def _run(self, schema: Schema, step: Callable[[Collection], Awaitable[T]]) -> T:
        fault = None
        try:
            return await finished(step(self._clients.database()[PREFIX + schema.name]))
        except Exception as error:
            fault = translated(error, schema)
            if fault is None:
                raise
        raise fault  # outside the handler: the cause may quote values


def _equalities(conditions: Conditions) -> dict[str, Any]:
    """What the conditions say of the record before the change."""
    known: dict[str, Any] = {}
    for name, value in conditions.items():
        if not isinstance(value, Comparison):
            known[name] = value
        elif value.operator == "=":
            known[name] = value.value
    return known


def _needed(
    schema: Schema, conditions: Conditions, changes: Mapping[str, object]
) -> tuple[str, ...]:
    """The fields that must be read to know a unique key after the change."""
    known = _equalities(conditions)
    needed: dict[str, None] = {}
    for key in schema.unique:
        if any(name in changes for name in key):
            for name in key:
                if isinstance(changes.get(name), Plus) or name not in changes:
                    needed[name] = None
    return tuple(name for name in needed if name not in known)


def _operations(
    schema: Schema, before: Mapping[str, Any], changes: Mapping[str, object]
) -> dict[str, Any]:
    """The change as MongoDB's operators; `before` holds what unique keys need of the rest."""
    plain = {name: value for name, value in changes.items() if not isinstance(value, Plus)}
    raised = {name: value for name, value in changes.items() if isinstance(value, Plus)}
    stored = encoded(schema, plain)
    gone: list[str] = []
    if schema.expires in plain and plain[schema.expires] is None:
        gone.append(ttl_field(schema.expires))
    after = {**before, **plain}
    for name, value in raised.items():
        if before.get(name) is not None:
            after[name] = before[name] + value.amount
    for key in schema.unique:
        if any(name in changes for name in key):
            text = key_text(schema, key, after)
            if text is None:
                gone.append(unique_field(key))
            else:
                stored[unique_field(key)] = text
    operations: dict[str, Any] = {}
    if stored:
        operations["$set"] = stored
    if raised:
        operations["$inc"] = {
            name: encode("integer", value.amount) for name, value in raised.items()
        }
    if gone:
        operations["$unset"] = dict.fromkeys(gone, "")
    return operations
