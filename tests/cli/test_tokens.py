"""`watchword tokens`."""

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.cli.command import Folder
from tests.told import telling
from watchword.features.sessions import Session
from watchword.storage.store import Paging


@pytest.mark.capability("S1-34")
def test_purge_says_what_it_deleted(folder: Folder) -> None:
    url = f"sqlite:///{folder.path / 'app.db'}"

    async def fill() -> None:
        async with telling(url, environment="development") as story:
            await story.join()
            await story.log_in()
            page = await story.auth.store.find(Session, Paging(order=("id",)))
            past = datetime.now(UTC) - timedelta(days=1)
            for number in range(1200):
                gone = replace(page.items[0], id=f"{number:026}", delete_at=past)
                await story.auth.store.insert(replace(gone, refresh_family=None))

    def left() -> int:
        with closing(sqlite3.connect(folder.path / "app.db")) as connection:
            return connection.execute("SELECT count(*) FROM watchword_session").fetchone()[0]

    asyncio.run(fill())
    done = folder.run("tokens", "purge", "--database", url)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["1,200", "session"] in lines
    assert left() == 1
    again = folder.run("tokens", "purge", "--database", url)
    assert again.stdout.splitlines()[-1].split() == ["0", "deleted", "in", "all"]
