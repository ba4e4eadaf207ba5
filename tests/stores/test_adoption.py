"""A table of somebody else's whose rows become users: how it is looked at, changed, and refused."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import pytest
from sqlalchemy import MetaData, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from tests.stores.opened import Opened, store_of
from watchword import Own, User, user_fields
from watchword.features.users.records import fresh_id
from watchword.kernel.errors import ConfigurationError
from watchword.storage.errors import Conflict, FaultyRows, Referenced, SchemaBehind
from watchword.storage.store import Paging, where
from watchword.stores.sql import driver, migrate

NOW = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)


@user_fields(
    table="members",
    columns={
        "email": "mail",
        "username": "full_name",
        "is_active": "active",
        "created_at": "created",
        "nickname": "nick",
    },
    ids="integer",
)
class Member(User):
    """Rows of a table that numbers them."""

    nickname: Annotated[str, Own(read="self", write="self")] = "nobody"
    score: int = 7


@user_fields(
    table="Order",
    columns={"id": "Select", "email": 'E-Mail: "it\'s" %s', "username": "group", "seen": "Seen"},
    ids="uuid",
)
class Awkward(User):
    """Rows of a table whose names need quotes, keyed by UUIDs."""

    seen: datetime | None = None


@user_fields(table="people", columns={"email": "email"})
class Person(User):
    """Rows of a table keyed by texts, with everything else beside it."""


MEMBERS = {
    "sqlite": """
        CREATE TABLE members (
            id INTEGER PRIMARY KEY, mail TEXT, full_name VARCHAR(80) NOT NULL UNIQUE,
            active BOOLEAN DEFAULT 1, created DATETIME DEFAULT CURRENT_TIMESTAMP NOT NULL,
            nick TEXT, roles TEXT DEFAULT 'theirs', points NUMERIC DEFAULT 0 NOT NULL);
        CREATE INDEX members_lower ON members (lower(mail));
        CREATE TABLE orders (
            id INTEGER PRIMARY KEY, member INTEGER NOT NULL REFERENCES members (id));
        """,
    "postgresql": """
        CREATE TYPE mood AS ENUM ('fine', 'bad');
        CREATE TABLE members (
            id SERIAL PRIMARY KEY, mail VARCHAR(200), full_name TEXT NOT NULL UNIQUE,
            active BOOLEAN DEFAULT true, created TIMESTAMP DEFAULT now() NOT NULL,
            nick TEXT, roles TEXT DEFAULT 'theirs', points NUMERIC DEFAULT 0 NOT NULL,
            feels mood DEFAULT 'fine' NOT NULL);
        CREATE INDEX members_lower ON members (lower(mail));
        CREATE TABLE orders (
            id SERIAL PRIMARY KEY, member INTEGER NOT NULL REFERENCES members (id));
        """,
}
AWKWARD = {
    "sqlite": """CREATE TABLE "Order" ("Select" CHAR(32) PRIMARY KEY,
        "E-Mail: ""it's"" %s" TEXT NOT NULL, "group" TEXT, "Seen" TIMESTAMP)""",
    "postgresql": """CREATE TABLE "Order" ("Select" UUID PRIMARY KEY,
        "E-Mail: ""it's"" %s" TEXT NOT NULL, "group" TEXT, "Seen" TIMESTAMPTZ)""",
}


@asynccontextmanager
async def host(url: str, *statements: str | dict[str, str]) -> AsyncGenerator[AsyncEngine, None]:
    """The owner's own connection to their database."""
    scheme, _, rest = url.partition("://")
    dialect = "sqlite+aiosqlite" if scheme == "sqlite" else "postgresql+asyncpg"
    engine = create_async_engine(f"{dialect}://{rest}")
    try:
        for each in statements:
            await run(engine, each if isinstance(each, str) else each[scheme])
        yield engine
    finally:
        await engine.dispose()


async def run(engine: AsyncEngine, statements: str) -> None:
    async with engine.begin() as connection:
        for each in statements.split(";"):
            if each.strip():
                await connection.exec_driver_sql(each)


async def rows(engine: AsyncEngine, query: str) -> list[tuple[Any, ...]]:
    async with engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(text(query))]


