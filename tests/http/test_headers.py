"""Every answer says what it is and what a browser may do with it, whatever made it."""

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, HTTPException, Response
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import Request

from tests.told import PRODUCTION, SITE, Story, problem, telling
from watchword import Watchword
from watchword.crypto.keys import generate_secret
from watchword.http.headers import API, new_nonce, page_headers
from watchword.kernel.errors import ConfigurationError
from watchword.server.asgi import server_app
from watchword.testing.story import bearer

HSTS = "max-age=31536000; includeSubDomains"
EVERYWHERE = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "x-xss-protection": "0",
}
HSTS_HEADER = "strict-transport-security"


def host_app(folder: Path | None = None) -> FastAPI:
    """An app with every sort of answer in it."""
    app = FastAPI()

    @app.get("/page")
    async def page() -> HTMLResponse:
        return HTMLResponse("<p>hello")

    @app.get("/data")
    async def data() -> dict[str, str]:
        return {"hello": "<script>"}

    @app.get("/own")
    async def own() -> Response:
        said = {"X-Frame-Options": "SAMEORIGIN", "content-security-policy": "default-src *"}
        answer = JSONResponse({}, headers={**said, "STRICT-TRANSPORT-SECURITY": "max-age=1"})
        answer.set_cookie("one", "1")
        answer.set_cookie("two", "2")
        return answer

    @app.get("/fault")
    async def fault() -> None:
        raise RuntimeError("a secret of the inside")

    @app.get("/refused")
    async def refused() -> None:
        raise HTTPException(418)

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def parts() -> AsyncGenerator[bytes]:
            for _ in range(3):
                yield b"part "

        return StreamingResponse(parts(), media_type="text/plain")

    inner = FastAPI()

    @inner.get("/data")
    async def inner_data() -> dict[str, str]:
        return {}

    app.mount("/inner", inner)
    if folder is not None:
        (folder / "style.css").write_text("p {}")
        app.mount("/static", StaticFiles(directory=folder))
    return app


@asynccontextmanager
async def faulty(**options: Any) -> AsyncGenerator[tuple[Story, httpx.AsyncClient]]:
    """A story, and a client that gets to see the answer to a fault."""
    async with telling(**options) as story:
        transport = httpx.ASGITransport(story.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=story.client.base_url) as client:
            yield story, client


@pytest.mark.standard("ASVS 3.2.1", "ASVS 3.4.4", "ASVS 3.4.5", "ASVS 3.5.8")
@pytest.mark.capability("S0-81", "S3-13")
async def test_answers_and_refusals_alike_stay_data() -> None:
    """A 200, a 204, a 401, a 403 and a 422, from a route and from a guard."""
    async with telling() as story:
        markup = "<script>alert(1)</script>"
        await story.join()
        held = await story.log_in()
        auth = bearer(held["access_token"])
        answers = [
            await story.client.patch("/auth/me", json={"username": markup}, headers=auth),
            await story.client.get("/auth/me"),
            await story.client.post("/auth/login", json={"email": markup}),
            await story.client.post("/auth/logout", headers=auth),
            await story.client.get("/.well-known/jwks.json"),
        ]
    assert [answer.status_code for answer in answers] == [200, 401, 422, 204, 200]
    for answer in answers:
        for name, value in API.items():
            assert answer.headers[name] == value
        assert "html" not in answer.headers.get("content-type", "")


