"""Tokens in cookies: what a browser is given, where it sends it, and who else might."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from http.cookies import SimpleCookie
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request

from tests.told import ADA, PASSWORD, PRODUCTION, SITE, Story, browser, csrf_of, problem, telling
from watchword import CurrentUser
from watchword.features.sessions import Session
from watchword.features.tokens import tokens
from watchword.storage.store import Paging
from watchword.testing.story import bearer, without_limits

LOGIN = {"email": ADA, "password": PASSWORD}
CROSS = ({"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "null"})


@asynccontextmanager
async def told(*, app: FastAPI | None = None, **named: Any) -> AsyncGenerator[Story]:
    features = [tokens(cookie_pair=True), *(f for f in without_limits() if f.name != "tokens")]
    async with telling(features=features, app=app, **named) as story:
        await story.join()
        yield story


def given(answer: httpx.Response) -> dict[str, Any]:
    """The cookies that an answer sets; not those it takes back."""
    jar: SimpleCookie = SimpleCookie()
    for header in answer.headers.get_list("set-cookie"):
        jar.load(header)
    return {name: morsel for name, morsel in jar.items() if morsel["max-age"] != "0"}


def taken_back(answer: httpx.Response) -> set[str]:
    headers = answer.headers.get_list("set-cookie")
    return {header.partition("=")[0] for header in headers if "Max-Age=0" in header}


async def rows(story: Story) -> tuple[Session, ...]:
    return (await story.auth.store.find(Session, Paging(order=("started_at", "id")))).items


async def again(client: httpx.AsyncClient, headers: Mapping[str, str] | None = None) -> Any:
    chosen = csrf_of(client) if headers is None else headers
    return await client.post("/auth/refresh", headers=chosen)


@pytest.mark.capability("S1-12", "S1-36", "S4-06", "S4-34", "S0-48")
@pytest.mark.invariant("I-03")
@pytest.mark.parametrize("transport", ["hybrid", "cookie_pair"])
async def test_cookies_in_production_carry_what_the_transport_says(transport: str) -> None:
    async with told(**PRODUCTION) as story, browser(story.app, SITE) as client:
        answer = await client.post("/auth/login", json={**LOGIN, "transport": transport})
        assert answer.headers["cache-control"] == "no-store"
        is_pair = transport == "cookie_pair"
        in_json = set() if is_pair else {"access_token", "token_type"}
        assert set(answer.json()) == {"expires_in", "user"} | in_json
        cookies = given(answer)
        tokens_in = {"__Secure-refresh"} | ({"__Host-access"} if is_pair else set())
        assert set(cookies) == {"__Host-csrf", "__Host-device"} | tokens_in
        refresh = cookies["__Secure-refresh"]
        assert (refresh["path"], refresh["samesite"].lower()) == ("/auth", "strict")
        assert refresh["secure"]
        assert refresh["httponly"]
        assert refresh["domain"] == ""
        assert 604790 <= int(refresh["max-age"]) <= 604800
        assert cookies["__Host-csrf"]["max-age"] == refresh["max-age"]
        assert not cookies["__Host-csrf"]["httponly"]
        if is_pair:
            access = cookies["__Host-access"]
            assert (access["path"], access["samesite"].lower()) == ("/", "lax")
            assert access["httponly"]
            assert int(access["max-age"]) == 900
            assert (await client.get("/auth/me")).status_code == 200
        else:
            assert (await client.get("/auth/me")).status_code == 401
            token = answer.json()["access_token"]
            assert (await client.get("/auth/me", headers=bearer(token))).status_code == 200

        story.move(hours=30)  # long past any CSRF token of a session cookie
        renewed = await again(client)
        assert renewed.status_code == 200, renewed.text
        assert set(renewed.json()) == {"expires_in"} | in_json
        assert renewed.headers["cache-control"] == "no-store"
        assert tokens_in | {"__Host-csrf"} == set(given(renewed))
        assert given(renewed)["__Secure-refresh"].value != refresh.value
        assert len(await rows(story)) == 1
        if is_pair:
            assert (await client.get("/auth/me")).status_code == 200


@pytest.mark.capability("S4-06")
async def test_the_refresh_cookie_goes_to_our_routes_and_nowhere_else() -> None:
    app = FastAPI()
    seen: dict[str, str] = {}

    @app.get("/{path:path}")
    async def hear(path: str, request: Request) -> None:
        seen[path] = request.headers.get("cookie", "")

    async with told(app=app) as story, browser(story.app) as client:
        await story.log_in(transport="hybrid", client=client)
        for path in ("api", "authx", "auth-api", "", "api/auth", "auth/elsewhere"):
            await client.get(f"/{path}")
            assert ("refresh=" in seen[path]) == (path == "auth/elsewhere"), path


@pytest.mark.capability("S0-48", "S4-34")
@pytest.mark.invariant("I-03", "I-21")
async def test_the_access_cookie_counts_like_a_token_and_needs_csrf_like_a_cookie() -> None:
    app = FastAPI()

    @app.post("/boats")
    async def boats(user: CurrentUser) -> str:
        return user.email

    async with told(app=app) as story, browser(story.app) as client:
        await story.log_in(transport="cookie_pair", client=client)
        access = client.cookies["access"]
        problem(await client.post("/boats"), 403, "csrf_refused")
        assert (await client.post("/boats", headers=csrf_of(client))).json() == ADA
        async with browser(story.app) as api:
            assert (await api.post("/boats", headers=bearer(access))).json() == ADA
        story.move(minutes=15)
        answer = await client.get("/auth/me")
        problem(answer, 401, "expired_token")
        assert taken_back(answer) == {"access"}
        problem(await client.get("/auth/me"), 401, "not_authenticated")
        assert (await again(client)).status_code == 200
        assert (await client.get("/auth/me")).status_code == 200


@pytest.mark.invariant("I-03")
async def test_a_cookie_holds_no_access_token_longer_than_fifteen_minutes() -> None:
    features = [
        tokens(cookie_pair=True, access_ttl="4h"),
        *(f for f in without_limits() if f.name != "tokens"),
    ]
    async with telling(features=features) as story, browser(story.app) as client:
        await story.register()
        assert (await story.log_in(transport="cookie_pair", client=client))["expires_in"] == 900
        assert (await again(client)).json() == {"expires_in": 900}
        assert (await story.log_in())["expires_in"] == 4 * 3600


@pytest.mark.invariant("I-03")
async def test_the_pair_is_offered_only_where_it_is_asked_for() -> None:
    async with telling() as story, browser(story.app) as client:
        await story.register()
        answer = await client.post("/auth/login", json={**LOGIN, "transport": "cookie_pair"})
        problem(answer, 422, "validation_failed")
        token = (await story.log_in())["access_token"]
        async with browser(story.app, Cookie=f"access={token}") as other:
            problem(await other.get("/auth/me"), 401, "not_authenticated")


@pytest.mark.capability("S0-48")
@pytest.mark.invariant("I-21")
@pytest.mark.standard("CVE row 25")
@pytest.mark.parametrize("transport", ["hybrid", "cookie_pair"])
async def test_a_refresh_by_cookie_must_come_from_our_own_pages(transport: str) -> None:
    async with told() as story, browser(story.app) as client:
        await story.log_in(transport=transport, client=client)
        async with browser(story.app) as stranger:
            await story.log_in(transport=transport, client=stranger)
            foreign = csrf_of(stranger)
        own = csrf_of(client)
        before = await rows(story)
        wrong = own["X-CSRF-Token"][:-1] + ("A" if own["X-CSRF-Token"][-1] != "A" else "B")
        for headers in ({}, foreign, {"X-CSRF-Token": wrong}, {"X-CSRF-Token": ""}):
            refused = await again(client, headers)
            problem(refused, 403, "csrf_refused")
            assert not refused.headers.get_list("set-cookie")
        for site in CROSS:
            problem(await again(client, {**own, **site}), 403, "csrf_refused")
        twice = [("X-CSRF-Token", own["X-CSRF-Token"])] * 2
        problem(await client.post("/auth/refresh", headers=twice), 403, "csrf_refused")
        assert await rows(story) == before  # nothing was rotated, nothing ended
        assert (await again(client)).status_code == 200


@pytest.mark.invariant("I-04", "I-21")
async def test_an_old_cookie_from_another_site_does_not_end_the_session() -> None:
    async with told() as story, browser(story.app) as client:
        await story.log_in(transport="hybrid", client=client)
        old, csrf = client.cookies["refresh"], csrf_of(client)
        await again(client)
        story.move(seconds=11)
        async with browser(story.app, Cookie=f"refresh={old}") as thief:
            problem(await thief.post("/auth/refresh"), 403, "csrf_refused")
            cross = {**csrf, "Sec-Fetch-Site": "cross-site"}
            problem(await thief.post("/auth/refresh", headers=cross), 403, "csrf_refused")
            (session,) = await rows(story)
            assert session.ended_at is None
            # who has both proves that the cookie was copied
            reused = await thief.post("/auth/refresh", headers=csrf)
            problem(reused, 401, "refresh_token_reused")
            assert taken_back(reused) == {"refresh", "access"}
        problem(await again(client), 401, "revoked_token")


@pytest.mark.capability("S1-12")
async def test_a_refresh_that_is_refused_takes_the_cookie_back() -> None:
    async with told() as story, browser(story.app) as client:
        await story.log_in(transport="hybrid", client=client)
        csrf = csrf_of(client)
        story.move(days=8)
        client.cookies.clear()
        held = (await rows(story))[0]
        assert held.ended_at is None
        problem(await client.post("/auth/refresh", headers=csrf), 401, "not_authenticated")
        async with browser(story.app, Cookie="refresh=wwr_" + "A" * 65) as other:
            answer = await other.post("/auth/refresh")
            problem(answer, 401, "invalid_token")
            assert taken_back(answer) == {"refresh", "access"}


@pytest.mark.invariant("I-21")
async def test_body_and_cookie_must_be_one_token() -> None:
    async with told() as story, browser(story.app) as client:
        await story.log_in(transport="hybrid", client=client)
        other = (await story.log_in())["refresh_token"]
        before = await rows(story)
        answer = await client.post("/auth/refresh", json={"refresh_token": other})
        problem(answer, 401, "conflicting_credentials")
        assert await rows(story) == before
        own = client.cookies["refresh"]
        async with browser(story.app, Cookie=f"refresh={own}; refresh={own}") as twice:
            problem(await twice.post("/auth/refresh"), 401, "invalid_token")
        assert await rows(story) == before
        # Whoever can say it in a body holds it; and still it comes back in the cookie alone.
        same = await client.post("/auth/refresh", json={"refresh_token": own})
        assert same.status_code == 200
        assert "refresh_token" not in same.json()
        assert given(same)["refresh"].value != own


@pytest.mark.invariant("I-02")
async def test_a_bearers_refresh_token_is_refused_in_a_cookie() -> None:
    async with told() as story:
        pair = await story.log_in()
        cookie = f"refresh={pair['refresh_token']}"
        async with browser(story.app, Cookie=cookie) as client:
            problem(await client.post("/auth/refresh"), 401, "invalid_token")
        body = {"refresh_token": pair["refresh_token"]}
        assert (await story.client.post("/auth/refresh", json=body)).status_code == 200


@pytest.mark.capability("DEF-34")
async def test_a_sign_in_takes_back_the_cookies_of_the_other_transports() -> None:
    async with told() as story, browser(story.app) as client:
        held = {
            "cookie": {"session"},
            "hybrid": {"refresh"},
            "cookie_pair": {"refresh", "access"},
        }
        kept = {"csrf", "device"}
        for transport in ("cookie", "hybrid", "cookie_pair", "hybrid", "cookie", "cookie_pair"):
            await story.log_in(transport=transport, client=client)
            assert set(client.cookies) - kept == held[transport], transport


async def test_a_refresh_by_cookie_is_answered_twice_within_the_grace() -> None:
    async with told() as story, browser(story.app) as client:
        await story.log_in(transport="hybrid", client=client)
        cookies, csrf = dict(client.cookies), csrf_of(client)
        first = await again(client)
        kept = "; ".join(f"{name}={value}" for name, value in cookies.items())
        async with browser(story.app, Cookie=kept) as tab:
            second = await tab.post("/auth/refresh", headers=csrf)
        assert second.status_code == 200
        assert given(first)["refresh"].value == given(second)["refresh"].value
        assert client.cookies["refresh"] == given(second)["refresh"].value
