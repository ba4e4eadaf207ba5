"""Writing through a caller's own connection: its commit decides, for rows and for hooks."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine

from tests.stores.opened import opened, store_of
from watchword.kernel.events import Events
from watchword.storage.errors import Conflict
from watchword.storage.store import Store, plus, where
from watchword.testing.contract import TicketSold
from watchword.testing.racer import NOW, RECORDS, Ticket, ticket

pytestmark = pytest.mark.invariant("I-04")


@dataclass
class Shop:
    """An application with a database of its own, in which our tables stand too."""

    store: Store
    engine: AsyncEngine
    heard: list[int] = field(default_factory=list[int])

    async def hear(self, _: TicketSold) -> None:
        self.heard.append(await self.store.count(Ticket))

    async def orders(self) -> int:
        async with self.engine.connect() as connection:
            found = await connection.execute(text("SELECT count(*) FROM orders"))
            number: int = found.scalar_one()
            return number


@pytest.fixture
async def shop(database_url: str) -> AsyncGenerator[Shop, None]:
    events = Events()
    async with opened(database_url, RECORDS) as made:
        scheme, _, rest = database_url.partition("://")
        dialect = "sqlite+aiosqlite" if scheme == "sqlite" else "postgresql+asyncpg"
        engine = create_async_engine(f"{dialect}://{rest}")
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE orders (id INTEGER PRIMARY KEY)"))
        shop = Shop(store_of(made, events), engine)
        events.on(TicketSold, shop.hear)
        yield shop
        await engine.dispose()


async def sell(store: Store, connection: AsyncConnection | AsyncSession, number: int) -> None:
    """An order of the application and a ticket of ours."""
    await connection.execute(text(f"INSERT INTO orders VALUES ({number})"))
    joined = store.joining(connection)
    await joined.insert(ticket(f"{number}"))
    await joined.announce(TicketSold(realm="main", at=NOW))
    assert await joined.update(Ticket, where(id=f"{number}"), rank=plus(1))


async def test_a_connection_commits_both_and_then_the_hooks_run(shop: Shop) -> None:
    async with shop.engine.connect() as connection:
        await sell(shop.store, connection, 1)
        assert shop.heard == []
        assert await shop.store.get(Ticket, id="1") is None
        await connection.commit()
        assert shop.heard == [1]  # before the caller goes on
        await connection.execute(text("INSERT INTO orders VALUES (2)"))
        await connection.commit()
    assert shop.heard == [1]
    assert await shop.orders() == 2
    assert await shop.store.get(Ticket, id="1")


async def test_a_connection_rolls_both_back_and_no_hook_runs(shop: Shop) -> None:
    async with shop.engine.connect() as connection:
        await sell(shop.store, connection, 1)
        await connection.rollback()
        await connection.execute(text("INSERT INTO orders VALUES (2)"))
        await connection.commit()
    assert shop.heard == []
    assert await shop.orders() == 1
    assert await shop.store.count(Ticket) == 0


async def test_a_connection_that_is_only_closed_runs_no_hook(shop: Shop) -> None:
    async with shop.engine.connect() as connection:
        await sell(shop.store, connection, 1)
    assert shop.heard == []
    assert await shop.store.count(Ticket) == 0
    async with shop.engine.begin() as connection:
        await connection.execute(text("INSERT INTO orders VALUES (2)"))
    assert shop.heard == []


async def test_a_session_commits_both_and_then_the_hooks_run(shop: Shop) -> None:
    async with AsyncSession(shop.engine) as session:
        joined = shop.store.joining(session)  # before the session has a connection
        await joined.insert(ticket("0"))
        await joined.announce(TicketSold(realm="main", at=NOW))
        async with session.begin_nested():
            await session.execute(text("INSERT INTO orders VALUES (1)"))
        assert shop.heard == []
        await session.commit()
        assert shop.heard == [1]
        await session.execute(text("INSERT INTO orders VALUES (2)"))
        await session.commit()
    assert shop.heard == [1]
    assert await shop.orders() == 2


async def test_a_session_rolls_both_back_and_no_hook_runs(shop: Shop) -> None:
    async with AsyncSession(shop.engine) as session:
        await sell(shop.store, session, 1)
        await session.rollback()
        await session.execute(text("INSERT INTO orders VALUES (2)"))
        await session.commit()
    assert shop.heard == []
    assert await shop.orders() == 1
    assert await shop.store.count(Ticket) == 0


@pytest.mark.parametrize("kind", ["connection", "session"])
async def test_a_conflict_leaves_the_callers_transaction_usable(shop: Shop, kind: str) -> None:
    await shop.store.insert(ticket("taken"))
    async with shop.engine.connect() if kind == "connection" else AsyncSession(shop.engine) as own:
        await sell(shop.store, own, 1)
        joined = shop.store.joining(own)
        with pytest.raises(Conflict) as caught:
            await joined.insert(ticket("other", email="taken@example.com"))
        assert caught.value.field == "email"
        with pytest.raises(ValueError, match=r"."):
            await joined.insert(ticket("nul\x00"))
        await own.execute(text("INSERT INTO orders VALUES (2)"))
        assert await shop.store.get(Ticket, id="1") is None  # nothing was committed meanwhile
        await own.commit()
    assert await shop.orders() == 2
    assert await shop.store.count(Ticket) == 2
    assert shop.heard == [2]


async def test_a_conflict_as_first_statement_does_not_commit_what_follows(shop: Shop) -> None:
    await shop.store.insert(ticket("taken"))
    async with shop.engine.connect() as own:
        with pytest.raises(Conflict):
            await shop.store.joining(own).insert(ticket("taken"))
        await own.execute(text("INSERT INTO orders VALUES (1)"))
        await own.rollback()
    assert await shop.orders() == 0


async def test_a_commit_that_postgres_turns_into_a_rollback_runs_no_hook(
    shop: Shop, database_url: str
) -> None:
    async with shop.engine.connect() as own:
        await sell(shop.store, own, 1)
        with pytest.raises(Exception, match="nowhere"):
            await own.execute(text("SELECT * FROM nowhere"))
        await own.commit()
    # SQLite undoes the failed statement alone; PostgreSQL gave up the transaction.
    kept = 1 if database_url.startswith("sqlite") else 0
    assert await shop.store.count(Ticket) == kept
    assert shop.heard == [1] * kept


async def test_only_what_is_ours_to_join_is_joined(shop: Shop) -> None:
    with pytest.raises(TypeError):
        shop.store.joining(shop.engine)
    with pytest.raises(TypeError):
        shop.store.joining(shop.engine.connect())
