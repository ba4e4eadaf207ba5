"""Users: the rules behind the routes."""

from dataclasses import FrozenInstanceError
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from tests.told import ADA, EVE, PASSWORD, Story, telling
from watchword import User
from watchword.features.users import UserRegistered
from watchword.kernel.address import address_of
from watchword.kernel.errors import FieldError, InvalidInput, UserAlreadyExists, UserNotFound


@pytest.mark.capability("DEF-22", "S1-09")
@pytest.mark.parametrize("given", ["a-name", 42, uuid4()], ids=["text", "number", "uuid"])
async def test_an_id_of_ones_own_works_whatever_it_is(database_url: str, given: object) -> None:
    async with telling(database_url) as story:
        user = await story.auth.users.create(email=ADA, id=given)  # type: ignore[arg-type]
        assert user.id == str(given)
        await story.auth.passwords.set(user.id, PASSWORD)
        tokens = await story.log_in()
        assert (await story.me(tokens["access_token"])).json()["id"] == str(given)


async def test_a_user_is_immutable_and_so_are_their_settings(database_url: str) -> None:
    async with telling(database_url) as story:
        user = await story.auth.users.create(email=ADA, user_settings={"deep": {"er": [1]}})
        for found in (user, await story.auth.users.get(user.id)):
            assert isinstance(found, User)
            with pytest.raises(FrozenInstanceError):
                found.email = EVE  # type: ignore[misc]
            with pytest.raises(TypeError):
                found.user_settings["x"] = 1  # type: ignore[index]
            with pytest.raises((TypeError, AttributeError)):
                found.user_settings["deep"]["er"].append(2)
            with pytest.raises(TypeError):
                found.user_settings["deep"]["er2"] = 1


@pytest.mark.parametrize(
    "field", ["email", "epoch", "is_active", "is_verified", "id", "realm", "email_key"]
)
async def test_what_has_a_verb_of_its_own_is_not_changed_in_passing(field: str) -> None:
    async with telling() as story:
        user = await story.auth.users.create(email=ADA)
        with pytest.raises(TypeError):
            await story.auth.users.change(user.id, **{field: "x"})


async def test_whoever_is_not_there_is_not_found(database_url: str) -> None:
    async with telling(database_url) as story:
        service = story.auth.users
        for step in (
            service.find(ADA),
            service.find("no-id"),
            service.change("no-id", username="x"),
            service.disable("no-id"),
            service.end_all("no-id", why="test"),
            service.delete("no-id"),
        ):
            with pytest.raises(UserNotFound):
                await step
        assert await service.get("no-id") is None
        assert await service.by_email("no address") is None


async def test_a_taken_address_is_refused_by_the_unique_key(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.auth.users.create(email=ADA)
        with pytest.raises(UserAlreadyExists):
            await story.auth.users.create(email=ADA.upper())


async def test_settings_that_are_no_json_are_refused() -> None:
    async with telling() as story:
        for wrong in ({"x": object()}, {"x": float("nan")}, ["a"], "text", {"x": "y" * 20000}):
            with pytest.raises(InvalidInput):
                await story.auth.users.create(email=ADA, user_settings=wrong)  # type: ignore[arg-type]


@pytest.mark.capability("DEF-33")
@pytest.mark.standard("CVE row 33")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "ada",
        "ada@",
        "@example.com",
        "ada@example",
        "ada@@example.com",
        "a@x.com,b@y.com",
        "a@x.com;b@y.com",
        "a@x.com b@y.com",
        "Ada <ada@example.com>",
        "<ada@example.com>",
        "ada@example.com\r\nBcc: eve@example.com",
        "ada@example.com\n",
        " ada@example.com",
        "ada@example.com ",
        "ada\x00@example.com",
        "ada@exam\u200bple.com",
        "ada\u202e@example.com",
        '"ada eve"@example.com',
        "ada(comment)@example.com",
        "ada@[127.0.0.1]",
        "ada@.example.com",
        "ada@example..com",
        "ada@" + "a" * 250 + ".com",
        "ada\ud800@example.com",
        "mailto:ada@example.com?bcc=eve@example.com",
        "ada%0d%0a@example.com\t",
    ],
)
def test_what_is_not_exactly_one_address_is_refused(text: str) -> None:
    with pytest.raises(FieldError):
        address_of(text)


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("Ada@Example.COM", "ada@example.com"),
        ("STRASSE@example.com", "strasse@example.com"),
        # Two mailboxes, so two keys, whatever case folding says.
        ("straße@example.com", "straße@example.com"),
        ("ada@FAẞ.example", "ada@xn--fa-hia.example"),
        ("ada+tag@example.com", "ada+tag@example.com"),
        ("δοκιμή@example.com", "δοκιμή@example.com"),
        ("e\u0301ve@example.com", "\u00e9ve@example.com"),
    ],
)
def test_addresses_are_compared_folded(written: str, key: str) -> None:
    assert address_of(written).key == key


@pytest.fixture
async def engine(sql_database_url: str) -> AsyncEngine:
    scheme, _, rest = sql_database_url.partition("://")
    dialect = "sqlite+aiosqlite" if scheme == "sqlite" else "postgresql+asyncpg"
    return create_async_engine(f"{dialect}://{rest}")


async def boats(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        found = await connection.execute(text("SELECT count(*) FROM boats"))
        number: int = found.scalar_one()
        return number


@pytest.mark.invariant("I-04")
async def test_a_user_and_the_apps_own_rows_commit_together(
    sql_database_url: str, engine: AsyncEngine
) -> None:
    async with telling(sql_database_url) as story:
        heard = listening(story)
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE boats (owner VARCHAR(64))"))
        async with engine.connect() as connection:
            made = await story.auth.users.joining(connection).create(email=ADA)
            await connection.execute(text("INSERT INTO boats VALUES (:id)"), {"id": made.id})
            assert heard == []
            await connection.commit()
        assert heard == [made.id]
        assert await story.auth.users.get(made.id) == made
        assert await boats(engine) == 1
    await engine.dispose()


@pytest.mark.invariant("I-04")
async def test_a_user_and_the_apps_own_rows_go_together(
    sql_database_url: str, engine: AsyncEngine
) -> None:
    async with telling(sql_database_url) as story:
        heard = listening(story)
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE boats (owner VARCHAR(64))"))
        async with engine.connect() as connection:
            made = await story.auth.users.joining(connection).create(email=ADA, by_themselves=True)
            await connection.execute(text("INSERT INTO boats VALUES (:id)"), {"id": made.id})
            await connection.rollback()
        assert heard == []
        assert await story.auth.users.get(made.id) is None
        assert await boats(engine) == 0
        await story.mails()
        assert story.outbox.messages == []
        assert (await story.register()).status_code == 201
    await engine.dispose()


def listening(story: Story) -> list[str]:
    heard: list[str] = []

    @story.auth.on(UserRegistered)
    async def hear(event: UserRegistered) -> None:
        heard.append(event.user_id)

    return heard
