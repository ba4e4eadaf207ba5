"""PostgreSQL: the contract, and how it goes on when the server was away."""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from tests.servers import Postgres, in_thread
from tests.stores.opened import opened, store_of
from watchword.kernel.errors import ConfigurationError, StoreUnavailable
from watchword.storage.store import Store, plus, where
from watchword.stores.sql import driver, engine
from watchword.testing.contract import StoreContract
from watchword.testing.racer import Ticket, ticket


@pytest.mark.capability("S2-21", "S2-24")
class TestPostgres(StoreContract):
    """The contract on a real server."""

    factory = "watchword.stores.sql:driver"

    @pytest.fixture
    def driver_url(self, postgres_url: str) -> str:
        return postgres_url


@asynccontextmanager
async def administrator(url: str) -> AsyncGenerator[asyncpg.Connection, None]:
    """A connection of somebody else."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def cut(url: str) -> None:
    """End every connection to this database but our own."""
    async with administrator(url) as admin:
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


async def exercise(store: Store, name: str) -> None:
    """Read and write, alone and in a transaction."""
    assert await store.get(Ticket, id="first")
    assert await store.count(Ticket) >= 1
    assert await store.update(Ticket, where(id="first"), rank=plus(1))
    async with store.transaction() as transaction:
        await transaction.insert(ticket(name))


async def test_it_goes_on_after_every_connection_was_cut(postgres_url: str) -> None:
    async with opened(postgres_url) as made:
        store = store_of(made)
        await store.insert(ticket("first"))
        for number in range(3):
            await asyncio.gather(*(store.get(Ticket, id="first") for _ in range(20)))
            await asyncio.gather(*(store.count(Ticket) for _ in range(20)))
            await cut(postgres_url)
            await exercise(store, f"after-{number}")


async def test_a_connection_cut_inside_a_transaction_commits_nothing(postgres_url: str) -> None:
    async with opened(postgres_url) as made:
        store = store_of(made)
        await store.insert(ticket("first"))

        async def lose() -> None:
            async with store.transaction() as transaction:
                await transaction.insert(ticket("lost"))
                await cut(postgres_url)
                await transaction.insert(ticket("never"))

        with pytest.raises(StoreUnavailable):
            await lose()
        await exercise(store, "after")
        assert await store.get(Ticket, id="lost") is None


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A server of this test alone, which it may stop."""
    server = Postgres.start(shared=False)
    yield server
    server.stop()


@pytest.mark.slow
async def test_it_goes_on_after_the_server_was_stopped_and_started(own_postgres: Postgres) -> None:
    url = await own_postgres.make_database()
    async with opened(url) as made:
        store = store_of(made)
        await store.insert(ticket("first"))
        await exercise(store, "before")
        await in_thread(own_postgres.halt)
        for step in (
            store.get(Ticket, id="first"),
            store.insert(ticket("away")),
            store.count(Ticket),
            made.ping(),
        ):
            with pytest.raises(StoreUnavailable) as caught:
                await step
            assert caught.value.note
            assert "watchword_" not in caught.value.note
        await in_thread(own_postgres.resume)
        await exercise(store, "after")
        await made.ping()
        assert await store.get(Ticket, id="away") is None


@pytest.mark.slow
@pytest.mark.invariant("I-19")
async def test_a_replica_is_refused(own_postgres: Postgres) -> None:
    await in_thread(own_postgres.halt)
    own_postgres.make_standby()
    await in_thread(own_postgres.resume)
    made = driver(own_postgres.url)
    for step in (made.ping(), made.verbs.get(Ticket, {"realm": "main", "id": "a"})):
        with pytest.raises(StoreUnavailable) as caught:
            await step
        assert "replica" in (caught.value.note or "")
    await made.close()


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    made = driver("postgresql://u:hidden@127.0.0.1:1/d")
    with pytest.raises(StoreUnavailable) as caught:
        await made.ping()
    assert "hidden" not in repr(caught.value.note)
    with pytest.raises(StoreUnavailable):
        await made.verbs.get(Ticket, {"realm": "main", "id": "a"})
    await made.close()


async def test_a_database_that_does_not_exist_is_unavailable(postgres: Postgres) -> None:
    made = driver(postgres.url.replace("/postgres?", "/nowhere?"))
    with pytest.raises(StoreUnavailable):
        await made.open([Ticket])
    await made.close()


async def test_waiting_for_a_free_connection_ends(postgres_url: str) -> None:
    async with opened(postgres_url, pool_size=1, pool_timeout=0.2) as made:
        store = store_of(made)
        async with store.transaction() as transaction:
            await transaction.insert(ticket("a"))
            with pytest.raises(StoreUnavailable) as caught:
                await store.insert(ticket("b"))
        assert caught.value.note == "PoolTimeout"
        assert await store.count(Ticket) == 1


async def test_a_cancelled_statement_gives_its_connection_back(postgres_url: str) -> None:
    async with opened(postgres_url, pool_size=2, pool_timeout=2) as made:
        store = store_of(made)
        await store.insert(ticket("first"))
        async with administrator(postgres_url) as admin, admin.transaction():
            await admin.execute("SELECT * FROM watchword_contract_ticket FOR UPDATE")
            for _ in range(5):
                task = asyncio.create_task(store.update(Ticket, where(id="first"), rank=1))
                await asyncio.sleep(0.05)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
        await exercise(store, "after")


@pytest.mark.capability("S2-33")
def test_a_missing_package_is_named_with_its_remedy() -> None:
    with pytest.raises(ConfigurationError) as caught:
        engine.require("no_such_driver", "watchword[postgres]")
    assert "pip install watchword[postgres]" in str(caught.value)


@pytest.mark.capability("S2-33")
async def test_sqlite_needs_no_postgres_package() -> None:
    code = (
        "import sys; sys.modules['asyncpg'] = None\n"
        "from watchword.stores.sql import driver\n"
        "driver('sqlite://')\n"
        "from watchword.kernel.errors import ConfigurationError\n"
        "try: driver('postgresql://h/d')\n"
        "except ConfigurationError as error: print(error)\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        code,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    said, _ = await process.communicate()
    assert b"pip install watchword[postgres]" in said
