"""Resealing: every sealed value comes under the root secret in force (I-17)."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from watchword.crypto.sealing import SealBroken, Sealer, SealKeyMissing
from watchword.storage.record import place_of, schema_of
from watchword.storage.store import Store, Where

Outcome = Literal["resealed", "current", "unreadable"]

_BATCH = 200  # records read at once
_TRIES = 5  # times a value is tried anew that somebody else changes meanwhile


@dataclass(slots=True)
class Resealing:
    """How far it came; values, not records."""

    resealed: int = 0
    current: int = 0  # were under the secret in force already
    unreadable: list[str] = field(default_factory=list[str])  # where they stand

    @property
    def seen(self) -> int:
        """How many were looked at."""
        return self.resealed + self.current + len(self.unreadable)


async def reseal(
    store: Store, records: Sequence[type], sealer: Sealer, progress: Resealing
) -> AsyncGenerator[Resealing]:
    """Seal anew what former secrets sealed, in every realm; yields after each batch.

    Each value is changed by an update on what it was, so servers may run meanwhile and so may
    this, twice: whoever comes later finds it done. Stopped anywhere, it goes on when it is run
    again, past what is done already.

    Args:
        store: of any realm; values of all are resealed.
        records: all kinds; those without `sealed` fields are passed by.
        sealer: with the secret in force and the former ones.
        progress: is counted up.

    Raises:
        StoreUnavailable
    """
    for kind in records:
        if schema_of(kind).sealed:
            async for batch in _everywhere(store, kind):
                for record in batch:
                    await _reseal(store.in_realm(record.realm), record, sealer, progress)
                yield progress


async def _everywhere(store: Store, kind: type[Any]) -> AsyncGenerator[list[Any]]:
    """All records of a kind in the order of their keys, realm by realm, a batch at a time."""
    schema = schema_of(kind)
    driver = store.apart.get(schema.name, store.driver)
    after: tuple[object, ...] | None = None
    while True:
        # A driver knows no realms: only `Store` puts one into every condition.
        found = await driver.verbs.find(
            kind, {}, order=schema.key, descending=False, after=after, limit=_BATCH
        )
        if found:
            yield list(found)
        if len(found) < _BATCH:
            return
        after = tuple(getattr(found[-1], name) for name in schema.key)


async def _reseal(store: Store, record: Any, sealer: Sealer, progress: Resealing) -> None:
    for name in schema_of(cast("type[Any]", type(record))).sealed:
        place = place_of(record, name)
        try:
            outcome = await _reseal_field(store, record, name, sealer)
        except (SealBroken, SealKeyMissing) as error:
            progress.unreadable.append(
                f"{place['record']} {place['key']} {name} (realm {place['realm']}): {error.note}"
            )
            continue
        if outcome == "resealed":
            progress.resealed += 1
        elif outcome == "current":
            progress.current += 1


async def _reseal_field(store: Store, record: Any, name: str, sealer: Sealer) -> Outcome | None:
    """Reseal one field; None if there is nothing in it, or the record is gone.

    Raises:
        SealBroken, SealKeyMissing: no secret that is configured opens it.
    """
    kind = cast("type[Any]", type(record))
    key = {part: getattr(record, part) for part in schema_of(kind).key if part != "realm"}
    found: Any = record
    for _ in range(_TRIES):
        sealed = getattr(found, name) if found is not None else None
        if not sealed:
            return None
        place = place_of(found, name)
        if sealer.is_current(sealed):
            sealer.open(sealed, **place)  # whoever drops the former secret relies on this one
            return "current"
        fresh = sealer.seal(sealer.open(sealed, **place), **place)
        if await store.update(kind, Where({**key, name: sealed}), **{name: fresh}) is not None:
            return "resealed"
        found = await store.get(kind, **key)
    raise SealBroken(note="it changed again and again meanwhile: run this once more")
