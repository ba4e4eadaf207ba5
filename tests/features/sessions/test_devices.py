"""Devices over HTTP: how one is known again, who is told of a new one, and what they are called."""

import asyncio
from typing import Any

import pytest

from tests.told import (
    ADA,
    PASSWORD,
    Story,
    browser,
    cookie_session,
    fields_of,
    problem,
    telling,
    texts_of,
)
from watchword.features.mail import OutboxMail
from watchword.features.passwords import passwords
from watchword.features.sessions import Device, DeviceAdded, Session, SessionEnded, sessions
from watchword.features.sessions.agents import agent_of
from watchword.features.sessions.devices import MOST
from watchword.features.users import users
from watchword.storage.store import Paging
from watchword.testing.story import bearer, without_limits

IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like "
    "Gecko) Version/18.1 Mobile/15E148 Safari/604.1"
)
CHROME = (
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/140.0.0.0 Mobile Safari/537.36"
)
HOSTILE = (
    "",
    "\x7f\x01",
    "<script>alert(1)</script>",
    "' OR 1=1 --",
    "{{ 7*7 }} ${jndi:ldap://x}",
    "\u202eevil".encode().decode("latin-1"),
    "Mozilla/5.0 " + "(" * 5000,
    "iPhone Android Windows Phone Edg/ OPR/",
)


async def devices(story: Story, email: str = ADA) -> list[Device]:
    user = await story.auth.users.find(email)
    paging = Paging(order=("seen_at", "digest"))
    return list((await story.auth.store.find(Device, paging, user_id=user.id)).items)


def added(story: Story) -> list[DeviceAdded]:
    events: list[DeviceAdded] = []

    @story.auth.on(DeviceAdded)
    async def note(event: DeviceAdded) -> None:
        events.append(event)

    return events


def new_device_mails(story: Story) -> list[str]:
    return [mail.text for mail in story.outbox.to(ADA) if "new device" in mail.subject]


@pytest.mark.capability("S0-63", "S1-32")
@pytest.mark.invariant("I-12")
async def test_a_new_device_is_told_of_and_known_from_then_on(database_url: str) -> None:
    async with (
        telling(database_url) as story,
        browser(story.app) as first,
        browser(story.app, User_Agent=IPHONE) as second,
    ):
        await story.join()
        events = added(story)
        await cookie_session(story, first)
        await story.mails()
        assert not new_device_mails(story)  # there was none before: nothing to compare with
        assert not events
        story.move(minutes=1)
        await cookie_session(story, second)
        await cookie_session(story, second)
        (event,) = events
        assert (event.browser, event.system) == ("Safari", "iOS")
        page = await story.auth.store.find(OutboxMail, Paging(order=("id",)))
        queued = "".join(texts_of(each) for each in page.items)
        assert "ww" not in queued  # no token of any kind
        await story.mails()
        (text,) = new_device_mails(story)
        assert "Safari on iOS" in text
        assert "change your password" in text
        assert "ww" not in text
        value = second.cookies["device"]
        assert value not in "".join(texts_of(each) for each in await devices(story))
        story.move(days=300)
        answer = await second.post("/auth/login", json=login("cookie"))
        assert any(
            value in each and "Max-Age=31536000" in each
            for each in answer.headers.get_list("set-cookie")
        )
        story.move(days=300)  # for another year since
        await cookie_session(story, second)
        assert second.cookies["device"] == value
        assert len(events) == 1


def login(transport: str, email: str = ADA) -> dict[str, str]:
    return {"email": email, "password": PASSWORD, "transport": transport}


@pytest.mark.capability("S0-63")
async def test_clients_without_cookies_are_known_by_what_they_call_themselves(
    sqlite_url: str,
) -> None:
    async with telling(sqlite_url) as story:
        await story.join()
        events = added(story)
        for agent in ("curl/8.1", "curl/8.1", "app/2", "app/2"):
            answer = await story.client.post(
                "/auth/login", json=login("bearer"), headers={"User-Agent": agent}
            )
            assert "set-cookie" not in answer.headers
        assert len(events) == 1
        assert len(await devices(story)) == 2