@asynccontextmanager
async def driving(url: str) -> AsyncGenerator[Opened, None]:
    made = driver(url)
    made.__class__ = Opened
    assert isinstance(made, Opened)
    try:
        yield made
    finally:
        await made.close()


def a_user(kind: type[Any], **fields: Any) -> Any:
    given = {
        "realm": "main",
        "id": fresh_id(kind, NOW),
        "created_at": NOW,
        "updated_at": NOW,
        **fields,
    }
    return kind(email_key=str(given["email"]).lower(), **given)


FILLED = """
    INSERT INTO members (mail, full_name, active, created) VALUES
    ('Ada@Example.com', 'Ada', NULL, '2020-01-02 03:04:05'),
    ('eve@example.com', 'Eve', {true}, '2020-01-02 03:04:05.5'),
    ('STRASSE@Example.com', 'S', {false}, '2021-01-02 03:04:05.123456')
"""


def filled(url: str) -> str:
    sqlite = url.startswith("sqlite")
    return FILLED.format(true=1 if sqlite else "true", false=0 if sqlite else "false")


@pytest.mark.capability("S0-01")
async def test_a_plan_shows_and_a_migration_adopts(sql_database_url: str) -> None:
    async with host(sql_database_url, MEMBERS) as engine, driving(sql_database_url) as made:
        await run(engine, filled(sql_database_url))
        before = await rows(engine, "SELECT * FROM members ORDER BY id")
        with pytest.raises(SchemaBehind):
            await made.open([Member])
        plan = await made.plan([Member])
        assert await rows(engine, "SELECT * FROM members ORDER BY id") == before
        assert any(
            "ALTER TABLE members ADD COLUMN watchword_epoch BIGINT" in step for step in plan
        ), plan
        assert "-- fill watchword_email_key of 3 rows of members from mail, 1000 at a time" in plan
        assert plan[-1].startswith("CREATE UNIQUE INDEX uq_watchword_members_email_key ON members")
        assert not any("ADD COLUMN watchword_nickname" in step for step in plan)
        assert await made.migrate([Member]) == plan
        assert await made.plan([Member]) == ()
        assert await made.migrate([Member]) == ()
        await made.open([Member])
        store = store_of(made)
        ada = await store.get(Member, email_key="ada@example.com")
        assert ada is not None
        assert (ada.id, ada.email, ada.username) == ("1", "Ada@Example.com", "Ada")
        assert not ada.is_active  # NULL is no yes
        assert ada.created_at == datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)
        assert (ada.nickname, ada.score, ada.roles) == ("nobody", 7, ())
        assert not ada.is_verified
        eve = await store.get(Member, id="2")
        assert eve is not None
        assert eve.is_active
        assert eve.epoch != ada.epoch
        assert len({ada.epoch, eve.epoch, 0}) == 3
        kept = await rows(engine, "SELECT id, mail, full_name, nick FROM members ORDER BY id")
        assert kept == [row[:3] + row[5:6] for row in before]


