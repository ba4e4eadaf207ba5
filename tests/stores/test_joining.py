"""Writing through a caller's own connection: its commit decides, for rows and for hooks."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import ClassVar

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine

from tests.stores.opened import opened, store_of
from watchword.kernel.events import Events
from watchword.kernel.principal import Subject
from watchword.storage.errors import Conflict
from watchword.storage.feed import Change
from watchword.storage.store import Store, plus, where
from watchword.testing.contract import TicketSold
from watchword.testing.racer import NOW, RECORDS, Ticket, ticket

pytestmark = pytest.mark.invariant("I-04")


@dataclass
class Shop:
    """An application with a database of its own, in which our tables stand too."""

    store: Store
    engine: AsyncEngine
    heard: list[int] = field(default_factory=list[int])  # how many tickets each hook found
    names: list[str] = field(default_factory=list[str])  # of which sales

    async def hear(self, event: TicketSold) -> None:
        self.names.append(event.realm)
        self.heard.append(await self.store.count(Ticket))

    async def orders(self) -> int:
        async with self.engine.connect() as connection:
            found = await connection.execute(text("SELECT count(*) FROM orders"))
            number: int = found.scalar_one()
            return number


@pytest.fixture
async def shop(sql_database_url: str) -> AsyncGenerator[Shop, None]:
    events = Events()
    async with opened(sql_database_url, (*RECORDS, Change)) as made:
        scheme, _, rest = sql_database_url.partition("://")
        dialect = "sqlite+aiosqlite" if scheme == "sqlite" else "postgresql+asyncpg"
        engine = create_async_engine(f"{dialect}://{rest}")
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE orders (id INTEGER PRIMARY KEY)"))
        shop = Shop(store_of(made, events), engine)
        events.on(TicketSold, shop.hear)
        yield shop
        await engine.dispose()


def caller(shop: Shop, kind: str) -> AsyncConnection | AsyncSession:
    """Whoever has the transaction, not yet begun."""
    return shop.engine.connect() if kind == "connection" else AsyncSession(shop.engine)


@asynccontextmanager
async def undone(own: AsyncConnection | AsyncSession) -> AsyncGenerator[None, None]:
    """A savepoint of the caller's own in which something fails, which the caller catches."""
    with suppress(ZeroDivisionError):
        async with own.begin_nested():
            yield
            raise ZeroDivisionError


async def sell(store: Store, connection: AsyncConnection | AsyncSession, number: int) -> None:
    """An order of the application and a ticket of ours."""
    await connection.execute(text(f"INSERT INTO orders VALUES ({number})"))
    joined = store.joining(connection)
    await joined.insert(ticket(f"{number}"))
    await joined.announce(TicketSold(realm=f"{number}", at=NOW))
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
    async with caller(shop, kind) as own:
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


@pytest.mark.parametrize("kind", ["connection", "session"])
async def test_a_commit_that_postgres_turns_into_a_rollback_runs_no_hook(
    shop: Shop, sql_database_url: str, kind: str
) -> None:
    async with caller(shop, kind) as own:
        await sell(shop.store, own, 1)
        with pytest.raises(Exception, match="nowhere"):
            await own.execute(text("SELECT * FROM nowhere"))
        await own.commit()
    # SQLite undoes the failed statement alone; PostgreSQL gave up the transaction.
    kept = 1 if sql_database_url.startswith("sqlite") else 0
    assert await shop.store.count(Ticket) == kept
    assert shop.heard == [1] * kept


@pytest.mark.parametrize("kind", ["connection", "session"])
async def test_an_undone_savepoint_of_the_caller_takes_back_what_it_held_and_no_more(
    shop: Shop, kind: str
) -> None:
    """A savepoint with nothing of ours silenced every hook; one with all of it none."""
    async with caller(shop, kind) as own:
        await sell(shop.store, own, 1)
        async with undone(own):
            pass
        async with undone(own):
            await sell(shop.store, own, 2)
            async with own.begin_nested():
                await sell(shop.store, own, 3)  # released, and undone with the outer one
        async with own.begin_nested():
            await sell(shop.store, own, 4)
            async with undone(own):
                await sell(shop.store, own, 5)
            await sell(shop.store, own, 6)
        assert shop.heard == []
        await own.commit()
    assert shop.names == ["1", "4", "6"]
    assert await shop.store.count(Ticket) == 3
    assert await shop.orders() == 3