@pytest.mark.standard("ASVS 3.4.1", "ASVS 3.4.4")
@pytest.mark.capability("S0-81", "S0-82", "S3-13")
async def test_every_route_has_them_whatever_it_answers(tmp_path: Path) -> None:
    """Each route of ours and of the host, with every method, with and without a body."""
    app = host_app(tmp_path)
    async with faulty(app=app, **PRODUCTION) as (story, client):
        paths = {route.path for route in every_route(app)} | {"/nowhere", "/auth/nowhere"}
        assert len(paths) > 30
        seen: set[int] = set()
        for path in sorted(paths):
            filled = re.sub(r"\{[^}]*\}", "x", path)
            for method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS"):
                for body in (b"", b"{not json"):
                    answer = await client.request(
                        method, filled, content=body, headers={"Content-Type": "application/json"}
                    )
                    seen.add(answer.status_code)
                    expect(answer, own=path == "/own")
                    if path.startswith("/auth"):
                        assert answer.headers["referrer-policy"] == "no-referrer", path
                        assert answer.headers["cache-control"] == "no-store", path
                        assert re.fullmatch("[0-9a-z]{26}", answer.headers["x-request-id"])
        answer = await client.get("/static/style.css")
        expect(answer)
        again = {"If-None-Match": answer.headers["etag"]}
        answer = await client.get("/static/style.css", headers=again)
        expect(answer)
        seen |= {answer.status_code}
        expect(await client.get("/stream"))
        expect(await client.get("/inner/data"))
        expect(await client.post("/auth/login", content=b"x" * 200_000))
        assert {200, 304, 401, 404, 405, 418, 422, 500} <= seen
        assert story.auth.public_url == SITE


def expect(answer: httpx.Response, *, own: bool = False) -> None:
    where = (answer.request.method, answer.request.url.path, answer.status_code)
    wanted = EVERYWHERE | {HSTS_HEADER: HSTS}
    if own and answer.status_code == 200:
        wanted |= {"x-frame-options": "SAMEORIGIN", HSTS_HEADER: "max-age=1"}
    for name, value in wanted.items():
        assert answer.headers.get_list(name) == [value], (where, name)
    assert len(answer.headers.get_list("referrer-policy")) == 1, where
    kind = answer.headers.get("content-type", "")
    if "json" in kind:
        assert len(answer.headers.get_list("content-security-policy")) == 1, where
    if "html" in kind:
        assert answer.headers["cross-origin-opener-policy"] == "same-origin", where


def every_route(app: FastAPI) -> list[APIRoute]:
    found: list[APIRoute] = []
    waiting: list[Any] = list(app.routes)
    while waiting:
        route = waiting.pop()
        if isinstance(route, APIRoute):
            found.append(route)
        included = getattr(route, "original_router", None)
        if included is not None:
            waiting += [
                each for each in included.routes if isinstance(each, APIRoute) or each is not route
            ]
    return found


@pytest.mark.capability("DEF-21", "S3-13")
async def test_what_an_answer_says_itself_stays_and_both_cookies_survive() -> None:
    async with telling(app=host_app(), **PRODUCTION) as story:
        answer = await story.client.get("/own")
        cookies = answer.headers.get_list("set-cookie")
        assert [each.partition(";")[0] for each in cookies] == ["one=1", "two=2"]
        assert answer.headers.get_list("x-frame-options") == ["SAMEORIGIN"]
        assert answer.headers.get_list("content-security-policy") == ["default-src *"]
        assert answer.headers.get_list("strict-transport-security") == ["max-age=1"]
        await story.join()
        answer = await story.client.post(
            "/auth/login",
            json={"email": "ada@example.com", "password": "correct horse battery staple"}
            | {"transport": "cookie"},
        )
        names = {each.partition("=")[0] for each in answer.headers.get_list("set-cookie")}
        assert {"__Host-session", "__Host-csrf"} <= names


@pytest.mark.standard("ASVS 3.4.1")
@pytest.mark.capability("S0-82")
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, HSTS),
        ({"hsts": {"max_age": "730d"}}, "max-age=63072000; includeSubDomains"),
        ({"hsts": {"max_age": "730d", "preload": True}}, None),
        ({"hsts": {"include_subdomains": False}}, "max-age=31536000"),
        ({"hsts": {"max_age": "0s"}}, "max-age=0; includeSubDomains"),
        ({"hsts": {"enabled": False}}, None),
    ],
    ids=["default", "two years", "preload", "without sub-domains", "forget", "off"],
)
async def test_https_is_remembered_as_long_as_was_set(
    options: dict[str, Any], expected: str | None
) -> None:
    if options.get("hsts", {}).get("preload"):
        expected = "max-age=63072000; includeSubDomains; preload"
    async with telling(**PRODUCTION, require_https=False, **options) as story:
        over_https = await story.client.get("/auth/me")
        assert over_https.headers.get("strict-transport-security") == expected
        plain = await story.client.get("http://accounts.example.com/auth/me")
        assert "strict-transport-security" not in plain.headers
        problem(plain, 401, "not_authenticated")