async def test_every_verb_works_on_rows_of_an_adopted_table(sql_database_url: str) -> None:
    async with host(sql_database_url, MEMBERS) as engine, driving(sql_database_url) as made:
        await run(engine, filled(sql_database_url))
        await made.migrate([Member])
        await made.open([Member])
        store = store_of(made)
        new = await store.insert(a_user(Member, email="new@example.com", username="New"))
        assert new.id == "4"
        for found in (
            await store.get(Member, id="4"),
            await store.get(Member, email_key="new@example.com"),
            await store.get(Member, id="4", username="New", is_active=True, created_at=NOW),
        ):
            assert found == new
        for nobody in ("", "04", "x", "9" * 30, "٤", "1e1", "-0"):
            assert await store.get(Member, id=nobody) is None
            assert await store.update(Member, where(id=nobody), score=1) is None
            assert await store.take(Member, id=nobody) is None
        async with store.transaction() as tx:
            inside = await tx.insert(a_user(Member, email="in@example.com", username="In"))
            assert await tx.get(Member, id=inside.id) == inside
        assert inside.id == "5"
        named = await store.insert(a_user(Member, id="40", email="a@example.com", username="A"))
        assert named.id == "40"
        with pytest.raises(Conflict) as taken:
            await store.insert(a_user(Member, email="NEW@example.com", username="other"))
        assert taken.value.field == "email_key"
        with pytest.raises(Conflict) as taken:
            await store.insert(a_user(Member, id="40", email="b@example.com", username="B"))
        assert taken.value.field == "id"
        with pytest.raises(Conflict) as taken:
            await store.update(Member, where(id="40"), username="New")
        assert taken.value.field == "username"
        with pytest.raises(ValueError, match="keyed otherwise"):
            await store.insert(a_user(Member, id="no number", email="c@example.com", username="C"))
        changed = await store.update(
            Member, where(id="4", created_at=NOW), is_active=False, username=None, roles=("x",)
        )
        assert changed is not None
        assert (changed.is_active, changed.username, changed.roles) == (False, None, ("x",))
        assert await store.get(Member, id="4") == changed
        assert await store.count(Member, is_active=True) == 3
        assert await rows(engine, "SELECT full_name, roles FROM members WHERE id = 4") == [
            ("", "theirs")
        ]
        listed: list[str] = []
        after: str | None = None
        for _ in range(10):
            paging = Paging(order=("created_at", "id"), limit=1, after=after)
            page = await store.find(Member, paging)
            listed += [each.id for each in page.items]
            after = page.next
            if after is None:
                break
        assert listed == ["1", "2", "3", "4", "5", "40"]
        backwards = Paging(order=("created_at", "id"), limit=2, descending=True)
        assert [u.id for u in (await store.find(Member, backwards)).items] == ["40", "5"]
        assert await store.take(Member, id="40") == named
        await run(engine, "INSERT INTO orders (member) VALUES (5)")
        with pytest.raises(Referenced):
            await store.take(Member, id="5")
        assert await store.get(Member, id="5") == inside
        assert await store.erase(Member, id="4") == 1


async def test_times_of_every_spelling_stand_in_order(sqlite_url: str) -> None:
    spelt = (
        "2020-01-02 03:04:05",
        "2020-01-02T03:04:05",
        "2020-01-02 03:04:05.000",
        "2020-01-02 05:04:05+02:00",
        "2020-01-02T03:04:05Z",
        "2020-01-02 03:04:05.000000",
        "2020-01-02 03:04:05.001",
        "2020-01-02 03:04",
    )
    async with host(sqlite_url, MEMBERS) as engine, driving(sqlite_url) as made:
        for number, each in enumerate(spelt):
            await run(
                engine,
                "INSERT INTO members (mail, full_name, created) "
                f"VALUES ('m{number}@example.com', '{number}', '{each}')",
            )
        await made.migrate([Member])
        await made.open([Member])
        listed: list[Member] = []
        after: str | None = None
        while True:
            paging = Paging(order=("created_at", "id"), limit=1, after=after)
            page = await store_of(made).find(Member, paging)
            listed += page.items
            after = page.next
            if after is None:
                break
        assert [each.id for each in listed] == ["8", "1", "2", "3", "4", "5", "6", "7"]
        assert (
            listed[1].created_at
            == listed[4].created_at
            == datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)
        )
        planned = await rows(
            engine,
            "EXPLAIN QUERY PLAN SELECT id FROM members WHERE watchword_realm = 'main' "
            "ORDER BY strftime('%Y-%m-%d %H:%M:%f', created), id LIMIT 5",
        )
        assert "ix_watchword_members_created_at_id" in str(planned)


@pytest.mark.parametrize("wrong", ["NULL", "'yesterday'", "1577934245"])
async def test_rows_that_would_stand_in_no_list_are_refused(sqlite_url: str, wrong: str) -> None:
    table = "CREATE TABLE people (id TEXT PRIMARY KEY, email TEXT, made TEXT)"
    if wrong.isdigit():
        table = table.replace("made TEXT", "made DATETIME")
    async with host(sqlite_url, table) as engine, driving(sqlite_url) as made:
        await run(engine, f"INSERT INTO people VALUES ('a', 'a@example.com', {wrong})")

        @user_fields(table="people", columns={"email": "email", "created_at": "made"})
        class Timed(User):
            pass

        for step in (made.plan([Timed]), made.migrate([Timed])):
            with pytest.raises(ConfigurationError, match=r"people\.made holds no time in 1 row"):
                await step
        assert len(await rows(engine, "SELECT * FROM pragma_table_info('people')")) == 3


