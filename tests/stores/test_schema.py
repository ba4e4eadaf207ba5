"""How a schema comes to be, grows, and is refused."""

import asyncio
import json
import os
import sys
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import MetaData, text

from tests.stores.opened import opened, store_of
from watchword.storage.errors import SchemaBehind, SchemaNewer
from watchword.storage.record import record
from watchword.stores.sql import driver, tables_into
from watchword.testing.racer import NOW, RECORDS, Tally, Ticket


@record(name="note", key=("id",), indexes=(("author",),))
class Note:
    """As it was released."""

    realm: str
    id: str
    author: str


@record(name="note", key=("id",), unique=(("slug",),), indexes=(("author",), ("stars", "id")))
class LaterNote:
    """As a later minor version knows it."""

    realm: str
    id: str
    author: str
    slug: str | None = None
    stars: int = 3
    is_public: bool = True
    tags: tuple[str, ...] = ("it's", "new")
    colour: str = "it's :blue %s"
    seen_at: datetime | None = None
    lasts_for: timedelta = timedelta(seconds=90)


@record(name="note", key=("id",))
class ImpossibleNote:
    """A change that is no addition."""

    realm: str
    id: str
    author: str
    required: str


PROGRAM = """
import asyncio, sys
from watchword.stores.sql import driver
from watchword.testing.racer import RECORDS
async def main():
    made = driver(sys.argv[1])
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await made.open(RECORDS)
    print(await made.plan(RECORDS) == (), flush=True)
    await made.close()
asyncio.run(main())
"""


async def test_four_processes_may_start_at_once_on_an_empty_database(sql_database_url: str) -> None:
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            PROGRAM,
            sql_database_url,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )
        for _ in range(4)
    ]
    async with asyncio.timeout(60):
        for process in processes:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
        said = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    assert [one for one, _ in said] == [b"True\n"] * 4
    assert [process.returncode for process in processes] == [0] * 4


async def test_many_workers_of_one_process_may_start_at_once(sql_database_url: str) -> None:
    made = [driver(sql_database_url) for _ in range(5)]
    await asyncio.gather(*(one.open(RECORDS) for one in made))
    for one in made:
        await one.close()


async def test_a_database_that_lacks_something_stops_the_start_with_a_plan(
    sql_database_url: str,
) -> None:
    async with opened(sql_database_url, [Note]) as made:
        store = store_of(made)
        await store.insert(Note(realm="main", id="old", author="me"))
    later = driver(sql_database_url)
    with pytest.raises(SchemaBehind) as caught:
        await later.open([LaterNote])
    assert caught.value.plan == await later.plan([LaterNote])
    assert any("ADD" in step and "stars" in step for step in caught.value.plan)
    assert not any("DROP" in step for step in caught.value.plan)
    assert await later.migrate([LaterNote]) == caught.value.plan
    assert await later.plan([LaterNote]) == ()
    assert await later.migrate([LaterNote]) == ()
    await later.open([LaterNote])
    old = await store_of(later).get(LaterNote, id="old")
    assert old == LaterNote(realm="main", id="old", author="me")
    await later.close()


async def test_old_and_new_workers_run_side_by_side(sql_database_url: str) -> None:
    async with (
        opened(sql_database_url, [LaterNote]) as new,
        opened(sql_database_url, [Note]) as old,
    ):
        await store_of(old).insert(Note(realm="main", id="a", author="me"))
        found = await store_of(new).get(LaterNote, id="a")
        assert found == LaterNote(realm="main", id="a", author="me")
        assert await store_of(old).get(Note, id="a")
        assert await old.plan([Note]) == ()


async def test_a_feature_added_later_needs_a_migration(sql_database_url: str) -> None:
    async with opened(sql_database_url, [Ticket]):
        pass
    made = driver(sql_database_url)
    with pytest.raises(SchemaBehind) as caught:
        await made.open([Ticket, Tally])
    assert caught.value.plan[0].startswith("CREATE TABLE watchword_contract_tally")
    await made.migrate([Ticket, Tally])
    await made.open([Ticket, Tally])
    await made.open([Tally])  # and one that is switched off leaves its tables
    await made.close()


async def test_a_database_of_a_newer_major_version_is_refused(sql_database_url: str) -> None:
    async with opened(sql_database_url, [Note]) as made:
        async with made.writing() as connection:
            await connection.execute(text("UPDATE watchword_schema SET major = major + 1"))
        for step in (made.open([Note]), made.plan([Note]), made.migrate([Note])):
            with pytest.raises(SchemaNewer):
                await step


async def test_a_field_that_old_rows_cannot_have_is_no_addition(sql_database_url: str) -> None:
    async with opened(sql_database_url, [Note]) as made:
        with pytest.raises(TypeError, match="give it a default"):
            await made.plan([ImpossibleNote])


async def test_what_others_keep_in_the_database_is_left_alone(sql_database_url: str) -> None:
    made = driver(sql_database_url)
    await made.ping()
    await made.close()
    async with opened(sql_database_url, [Note]) as first:
        async with first.writing() as connection:
            await connection.execute(text("CREATE TABLE orders (id INTEGER PRIMARY KEY)"))
            await connection.execute(text("CREATE INDEX mine ON watchword_note (id)"))
        assert await first.plan([Note]) == ()
        await first.open([Note])


async def test_plan_on_an_empty_database_is_everything_and_changes_nothing(
    sql_database_url: str,
) -> None:
    made = driver(sql_database_url)
    plan = await made.plan(RECORDS)
    assert plan == await made.plan(RECORDS)
    assert len([step for step in plan if step.startswith("CREATE TABLE")]) == len(RECORDS) + 1
    assert await made.migrate(RECORDS) == plan
    await made.open(RECORDS)
    await made.close()


async def test_our_tables_join_a_callers_metadata(sql_database_url: str) -> None:
    metadata = MetaData()
    tables_into(metadata, RECORDS)
    assert "watchword_contract_ticket" in metadata.tables
    made = driver(sql_database_url)
    await made.ping()
    async with opened(sql_database_url, []) as other:  # any engine will do
        async with other.writing() as connection:
            await connection.run_sync(metadata.create_all)
        assert await other.plan(RECORDS) == ()
    await made.open(RECORDS)
    await made.close()


async def test_instants_are_held_exactly_by_the_database_itself(sql_database_url: str) -> None:
    async with opened(sql_database_url) as made:
        await store_of(made).insert(
            Tally(realm="main", subject="s", kind="k", expires_at=NOW, tries=1)
        )
        async with made.writing() as connection:
            found = await connection.execute(
                text("SELECT expires_at FROM watchword_contract_tally")
            )
            stored: Any = found.scalar()
    exact = int(NOW.timestamp()) * 10**6 + NOW.microsecond
    assert stored == (exact if sql_database_url.startswith("sqlite") else NOW)
    assert json.dumps(exact).endswith("678901")
