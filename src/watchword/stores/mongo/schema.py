"""What a database must have: collections, their fields and indexes. Only ever added to.

`watchword_schema` says what there is: one document with the major version, written last, and
one a collection that lists the fields its documents have or stand for a default of. Every step
may be done twice and by several workers at once, so no lock is needed.
"""

import dataclasses
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pymongo import ASCENDING, IndexModel
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase

from watchword.kernel.errors import ConfigurationError
from watchword.storage.errors import SchemaBehind, SchemaNewer
from watchword.storage.record import Schema, final
from watchword.stores.mongo.documents import (
    PREFIX,
    Index,
    decode,
    default_of,
    indexes_of,
    key_text,
    unique_field,
)
from watchword.stores.mongo.filters import has_default
from watchword.stores.mongo.target import Document

MAJOR: Final = 1
"""The major version of the schema: raised when a change is more than an addition."""

Database = AsyncDatabase[Document]
Collection = AsyncCollection[Document]

_NO_ADOPTION: Final = (
    "a table of your own can be adopted in SQLite and PostgreSQL, not in MongoDB; leave the "
    "mapping out or choose another database"
)
_VERSION: Final = "schema"  # the `_id` of the document with the major version


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that a database lacks, and how it comes to have it."""

    text: str
    do: Callable[[], Awaitable[object]]


@dataclass(slots=True)
class Difference:
    """What a database lacks."""

    is_empty: bool
    steps: list[Step] = field(default_factory=list[Step])

    @property
    def texts(self) -> tuple[str, ...]:
        """The steps, for people."""
        return tuple(step.text for step in self.steps)


async def check(database: Database, records: Sequence[type]) -> bool:
    """Compare; False means that the database is empty, or that its creation was not finished.

    Raises:
        SchemaBehind, SchemaNewer
    """
    difference = await compare(database, records)
    if difference.is_empty:
        return False
    if difference.steps:
        raise SchemaBehind(difference.texts)
    return True


async def plan(database: Database, records: Sequence[type]) -> tuple[str, ...]:
    """What `apply` would do."""
    return (await compare(database, records)).texts


async def apply(database: Database, records: Sequence[type]) -> tuple[str, ...]:
    """Add what is missing; what was done."""
    difference = await compare(database, records)
    for step in difference.steps:
        await step.do()
    return difference.texts


async def compare(database: Database, records: Sequence[type]) -> Difference:
    """What the database lacks of these records. What it has beyond them is left alone.

    Raises:
        SchemaNewer: its major version is above ours.
        ConfigurationError: a record lives in a table of the application's own.
    """
    for schema in final(records):
        if schema.adoption is not None:
            raise ConfigurationError([f"{schema.name}: {_NO_ADOPTION}"])
    kept = database[PREFIX + "schema"]
    known = {one["_id"]: one async for one in _all(kept, {})}
    version = known.get(_VERSION)
    if version is not None and version["major"] > MAJOR:
        raise SchemaNewer(
            f"the schema is of version {version['major']}, this program knows {MAJOR}"
        )
    difference = Difference(is_empty=version is None)
    for schema in final(records):
        collection = database[PREFIX + schema.name]
        registered = known.get(collection.name)
        fields = None if registered is None else frozenset(registered["fields"])
        difference.steps += _fields(kept, collection, schema, fields)
        difference.steps += await _indexes(collection, schema, is_new=fields is None)
    if version is None or version["major"] < MAJOR:

        async def mark() -> None:
            await kept.update_one(
                {"_id": {"$eq": _VERSION}}, {"$set": {"major": MAJOR}}, upsert=True
            )

        difference.steps.append(Step(f"set the schema's version to {MAJOR}", mark))
    return difference


def _fields(
    kept: Collection, collection: Collection, schema: Schema, fields: frozenset[str] | None
) -> list[Step]:
    """Steps for the collection itself, or for those of its fields that are new."""
    missing = [name for name in schema.columns if fields is not None and name not in fields]
    steps: list[Step] = []
    for name in missing:
        column = schema.columns[name]
        if column.default is dataclasses.MISSING and not column.optional:
            raise TypeError(
                f"{collection.name}.{name} joins a collection that exists: "
                "give it a default or let it be None"
            )
        default = default_of(column)

        async def fill(name: str = name, default: Any = default) -> None:
            if default is not None:
                absent = {name: {"$exists": False}}
                await collection.update_many(absent, {"$set": {name: default}})
            await _register(kept, collection, [name])

        said = f" = {default!r}" if has_default(column) else ""
        steps.append(Step(f"add field {name}{said} to {collection.name}", fill))
    if fields is None:

        async def register() -> None:
            await _register(kept, collection, list(schema.columns))

        steps.append(Step(f"create collection {collection.name}", register))
    return steps


async def _register(kept: Collection, collection: Collection, names: list[str]) -> None:
    await kept.update_one(
        {"_id": {"$eq": collection.name}},
        {"$addToSet": {"fields": {"$each": names}}},
        upsert=True,
    )


async def _indexes(collection: Collection, schema: Schema, *, is_new: bool) -> list[Step]:
    """A step for each index that is not there."""
    async with await collection.list_indexes() as cursor:
        present = {one["name"] for one in await cursor.to_list()}
    keys = {unique_field(key): key for key in schema.unique}
    steps: list[Step] = []
    for index in indexes_of(schema):
        if index.name in present:
            continue

        async def build(index: Index = index) -> None:
            if index.is_unique and not is_new:
                await _fill_unique(collection, schema, keys[index.fields[0]])
            await collection.create_indexes([_model(index)])

        kind = "unique index" if index.is_unique else "index"
        on = ", ".join(index.fields)
        steps.append(Step(f"create {kind} {index.name} on {collection.name} ({on})", build))
    return steps


def _model(index: Index) -> IndexModel:
    options: dict[str, Any] = {}
    if index.is_unique:
        options |= {"unique": True, "sparse": True}
    if index.seconds is not None:
        options["expireAfterSeconds"] = index.seconds
    return IndexModel([(name, ASCENDING) for name in index.fields], name=index.name, **options)


async def _fill_unique(collection: Collection, schema: Schema, key: tuple[str, ...]) -> None:
    """Write a new unique key into the documents that were there before it."""
    absent: Document = {unique_field(key): {"$exists": False}}
    async for one in _all(collection, absent):
        values = {name: decode(schema.columns[name].kind, one.get(name)) for name in key}
        text = key_text(schema, key, values)
        if text is not None:
            unchanged: Document = {name: {"$eq": one.get(name)} for name in key}
            await collection.update_one(
                {"_id": {"$eq": one["_id"]}, **unchanged, **absent},
                {"$set": {unique_field(key): text}},
            )


async def _all(collection: Collection, matching: Document) -> AsyncGenerator[Document]:
    async with collection.find(matching) as cursor:
        async for one in cursor:
            yield one