async def test_names_that_need_quotes_and_keys_that_are_uuids(sql_database_url: str) -> None:
    one = UUID("01234567-89ab-7def-8123-456789abcdef")
    async with host(sql_database_url, AWKWARD) as engine, driving(sql_database_url) as made:
        async with engine.begin() as connection:
            await connection.execute(
                text('INSERT INTO "Order" VALUES (:id, :mail, NULL, NULL)'),
                {
                    "id": one.hex if sql_database_url.startswith("sqlite") else one,
                    "mail": "Ada@example.com",
                },
            )
        plan = await made.plan([Awkward])
        assert await made.migrate([Awkward]) == plan
        await made.open([Awkward])
        store = store_of(made)
        ada = await store.get(Awkward, id=str(one))
        assert ada is not None
        assert ada == await store.get(Awkward, email_key="ada@example.com")
        assert ada.id == str(one)
        for other in (str(one).upper(), "no-id"):
            assert await store.get(Awkward, id=other) is None
        new = await store.insert(a_user(Awkward, email="new@example.com", seen=NOW))
        assert UUID(new.id).version == 7
        assert await store.get(Awkward, id=new.id) == new
        held = await rows(engine, 'SELECT "Select" FROM "Order" ORDER BY 1')
        assert {UUID(str(row[0])) for row in held} == {one, UUID(new.id)}
        with pytest.raises(Conflict) as taken:
            await store.insert(a_user(Awkward, email="ADA@example.com"))
        assert taken.value.field == "email_key"
        page = await store.find(Awkward, Paging(order=("created_at", "id"), limit=1))
        rest = await store.find(
            Awkward, Paging(order=("created_at", "id"), limit=1, after=page.next)
        )
        assert {page.items[0].id, rest.items[0].id} == {str(one), new.id}


async def test_a_table_in_a_schema_of_its_own(postgres_url: str) -> None:
    @user_fields(table="App.members", columns={"email": "mail"})
    class Far(User):
        pass

    table = 'CREATE TABLE "App".members (id TEXT PRIMARY KEY, mail TEXT)'
    decoy = "CREATE TABLE members (id INTEGER PRIMARY KEY)"
    async with host(postgres_url, 'CREATE SCHEMA "App"', table, decoy) as engine:
        await run(engine, "INSERT INTO \"App\".members VALUES ('a', 'a@example.com')")
        async with driving(postgres_url) as made:
            plan = await made.plan([Far])
            assert any('ALTER TABLE "App".members' in step for step in plan)
            assert await made.migrate([Far]) == plan
            assert await made.plan([Far]) == ()
            await made.open([Far])
            found = await store_of(made).get(Far, email_key="a@example.com")
            assert found is not None
            assert found.id == "a"


async def test_on_sqlite_no_table_has_a_schema(sqlite_url: str) -> None:
    @user_fields(table="app.members", columns={"email": "mail"})
    class Far(User):
        pass

    async with driving(sqlite_url) as made:
        with pytest.raises(ConfigurationError, match="for PostgreSQL"):
            await made.open([Far])


PEOPLE = "CREATE TABLE people (id VARCHAR(40) PRIMARY KEY, email TEXT)"
FAULTY = """
    INSERT INTO people VALUES ('good', 'good@example.com'), ('none', NULL), ('empty', ''),
    ('no', 'no address'), ('two', 'a@x.com,b@y.com'), ('one', 'same@example.com'),
    ('other', 'SAME@Example.com')
"""


