"""The list of sessions over HTTP: what it shows, to whom, and how one of them is ended."""

import base64
import json
from dataclasses import replace
from typing import Any

import httpx
import pytest

from tests.told import (
    ADA,
    EVE,
    PASSWORD,
    Story,
    Work,
    browser,
    cookie_session,
    csrf_of,
    fields_of,
    plain,
    problem,
    telling,
    texts_of,
)
from watchword.crypto.keys import RootSecrets, generate_secret
from watchword.crypto.sealing import Sealer
from watchword.features.passwords import passwords
from watchword.features.sessions import Session, SessionEnded, SessionsEnded, sessions
from watchword.features.users import User, users
from watchword.presets import minimal
from watchword.storage.store import Paging
from watchword.testing.story import bearer

IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like "
    "Gecko) Version/18.1 Mobile/15E148 Safari/604.1"
)
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


async def listed(client: httpx.AsyncClient, **named: Any) -> list[dict[str, Any]]:
    answer = await client.get("/auth/sessions", **named)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return answer.json()["items"]


async def rows(story: Story) -> list[Session]:
    return list((await story.auth.store.find(Session, Paging(order=("id",)))).items)


@pytest.mark.capability("S0-57", "S0-58", "S0-59", "S1-33", "S1-44", "S2-39", "S3-07")
@pytest.mark.standard("6: 7.5.2")
@pytest.mark.invariant("I-17")
async def test_the_list_shows_where_one_is_signed_in_newest_first(database_url: str) -> None:
    async with (
        telling(database_url) as story,
        browser(story.app, User_Agent=FIREFOX) as desk,
        browser(story.app, User_Agent=IPHONE) as phone,
        browser(story.app) as eve,
    ):
        await story.register()
        await story.register(EVE)
        await cookie_session(story, eve, email=EVE)
        tokens = await story.log_in()
        story.move(minutes=1)
        await cookie_session(story, desk)
        story.move(minutes=1)
        await cookie_session(story, phone)
        story.move(minutes=4)
        first, second, third = await listed(desk)
        assert [first["current"], second["current"], third["current"]] == [False, True, False]
        assert first["device"] == {
            "name": None,
            "browser": "Safari",
            "system": "iOS",
            "type": "mobile",
        }
        assert second["device"]["browser"] == "Firefox"
        assert second["device"]["type"] == "desktop"
        assert {each["address"] for each in (first, second, third)} == {"127.0.0.1"}
        assert [first["transport"], third["transport"]] == ["cookie", "bearer"]
        assert first["amr"] == ["pwd"]
        assert second["seen_at"] > second["started_at"]  # by this very request
        assert first["seen_at"] == first["started_at"]
        assert set(first) == {
            *("id", "current", "device", "address", "started_at", "seen_at", "expires_at"),
            *("amr", "transport", "app", "remembered"),
        }
        for row in await rows(story):
            assert "127.0.0.1" not in texts_of(row)
        mine = await listed(story.client, headers=bearer(tokens["access_token"]))
        assert [each["id"] for each in mine if each["current"]] == [third["id"]]
        await story.client.post(
            "/auth/refresh",
            json={"refresh_token": tokens["refresh_token"]},
            headers={"User-Agent": FIREFOX},
        )
        *_, third = await listed(desk)
        assert third["device"]["browser"] == "Firefox"  # what it was used by last
        assert third["address"] == "127.0.0.1"
        assert third["seen_at"] > third["started_at"]
        problem(await story.another_client().get("/auth/sessions"), 401, "not_authenticated")


@pytest.mark.capability("S0-56", "S0-59")
async def test_what_is_over_is_not_listed(database_url: str) -> None:
    features = [users(), passwords(), sessions(idle_timeout="10m", absolute_timeout="1h")]
    async with telling(database_url, features=features) as story:
        await story.register()
        clients = [browser(story.app) for _ in range(4)]
        for client in clients:
            await cookie_session(story, client)
            story.move(minutes=4)
        # The first was not used for ten minutes; the second is ended.
        await clients[1].post("/auth/logout", headers=csrf_of(clients[1]))
        assert len(await listed(clients[3])) == 2
        user = await story.auth.users.find(ADA)
        await story.auth.users.end_all(user.id, why="test")
        problem(await clients[3].get("/auth/sessions"), 401, "revoked_token")
        story.move(seconds=1)
        await cookie_session(story, clients[0])
        assert [each["current"] for each in await listed(clients[0])] == [True]
        for client in clients:
            await client.aclose()


