"""The server's own pages and probes, without a process."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI

from watchword import Watchword
from watchword.crypto.keys import generate_secret
from watchword.kernel.errors import StoreUnavailable
from watchword.server.asgi import server_app
from watchword.testing.story import ORIGIN, PASSWORD

ADA = {"email": "ada@example.com", "password": PASSWORD}
HOME, ABROAD = ("127.0.0.1", 40000), ("203.0.113.9", 40000)


@asynccontextmanager
async def serving(
    peer: tuple[str, int] = HOME, **options: Any
) -> AsyncGenerator[tuple[Watchword, FastAPI, httpx.AsyncClient]]:
    options = {"environment": "development", "secret": generate_secret()} | options
    auth = Watchword("sqlite://", environ={}, **options)
    app = server_app(auth)
    transport = httpx.ASGITransport(cast("Any", app), client=peer, raise_app_exceptions=False)
    async with auth.running(), httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
        yield auth, app, client


PRODUCTION: dict[str, Any] = {
    "environment": "production",
    "public_url": "https://auth.example.com",
    "accept_missing": ("limiter", "events"),
}


async def test_the_page_greets_whoever_is_signed_in_and_nobody_else() -> None:
    async with serving() as (_, _, client):
        assert "Nobody is signed in" in (await client.get("/")).text
        name = '<img src=x onerror="alert(1)">'
        made = await client.post("/auth/register", json={**ADA, "username": name})
        assert made.status_code == 201
        login = await client.post("/auth/login", json={**ADA, "transport": "cookie"})
        assert login.status_code == 200
        page = (await client.get("/")).text
        assert "Hello, &lt;img" in page
        assert "<img" not in page
        refused = await client.post("/auth/logout", json={})
        assert refused.json()["code"] == "csrf_refused"
        csrf = {"X-CSRF-Token": client.cookies["csrf"]}
        assert (await client.post("/auth/logout", json={}, headers=csrf)).status_code == 204
        assert "Nobody is signed in" in (await client.get("/")).text


async def test_the_page_takes_nothing_from_elsewhere() -> None:
    async with serving() as (_, _, client):
        for path in ("/", "/welcome.js", "/welcome.css"):
            answer = await client.get(path)
            assert answer.status_code == 200
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers["cache-control"] == "no-store"
            assert "http://" not in answer.text
            assert "https://" not in answer.text
        page = (await client.get("/")).text
        assert page.count("<label for=") == page.count("<input ")
        for inline in ("onclick", "onsubmit", "style=", "<style"):
            assert inline not in page


async def test_production_has_neither_page_nor_foreign_scripts() -> None:
    async with serving(**PRODUCTION) as (_, _, client):
        client.base_url = PRODUCTION["public_url"]
        for path in ("/", "/docs", "/redoc", "/welcome.js"):
            assert (await client.get(path)).status_code == 404
        assert (await client.get("/openapi.json")).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/auth/nothing", 404, "not_found"),
        ("DELETE", "/healthz", 405, "method_not_allowed"),
        ("GET", "/auth/login", 405, "method_not_allowed"),
        ("GET", "/fault", 500, "error"),
    ],
)
async def test_whatever_goes_wrong_is_a_problem(
    method: str, path: str, status: int, code: str
) -> None:
    async with serving() as (_, app, client):

        @app.get("/fault")
        async def fault() -> None:
            raise RuntimeError("a secret of the inside")

        answer = await client.request(method, path)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == code
        assert "inside" not in answer.text
        if status == 405:
            assert answer.headers["allow"]


async def away() -> None:
    raise StoreUnavailable("gone")


@pytest.mark.invariant("I-22")
@pytest.mark.parametrize(
    ("peer", "headers", "may_know"),
    [
        (HOME, {}, True),
        (("::1", 1), {}, True),
        (ABROAD, {}, False),
        (HOME, {"X-Forwarded-For": "203.0.113.9"}, False),
        (ABROAD, {"X-Forwarded-For": "127.0.0.1"}, False),
        (ABROAD, {"Authorization": "Bearer probe-token-of-the-monitor"}, True),
        (ABROAD, {"Authorization": "Bearer probe-token-of-nobody"}, False),
        (ABROAD, {"Authorization": "Bearer "}, False),
    ],
)
async def test_why_it_is_not_ready_is_not_for_everybody(
    peer: tuple[str, int],
    headers: dict[str, str],
    may_know: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    token = "probe-token-of-the-monitor"
    async with serving(peer, probe_token=token, **PRODUCTION) as (auth, _, client):
        ready = await client.get("/readyz", headers=headers)
        assert (ready.status_code, ready.json()["status"]) == (200, "ok")
        monkeypatch.setattr(auth.driver, "ping", away)
        answer = await client.get("/readyz", headers=headers)
        assert answer.status_code == 503
        assert answer.json()["status"] == "unavailable"
        assert ("reasons" in answer.json()) is may_know
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.head("/healthz")).status_code == 200


async def test_without_a_probe_token_no_token_opens_anything() -> None:
    async with serving(ABROAD, **PRODUCTION) as (_, _, client):
        for token in ("", "None", "x"):
            answer = await client.get("/readyz", headers={"Authorization": f"Bearer {token}"})
            assert "reasons" not in answer.json()


@pytest.mark.capability("S2-26")
async def test_the_routes_that_a_ready_router_has() -> None:
    async with serving() as (_, _, client):
        paths = (await client.get("/openapi.json")).json()["paths"]
        for name in (
            *("register", "login", "logout", "refresh", "password-reset-request"),
            *("password-reset", "verify-email-request", "verify-email"),
        ):
            assert "post" in paths[f"/auth/{name}"]
        assert "get" in paths["/auth/me"]


@pytest.mark.capability("S2-27")
async def test_two_of_them_in_one_process_do_not_meet() -> None:
    async with serving() as (_, _, one), serving() as (_, _, other):
        for client in (one, other):
            assert (await client.post("/auth/register", json=ADA)).status_code == 201
        pair = (await one.post("/auth/login", json=ADA)).json()
        bearer = {"Authorization": f"Bearer {pair['access_token']}"}
        assert (await one.get("/auth/me", headers=bearer)).status_code == 200
        assert (await other.get("/auth/me", headers=bearer)).status_code == 401
        refresh = {"refresh_token": pair["refresh_token"]}
        assert (await other.post("/auth/refresh", json=refresh)).status_code == 401
        assert (await one.post("/auth/refresh", json=refresh)).status_code == 200


async def test_a_slash_at_the_end_sends_nobody_to_the_requests_host() -> None:
    async with serving(**PRODUCTION, allowed_hosts=("*",)) as (_, _, client):
        client.base_url = PRODUCTION["public_url"]
        for path in ("/auth/me/", "/healthz/"):
            answer = await client.get(path, headers={"Host": "evil.example"})
            assert answer.status_code == 404
            assert "location" not in answer.headers
