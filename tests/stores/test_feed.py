"""The change feed of the SQL driver: the contract, and what only one database can show."""

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncpg
import psutil
import pytest
from sqlalchemy import MetaData, text

from tests.servers import Postgres, in_thread
from tests.stores.deaf import deaf_line
from tests.stores.opened import Opened, opened, store_of
from watchword.kernel.errors import StoreUnavailable
from watchword.storage.errors import SchemaBehind
from watchword.storage.feed import Follower, Waker
from watchword.stores.sql import driver
from watchword.stores.sql.feed_postgres import NotifyWaker, PostgresFollower
from watchword.stores.sql.feed_sqlite import DataVersionWaker
from watchword.testing.feed_contract import (
    CoherentFeedContract,
    LocalFeedContract,
    feed_of,
    following,
    listening,
    said,
)
from watchword.testing.feed_writer import FEED_RECORDS, Undone, change
from watchword.testing.racer import RECORDS, Ticket, ticket


class TestPostgresFeed(CoherentFeedContract):
    """The contract on a real server."""

    factory = "watchword.stores.sql:driver"

    @pytest.fixture
    def driver_url(self, postgres_url: str) -> str:
        return postgres_url


class TestSqliteFileFeed(CoherentFeedContract):
    """The contract on a file."""

    factory = "watchword.stores.sql:driver"

    @pytest.fixture
    def driver_url(self, sqlite_url: str) -> str:
        return sqlite_url


class TestSqliteInMemoryFeed(LocalFeedContract):
    """The contract in memory, where one connection serves everybody."""

    factory = "watchword.stores.sql:driver"

    @pytest.fixture
    def driver_url(self) -> str:
        return "sqlite://"


@asynccontextmanager
async def fed(url: str, **options: object) -> AsyncGenerator[Opened, None]:
    """A database with the table of changes."""
    async with opened(url, FEED_RECORDS, **options) as made:
        yield made


async def cut(url: str) -> None:
    """End every connection to this database but our own."""
    admin = await asyncpg.connect(url)
    await admin.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await admin.close()


async def lost(waker: Waker) -> StoreUnavailable:
    """What a waker raises once it has returned for all that it heard."""
    async with asyncio.timeout(2):
        while True:
            try:
                await waker.wait()
            except StoreUnavailable as error:
                return error


# both databases


async def test_a_database_from_before_the_feed_gets_it_by_migrate(sql_database_url: str) -> None:
    async with opened(sql_database_url) as before:
        await store_of(before).insert(ticket("a"))
    made = driver(sql_database_url)
    with pytest.raises(SchemaBehind):
        await made.open(FEED_RECORDS)
    plan = await made.plan(FEED_RECORDS)
    assert plan[0].startswith("CREATE TABLE watchword_change")
    assert await made.migrate(FEED_RECORDS) == plan
    assert await made.plan(FEED_RECORDS) == ()
    await made.open(FEED_RECORDS)
    await made.open(RECORDS)  # a worker of the version before goes on
    async with following(made) as follower:
        await store_of(made).insert(change("ann"))
        assert await said(follower) == ["ann"]
    assert await store_of(made).get(Ticket, id="a")
    await made.close()


async def test_the_table_of_changes_joins_a_callers_metadata(sql_database_url: str) -> None:
    metadata = MetaData()
    async with opened(sql_database_url, []) as made:
        made.tables_into(metadata, FEED_RECORDS)
        async with made.writing() as connection:
            await connection.run_sync(metadata.create_all)
        assert await made.plan(FEED_RECORDS) == ()
        async with following(made) as follower:
            await store_of(made).insert(change("ann"))
            assert await said(follower) == ["ann"]


@pytest.mark.invariant("I-07")
async def test_a_change_written_through_a_callers_connection_is_read(sql_database_url: str) -> None:
    async with fed(sql_database_url) as made, following(made) as follower:
        async with made.writing() as connection:
            await store_of(made).joining(connection).insert(change("ann"))
            assert await said(follower) == []
        assert await said(follower) == ["ann"]


