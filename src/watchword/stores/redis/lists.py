"""Reading: follow the hints, look at the records, remove the hints that lead nowhere."""

from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass
from typing import Final

from watchword.stores.redis import hints
from watchword.stores.redis.layout import Layout, Slot
from watchword.stores.redis.link import Link
from watchword.stores.redis.values import Condition, Raw, paired

Found = list[tuple[bytes, Raw]]

_BATCH: Final = 200  # records a round trip


@dataclass(frozen=True, slots=True)
class _List:
    key: bytes
    slot: Slot
    between: tuple[bytes, bytes] | None  # scores; none: all of it


class Lists:
    """Look-ups on one server."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def record(self, key: bytes) -> Raw:
        """The record of this key; empty if there is none."""
        (flat,) = await self._link.read(("HGETALL", key))
        return paired(flat)

    async def owner(self, pointer: bytes) -> bytes | None:
        """The key of the record that a pointer names, whether it is there or not."""
        (held,) = await self._link.read(("GET", pointer))
        return None if held is None else held.partition(b" ")[2]

    async def candidates(
        self, layout: Layout, wanted: tuple[Condition, ...], named: Raw
    ) -> AsyncGenerator[Found]:
        """Records that may match, in batches, each once: all of the narrowest list."""
        chosen = _narrowest(layout, wanted, named)
        seen: set[bytes] = set()
        async for now, members in self._members(chosen):
            found = dict(await self._look(chosen, members, now))
            yield [(key, raw) for key, raw in found.items() if key not in seen]
            seen.update(found)

    async def dying(self, layout: Layout, *, latest: int, limit: int) -> AsyncGenerator[Found]:
        """Records of every realm that the server deletes by then, in batches."""
        (realms,) = await self._link.read(("ZRANGE", layout.realms, 0, -1))
        (everything,) = (slot for slot in layout.slots if slot.kind == "kind")
        for realm in realms:
            chosen = _List(layout.everything(realm), everything, None)
            passed = 0  # members that stay, since others may still be writing them
            while True:
                span = ("-inf", latest, "LIMIT", passed, min(limit, _BATCH))
                time, members = await self._link.read(
                    ("TIME",), ("ZRANGEBYSCORE", chosen.key, *span)
                )
                if not members:
                    break
                yield await self._look(chosen, members, hints.millis(time))
                (left,) = await self._link.read(
                    ("ZMSCORE", chosen.key, *members),
                )
                passed += sum(score is not None for score in left)

    async def _members(self, chosen: _List) -> AsyncGenerator[tuple[int, list[bytes]]]:
        """The members of a list in batches, and when they were read by the server's clock."""
        if chosen.between is not None:
            time, all_of_it = await self._link.read(
                ("TIME",), ("ZRANGEBYSCORE", chosen.key, *chosen.between)
            )
            for start in range(0, len(all_of_it), _BATCH):
                yield hints.millis(time), all_of_it[start : start + _BATCH]
            return
        cursor = b"0"
        while True:
            time, (cursor, pairs) = await self._link.read(
                ("TIME",), ("ZSCAN", chosen.key, cursor, "COUNT", _BATCH)
            )
            members = pairs[::2]
            for start in range(0, len(members), _BATCH):
                yield hints.millis(time), members[start : start + _BATCH]
            if cursor == b"0":
                return

    async def _look(self, chosen: _List, members: Iterable[bytes], now: int) -> Found:
        """Read the records of these members. A record counts, whatever the stamp of the hint."""
        marked = [(*member.partition(b"|")[::2], member) for member in members]
        if not marked:
            return []
        answers = await self._link.read(*(("HGETALL", key) for _, key, _ in marked))
        found: Found = []
        orphans: list[bytes] = []
        for (stamp, key, member), flat in zip(marked, answers, strict=True):
            raw = paired(flat)
            if raw:
                found.append((key, raw))
            is_current = bool(raw) and hints.stamp_of(raw, chosen.slot) == stamp
            # Read after `now`, so a writer of that age had given up before we looked.
            if not is_current and now - hints.age_mark(stamp) > hints.GRACE:
                orphans.append(member)
        if orphans:
            await hints.tidy(self._link, [("ZREM", chosen.key, *orphans)])
        return found


def _narrowest(layout: Layout, wanted: tuple[Condition, ...], named: Raw) -> _List:
    """The list to read: equal texts, else a span of time, else everything there is."""
    groups = [
        slot
        for slot in layout.slots
        if slot.kind == "group"
        and all(name.encode() in named for name in slot.fields)
        and all(_is_blank(name, wanted) for name in slot.blank)
    ]
    if groups:
        slot = max(groups, key=lambda slot: (len(slot.fields), len(slot.blank)))
        return _List(layout.group(slot, named), slot, None)
    for slot in layout.slots:
        between = _span(slot, wanted) if slot.kind == "time" else None
        if between is not None:
            return _List(layout.time(slot, named[b"realm"]), slot, between)
    (everything,) = (slot for slot in layout.slots if slot.kind == "kind")
    return _List(layout.everything(named[b"realm"]), everything, None)


def _is_blank(name: str, wanted: tuple[Condition, ...]) -> bool:
    return any(
        one.field == name.encode() and one.operator == "=" and one.values == (None,)
        for one in wanted
    )


def _span(slot: Slot, wanted: tuple[Condition, ...]) -> tuple[bytes, bytes] | None:
    """The scores that the conditions leave; both ends count, since scores are rounded."""
    low, high = b"-inf", b"+inf"
    for one in wanted:
        given = one.values[0] if one.values else None
        if one.field != slot.fields[0].encode() or given is None or one.operator in ("!=", "in"):
            continue
        if one.operator in (">", ">=", "="):
            low = given
        if one.operator in ("<", "<=", "="):
            high = given
    return None if (low, high) == (b"-inf", b"+inf") else (low, high)