@pytest.mark.parametrize("kind", ["connection", "session"])
async def test_savepoints_that_began_before_anything_of_ours_count_too(
    shop: Shop, kind: str
) -> None:
    async with caller(shop, kind) as own:
        await own.execute(text("INSERT INTO orders VALUES (0)"))
        async with undone(own), own.begin_nested():
            await sell(shop.store, own, 1)
        async with own.begin_nested():
            await sell(shop.store, own, 2)
        await own.commit()
    assert shop.names == ["2"]
    assert await shop.store.count(Ticket) == 1


@pytest.mark.parametrize("kind", ["connection", "session"])
async def test_a_joined_store_serves_one_transaction_after_the_other(shop: Shop, kind: str) -> None:
    async with caller(shop, kind) as own:
        joined = shop.store.joining(own)
        for number in range(4):
            async with joined.transaction() as part:
                await part.insert(ticket(f"{number}"))
                await part.announce(TicketSold(realm=f"{number}", at=NOW))
            if number == 1:
                await own.rollback()
            else:
                await own.commit()
    assert shop.names == ["0", "2", "3"]
    assert shop.heard == [1, 2, 3]


@pytest.mark.parametrize("kind", ["connection", "session"])
async def test_a_refused_part_of_ours_announces_nothing(shop: Shop, kind: str) -> None:
    async with caller(shop, kind) as own:
        joined = shop.store.joining(own)
        with suppress(ZeroDivisionError):
            async with joined.transaction() as part, part.transaction() as within:
                await within.announce(TicketSold(realm="main", at=NOW))
                raise ZeroDivisionError
        await sell(shop.store, own, 1)
        await own.commit()
    assert shop.names == ["1"]


async def test_a_session_inside_the_callers_own_transaction_waits_for_its_commit(
    shop: Shop,
) -> None:
    async with shop.engine.connect() as connection, connection.begin() as outer:
        async with AsyncSession(connection) as session:
            await sell(shop.store, session, 1)
            await session.commit()
        assert shop.heard == []
        await outer.commit()
    assert shop.heard == [1]


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketLost(TicketSold):
    """Makes an identity untrue."""

    evicts: ClassVar[bool] = True

    def subjects(self) -> tuple[Subject, ...]:
        return (("user", self.realm),)


@pytest.mark.invariant("I-09")
@pytest.mark.parametrize("kind", ["connection", "session"])
async def test_a_joined_commit_evicts_whomever_it_makes_untrue_before_any_hook(
    shop: Shop, kind: str
) -> None:
    evicted: list[tuple[Subject, ...]] = []
    seen: list[int] = []
    shop.store.events.evict_with(evicted.append)

    async def see(_: TicketLost) -> None:
        seen.append(len(evicted))

    shop.store.events.on(TicketLost, see)
    async with caller(shop, kind) as own:
        joined = shop.store.joining(own)
        await joined.announce(TicketLost(realm="ada", at=NOW))
        await joined.announce(TicketLost(realm="eve", at=NOW))
        del evicted[:]
        await own.commit()
    assert {subject for subjects in evicted for subject in subjects} == {
        ("user", "ada"),
        ("user", "eve"),
    }
    assert min(seen) >= 2


@pytest.mark.parametrize("kind", ["connection", "session"])
async def test_a_commit_that_fails_evicts_but_runs_no_hook_and_raises_as_ever(
    shop: Shop, sql_database_url: str, kind: str
) -> None:
    evicted: list[tuple[Subject, ...]] = []
    shop.store.events.evict_with(evicted.append)
    later = "REFERENCES orders (id) DEFERRABLE INITIALLY DEFERRED"
    async with shop.engine.begin() as connection:
        await connection.execute(text(f"CREATE TABLE bills (of_order INTEGER {later})"))
    async with caller(shop, kind) as own:
        if sql_database_url.startswith("sqlite"):
            await own.execute(text("PRAGMA foreign_keys = ON"))
        await own.execute(text("INSERT INTO bills VALUES (7)"))
        joined = shop.store.joining(own)
        await joined.insert(ticket("1"))
        await joined.announce(TicketLost(realm="ada", at=NOW))
        del evicted[:]
        with pytest.raises(IntegrityError):
            await own.commit()
    assert evicted == [(("user", "ada"),)]
    assert shop.names == []
    assert await shop.store.count(Ticket) == 0


async def test_only_what_is_ours_to_join_is_joined(shop: Shop) -> None:
    with pytest.raises(TypeError):
        shop.store.joining(shop.engine)
    with pytest.raises(TypeError):
        shop.store.joining(shop.engine.connect())