FORKED = """
import asyncio, os, sys
from watchword.stores.sql import driver
from watchword.testing.feed_contract import said
from watchword.testing.feed_writer import FEED_RECORDS, change
url = sys.argv[1]
made = driver(url)
follower, waker = made.feed.follow("main"), made.feed.waker()

async def write(subject):
    writer = driver(url)
    await writer.verbs.insert(change(subject))
    await writer.close()

async def child():
    waker.hint()  # of the parent: nothing may be sent on its connection
    for step in (follower.read(), waker.wait()):
        try:
            await step
        except Exception as error:
            print("child", type(error).__name__, flush=True)
    await follower.begin()
    print("child", await waker.open(), flush=True)
    await write("for-both")
    print("child", await said(follower), flush=True)
    await waker.close()
    await follower.close()

async def parent():
    await made.open(FEED_RECORDS)
    await follower.begin()
    await waker.open()
    # A child has no loop of its parent's; it is forked from a task all the same, as `serve` may.
    pid = os.fork()
    if pid == 0:
        try:
            asyncio.events._set_running_loop(None)
            asyncio.run(child())
        except BaseException as error:
            print("child", repr(error), flush=True)
        finally:
            os._exit(0)
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        await asyncio.sleep(0.05)
    await write("for-parent")
    waker.hint()
    async with asyncio.timeout(5):
        await waker.wait()
    print("parent", await said(follower), flush=True)
    await waker.close()
    await follower.close()
    await made.close()

asyncio.run(parent())
"""


