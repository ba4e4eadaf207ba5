"""A process in which many write changes at once: `python -m watchword.testing.feed_writer`.

Arguments: the driver's factory as `module:name`, the database's URL, how many writers, how many
changes each, and a name. It says `ready`, waits for a line, writes, and prints a JSON list of
the subjects that were committed.
"""

import asyncio
import json
import random
import secrets
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from watchword.kernel.events import Events
from watchword.storage.feed import KEPT_FOR, Change, Waker
from watchword.storage.store import Driver, Store
from watchword.testing.racer import RECORDS, load, ticket

FEED_RECORDS: tuple[type, ...] = (*RECORDS, Change)


class Undone(Exception):
    """Raised to roll a transaction back."""


def change(subject: str, *, realm: str = "main", at: datetime | None = None) -> Change:
    """A change to this user, written now or at another time."""
    at = at or datetime.now(UTC)
    return Change(
        realm=realm,
        id=secrets.token_hex(8),
        topic="user",
        subject=subject,
        at=at,
        expires_at=at + KEPT_FOR,
    )


async def write(
    store: Store, waker: Waker | None, count: int, who: str, *, undoes: bool
) -> list[str]:
    """Transactions of different length, every fourth one rolled back; what was committed."""
    done: list[str] = []
    for number in range(count):
        subject = f"{who}-{number}"
        pause = random.random() * 0.02
        try:
            async with store.transaction() as transaction:
                await transaction.insert(ticket(subject))
                await transaction.insert(change(subject))
                await asyncio.sleep(pause)
                if undoes and number % 4 == 3:
                    raise Undone
        except Undone:
            continue
        done.append(subject)
        if waker is not None:
            waker.hint()
        await asyncio.sleep(pause)
    return done


async def run(driver: Driver, writers: int, count: int, who: str) -> None:
    """Open the database, wait for the signal, write."""
    await driver.open(FEED_RECORDS)
    store = Store(driver=driver, events=Events(), realm="main")
    waker = driver.feed.waker() if driver.feed is not None else None
    if waker is not None:
        await waker.open()
    _say("ready")
    await asyncio.to_thread(sys.stdin.readline)
    undoes = driver.is_transactional
    writing = (write(store, waker, count, f"{who}-{n}", undoes=undoes) for n in range(writers))
    done = [subject for some in await asyncio.gather(*writing) for subject in some]
    _say(json.dumps(done))
    if waker is not None:
        await waker.close()
    await driver.close()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> None:
    """Run one such process."""
    factory, url, writers, count, who = arguments
    asyncio.run(run(load(factory)(url), int(writers), int(count), who))


if __name__ == "__main__":
    main(sys.argv[1:])
