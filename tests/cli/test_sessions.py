"""`watchword sessions`: seeing and ending anyone's, the ones of a lost time included."""

import asyncio
import json
from datetime import timedelta

import pytest

from tests.cli.command import Folder
from tests.told import ADA, ENVIRON, EVE, Story, browser, cookie_session, telling
from watchword.crypto.keys import generate_secret
from watchword.features.sessions import Session
from watchword.storage.store import Paging, where
from watchword.testing.story import bearer

SECRET = generate_secret()


def begin(url: str, *names: str) -> list[Session]:
    """A cookie and a token session of each of these users."""

    async def run() -> list[Session]:
        async with telling(url, secret=SECRET) as story:
            for name in names:
                await story.join(name)
                async with browser(story.app) as client:
                    await cookie_session(story, client, email=name)
                tokens = await story.log_in(name)
                body = {"refresh_token": tokens["refresh_token"]}
                (await story.client.post("/auth/refresh", json=body)).raise_for_status()
            return await rows(story)

    return asyncio.run(run())


async def rows(story: Story) -> list[Session]:
    return list((await story.auth.store.find(Session, Paging(order=("id",)))).items)


def living(url: str) -> int:
    async def run() -> int:
        async with telling(url, secret=SECRET) as story:
            return len((await story.auth.sessions.everyones()).items)

    return asyncio.run(run())


def run(folder: Folder, url: str, *arguments: str, code: int = 0, **env: str) -> str:
    done = folder.run("sessions", *arguments, "--database", url, **{**ENVIRON, **env})
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.mark.capability("S0-59", "S3-07", "S3-20")
@pytest.mark.standard("6: 7.4.4-5")
def test_an_operator_lists_shows_and_ends_sessions(folder: Folder) -> None:
    url = f"sqlite:///{folder.path / 'app.db'}"
    known = begin(url, ADA, EVE)
    listed = json.loads(run(folder, url, "list", "--json", WATCHWORD_SECRET=SECRET.reveal()))
    assert {each["id"] for each in listed["items"]} == {each.id for each in known}
    assert {each["address"] for each in listed["items"]} == {"127.0.0.1"}
    assert listed["next"] is None
    assert "127.0.0.1" not in run(folder, url, "list")  # sealed under a secret that is not here
    table = run(folder, url, "list", ADA)
    assert table.count(ADA) == 2
    assert EVE not in table
    page = json.loads(run(folder, url, "list", "--json", "--limit", "3"))
    rest = json.loads(run(folder, url, "list", "--json", "--after", page["next"]))
    assert len(page["items"]) + len(rest["items"]) == 4
    assert "no cursor" in run(folder, url, "list", "--after", "x", code=1)
    assert "No such user" in run(folder, url, "list", "nobody@example.com", code=1)

    ours = next(each for each in known if each.transport == "bearer")
    shown = json.loads(run(folder, url, "show", ours.id, "--json"))
    assert shown["state"] == "alive"
    assert shown["has_refresh_token"] is True
    assert shown["rotations"] == 1
    assert shown["rotated_at"] is not None
    text = run(folder, url, "show", ours.id)
    for secret in (ours.refresh_family, ours.refresh_current, ours.agent_digest, ours.address):
        assert secret is not None
        assert secret not in text
    assert "No such session" in run(folder, url, "show", "x", code=1)

    assert "Ended" in run(folder, url, "end", ours.id)
    assert "over already" in run(folder, url, "end", ours.id)
    shown = json.loads(run(folder, url, "show", ours.id, "--json"))
    assert (shown["state"], shown["why"]) == ("ended", "operator")
    assert shown["ended_at"] is not None
    assert "No such session" in run(folder, url, "end", "x", code=1)
    assert ADA in run(folder, url, "end", "--user", ADA)
    left = json.loads(run(folder, url, "list", "--json"))["items"]
    assert {each["email"] for each in left} == {EVE}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name one of"),
        (("x", "--all"), "name one of"),
        (("--user", ADA, "--since", "1h"), "name one of"),
        (("--since", "yesterday", "-y"), "2026-03-01T08:30:00Z"),
        (("--since", "90", "-y"), "2026-03-01T08:30:00Z"),
        (("--since", "2026-03-01T08:30:00", "-y"), "which zone"),
        (("--since", "0001-01-01T00:00:00+14:00", "-y"), "2026-03-01T08:30:00Z"),
        (("--all",), "--yes"),
    ],
)
def test_ending_what_is_not_clear_ends_nothing(
    folder: Folder, arguments: tuple[str, ...], said: str
) -> None:
    assert said in run(folder, "sqlite:///app.db", "end", *arguments, code=2)


@pytest.mark.invariant("I-19")
def test_what_a_failover_brought_back_to_life_is_ended(
    folder: Folder, database_or_redis_url: str
) -> None:
    url, lost = database_or_redis_url, timedelta(minutes=30)

    async def fill() -> None:
        async with telling(url, secret=SECRET) as story:
            names = ("a@example.com", "b@example.com", "c@example.com", "d@example.com")
            for name in names:
                await story.register(name)
            clients = {name: browser(story.app) for name in names}
            for name, client in clients.items():
                await cookie_session(story, client, email=name)
                await client.aclose()
            store, now = story.auth.store, story.clock.now()
            found = {each.user_id: each for each in await rows(story)}
            ids = {name: found[(await story.auth.users.find(name)).id].id for name in names[:3]}
            # a lives; b was ended within what was lost, c long before it; d has none.
            await story.auth.sessions.end(ids["b@example.com"], why="logout")
            await store.update(Session, where(id=ids["c@example.com"]), ended_at=now - 2 * lost)
            d = await story.auth.users.find("d@example.com")
            await store.erase(Session, user_id=d.id)

    async def epochs() -> dict[str, int]:
        async with telling(url, secret=SECRET) as story:
            page = await story.auth.users.page()
            return {each.email[0]: each.epoch for each in page.items}

    asyncio.run(fill())
    before = asyncio.run(epochs())
    said = run(folder, url, "end", "--since", "30m", "-y")
    assert "4 users looked at, 2 signed out" in said
    after = asyncio.run(epochs())
    assert {name for name in before if after[name] != before[name]} == {"a", "b"}
    assert living(url) == 0


def test_all_signs_everybody_out_and_says_so(folder: Folder) -> None:
    url = f"sqlite:///{folder.path / 'app.db'}"
    begin(url, ADA, EVE)

    async def key(shown: str | None) -> tuple[str, int]:
        async with telling(url, secret=SECRET) as story:
            if shown is None:
                user = await story.auth.users.find(EVE)
                shown = (await story.auth.api_keys.create(user, name="ci")).key.reveal()
                for each in await rows(story):  # nobody is signed in; the key is what is left
                    await story.auth.sessions.end(each.id, why="logout")
            answer = await story.client.get("/auth/me", headers=bearer(shown))
            return shown, answer.status_code

    shown, known = asyncio.run(key(None))
    assert "2 signed out" in run(folder, url, "end", "--all", "-y")
    assert living(url) == 0
    # 403: the route takes no keys; 401: it is none any more
    assert (known, asyncio.run(key(shown))[1]) == (403, 401)