@pytest.mark.capability("S0-01", "DEF-33")
async def test_rows_that_cannot_be_users_stop_it_before_anything_changed(
    sql_database_url: str,
) -> None:
    async with host(sql_database_url, PEOPLE) as engine, driving(sql_database_url) as made:
        await run(engine, FAULTY)
        plan = await made.plan([Person])
        told = [step for step in plan if step.startswith("-- cannot be users")]
        assert told == [
            "-- cannot be users: 2 rows: people.email is empty (id empty, none)",
            "-- cannot be users: 2 rows: people.email is no email address (id no, two)",
            (
                "-- cannot be users: 2 rows: people.email is that of another row too, but for "
                "its case or form (id one, other)"
            ),
        ]
        assert "example.com" not in str(plan)
        with pytest.raises(FaultyRows, match="--skip-faulty") as refused:
            await made.migrate([Person])
        assert "example.com" not in str(refused.value)
        assert await made.plan([Person]) == plan
        assert await rows(engine, "SELECT count(*), count(email) FROM people") == [(7, 6)]
        done = await made.migrate([Person], skip_faulty=True)
        assert [step for step in done if "nobody's" in step]
        assert await made.plan([Person]) == ()
        await made.open([Person])
        store = store_of(made)
        assert await store.get(Person, email_key="good@example.com")
        for key in ("same@example.com", "", "no address", "SAME@Example.com"):
            assert await store.get(Person, email_key=key) is None
        nobody = await store.get(Person, id="none")
        assert nobody is not None
        assert (nobody.email, nobody.email_key) == ("", "faulty: none")
        # Mended by its owner, who says so, it is a user's.
        await run(
            engine,
            "UPDATE people SET email = 'Two@example.com', watchword_email_key = NULL "
            "WHERE id = 'two'",
        )
        before = await store.get(Person, id="two")
        assert before is not None
        await made.open([Person])  # a row that waits stops nobody
        assert len(await made.plan([Person])) == 1
        await made.migrate([Person])
        two = await store.get(Person, email_key="two@example.com")
        assert two is not None
        assert two.epoch == before.epoch + 1


@pytest.mark.invariant("I-01")
async def test_a_row_that_its_owner_adds_is_nobodys_until_it_is_adopted(
    sql_database_url: str,
) -> None:
    async with host(sql_database_url, PEOPLE) as engine, driving(sql_database_url) as made:
        await made.migrate([Person])
        await made.open([Person])
        store = store_of(made)
        await store.insert(a_user(Person, email="ada@example.com"))
        await run(engine, "INSERT INTO people (id, email) VALUES ('new', 'New@example.com')")
        new = await store.get(Person, id="new")
        assert new is not None
        assert (new.email_key, new.epoch) == ("", -1)  # which fits no session of a former "new"
        assert await store.get(Person, email_key="new@example.com") is None
        assert await store.get(Person, email_key="") is None
        assert await store.update(Person, where(id="new", email_key=""), is_verified=True) is None
        await made.migrate([Person])
        adopted = await store.get(Person, email_key="new@example.com")
        assert adopted is not None
        assert adopted.epoch >= 0
        # One with an address that an account has already does not get it.
        await run(engine, "INSERT INTO people (id, email) VALUES ('thief', 'ADA@example.com')")
        with pytest.raises(FaultyRows):
            await made.migrate([Person])
        await made.migrate([Person], skip_faulty=True)
        ada = await store.get(Person, email_key="ada@example.com")
        assert ada is not None
        assert ada.id != "thief"
        assert await made.plan([Person]) == ()


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("", "there is no table people"),
        ("CREATE VIEW people AS SELECT 'a' AS id, 'b' AS email", "plain table"),
        ("CREATE TABLE people (id TEXT PRIMARY KEY)", "people has no column email"),
        ("CREATE TABLE people (id TEXT, email TEXT)", "no primary or unique key"),
        ("CREATE TABLE people (id TEXT PRIMARY KEY, email INTEGER)", "cannot hold email"),
        ("CREATE TABLE people (id INTEGER PRIMARY KEY, email TEXT)", 'ids="text" does not fit'),
        (
            "CREATE TABLE people (id TEXT PRIMARY KEY, email TEXT, branch INTEGER NOT NULL)",
            r"people\.branch needs a value that Watchword does not know",
        ),
        (
            "CREATE TABLE people (id TEXT, branch INTEGER, email TEXT, PRIMARY KEY (id, branch))",
            "no primary or unique key",
        ),
        (
            "CREATE TABLE people (id TEXT PRIMARY KEY, email TEXT GENERATED ALWAYS AS ('') STORED)",
            "computed by the database",
        ),
    ],
)
async def test_a_table_that_cannot_hold_users_is_refused_in_plain_words(
    sql_database_url: str, table: str, said: str
) -> None:
    async with host(sql_database_url, table), driving(sql_database_url) as made:
        for step in (made.open([Person]), made.plan([Person]), made.migrate([Person])):
            with pytest.raises(ConfigurationError, match=said):
                await step


