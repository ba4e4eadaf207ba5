"""SQLite: the contract on a file and in memory, and what only a file can show."""

import asyncio
import sqlite3
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.stores.opened import opened, store_of
from watchword.kernel.errors import ConfigurationError, StoreUnavailable
from watchword.stores.sql import driver
from watchword.testing.contract import LocalStoreContract, StoreContract
from watchword.testing.racer import Ticket, ticket


@pytest.mark.capability("S2-21", "S2-23")
class TestSqliteFile(StoreContract):
    """The contract on a file."""

    factory = "watchword.stores.sql:driver"

    @pytest.fixture
    def driver_url(self, sqlite_url: str) -> str:
        return sqlite_url


@pytest.mark.capability("S2-34")
class TestSqliteInMemory(LocalStoreContract):
    """The contract in memory, where one connection serves everybody."""

    factory = "watchword.stores.sql:driver"

    @pytest.fixture
    def driver_url(self) -> str:
        return "sqlite://"


async def test_a_write_that_waits_too_long_for_another_process_is_unavailable(
    tmp_path: Path,
) -> None:
    path = tmp_path / "locked.db"
    async with opened(f"sqlite:///{path}?busy_timeout=0.2") as made:
        store = store_of(made)
        await store.insert(ticket("a"))
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable) as caught:
            await store.insert(ticket("b"))
        assert caught.value.note == "SQLITE_BUSY"
        with pytest.raises(StoreUnavailable):
            async with store.transaction() as transaction:
                await transaction.insert(ticket("b"))
        assert await store.get(Ticket, id="a")  # readers do not wait for writers
        other.execute("COMMIT")
        other.close()
        await store.insert(ticket("b"))
        assert await store.count(Ticket) == 2


async def test_readers_do_not_wait_for_an_open_transaction(sqlite_url: str) -> None:
    async with opened(sqlite_url) as made:
        store = store_of(made)
        await store.insert(ticket("a"))
        async with store.transaction() as transaction:
            await transaction.insert(ticket("b"))
            async with asyncio.timeout(1):
                assert await store.get(Ticket, id="b") is None
                assert await store.count(Ticket) == 1


@pytest.mark.parametrize("url", ["sqlite://", "file"])
async def test_a_write_past_its_own_open_transaction_is_a_mistake_that_shows(
    url: str, sqlite_url: str
) -> None:
    async with opened(sqlite_url if url == "file" else url) as made:
        store = store_of(made)

        async def mistake() -> None:
            async with store.transaction() as transaction:
                await transaction.insert(ticket("a"))
                await store.insert(ticket("b"))

        with pytest.raises(RuntimeError, match="inside a transaction"):
            await mistake()
        assert await store.count(Ticket) == 0


async def test_a_committed_answer_survives_loss_of_power(sqlite_url: str) -> None:
    async with opened(sqlite_url) as made:
        rows = await made.pragma("journal_mode", "synchronous", "busy_timeout")
        assert rows == ["wal", 2, 30000]  # 2 is FULL


async def test_look_ups_that_arrive_together_are_answered_each(sqlite_url: str) -> None:
    async with opened(sqlite_url) as made:
        store = store_of(made)
        for number in range(100):
            await store.insert(ticket(f"{number}"))
        tasks = [asyncio.create_task(store.get(Ticket, id=f"{n % 120}")) for n in range(600)]
        await asyncio.sleep(0)
        for task in tasks[::7]:
            task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        for number, answer in enumerate(answers):
            if number % 7 == 0:
                assert isinstance(answer, asyncio.CancelledError)
            elif number % 120 >= 100:
                assert answer is None
            else:
                assert isinstance(answer, Ticket)
                assert answer.id == f"{number % 120}"


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://host/path",
        "sqlite:///x?nonsense=1",
        "sqlite:///x?busy_timeout=soon",
        "sqlite:///x?pool_size=-1",
        "mysql://u:hidden@h/d",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        driver(url)
    assert "hidden" not in str(caught.value)


async def test_a_file_that_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    made = driver(f"sqlite:///{tmp_path / 'no' / 'such' / 'folder.db'}")
    with pytest.raises(StoreUnavailable):
        await made.ping()
    await made.close()


@pytest.mark.parametrize("folder", ["we?ird", "a%20b", "a b", "a&b=c"])
async def test_a_folder_of_any_name_holds_the_one_database(tmp_path: Path, folder: str) -> None:
    """The writer read the path as part of a URL, the reader as it is: two files."""
    (tmp_path / folder).mkdir()
    path = tmp_path / folder / "watchword.db"
    async with opened(f"sqlite:///{quote(str(path))}") as made:
        store = store_of(made)
        await store.insert(ticket("a"))
        assert await store.get(Ticket, id="a")  # the reader's connection
        assert await store.count(Ticket) == 1  # the writer's
    assert path.exists()
