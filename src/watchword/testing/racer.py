"""A process that races others for single-use things: `python -m watchword.testing.racer`.

Arguments: the driver's factory as `module:name`, the database's URL, the verb (`take`,
`update` or `insert`), how many things, and a name. It says `ready`, waits for a line, tries
everything as fast as it can and prints a JSON list of what it won.
"""

import asyncio
import importlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import cast

from watchword.kernel.events import Events
from watchword.kernel.secrets import Digest
from watchword.storage.errors import Conflict
from watchword.storage.record import record
from watchword.storage.store import Driver, Store, gt, where


@record(
    name="contract_ticket",
    key=("id",),
    unique=(("email",), ("seat", "row")),
    indexes=(("rank", "id"),),
    expires="expires_at",
)
class Ticket:
    """A record with a column of every kind."""

    realm: str
    id: str
    email: str
    seat: str | None = None
    row: int | None = None
    digest: Digest | None = None
    rank: int = 0
    is_open: bool = True
    made_at: datetime
    expires_at: datetime | None = None
    spent_at: datetime | None = None
    lasts_for: timedelta = timedelta(minutes=15)
    labels: tuple[str, ...] = ()
    extra: dict[str, object] | None = None
    picture: bytes | None = None


@record(name="contract_tally", key=("subject", "kind"), expires="expires_at")
class Tally:
    """A counter that expires."""

    realm: str
    subject: str
    kind: str
    tries: int = 1
    expires_at: datetime


@record(name="contract_schedule", key=("id",), expires="ends_at")
class Appointment:
    """What only expires."""

    realm: str
    id: str
    ends_at: datetime


RECORDS: tuple[type, ...] = (Ticket, Tally, Appointment)
NOW = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def ticket(name: str, *, realm: str = "main", **fields: object) -> Ticket:
    """A ticket whose address follows its name."""
    plain = Ticket(realm=realm, id=name, email=f"{name}@example.com", made_at=NOW)
    return replace(plain, **fields)  # type: ignore[arg-type]


def load(factory: str) -> Callable[[str], Driver]:
    """Find what makes the driver, named as `module:name`."""
    module, _, name = factory.partition(":")
    return cast("Callable[[str], Driver]", getattr(importlib.import_module(module), name))


async def attempt(store: Store, verb: str, name: str, *, who: str) -> bool:
    """Try to be the one who gets this thing."""
    if verb == "take":
        return await store.take(Ticket, id=name, expires_at=gt(NOW)) is not None
    if verb == "update":
        spent = where(id=name, spent_at=None)
        return await store.update(Ticket, spent, spent_at=NOW, seat=who) is not None
    try:
        await store.insert(ticket(f"{who}-{name}", email=f"{name}@example.com"))
    except Conflict:
        return False
    return True


async def race(factory: str, url: str, verb: str, things: int, who: str) -> None:
    """Open the database, wait for the signal, try everything."""
    driver = load(factory)(url)
    await driver.open(RECORDS)
    store = Store(driver=driver, events=Events(), realm="main")
    _say("ready")
    await asyncio.to_thread(sys.stdin.readline)
    won = [n for n in range(things) if await attempt(store, verb, f"thing-{n}", who=who)]
    _say(json.dumps(won))
    await driver.close()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> None:
    """Run one racer."""
    factory, url, verb, things, who = arguments
    asyncio.run(race(factory, url, verb, int(things), who))


if __name__ == "__main__":
    main(sys.argv[1:])
