"""Hints: claimed or listed before a record is written, removed after it is gone.

Claim, record and list are in different slots, so no script sees two of them. What stands in for
that is a lease: a write takes its stamp from the server's clock, and the script that writes the
record refuses once the stamp is older than `FENCE`. So a hint older than `GRACE` (more, because
the nodes of a cluster each have a clock) that does not lead to its record never will, and whoever
finds it may remove it or take its place.
"""

import secrets
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from watchword.kernel.errors import StoreUnavailable
from watchword.storage.errors import Conflict
from watchword.stores.redis.layout import STAMP, Hint, Layout, Slot
from watchword.stores.redis.link import Call, Link, Step
from watchword.stores.redis.scripts import CLAIM, LIST, RELEASE, REPLACE, SHORTEN
from watchword.stores.redis.values import Raw, paired

FENCE: Final = 5_000
"""Milliseconds from its stamp in which a write may still put down its record."""

GRACE: Final = 10_000
"""Milliseconds after which a hint without its record is an orphan."""


class Pending(Exception):
    """Another writer has claimed the key and has not written its record yet."""


@dataclass(frozen=True, slots=True)
class Write:
    """One attempt to write: which record, when it will go, and the mark of its hints."""

    layout: Layout
    record: bytes  # its key
    raw: Raw
    dies: int  # milliseconds since the epoch; 0: never
    stamp: bytes
    fence: int

    @property
    def claim(self) -> bytes:
        """What a pointer to it holds."""
        return claimed(self.stamp, self.record)


def begin(layout: Layout, record: bytes, raw: Raw, *, dies: int, time: list[bytes]) -> Write:
    """An attempt that begins now, by the server's clock."""
    now = millis(time)
    stamp = b"%x-%b" % (now, secrets.token_urlsafe(9).encode())
    return Write(layout, record, raw, dies, stamp, now + FENCE)


async def place(
    link: Link, write: Write, hints: Sequence[Hint], *, own: frozenset[Slot] = frozenset()
) -> None:
    """Put down the hints of a record that is about to be written; `undo` them if it is not.

    Args:
        link: the connections.
        write: the attempt.
        hints: what leads to the record.
        own: slots whose values the record has already: their pointers are renewed.

    Raises:
        Conflict: another record has a unique key.
        Pending: another writer may be about to.
    """
    steps: list[Step] = [_listing(write, write.layout.realms, write.raw[b"realm"])]
    steps += [
        _claiming(write, hint, own=hint.slot in own)
        if hint.slot.kind == "unique"
        else _listing(write, hint.key, member(write.stamp, write.record), hint.score)
        for hint in hints
    ]
    answers = (await link.write(*steps))[1:]
    for hint, answer in zip(hints, answers, strict=True):
        if hint.slot.kind == "unique" and answer:
            await _dispute(link, write, hint, answer)


async def undo(
    link: Link, write: Write, hints: Sequence[Hint], *, own: frozenset[Slot] = frozenset()
) -> None:
    """Remove the hints of a record that was not written, and give back pointers that it had."""
    await tidy(link, removal(write.record, hints, write.stamp, but=own))
    renewed = [hint for hint in hints if hint.slot.kind == "unique" and hint.slot in own]
    with suppress(StoreUnavailable):
        for hint in renewed:
            await _give_back(link, write, hint)


async def _give_back(link: Link, write: Write, hint: Hint) -> None:
    """Let a pointer that we renewed be the claim again that the record knows, if it lives.

    Otherwise whoever deletes the record would not know the pointer for its own, and the next one
    with this value would have to wait until the claim is old.
    """
    held = write.claim
    for _ in range(3):  # the record may change between the look and the step
        (flat,) = await link.read(("HGETALL", write.record))
        there = paired(flat)
        if not all(
            there.get(name.encode()) == write.raw[name.encode()] for name in hint.slot.fields
        ):
            await link.write(Call(RELEASE, (hint.key,), (held,)))
            return
        known = claimed(stamp_of(there, hint.slot), write.record)
        if known == held:
            return
        await link.write(Call(REPLACE, (hint.key,), (held, known)))
        held = known