@pytest.mark.capability("S0-59")
async def test_the_list_is_one_query_and_comes_in_pages(database_url: str, work: Work) -> None:
    async with telling(database_url, features=minimal()) as story:
        await story.register()
        clients = [browser(story.app) for _ in range(5)]
        for client in clients:
            await cookie_session(story, client)
        client = clients[-1]
        whole = [each["id"] for each in await listed(client)]
        assert len(set(whole)) == 5
        with work.watched() as done:
            await listed(client)
        assert dict(done) == {"find Session": 1}
        seen: list[str] = []
        after: dict[str, str] = {}
        while True:
            page = (await client.get("/auth/sessions", params={"limit": 2, **after})).json()
            seen += [each["id"] for each in page["items"]]
            if page["next"] is None:
                break
            after = {"after": page["next"]}
        assert seen == whole
        forged = base64.urlsafe_b64encode(json.dumps([["id"], ["x"]]).encode()).decode()
        for bad in ("", "x", "é", forged.rstrip("="), "\x00"):
            answer = await client.get("/auth/sessions", params={"after": bad})
            assert ("after", "cursor_invalid") in fields_of(
                problem(answer, 422, "validation_failed")
            )
        for limit in ("0", "-1", "101", "x", "1e3"):
            answer = await client.get("/auth/sessions", params={"limit": limit})
            body = problem(answer, 422, "validation_failed")
            assert {field for field, _ in fields_of(body)} == {"limit"}
        for each in clients:
            await each.aclose()


@pytest.mark.capability("S0-59")
async def test_the_list_is_read_from_an_index(sqlite_url: str) -> None:
    import aiosqlite  # noqa: PLC0415

    async with telling(sqlite_url) as story:
        await story.register()
        path = sqlite_url.removeprefix("sqlite:///")
        async with aiosqlite.connect(path) as connection:
            plan = await connection.execute_fetchall(
                "EXPLAIN QUERY PLAN SELECT * FROM watchword_session WHERE realm = 'main' AND "
                "user_id = 'x' AND ended_at IS NULL AND epoch = 1 AND expires_at > 'y' "
                "ORDER BY started_at DESC, id DESC LIMIT 51"
            )
        said = " ".join(str(row[3]) for row in plan)
        assert "USING INDEX" in said
        assert "TEMP B-TREE" not in said, said


@pytest.mark.capability("S0-60", "S1-33", "S3-07")
@pytest.mark.standard("6: 7.5.2")
async def test_ending_one_ends_its_cookie_and_tokens(database_url: str) -> None:
    async with telling(database_url) as story, browser(story.app) as client:
        await story.register()
        csrf = await cookie_session(story, client)
        tokens = await story.log_in()
        ended: list[SessionEnded] = []

        @story.auth.on(SessionEnded)
        async def note(event: SessionEnded) -> None:
            ended.append(event)

        (there,) = [each for each in await listed(client) if not each["current"]]
        path = f"/auth/sessions/{there['id']}"
        problem(await client.delete(path), 403, "csrf_refused")
        answer = await client.delete(path, headers=csrf)
        assert answer.status_code == 204
        assert "set-cookie" not in answer.headers
        problem(await story.me(tokens["access_token"]), 401, "revoked_token")
        refresh = {"refresh_token": tokens["refresh_token"]}
        problem(await story.client.post("/auth/refresh", json=refresh), 401, "revoked_token")
        problem(await client.delete(path, headers=csrf), 404, "session_not_found")
        (here,) = await listed(client)
        assert [(each.why, each.by) for each in ended] == [("ended_by_user", ended[0].user_id)]
        answer = await client.delete(f"/auth/sessions/{here['id']}", headers=csrf)
        assert answer.status_code == 204
        assert set(client.cookies) == {"device"}


@pytest.mark.capability("S0-60", "S3-07")
async def test_anothers_session_is_as_unknown_as_one_that_never_was(sqlite_url: str) -> None:
    async with (
        telling(sqlite_url) as story,
        browser(story.app) as ada,
        browser(story.app) as eve,
    ):
        await story.register(ADA)
        await story.register(EVE)
        await cookie_session(story, ada)
        csrf = await cookie_session(story, eve, email=EVE)
        (hers,) = await listed(ada)
        unknown = "0" * 26
        for path in (hers["id"], unknown, "x" * 5000, "%00", "%F0%9F%92%A9", "' OR 1=1"):
            answer = await eve.delete(f"/auth/sessions/{path}", headers=csrf)
            problem(answer, 404, "session_not_found")
            named = await eve.patch(f"/auth/sessions/{path}", json={"name": "mine"}, headers=csrf)
            problem(named, 404, "session_not_found")
        assert plain(await eve.delete(f"/auth/sessions/{hers['id']}", headers=csrf)) == plain(
            await eve.delete(f"/auth/sessions/{unknown}", headers=csrf)
        )
        assert [each["device"]["name"] for each in await listed(ada)] == [None]