async def test_a_key_that_the_database_does_not_number_is_refused(sql_database_url: str) -> None:
    @user_fields(table="people", columns={"email": "email"}, ids="integer")
    class Numbered(User):
        pass

    table = "CREATE TABLE people (id INT PRIMARY KEY, email TEXT)"
    async with host(sql_database_url, table), driving(sql_database_url) as made:
        with pytest.raises(ConfigurationError, match="gives new rows no number"):
            await made.open([Numbered])


MIGRATES = """
import asyncio, sys
from tests.stores.test_adoption import Person
from watchword.stores.sql import driver
async def main():
    made = driver(sys.argv[1])
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await made.migrate([Person])
    await made.open([Person])
    await made.close()
asyncio.run(main())
"""


async def started(url: str, program: str = MIGRATES) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, url),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    return process


async def many(engine: AsyncEngine, number: int) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            text("INSERT INTO people VALUES (:id, :email)"),
            [{"id": f"{n:06}", "email": f"User{n}@Example.com"} for n in range(number)],
        )


async def adopted(engine: AsyncEngine) -> int:
    try:
        found = await rows(engine, "SELECT count(watchword_email_key) FROM people")
    except Exception:  # noqa: BLE001  the column is not there yet
        return 0
    return int(found[0][0])


async def test_two_may_migrate_at_once(sql_database_url: str) -> None:
    async with host(sql_database_url, PEOPLE) as engine, driving(sql_database_url) as made:
        await many(engine, 2500)
        both = [await started(sql_database_url) for _ in range(2)]
        async with asyncio.timeout(120):
            await asyncio.gather(*(each.communicate(b"go\n") for each in both))
        assert [each.returncode for each in both] == [0, 0]
        assert await made.plan([Person]) == ()
        assert await adopted(engine) == 2500
        keys = "SELECT count(DISTINCT watchword_email_key) FROM people"
        assert await rows(engine, keys) == [(2500,)]


async def test_one_that_is_killed_while_it_fills_goes_on_where_it_stood(
    sql_database_url: str,
) -> None:
    async with host(sql_database_url, PEOPLE) as engine, driving(sql_database_url) as made:
        await many(engine, 8000)
        process = await started(sql_database_url)
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        async with asyncio.timeout(120):
            while await adopted(engine) < 2000:  # noqa: ASYNC110  it is another process
                await asyncio.sleep(0.02)
            process.send_signal(signal.SIGKILL)
            await process.wait()
        half = await adopted(engine)
        assert 2000 <= half < 8000
        assert half % 1000 == 0  # whole batches
        old = await rows(
            engine, "SELECT id, watchword_epoch FROM people WHERE watchword_epoch IS NOT NULL"
        )
        with pytest.raises(SchemaBehind):
            await made.open([Person])
        plan = await made.plan([Person])
        assert any(f"of {8000 - half} rows" in step for step in plan), plan
        await made.migrate([Person])
        assert await adopted(engine) == 8000
        assert set(old) <= set(await rows(engine, "SELECT id, watchword_epoch FROM people"))
        await made.open([Person])
        found = await store_of(made).get(Person, email_key="user7999@example.com")
        assert found is not None
        assert found.id == "007999"


