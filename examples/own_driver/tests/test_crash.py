"""What the contract cannot know: what is left when a process stops where it stands."""

import asyncio
import fcntl
import os
import random
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest
from watchword_jsonfile import driver, file

from watchword.kernel.errors import StoreUnavailable
from watchword.kernel.events import Events
from watchword.storage.store import Store
from watchword.testing.racer import RECORDS, Ticket, ticket

WRITER = """
import asyncio, sys
from watchword.kernel.events import Events
from watchword.storage.store import Store, plus, where
from watchword.testing.racer import RECORDS, Ticket
from watchword_jsonfile import driver

async def write(url):
    store = Store(driver=driver(url), events=Events(), realm="main")
    while True:
        after = await store.update(Ticket, where(id="a"), rank=plus(1), seat="x" * 2_000_000)
        print(after.rank, flush=True)

asyncio.run(write(sys.argv[1]))
"""


async def opened(path: Path) -> Store:
    made = driver(f"jsonfile:{path}")
    await made.open(RECORDS)
    return Store(driver=made, events=Events(), realm="main")


async def test_what_was_answered_is_there_after_a_kill(tmp_path: Path) -> None:
    store = await opened(tmp_path / "users.json")
    await store.insert(ticket("a"))
    command = (sys.executable, "-c", WRITER, f"jsonfile:{tmp_path / 'users.json'}")
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    for _ in range(8):
        writer = await asyncio.create_subprocess_exec(*command, stdout=PIPE, env=paths)
        assert writer.stdout is not None
        said = await writer.stdout.readline()
        await asyncio.sleep(random.uniform(0, 0.05))
        writer.kill()
        said += await writer.stdout.read()
        await writer.wait()
        answered = int(said.split(b"\n")[-2])  # the last line that was whole
        found = await store.get(Ticket, id="a")
        assert found is not None
        assert answered <= found.rank <= answered + 1


async def test_whoever_holds_the_lock_for_ever_does_not_stop_the_others_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await opened(tmp_path / "users.json")
    monkeypatch.setattr(file, "_PATIENCE", 0.2)
    with (tmp_path / "users.json.lock").open("w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(StoreUnavailable):
            await store.insert(ticket("a"))
    await store.insert(ticket("a"))
    assert await store.count(Ticket) == 1