@pytest.mark.capability("S0-82")
async def test_a_desk_is_never_told_to_stay_on_https() -> None:
    """The name localhost is every project's: what one is told, all are."""
    async with telling(public_url="https://localhost:8443") as story:
        answer = await story.client.get("/auth/me")
        assert answer.url.scheme == "https"
        assert "strict-transport-security" not in answer.headers


@pytest.mark.standard("ASVS 3.4.1")
@pytest.mark.parametrize(
    ("public_url", "expected"), [("https://id.example.com", HSTS), ("http://localhost:8000", None)]
)
async def test_an_https_server_says_so_in_every_answer(
    sqlite_url: str, public_url: str, expected: str | None
) -> None:
    """Found, not found, wrong method, refused: the header is on all of them, or on none."""
    auth = Watchword(
        sqlite_url,
        environment="production",
        secret=generate_secret(),
        public_url=public_url,
        accept_missing=("limiter", "events"),
        environ={},
        served=True,
    )
    app = server_app(auth)
    async with (
        auth.running(),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=public_url) as client,
    ):
        for method, path in [
            ("GET", "/healthz"),
            ("GET", "/nowhere"),
            ("DELETE", "/healthz"),
            ("GET", "/auth/me"),
        ]:
            answer = await client.request(method, path)
            assert answer.headers.get("Strict-Transport-Security") == expected, path


@pytest.mark.capability("S0-81", "S3-13")
async def test_each_header_may_be_another_or_off() -> None:
    chosen = {
        "frame_options": "SAMEORIGIN",
        "permissions_policy": "off",
        "opener_policy": "same-origin-allow-popups",
        "csp": "default-src 'self'",
        "csp_data": "off",
    }
    async with telling(app=host_app(), headers=chosen) as story:
        page = await story.client.get("/page")
        assert page.headers["x-frame-options"] == "SAMEORIGIN"
        assert "permissions-policy" not in page.headers
        assert page.headers["cross-origin-opener-policy"] == "same-origin-allow-popups"
        assert page.headers["content-security-policy"] == "default-src 'self'"
        assert "content-security-policy" not in (await story.client.get("/data")).headers
    async with telling(app=host_app(), headers={"enabled": False}) as story:
        page = await story.client.get("/page")
        for name in (*EVERYWHERE, "referrer-policy", "cross-origin-opener-policy"):
            assert name not in page.headers
        answer = await story.client.get("/auth/me")
        for name, value in API.items():  # ours are data whatever the host wants for its own
            assert answer.headers[name] == value


@pytest.mark.capability("S0-81")
@pytest.mark.parametrize(
    ("section", "wrong"),
    [
        ("headers", {"frame_options": "DENY\r\nSet-Cookie: a=b"}),
        ("headers", {"csp": ""}),
        ("headers", {"referrer_policy": "no-r\u00e9ferrer"}),
        ("headers", {"x_frame_options": "DENY"}),
        ("hsts", {"max_age": 31536000}),
        ("hsts", {"preload": True, "max_age": "30d"}),
        ("hsts", {"preload": True, "include_subdomains": False}),
    ],
)
def test_headers_that_cannot_be_stop_the_start(section: str, wrong: dict[str, Any]) -> None:
    options: Any = {section: wrong, "environment": "development", "secret": generate_secret()}
    with pytest.raises(ConfigurationError, match=section):
        Watchword("sqlite://", environ={}, **options)


@pytest.mark.capability("DEF-21")
async def test_an_answer_made_by_the_hosts_middleware_or_handler_has_them_too() -> None:
    app = host_app()

    async def turn_away(request: Request, call_next: RequestResponseEndpoint) -> Response:
        if request.url.path == "/page":
            return HTMLResponse("closed", status_code=503)
        return await call_next(request)

    async def own_fault(_: Request, __: Exception) -> Response:
        return JSONResponse({"own": True}, status_code=500)

    app.add_middleware(BaseHTTPMiddleware, dispatch=turn_away)
    async with faulty(app=app) as (_, client):
        app.add_exception_handler(Exception, own_fault)
        app.add_middleware(BaseHTTPMiddleware, dispatch=turn_away)
        for path, status in (("/page", 503), ("/fault", 500), ("/data", 200)):
            answer = await client.get(path)
            assert answer.status_code == status
            for name, value in EVERYWHERE.items():
                assert answer.headers[name] == value
        assert (await client.get("/fault")).json() == {"own": True}