@pytest.mark.invariant("I-05")
async def test_first_sign_ins_at_once_are_one_device(database_url: str) -> None:
    async with telling(database_url) as story, browser(story.app) as elsewhere:
        await story.join()
        await cookie_session(story, elsewhere)
        events = added(story)
        value = "wwd_" + "A" * 43

        async def sign_in() -> int:
            async with browser(story.app, Cookie=f"device={value}") as client:
                return (await client.post("/auth/login", json=login("cookie"))).status_code

        assert await asyncio.gather(*(sign_in() for _ in range(4))) == [200] * 4
        assert len(await devices(story)) == 2
        assert len(events) == 1


@pytest.mark.invariant("I-12")
async def test_no_mail_to_an_address_that_is_not_proven_nor_where_none_leaves(
    sqlite_url: str,
) -> None:
    async with telling(sqlite_url) as story:
        await story.register()
        for _ in range(2):
            async with browser(story.app) as client:
                await cookie_session(story, client)
        await story.mails()
        assert not new_device_mails(story)
    others = [each for each in without_limits() if each.name in {"users", "sessions", "passwords"}]
    async with telling("sqlite://", features=others) as story:
        user = await story.auth.passwords.create_user(email=ADA, password=PASSWORD)
        await story.auth.users.mark_verified(user, within=story.auth.store)
        events = added(story)
        for _ in range(2):
            async with browser(story.app) as client:
                await cookie_session(story, client)
        assert len(events) == 1


async def test_who_throws_the_cookie_away_fills_no_database(sqlite_url: str) -> None:
    features = [users(), passwords(), sessions(max_sessions=2)]
    async with telling(sqlite_url, features=features) as story:
        await story.register()
        for _ in range(MOST + 5):
            async with browser(story.app) as client:
                await cookie_session(story, client)
            story.move(seconds=1)
        assert len(await devices(story)) == MOST


async def test_devices_go_with_their_user(database_url: str) -> None:
    async with telling(database_url) as story, browser(story.app) as client:
        await story.register()
        csrf = await cookie_session(story, client)
        assert len(await devices(story)) == 1
        answer = await client.delete("/auth/me", headers=csrf)
        assert answer.status_code == 204
        assert set(client.cookies) == {"device"}
        assert await story.auth.store.count(Device) == 0


async def test_a_device_is_called_what_its_user_calls_it(database_url: str) -> None:
    async with telling(database_url) as story, browser(story.app) as client:
        await story.register()
        csrf = await cookie_session(story, client)
        tokens = await story.log_in()
        (here,) = [each for each in await items(client) if each["current"]]
        path = f"/auth/sessions/{here['id']}"
        for name in ("Ada's <b>phone</b>", "{{ 7*7 }}", "電話 \U0001f4f1", "x" * 64):
            answer = await client.patch(path, json={"name": name}, headers=csrf)
            assert answer.status_code == 200, answer.text
            assert answer.json()["device"]["name"] == name
        names = {each["current"]: each["device"]["name"] for each in await items(client)}
        assert names == {True: "x" * 64, False: None}
        for name in ("", "x" * 65, "two\nlines", "nul\x00", "\x1b[2J", "\x9b2J", 7, ["x"]):
            answer = await client.patch(path, json={"name": name}, headers=csrf)
            body = problem(answer, 422, "validation_failed")
            assert {field for field, _ in fields_of(body)} == {"name"}, name
        problem(await client.patch(path, json={}, headers=csrf), 422, "validation_failed")
        story.move(seconds=1)
        csrf = await cookie_session(story, client)  # the name stays with the device
        (newest, *_) = await items(client)
        assert newest["device"]["name"] == "x" * 64
        again = await client.patch(
            f"/auth/sessions/{newest['id']}", json={"name": None}, headers=csrf
        )
        assert again.json()["device"]["name"] is None
        assert {each["device"]["name"] for each in await items(client)} == {None}
        assert (await story.me(tokens["access_token"])).status_code == 200


async def items(client: Any) -> list[dict[str, Any]]:
    answer = await client.get("/auth/sessions")
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