async def test_rows_that_come_while_it_fills_are_judged_under_the_lock(
    sql_database_url: str,
) -> None:
    async with host(sql_database_url, PEOPLE) as engine, driving(sql_database_url) as made:
        await many(engine, 3)

        async def change(step: Any, *given: Any, **named: Any) -> Any:
            async with made.writing() as connection:
                return await connection.run_sync(lambda c: step(c, [Person], *given, **named))

        await change(migrate.apply)
        add = "INSERT INTO people (id, email) VALUES "
        await run(engine, f"{add} ('a', 'USER1@example.com'), ('b', 'late@example.com')")
        await change(migrate.fill_batch, Person, set(), None)
        await run(engine, f"{add} ('e', 'USER2@example.com')")
        await change(migrate.fill_batch, Person, set(), None)
        await run(engine, f"{add} ('c', 'LATE@example.com'), ('d', 'no address')")
        with pytest.raises(FaultyRows) as refused:
            await change(migrate.finish_all, skip_faulty=False)
        assert refused.value.plan == (
            "1 row: people.email is no email address (id d)",
            (
                "5 rows: people.email is that of another row too, but for its case or form "
                "(id c, 000001, 000002, a, e)"
            ),
        )
        with pytest.raises(SchemaBehind):
            await made.open([Person])
        await change(migrate.finish_all, skip_faulty=True)
        await made.open([Person])
        assert await made.plan([Person]) == ()
        keys = dict(await rows(engine, "SELECT id, watchword_email_key FROM people"))
        assert keys == {
            "000000": "user0@example.com",
            "b": "late@example.com",  # was adopted before the other came
            **{each: f"faulty: {each}" for each in ("000001", "000002", "a", "c", "d", "e")},
        }


RACES = """
import asyncio, sys
from tests.stores.test_adoption import Person, a_user
from tests.stores.opened import Opened, store_of
from watchword.storage.errors import Conflict
from watchword.stores.sql import driver
async def main():
    made = driver(sys.argv[1])
    await made.open([Person])
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    won = 0
    for number in range(60):
        try:
            await store_of(made).insert(a_user(Person, email=f"u{number}@example.com"))
            won += 1
        except Conflict as conflict:
            assert conflict.field == "email_key", conflict.field
    await made.close()
    print(won)
asyncio.run(main())
"""


async def test_of_those_who_race_for_an_address_one_wins(sql_database_url: str) -> None:
    async with host(sql_database_url, PEOPLE) as engine, driving(sql_database_url) as made:
        await made.migrate([Person])
        racers = [await started(sql_database_url, RACES) for _ in range(3)]
        async with asyncio.timeout(120):
            said = await asyncio.gather(*(each.communicate(b"go\n") for each in racers))
        assert sum(int(out) for out, _ in said) == 60
        assert await rows(engine, "SELECT count(*) FROM people") == [(60,)]


async def test_the_owners_alembic_sees_our_columns(sql_database_url: str) -> None:
    async with host(sql_database_url, MEMBERS) as engine, driving(sql_database_url) as made:
        metadata = MetaData()
        with pytest.raises(ConfigurationError, match="put that table into the MetaData first"):
            made.tables_into(metadata, [Member])
        async with engine.begin() as connection:
            await connection.exec_driver_sql("DROP INDEX members_lower")
            await connection.run_sync(lambda c: metadata.reflect(c, only=["members"]))
        made.tables_into(metadata, [Member])
        members = metadata.tables["members"]
        assert "watchword_email_key" in members.c
        assert "watchword_email" not in members.c
        assert "uq_watchword_members_email_key" in {each.name for each in members.indexes}
        async with engine.begin() as connection:
            await connection.exec_driver_sql("DROP TABLE orders")
            await connection.exec_driver_sql("DROP TABLE members")
        async with engine.begin() as connection:
            await connection.run_sync(metadata.create_all)
        plan = await made.plan([Member])
        assert not any("members" in step for step in plan), plan


def test_a_declaration_that_cannot_be_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match="which column holds the address"):

        @user_fields(table="people", columns={"username": "name"})
        class Nameless(User):
            pass

    for ours in ("realm", "email_key", "epoch"):
        with pytest.raises(TypeError, match="kept by Watchword alone"):

            @user_fields(table="people", columns={"email": "mail", ours: "x"})
            class Ours(User):
                pass

    with pytest.raises(TypeError, match="two fields are mapped to one column"):

        @user_fields(table="people", columns={"email": "mail", "username": "mail"})
        class Twice(User):
            pass

    with pytest.raises(TypeError, match="no field nickname to map"):

        @user_fields(table="people", columns={"email": "mail", "nickname": "nick"})
        class Unknown(User):
            pass