@pytest.mark.capability("S0-32", "S1-14", "S1-15", "S1-16", "S4-36", "DEF-03")
@pytest.mark.invariant("I-01", "I-15")
async def test_ending_all_spares_nobody_but_the_one_that_is_kept(database_url: str) -> None:
    async with (
        telling(database_url) as story,
        browser(story.app) as here,
        browser(story.app) as there,
        browser(story.app) as eve,
    ):
        await story.register()
        await story.register(EVE)
        await cookie_session(story, eve, email=EVE)
        tokens = await story.log_in()
        await cookie_session(story, there)
        csrf = await cookie_session(story, here)
        story.move(minutes=6)
        answer = await here.post("/auth/logout-all", headers=csrf)
        problem(answer, 401, "insufficient_user_authentication")
        csrf = await cookie_session(story, here)
        wrong = await here.post("/auth/logout-all", json={"keep": True}, headers=csrf)
        problem(wrong, 422, "validation_failed")
        kept = await here.post("/auth/logout-all", json={"keep_current": True}, headers=csrf)
        assert kept.status_code == 204
        assert [each["current"] for each in await listed(here)] == [True]
        problem(await there.get("/auth/me"), 401, "revoked_token")
        problem(await story.me(tokens["access_token"]), 401, "revoked_token")
        refresh = {"refresh_token": tokens["refresh_token"]}
        problem(await story.client.post("/auth/refresh", json=refresh), 401, "revoked_token")
        assert (await eve.get("/auth/me")).status_code == 200
        everything: list[SessionsEnded] = []

        @story.auth.on(SessionsEnded)
        async def note(event: SessionsEnded) -> None:
            everything.append(event)

        await cookie_session(story, eve, email=EVE)
        for client in (here, eve):  # two users at once, and both sign in again right away
            answer = await client.post("/auth/logout-all", headers=csrf_of(client))
            assert answer.status_code == 204
            assert set(client.cookies) == {"device"}
            problem(await client.get("/auth/me"), 401, "not_authenticated")
        assert len({event.user_id for event in everything}) == 2
        assert [event.by for event in everything] == [event.user_id for event in everything]
        await cookie_session(story, here)
        await cookie_session(story, eve, email=EVE)
        assert (await here.get("/auth/me")).json()["email"] == ADA
        assert (await eve.get("/auth/me")).json()["email"] == EVE
        told = {row.ended_why for row in await rows(story) if row.ended_at is not None}
        assert told == {"logout_all", "signed_in_again"}  # the rows say so too


@pytest.mark.capability("S0-60", "S3-07")
@pytest.mark.standard("6: 7.4.4-5")
async def test_an_administrator_sees_and_ends_anyones(sqlite_url: str) -> None:
    async with telling(sqlite_url) as story, browser(story.app) as client:
        admin: User = await story.auth.passwords.create_user(
            email=EVE, password=PASSWORD, roles=("admin",)
        )
        await story.register()
        csrf = await cookie_session(story, client)
        token = (await story.log_in(EVE))["access_token"]
        ada = await story.auth.users.find(ADA)
        theirs = f"/auth/admin/users/{ada.id}/sessions"
        for method, path in (
            ("GET", theirs),
            ("POST", f"{theirs}/end"),
            ("DELETE", "/auth/admin/sessions/x"),
        ):
            refused = await client.request(method, path, headers=csrf)
            problem(refused, 403, "forbidden")
        events: list[SessionEnded | SessionsEnded] = []

        async def note(event: SessionEnded | SessionsEnded) -> None:
            events.append(event)

        story.auth.on(SessionEnded)(note)
        story.auth.on(SessionsEnded)(note)
        (item,) = await listed_at(story, theirs, token)
        assert item["current"] is False
        one = f"/auth/admin/sessions/{item['id']}"
        answer = await story.client.delete(one, headers=bearer(token))
        assert answer.status_code == 204
        problem(await story.client.delete(one, headers=bearer(token)), 404, "session_not_found")
        problem(await client.get("/auth/me"), 401, "revoked_token")
        await cookie_session(story, client)
        answer = await story.client.post(f"{theirs}/end", headers=bearer(token))
        assert answer.status_code == 204
        problem(await client.get("/auth/me"), 401, "revoked_token")
        assert events
        assert {event.by for event in events} == {admin.id}
        for path in ("/auth/admin/users/x/sessions", "/auth/admin/users/%00/sessions"):
            answer = await story.client.get(path, headers=bearer(token))
            problem(answer, 404, "user_not_found")


async def listed_at(story: Story, path: str, token: str) -> list[dict[str, Any]]:
    answer = await story.client.get(path, headers=bearer(token))
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


@pytest.mark.invariant("I-17")
@pytest.mark.parametrize("mode", ["hash", "plain"])
async def test_addresses_are_kept_as_the_setting_says(mode: Any, sqlite_url: str) -> None:
    features = [users(), passwords(), sessions(ip_mode=mode)]
    async with telling(sqlite_url, features=features) as story:
        await story.register()
        await cookie_session(story, story.client)
        (item,) = await listed(story.client)
        assert item["address"] == ("127.0.0.1" if mode == "plain" else None)
        (row,) = await rows(story)
        assert ("127.0.0.1" in texts_of(row)) == (mode == "plain")


@pytest.mark.invariant("I-17")
async def test_an_address_that_cannot_be_opened_is_left_out(sqlite_url: str) -> None:
    async with telling(sqlite_url) as story:
        await story.register()
        await story.log_in()
        (row,) = await rows(story)
        assert story.auth.sessions.address(row) == "127.0.0.1"
        elsewhere = Sealer(RootSecrets(generate_secret(), ()))
        assert replace(story.auth.sessions, sealer=elsewhere).address(row) is None
        assert story.auth.sessions.address(replace(row, refresh_family=None)) is None
        assert story.auth.sessions.address(replace(row, address="v1.x")) is None
