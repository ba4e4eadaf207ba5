"""Sessions over HTTP: the cookie, who may use it, and how it ends."""

from http.cookies import SimpleCookie
from typing import Any

import httpx
import pytest

from tests.told import (
    ADA,
    ANOTHER,
    EVE,
    ORIGIN,
    PASSWORD,
    PRODUCTION,
    SITE,
    browser,
    cookie_session,
    csrf_of,
    problem,
    telling,
)
from watchword.features.passwords import passwords
from watchword.features.sessions import Session, sessions
from watchword.features.users import users
from watchword.presets import minimal
from watchword.testing.story import bearer

LOGIN = {"email": ADA, "password": PASSWORD}


def cookies_set(answer: httpx.Response) -> dict[str, Any]:
    jar: SimpleCookie = SimpleCookie()
    for header in answer.headers.get_list("set-cookie"):
        jar.load(header)
    return dict(jar)


def kept(answer: httpx.Response) -> dict[str, Any]:
    """Those of them that the browser is to keep; a sign-in takes others back."""
    return {name: each for name, each in cookies_set(answer).items() if each["max-age"] != "0"}


@pytest.mark.capability("S2-04", "S0-73")
@pytest.mark.invariant("I-03")
@pytest.mark.standard("13: 3.3.1-5", "13: 3.5.4")
async def test_cookies_in_production_are_bound_to_the_host_and_secure(database_url: str) -> None:
    async with telling(database_url, **PRODUCTION) as story, browser(story.app, SITE) as client:
        await story.join()
        answer = await client.post("/auth/login", json={**LOGIN, "transport": "cookie"})
        assert answer.status_code == 200
        assert set(answer.json()) == {"user"}  # no token in the body
        given = kept(answer)
        assert set(given) == {"__Host-session", "__Host-csrf", "__Host-device"}
        for name, morsel in given.items():
            assert morsel["secure"]
            assert morsel["path"] == "/"
            assert morsel["domain"] == ""
            assert morsel["samesite"].lower() == "lax"
            assert bool(morsel["httponly"]) == (name != "__Host-csrf")
            longest = 365 * 24 if name == "__Host-device" else 8
            assert 0 < int(morsel["max-age"]) <= longest * 3600
            assert len(morsel.OutputString()) < 4096
        value = given["__Host-session"].value
        assert value.startswith("wwc_")
        assert len(value) == 4 + 43
        assert (await client.get("/auth/me")).json()["email"] == ADA


@pytest.mark.invariant("I-03")
async def test_plain_names_only_in_development_on_plain_http_at_loopback() -> None:
    async with telling(public_url="http://localhost:9000") as story:
        await story.register()
        given = kept(await story.client.post("/auth/login", json={**LOGIN, "transport": "cookie"}))
        assert set(given) == {"session", "csrf", "device"}
        assert not any(morsel["secure"] for morsel in given.values())
    async with telling(public_url=SITE) as story:  # development behind https
        await story.register()
        given = kept(await story.client.post("/auth/login", json={**LOGIN, "transport": "cookie"}))
        assert set(given) == {"__Host-session", "__Host-csrf", "__Host-device"}
        assert all(morsel["secure"] for morsel in given.values())


async def test_a_plain_cookie_name_is_nothing_in_production() -> None:
    async with telling(**PRODUCTION) as story, browser(story.app, SITE) as client:
        await story.join()
        await cookie_session(story, client)
        value = client.cookies["__Host-session"]
        async with browser(story.app, SITE, Cookie=f"session={value}") as other:
            problem(await other.get("/auth/me"), 401, "not_authenticated")