async def test_a_forked_child_opens_connections_of_its_own(sql_database_url: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", FORKED, sql_database_url),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    async with asyncio.timeout(60):
        answer, _ = await process.communicate()
    assert answer.decode().splitlines() == [
        "child StoreUnavailable",
        "child StoreUnavailable",
        "child True",
        "child ['for-both']",
        "parent ['for-both', 'for-parent']",
    ]


# PostgreSQL


@pytest.mark.invariant("I-07")
async def test_of_many_that_commit_in_any_order_each_is_read_once(postgres_url: str) -> None:
    async with fed(postgres_url, pool_size=10) as made, following(made) as follower:
        store = store_of(made)
        gates = [asyncio.Event() for _ in range(8)]
        begun = [asyncio.Event() for _ in range(8)]

        async def write(number: int) -> None:
            async with store.transaction() as transaction:
                await transaction.insert(change(f"{number}"))
                begun[number].set()
                await gates[number].wait()
                if number == 5:
                    raise Undone

        tasks = [asyncio.create_task(write(number)) for number in range(8)]
        for one in begun:
            await one.wait()
        for number in (6, 2, 7, 5, 0, 3, 1, 4):
            gates[number].set()
            await asyncio.wait([tasks[number]])
            assert await said(follower) == ([] if number == 5 else [f"{number}"])
            assert await said(follower) == []
        assert isinstance((await asyncio.gather(*tasks, return_exceptions=True))[5], Undone)


@pytest.mark.invariant("I-07")
async def test_rows_of_another_clusters_numbers_are_nothing_new(postgres_url: str) -> None:
    """A database that was dumped and restored holds numbers that are not given here yet."""
    async with fed(postgres_url) as made:
        await store_of(made).insert(change("restored"))
        async with made.writing() as connection:
            await connection.execute(text("UPDATE watchword_change SET position = 1099511627776"))
        async with following(made) as follower:
            await store_of(made).insert(change("ann"))
            assert await said(follower) == ["ann"]
            assert await said(follower) == []


@pytest.mark.invariant("I-07", "I-08")
async def test_a_connection_that_the_server_ended_is_said_and_made_anew(
    postgres_url: str,
) -> None:
    async with fed(postgres_url) as made, following(made) as follower, listening(made) as waker:
        store = store_of(made)
        for number in range(2):
            waiting = asyncio.create_task(lost(waker))
            await cut(postgres_url)
            assert "watchword_" not in str((await waiting).note)
            waker.hint()
            for _ in range(2):  # it stays lost until it begins
                with pytest.raises(StoreUnavailable):
                    await follower.read()
            await store.count(Ticket)
            await store.insert(change("missed"))
            await follower.begin()
            assert await waker.open() is True
            await waker.wait()  # for what it may have missed
            await store.insert(change(f"{number}"))
            waker.hint()
            async with asyncio.timeout(1):
                await waker.wait()
            assert await said(follower) == [f"{number}"]


@pytest.mark.invariant("I-08")
async def test_listening_that_hears_nothing_is_found_out_at_the_start(postgres_url: str) -> None:
    async with fed(postgres_url), deaf_line(postgres_url) as url:
        made = driver(url)
        waker = feed_of(made).waker()
        assert isinstance(waker, NotifyWaker)
        assert await waker.open() is False
        waker.hint()
        await lost(waker)
        async with following(made) as follower:  # rows come through all the same
            await store_of(made).insert(change("ann"))
            assert await said(follower) == ["ann"]
        await made.close()


@pytest.mark.invariant("I-08")
async def test_listening_that_ends_unheard_is_found_out_when_all_is_quiet(
    postgres_url: str,
) -> None:
    async with fed(postgres_url) as made, listening(made) as waker:
        assert isinstance(waker, NotifyWaker)
        await waker.wait()
        waker._heard_at -= 31
        async with asyncio.timeout(1):
            await waker.wait()  # it sends, and hears itself
        await waker._line.connection.execute("UNLISTEN *")
        waker._heard_at -= 31
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await waker.wait()
        waker._heard_at -= 5
        await lost(waker)
        assert await waker.open() is True


@pytest.mark.invariant("I-08")
async def test_hints_while_one_is_sent_cause_one_more(postgres_url: str) -> None:
    heard: list[object] = []

    def hear(*said: object) -> None:
        heard.append(said[3])

    admin = await asyncpg.connect(postgres_url)
    await admin.add_listener("watchword_change", hear)
    async with fed(postgres_url) as made, listening(made) as waker:
        assert len(heard) == 1  # the proof
        for _ in range(1000):
            waker.hint()
        await asyncio.sleep(0.2)
        assert heard[1:] == [""]
        waker.hint()
        await asyncio.sleep(0)  # one is being sent
        for _ in range(1000):
            waker.hint()
        await asyncio.sleep(0.2)
        assert heard[1:] == ["", "", ""]
    await admin.close()


async def test_another_server_behind_the_line_is_noticed(postgres_url: str) -> None:
    async with fed(postgres_url) as made, following(made) as follower:
        assert isinstance(follower, PostgresFollower)
        follower._server = "2001-01-01 00:00:00+00"
        with pytest.raises(StoreUnavailable):
            await follower.read()
        await follower.begin()
        assert await said(follower) == []


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A server of this test alone, which it may stop."""
    server = Postgres.start(shared=False)
    yield server
    server.stop()


def processes_of(server: Postgres) -> list[psutil.Process]:
    """Every process of a server."""
    first = psutil.Process(server._server.get_postmaster_info().pid)
    return [first, *first.children(recursive=True)]


@pytest.mark.slow
@pytest.mark.invariant("I-08")
async def test_a_server_that_stands_still_is_unavailable_soon(own_postgres: Postgres) -> None:
    url = await own_postgres.make_database()
    async with fed(url) as made:
        follower, waker = feed_of(made).follow("main"), feed_of(made).waker()
        assert waker is not None
        await follower.begin()
        assert await waker.open() is True
        await waker.wait()
        stopped = processes_of(own_postgres)
        for process in stopped:
            process.send_signal(signal.SIGSTOP)
        try:
            ticks = asyncio.create_task(longest_pause())
            waker.hint()
            async with asyncio.timeout(4):
                with pytest.raises(StoreUnavailable):
                    await follower.read()
                await lost(waker)
            for step in (follower.begin(), waker.open()):
                async with asyncio.timeout(8):
                    with pytest.raises(StoreUnavailable):
                        await step
            ticks.cancel()
            assert await ticks < 0.5
        finally:
            for process in stopped:
                with suppress(psutil.NoSuchProcess):  # some end as soon as they may
                    process.send_signal(signal.SIGCONT)
        await follower.begin()
        assert await waker.open() is True
        await store_of(made).insert(change("ann"))
        assert await said(follower) == ["ann"]
        await waker.close()
        await follower.close()


async def longest_pause() -> float:
    """How long the loop stood still, until it is cancelled."""
    loop = asyncio.get_running_loop()
    longest = 0.0
    try:
        while True:
            before = loop.time()
            await asyncio.sleep(0.01)
            longest = max(longest, loop.time() - before - 0.01)
    except asyncio.CancelledError:
        return longest


@pytest.mark.slow
@pytest.mark.invariant("I-19")
async def test_a_replica_is_not_followed(own_postgres: Postgres) -> None:
    await in_thread(own_postgres.halt)
    own_postgres.make_standby()
    await in_thread(own_postgres.resume)
    made = driver(own_postgres.url)
    waker = feed_of(made).waker()
    assert waker is not None
    for step in (feed_of(made).follow("main").begin(), waker.open()):
        with pytest.raises(StoreUnavailable) as caught:
            await step
        assert "replica" in (caught.value.note or "")
    await made.close()


async def test_a_server_that_is_not_there_is_unavailable_to_the_feed() -> None:
    made = driver("postgresql://u:hidden@127.0.0.1:1/d")
    waker = feed_of(made).waker()
    assert waker is not None
    for step in (feed_of(made).follow("main").begin(), waker.open()):
        with pytest.raises(StoreUnavailable) as caught:
            await step
        assert "hidden" not in repr(caught.value.note)
    await made.close()


# SQLite


def file_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


@pytest.mark.invariant("I-07")
@pytest.mark.parametrize("fate", ["deleted", "replaced"])
async def test_a_file_that_is_no_longer_the_database_is_unavailable(
    sqlite_url: str, fate: str
) -> None:
    async with fed(sqlite_url) as made, following(made) as follower, listening(made) as waker:
        path = file_of(sqlite_url)
        waiting = asyncio.create_task(lost(waker))
        await asyncio.sleep(0.05)
        path.rename(path.with_suffix(".old"))
        if fate == "replaced":
            async with fed(sqlite_url):
                pass
        await waiting
        with pytest.raises(StoreUnavailable):
            await follower.read()
        if fate == "replaced":
            await follower.begin()
            assert await waker.open() is True
        else:
            for step in (follower.begin(), waker.open()):
                with pytest.raises(StoreUnavailable):
                    await step
            assert not path.exists()  # nor made by looking


@pytest.mark.invariant("I-07")
async def test_an_older_copy_of_the_database_is_noticed(sqlite_url: str) -> None:
    async with fed(sqlite_url) as made, following(made) as follower:
        for number in range(3):
            await store_of(made).insert(change(f"{number}"))
        assert len(await said(follower)) == 3
        other = sqlite3.connect(file_of(sqlite_url), isolation_level=None)
        other.execute("UPDATE sqlite_sequence SET seq = 1 WHERE name = 'watchword_change'")
        other.close()
        with pytest.raises(StoreUnavailable):
            await follower.read()


@pytest.mark.invariant("I-07")
async def test_the_waker_hears_its_own_process_and_holds_up_nobody(sqlite_url: str) -> None:
    async with fed(sqlite_url) as made, following(made) as follower, listening(made) as waker:
        store = store_of(made)
        ticks = asyncio.create_task(longest_pause())
        async with store.transaction() as transaction:
            await transaction.insert(change("ann"))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await waker.wait()
            assert await said(follower) == []
        async with asyncio.timeout(1):
            await waker.wait()
        assert await said(follower) == ["ann"]
        other = sqlite3.connect(file_of(sqlite_url), isolation_level=None)
        # Neither a reader's nor a waker's connection holds a snapshot, which would keep the
        # log from being emptied: (busy, pages, moved).
        assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall() == [(0, 0, 0)]
        other.close()
        ticks.cancel()
        assert await ticks < 0.5


async def test_a_locked_file_is_asked_again(tmp_path: Path) -> None:
    """Only without WAL, where a writer locks readers out, does that come often."""
    path = tmp_path / "plain.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("CREATE TABLE some (id)")
    waker = DataVersionWaker(str(path))
    assert await waker.open() is True
    other.execute("BEGIN EXCLUSIVE")
    ticks = asyncio.create_task(longest_pause())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await waker.wait()
    ticks.cancel()
    assert await ticks < 0.25
    other.execute("CREATE TABLE more (id)")
    other.execute("COMMIT")
    async with asyncio.timeout(1):
        await waker.wait()
    await waker.close()
    other.close()


async def test_memory_has_no_waker_and_nothing_uncommitted_is_read() -> None:
    async with fed("sqlite://") as made, following(made) as follower:
        assert feed_of(made).waker() is None
        inside = asyncio.Event()

        async def undone() -> None:
            async with store_of(made).transaction() as transaction:
                await transaction.insert(change("never"))
                inside.set()
                await asyncio.sleep(0.05)
                raise Undone

        writing = asyncio.create_task(undone())
        await inside.wait()
        assert await said(follower) == []
        with pytest.raises(Undone):
            await writing


def test_a_follower_and_a_waker_are_what_the_protocols_ask() -> None:
    made = driver("postgresql://h/d")
    follower: Follower = feed_of(made).follow("main")
    waker: Waker | None = feed_of(made).waker()
    assert follower is not None
    assert waker is not None
    assert waker.name == "notify"
    waker.hint()  # outside any loop, before it was opened: nothing happens