@pytest.mark.capability("S0-61")
@pytest.mark.invariant("I-18")
async def test_the_oldest_makes_room_and_its_owner_is_told(database_url: str) -> None:
    features = [each for each in without_limits() if each.name not in {"sessions", "users"}]
    features += [users(), sessions(max_sessions=2, page="https://example.com/sessions")]
    async with telling(database_url, features=features) as story:
        await story.join()
        ended: list[SessionEnded] = []

        @story.auth.on(SessionEnded)
        async def note(event: SessionEnded) -> None:
            ended.append(event)

        oldest = await story.log_in()
        for _ in range(2):
            story.move(seconds=1)
            await story.log_in()
        problem(await story.me(oldest["access_token"]), 401, "revoked_token")
        body = {"refresh_token": oldest["refresh_token"]}
        problem(await story.client.post("/auth/refresh", json=body), 401, "revoked_token")
        assert [event.why for event in ended] == ["too_many_sessions"]
        await story.mails()
        (mail,) = [each for each in story.outbox.to(ADA) if "oldest session" in each.subject]
        assert "2 places" in mail.text
        assert "https://example.com/sessions" in mail.text
        assert "ww" not in mail.text
        # What all was ended before counts for nothing, and nobody is told of it again.
        token = (await story.log_in())["access_token"]
        await story.client.post("/auth/logout-all", headers=bearer(token))
        ended.clear()
        await story.log_in()
        await story.log_in()
        assert not ended


@pytest.mark.capability("DEF-27")
@pytest.mark.invariant("I-18")
async def test_parallel_sign_ins_never_exceed_the_cap(database_url: str) -> None:
    features = [users(), passwords(), sessions(max_sessions=3)]
    async with telling(database_url, features=features) as story:
        await story.register()
        clients = [browser(story.app) for _ in range(8)]
        await asyncio.gather(*(cookie_session(story, client) for client in clients))
        answers = [(await client.get("/auth/me")).status_code for client in clients]
        assert sorted(answers) == [200] * 3 + [401] * 5
        assert await story.auth.store.count(Session, ended_at=None) == 3
        for client in clients:
            await client.aclose()


@pytest.mark.capability("S0-63")
async def test_a_hostile_user_agent_is_just_text(sqlite_url: str) -> None:
    async with telling(sqlite_url) as story, browser(story.app) as client:
        await story.register()
        for agent in HOSTILE:
            headers = [(b"User-Agent", agent.encode("latin-1", "replace"))]
            answer = await client.post("/auth/login", json=login("cookie"), headers=headers)
            assert answer.status_code == 200
            answer = await client.get("/auth/sessions", headers=headers)
            assert answer.status_code == 200
            for item in answer.json()["items"]:
                device = item["device"]
                assert device["type"] in {"mobile", "tablet", "desktop", "other"}
                assert "<" not in str(device)


@pytest.mark.capability("S0-63")
@pytest.mark.parametrize(
    ("user_agent", "browser_name", "system", "kind"),
    [
        (IPHONE, "Safari", "iOS", "mobile"),
        (CHROME, "Chrome", "Android", "mobile"),
        (CHROME.replace(" Mobile", ""), "Chrome", "Android", "tablet"),
        (IPHONE.replace("iPhone;", "iPad;"), "Safari", "iPadOS", "tablet"),
        (CHROME.replace("Linux; Android 10; K", "Windows NT 10.0") + " Edg/1", "Edge", "Windows",
         "desktop"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Version/18.1 Safari/605", "Safari",
         "macOS", "desktop"),
        ("Mozilla/5.0 (X11; CrOS x86_64 14541) Chrome/140.0 Safari/537", "Chrome", "ChromeOS",
         "desktop"),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Firefox/140.0", "Firefox", "Linux", "desktop"),
        ("Mozilla/5.0 (Windows Phone 10.0; Android 6.0; iPhone) Edge/15", "Edge", "Windows Phone",
         "mobile"),
        ("Dalvik/2.1.0 (Linux; U; Android 14)", None, "Android", "mobile"),
        ("curl/8.1", "curl", None, "other"),
        ("", None, None, "other"),
    ],
)  # fmt: skip
def test_user_agents_in_words(
    user_agent: str, browser_name: str | None, system: str | None, kind: str
) -> None:
    agent = agent_of(user_agent)
    assert (agent.browser, agent.system, agent.type) == (browser_name, system, kind)
    assert agent.spoken