async def test_an_instrument_that_takes_the_outermost_layer_off_does_not_take_the_shield() -> None:
    """OpenTelemetry's puts the app together anew, around what the outermost layer held."""
    app = host_app()
    async with telling(app=app) as story:
        build = app.build_middleware_stack

        def instrumented() -> ServerErrorMiddleware:
            stack = build()
            assert isinstance(stack, ServerErrorMiddleware)
            return ServerErrorMiddleware(stack.app)

        app.build_middleware_stack = instrumented  # type: ignore[method-assign]
        answer = await story.client.get("/data")
        assert answer.headers["x-frame-options"] == "DENY"
        foreign = await story.client.get("/data", headers={"Host": "evil.example"})
        problem(foreign, 421, "host_not_allowed")


async def test_two_of_them_one_in_the_other_say_everything_once() -> None:
    inner = host_app()
    async with telling(app=inner) as within:
        outer = FastAPI()
        outer.mount("/in", inner)
        async with telling(app=outer, prefix="/accounts") as story:
            for path in ("/in/data", "/in/auth/me", "/in/nowhere", "/accounts/me"):
                answer = await story.client.get(path)
                for name in (*EVERYWHERE, "referrer-policy", "x-request-id"):
                    said = answer.headers.get_list(name)
                    assert len(said) <= 1, (path, said)
                assert answer.headers["x-frame-options"] == "DENY"
        assert within.auth is not story.auth


@pytest.mark.standard("ASVS 3.4.3", "ASVS 3.4.5", "ASVS 3.4.6", "ASVS 3.4.8")
async def test_a_page_of_ours_runs_scripts_of_this_very_answer_only() -> None:
    auth = Watchword("sqlite://", environment="development", secret=generate_secret(), environ={})
    app = server_app(auth)
    transport = httpx.ASGITransport(app)
    nonces: set[str] = set()
    async with (
        auth.running(),
        httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client,
    ):
        for _ in range(3):
            page = await client.get("/")
            policy = page.headers["content-security-policy"]
            found = re.search(r"script-src 'nonce-([\w-]{22})';", policy)
            assert found is not None
            nonces.add(found[1])
            assert f'nonce="{found[1]}"' in page.text
            assert page.text.count("<script") == page.text.count("nonce=")
            for directive in (
                *("default-src 'none'", "object-src 'none'", "base-uri 'none'"),
                *("frame-ancestors 'none'", "form-action 'self'", "style-src 'self'"),
            ):
                assert directive in policy.split("; ")
            assert "unsafe" not in policy
            assert page.headers["referrer-policy"] == "no-referrer"
            assert page.headers["cross-origin-opener-policy"] == "same-origin"
            assert page.headers["cache-control"] == "no-store"
    assert len(nonces) == 3


@pytest.mark.standard("ASVS 3.4.3", "ASVS 3.4.7")
def test_a_pages_forms_may_lead_where_it_says_and_its_reports_too() -> None:
    nonce = new_nonce()
    policy = page_headers(nonce, form_action=("'self'", "https://client.example"), report_to="csp")[
        "Content-Security-Policy"
    ]
    assert "form-action 'self' https://client.example" in policy
    assert policy.endswith("; report-to csp")
    assert "form-action 'none'" in page_headers(nonce, form_action=())["Content-Security-Policy"]


async def test_the_id_of_a_request_is_in_its_answer_and_in_its_problem() -> None:
    async with telling(app=host_app(), trusted_proxies=("127.0.0.1",)) as story:
        for path in ("/auth/me", "/auth/login"):
            answer = await story.client.get(path)
            if answer.status_code == 401:
                assert answer.headers["x-request-id"] == answer.json()["request_id"]
        given = {"X-Request-ID": "given-by-our-proxy"}
        answer = await story.client.get("/auth/me", headers=given)
        assert answer.headers.get_list("x-request-id") == ["given-by-our-proxy"]
        assert answer.json()["request_id"] == "given-by-our-proxy"