@pytest.mark.capability("S2-05", "S1-13", "S0-75")
async def test_logging_out_by_bearer_ends_access_and_refresh(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.register()
        tokens = await story.log_in()
        auth = bearer(tokens["access_token"])
        assert (await story.client.post("/auth/logout", headers=auth)).status_code == 204
        problem(await story.me(tokens["access_token"]), 401, "revoked_token")
        answer = await story.client.post(
            "/auth/refresh", json={"refresh_token": tokens["refresh_token"]}
        )
        problem(answer, 401, "revoked_token")
        problem(await story.client.post("/auth/logout", headers=auth), 401, "revoked_token")


@pytest.mark.capability("S1-13")
async def test_logging_out_by_cookie_takes_the_cookie_back(database_url: str) -> None:
    async with telling(database_url) as story, browser(story.app) as client:
        await story.register()
        csrf = await cookie_session(story, client)
        value = client.cookies["session"]
        answer = await client.post("/auth/logout", headers=csrf)
        assert answer.status_code == 204
        taken = cookies_set(answer)
        assert {name: morsel["max-age"] for name, morsel in taken.items()} == {
            "session": "0",
            "csrf": "0",
            "refresh": "0",
            "access": "0",
        }
        assert set(client.cookies) == {"device"}  # it stays known, and opens nothing
        async with browser(story.app, Cookie=f"session={value}") as thief:
            problem(await thief.get("/auth/me"), 401, "revoked_token")


@pytest.mark.capability("S2-05")
async def test_logging_out_by_refresh_token_needs_nothing_else(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.register()
        tokens = await story.log_in()
        body = {"refresh_token": tokens["refresh_token"]}
        assert (await story.client.post("/auth/logout", json=body)).status_code == 204
        problem(await story.me(tokens["access_token"]), 401, "revoked_token")
        assert (await story.client.post("/auth/logout", json=body)).status_code == 204


async def test_logging_out_with_nothing_is_refused() -> None:
    async with telling() as story:
        for body in (None, {}, {"refresh_token": None}):
            answer = await story.client.post("/auth/logout", json=body)
            problem(answer, 401, "not_authenticated")
        wrong = await story.client.post("/auth/logout", json={"refresh_token": "wwr_x"})
        problem(wrong, 401, "invalid_token")
        problem(await story.client.post("/auth/logout", headers=bearer("x")), 401, "invalid_token")


@pytest.mark.capability("S2-05")
async def test_one_logs_out_here_and_stays_signed_in_there(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.register()
        here, there = await story.log_in(), await story.log_in()
        await story.client.post("/auth/logout", headers=bearer(here["access_token"]))
        problem(await story.me(here["access_token"]), 401, "revoked_token")
        assert (await story.me(there["access_token"])).status_code == 200


@pytest.mark.invariant("I-03", "I-15")
async def test_proving_the_password_again_replaces_the_cookie(database_url: str) -> None:
    async with telling(database_url) as story, browser(story.app) as client:
        await story.register()
        csrf = await cookie_session(story, client)
        old = client.cookies["session"]
        story.move(minutes=6)
        refused = await client.delete("/auth/me", headers=csrf)
        problem(refused, 401, "insufficient_user_authentication")
        wrong = await client.post(
            "/auth/reauthenticate", json={"method": "password", "password": "x"}, headers=csrf
        )
        problem(wrong, 401, "invalid_credentials")
        assert client.cookies["session"] == old
        right = await client.post(
            "/auth/reauthenticate", json={"method": "password", "password": PASSWORD}, headers=csrf
        )
        assert right.status_code == 204
        new = client.cookies["session"]
        assert new != old
        async with browser(story.app, Cookie=f"session={old}") as thief:
            problem(await thief.get("/auth/me"), 401, "invalid_token")
        assert (await client.get("/auth/me")).status_code == 200
        assert (await client.delete("/auth/me", headers=csrf_of(client))).status_code == 204


async def test_proving_oneself_with_another_method_is_named() -> None:
    async with telling() as story:
        await story.register()
        token = (await story.log_in())["access_token"]
        answer = await story.client.post(
            "/auth/reauthenticate",
            json={"method": "totp", "password": PASSWORD},
            headers=bearer(token),
        )
        body = problem(answer, 422, "validation_failed")
        assert {error["field"] for error in body["errors"]} == {"method"}


@pytest.mark.capability("S0-62", "S4-22")
@pytest.mark.standard("6: 7.3.1-2")
async def test_a_cookie_session_ends_when_idle_and_lives_when_used(database_url: str) -> None:
    async with telling(database_url) as story, browser(story.app) as client:
        await story.register()
        await cookie_session(story, client)
        for _ in range(15):  # seven hours and a half, never idle for half an hour
            story.move(minutes=29)
            assert (await client.get("/auth/me")).status_code == 200
        story.move(minutes=31)
        problem(await client.get("/auth/me"), 401, "expired_token")


@pytest.mark.capability("S4-22", "DEF-27")
@pytest.mark.standard("6: 7.3.1-2")
async def test_a_cookie_session_ends_after_its_longest_life(database_url: str) -> None:
    async with telling(database_url) as story, browser(story.app) as client:
        await story.register()
        await cookie_session(story, client)
        for _ in range(16):
            story.move(minutes=29, seconds=59)
            assert (await client.get("/auth/me")).status_code == 200
        story.move(seconds=17)  # eight hours
        problem(await client.get("/auth/me"), 401, "expired_token")


@pytest.mark.invariant("I-18")
async def test_one_session_too_many_ends_the_oldest(database_url: str) -> None:
    features = [users(), passwords(), sessions(max_sessions=3)]
    async with telling(database_url, features=features) as story:
        await story.register()
        clients = [browser(story.app) for _ in range(5)]
        for client in clients:
            await story.log_in(transport="cookie", client=client)
            story.move(seconds=1)
        answers = [(await client.get("/auth/me")).status_code for client in clients]
        assert answers == [401, 401, 200, 200, 200]
        for client in clients:
            await client.aclose()
        assert await story.auth.store.count(Session, ended_at=None) == 3


@pytest.mark.capability("S2-26")
async def test_without_tokens_a_sign_in_gives_a_cookie() -> None:
    async with telling(features=minimal()) as story:
        await story.register()
        answer = await story.client.post("/auth/login", json=LOGIN)
        assert set(answer.json()) == {"user"}
        assert "session" in story.client.cookies
        other = await story.client.post("/auth/login", json={**LOGIN, "transport": "bearer"})
        body = problem(other, 422, "validation_failed")
        assert body["errors"][0]["field"] == "transport"
        token = {"refresh_token": "x"}
        problem(await story.client.post("/auth/logout", json=token), 401, "invalid_token")


@pytest.mark.capability("S2-14")
async def test_a_session_of_one_is_nothing_to_another(database_url: str) -> None:
    async with (
        telling(database_url) as story,
        browser(story.app) as ada,
        browser(story.app) as eve,
    ):
        await story.register(ADA)
        await story.register(EVE)
        await cookie_session(story, ada)
        await cookie_session(story, eve, email=EVE)
        assert (await ada.get("/auth/me")).json()["email"] == ADA
        assert (await eve.get("/auth/me")).json()["email"] == EVE
        answer = await eve.post("/auth/logout", headers=csrf_of(ada))
        problem(answer, 403, "csrf_refused")
        assert (await ada.get("/auth/me")).status_code == 200


async def test_signing_in_again_gives_another_cookie(database_url: str) -> None:
    async with telling(database_url) as story, browser(story.app) as client:
        await story.register()
        client.cookies.set("session", "wwc_" + "A" * 43, domain="localhost.local", path="/")
        client.cookies.clear()
        await cookie_session(story, client)
        first = client.cookies["session"]
        await cookie_session(story, client)
        assert client.cookies["session"] != first


@pytest.mark.capability("S2-08")
async def test_a_reset_ends_cookie_sessions_too(database_url: str) -> None:
    async with telling(database_url) as story, browser(story.app) as client:
        await story.join()
        await cookie_session(story, client)
        await story.client.post("/auth/password-reset-request", json={"email": ADA})
        await story.mails()
        body = {"token": story.outbox.token(ADA, "wwp"), "new_password": ANOTHER}
        assert (await story.client.post("/auth/password-reset", json=body)).status_code == 204
        problem(await client.get("/auth/me"), 401, "revoked_token")


def test_the_origin_of_the_stories_is_the_default() -> None:
    assert ORIGIN == "http://localhost:8000"