async def _dispute(link: Link, write: Write, hint: Hint, answer: list[bytes | int]) -> None:
    """A pointer names a record: does that one hold the key, or is it an orphan?"""
    fields = [b"realm", *(name.encode() for name in hint.slot.fields)]
    for _ in range(3):
        held, now = bytes(answer[0]), int(answer[1])
        stamp, _, owner = held.partition(b" ")
        (flat,) = await link.read(("HGETALL", owner))
        there = paired(flat)
        if there and all(there.get(name) == write.raw[name] for name in fields):
            is_own = owner == write.record
            raise Conflict((write.layout.schema.key if is_own else hint.slot.fields)[-1])
        if now - age_mark(stamp) <= GRACE:
            raise Pending
        (answer,) = await link.write(_claiming(write, hint, stale=held))
        if not answer:
            return
    raise Pending


async def tidy(link: Link, steps: Iterable[Step]) -> None:
    """Remove hints as well as may be: what stays leads nowhere and expires."""
    wanted = list(steps)
    if not wanted:
        return
    try:
        await link.write(*wanted)
    except StoreUnavailable:
        return


def removal(
    record: bytes, hints: Iterable[Hint], stamp: bytes, *, but: frozenset[Slot] = frozenset()
) -> Iterable[Step]:
    """Steps that remove the hints of one stamp, but for the pointers of these slots."""
    for hint in hints:
        if hint.slot.kind != "unique":
            yield ("ZREM", hint.key, member(stamp, record))
        elif hint.slot not in but:
            yield Call(RELEASE, (hint.key,), (claimed(stamp, record),))


def former(
    layout: Layout,
    record: bytes,
    raw: Raw,
    slots: Sequence[Slot] | None = None,
    *,
    but: frozenset[Slot] = frozenset(),
) -> Iterable[Step]:
    """Steps that remove the hints to a record as it was."""
    for hint in layout.hints(raw, slots):
        yield from removal(record, [hint], stamp_of(raw, hint.slot), but=but)


def shortening(write: Write, hints: Iterable[Hint]) -> Iterable[Step]:
    """Steps that let pointers go with a record that goes sooner than it would have."""
    for hint in hints:
        if hint.slot.kind == "unique":
            yield Call(SHORTEN, (hint.key,), (write.claim, b"%d" % write.dies))


def stamp_of(raw: Raw, slot: Slot) -> bytes:
    """The stamp of a record's hint."""
    return raw.get(slot.stamp, raw.get(STAMP, b""))


def member(stamp: bytes, record: bytes) -> bytes:
    """What stands in a list."""
    return stamp + b"|" + record


def claimed(stamp: bytes, record: bytes) -> bytes:
    """What stands in a pointer."""
    return stamp + b" " + record


def age_mark(stamp: bytes) -> int:
    """The server's milliseconds when a stamp was made; 0 for what is none."""
    try:
        return int(stamp.partition(b"-")[0], 16)
    except ValueError:
        return 0


def millis(time: list[bytes]) -> int:
    """The answer to TIME in milliseconds."""
    return int(time[0]) * 1000 + int(time[1]) // 1000


def _claiming(write: Write, hint: Hint, *, stale: bytes = b"", own: bool = False) -> Call:
    arguments = (write.stamp, write.record, b"%d" % write.dies, stale, b"own" if own else b"")
    return Call(CLAIM, (hint.key,), arguments)


def _listing(write: Write, key: bytes, named: bytes, score: bytes | None = None) -> Call:
    dies = b"%d" % write.dies
    by_death = dies if write.dies else b"+inf"
    order = b"dies" if score is None else b"given"
    return Call(LIST, (key,), (named, by_death if score is None else score, dies, order))
