"""Where a record and the hints that lead to it are kept.

    watchword:{main:session:<id>}                    the record, a hash
    watchword:u:{<digest>}                           a unique key: names the record that holds it
    watchword:i:{main:session:user_id:<value>}       what has these leading texts of an index
    watchword:i:{main:session:user_id-ended_at:<value>}   of those, what has nothing in that field
    watchword:t:{main:session:refresh_grace_until}   an index that leads with an instant
    watchword:k:{main:session}                       all of a kind and realm
    watchword:r:{session}                            the realms of a kind
    watchword:schema                                 the major version of this layout

Only the record is the truth. All else are hints: written before the record and removed after,
each marked with the *stamp* of the write that made it, which the record keeps too (in `~`, or
`~<slot>` where a later write renewed only that one). A hint whose stamp is not the record's leads
nowhere. A stop between two steps leaves such hints; a reader that finds one old enough that its
writer has given up removes it, and all of them expire.

What stands between the braces is what a cluster hashes: one slot a key.
"""

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Final, Literal
from urllib.parse import quote

from watchword.storage.record import Schema, schema_of
from watchword.stores.redis.values import Raw

STAMP: Final = b"~"
"""The hash field that keeps the stamp of the write that made the hints."""

_LONGEST: Final = 128  # bytes of a value that stand in a key as they are


@dataclass(frozen=True, slots=True)
class Slot:
    """One kind of hint that a record has: a unique key or a list."""

    name: bytes
    kind: Literal["unique", "kind", "group", "time"]
    fields: tuple[str, ...]
    blank: tuple[str, ...] = ()  # fields that hold nothing in what is listed

    @property
    def stamp(self) -> bytes:
        """The hash field with this slot's own stamp."""
        return STAMP + self.name

    @property
    def decided_by(self) -> tuple[str, ...]:
        """The fields that say whether a record has this hint, and where it is."""
        return self.fields + self.blank


@dataclass(frozen=True, slots=True)
class Hint:
    """A slot with its values: a key that leads to the record."""

    slot: Slot
    key: bytes
    score: bytes | None  # by which a list is ordered; none: by when its members die


@dataclass(frozen=True, slots=True)
class Layout:
    """The keys of one kind of record."""

    prefix: str
    schema: Schema
    slots: tuple[Slot, ...]

    def record_key(self, raw: Raw) -> bytes:
        """The key of a record, of which `raw` has at least the key's fields."""
        if not all(name.encode() in raw for name in self.schema.key):
            raise ValueError("a key with nothing in it cannot be stored")
        values = [_escaped(raw[name.encode()]) for name in self.schema.key[1:]]
        return self._key("", raw[b"realm"], self.schema.name, *values)

    def pointer(self, fields: tuple[str, ...], raw: Raw) -> bytes:
        """The key of the pointer of a unique key."""
        digest = hashlib.sha256()
        for part in (self.schema.name.encode(), *(name.encode() for name in fields)):
            digest.update(b"%d:%b" % (len(part), part))
        for name in fields:
            part = raw[name.encode()]
            digest.update(b"%d:%b" % (len(part), part))
        return self._tagged("u", urlsafe_b64encode(digest.digest()).rstrip(b"=").decode())

    def group(self, slot: Slot, raw: Raw) -> bytes:
        """The key of a list of those that have these texts in common."""
        values = [_escaped(raw[name.encode()]) for name in slot.fields]
        return self._key("i", raw[b"realm"], self.schema.name, _named(slot), *values)

    def time(self, slot: Slot, realm: bytes) -> bytes:
        """The key of a list in order of an instant."""
        return self._key("t", realm, self.schema.name, *slot.fields)

    def everything(self, realm: bytes) -> bytes:
        """The key of the list of a whole kind in a realm."""
        return self._key("k", realm, self.schema.name)

    @property
    def realms(self) -> bytes:
        """The key of the list of realms that have such records."""
        return self._tagged("r", self.schema.name)

    def hints(self, raw: Raw, slots: Sequence[Slot] | None = None) -> Iterator[Hint]:
        """The hints that lead to this record; what holds nothing has none."""
        for slot in self.slots if slots is None else slots:
            if any(name.encode() not in raw for name in slot.fields):
                continue
            if any(name.encode() in raw for name in slot.blank):
                continue
            match slot.kind:
                case "unique":
                    yield Hint(slot, self.pointer(("realm", *slot.fields), raw), None)
                case "group":
                    yield Hint(slot, self.group(slot, raw), None)
                case "time":
                    score = raw[slot.fields[0].encode()]
                    yield Hint(slot, self.time(slot, raw[b"realm"]), score)
                case "kind":
                    yield Hint(slot, self.everything(raw[b"realm"]), None)

    def _key(self, sort: str, realm: bytes, *parts: str) -> bytes:
        return self._tagged(sort, ":".join((_escaped(realm), *parts)))

    def _tagged(self, sort: str, tag: str) -> bytes:
        return f"{self.prefix}:{sort}{':' if sort else ''}{{{tag}}}".encode()


@cache
def layout_of(prefix: str, kind: type) -> Layout:
    """The layout of a record class."""
    schema = schema_of(kind)
    if schema.expires is None:
        raise TypeError(f"{kind.__name__} does not expire, so Redis is no place for it")
    if schema.adoption is not None:
        raise TypeError(f"{kind.__name__} lives in a table of the application's own")
    slots = [Slot(b"k", "kind", ())]
    slots += (
        Slot(b"u:" + "+".join(fields[1:]).encode(), "unique", fields[1:])
        for fields in schema.unique
    )
    for fields in schema.indexes:
        slots += _listed(schema, fields[1:])
    return Layout(prefix, schema, tuple(dict.fromkeys(slots)))


def _listed(schema: Schema, fields: tuple[str, ...]) -> Iterator[Slot]:
    if schema.columns[fields[0]].kind == "instant":
        yield Slot(b"t:" + fields[0].encode(), "time", fields[:1])
        return
    leading: list[str] = []
    for name in fields:  # every beginning that a question may name; the key only orders
        if schema.columns[name].kind != "text" or name in schema.key:
            if leading and schema.columns[name].optional:
                # "What has not ended" must not be looked for among all that has.
                slot = Slot(b"", "group", tuple(leading), (name,))
                yield replace(slot, name=b"i:" + _named(slot).encode())
            return
        leading.append(name)
        yield Slot(b"i:" + "+".join(leading).encode(), "group", tuple(leading))


def _named(slot: Slot) -> str:
    return "-".join(("+".join(slot.fields), *slot.blank))


def _escaped(value: bytes) -> str:
    """A value as part of a key: no braces, no colons; a long one as its digest."""
    if len(value) > _LONGEST:
        return "=" + urlsafe_b64encode(hashlib.sha256(value).digest()).rstrip(b"=").decode()
    return quote(value, safe="")
