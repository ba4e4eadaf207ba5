"""Under which names an app answers, and that it is reached by https."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, WebSocket

from tests.told import PRODUCTION, SITE, Story, problem, telling
from watchword import Watchword
from watchword.crypto.keys import generate_secret
from watchword.http.hosts import Hosts
from watchword.kernel.errors import ConfigurationError, HostMalformed, HostNotAllowed
from watchword.server.asgi import server_app

HOST = "accounts.example.com"
PLAIN = f"http://{HOST}"
PROXY = ("10.0.0.1", 40000)


@pytest.mark.standard("CVE row 24", "CVE row 54")
@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ([b"accounts.example.com"], None),
        ([b"ACCOUNTS.example.com:8443"], None),
        ([b"accounts.example.com."], None),
        ([b"accounts.example.com:"], None),
        ([b"localhost"], None),
        ([b"127.0.0.1:80"], None),
        ([b"[::1]:8000"], None),
        ([b"x.localhost"], None),
        ([b"a.b.example.org"], None),
        ([b"example.org"], HostNotAllowed),
        ([b"evilexample.org"], HostNotAllowed),
        ([b"accounts.example.com.evil"], HostNotAllowed),
        ([b"evil.accounts.example.com"], HostNotAllowed),
        ([b"10.0.0.7"], HostNotAllowed),
        ([b"[::2]"], HostNotAllowed),
        ([], HostMalformed),
        ([b""], HostMalformed),
        ([b"accounts.example.com", b"accounts.example.com"], HostMalformed),
        ([b"accounts.example.com, evil.example"], HostMalformed),
        ([b"a/public?"], HostMalformed),
        ([b"a/public#"], HostMalformed),
        ([b"accounts.example.com/"], HostMalformed),
        ([b"accounts.example.com?"], HostMalformed),
        ([b"accounts.example.com#"], HostMalformed),
        ([b"x@accounts.example.com"], HostMalformed),
        ([b"accounts.example.com@evil"], HostMalformed),
        ([b"accounts.example.com evil"], HostMalformed),
        ([b" accounts.example.com"], HostMalformed),
        ([b"accounts.example.com\n"], HostMalformed),
        ([b"accounts.example.com:80:90"], HostMalformed),
        ([b"accounts.example.com:8o"], HostMalformed),
        ([b"accounts.example.com:999999"], HostMalformed),
        ([b"accounts%2eexample.com"], HostMalformed),
        ([b"accounts..example.com"], HostMalformed),
        ([b"[::1"], HostMalformed),
        ([b"::1"], HostMalformed),
        ([b"https://accounts.example.com"], HostMalformed),
        ([b"accounts\\example.com"], HostMalformed),
        ([b"\xc3\xa4.example.com"], HostMalformed),
        ([b"a" * 300], HostMalformed),
    ],
    ids=repr,
)
def test_a_host_is_one_of_ours_or_no_host_or_foreign(
    given: list[bytes], fault: type[Exception] | None
) -> None:
    hosts = Hosts.named({HOST, "*.example.org"})
    for _ in range(2):  # the second time from memory
        error = hosts.fault(given, is_http11=True)
        assert type(error) is (fault or type(None))


def test_an_old_client_need_not_say_a_host_and_any_may_be_any() -> None:
    assert Hosts.named(()).fault([], is_http11=False) is None
    anywhere = Hosts.named({"*"})
    assert anywhere.fault([b"evil.example"], is_http11=True) is None
    assert isinstance(anywhere.fault([b"a/public?"], is_http11=True), HostMalformed)
    for number in range(1000):  # what is remembered stays little
        assert anywhere.fault([b"host%d.example" % number], is_http11=True) is None


@pytest.mark.invariant("I-22")
@pytest.mark.standard("CVE row 24")
async def test_production_answers_to_its_own_names_only() -> None:
    async with telling(**PRODUCTION, allowed_hosts=("Other.example",)) as story:
        for path in ("/auth/me", "/nowhere", "/openapi.json", "/.well-known/jwks.json"):
            for host in ("evil.example", f"{HOST}.evil.example", "10.0.0.7", "testserver"):
                answer = await story.client.get(path, headers={"Host": host})
                problem(answer, 421, "host_not_allowed")
                assert "location" not in answer.headers
            for host in ("a/public?", f"x@{HOST}", "", f"{HOST} x"):
                problem(await story.client.get(path, headers={"Host": host}), 400, "host_malformed")
            for host in (HOST, f"{HOST}:8443", "other.example", "localhost", "127.0.0.1:8000"):
                answer = await story.client.get(path, headers={"Host": host})
                assert answer.status_code in (200, 401, 404)
            twice = [("Host", HOST), ("Host", HOST)]
            problem(await story.client.get(path, headers=twice), 400, "host_malformed")


@pytest.mark.standard("CVE row 54")
@pytest.mark.invariant("I-22")
async def test_a_socket_under_a_foreign_name_is_closed() -> None:
    """A page whose name was made to lead here could open it else."""
    app = FastAPI()
    app.websocket("/open")(anybody)
    async with telling(app=app):
        assert await opened(app, b"localhost:8000") == ["websocket.accept"]
        assert await opened(app, b"evil.example") == ["websocket.close"]
        assert await opened(app, b"a/open?") == ["websocket.close"]
    app = FastAPI()
    app.websocket("/open")(anybody)
    async with telling(app=app, **PRODUCTION):
        assert await opened(app, HOST.encode()) == ["websocket.close"]  # by plain http
        assert await opened(app, HOST.encode(), scheme="wss") == ["websocket.accept"]


async def anybody(socket: WebSocket) -> None:
    await socket.accept()


async def opened(app: Any, host: bytes, scheme: str = "ws") -> list[str]:
    told: list[str] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.disconnect" if told else "websocket.connect", "code": 1000}

    async def send(message: dict[str, Any]) -> None:
        told.append(message["type"])

    await app(
        {
            "type": "websocket",
            "http_version": "1.1",
            "path": "/open",
            "raw_path": b"/open",
            "root_path": "",
            "scheme": scheme,
            "query_string": b"",
            "subprotocols": [],
            "client": ("127.0.0.1", 1),
            "server": ("localhost", 8000),
            "headers": [(b"host", host)],
        },
        receive,
        send,
    )
    return told[:1]


def caller(story: Story, peer: Any = PROXY, **headers: str) -> httpx.AsyncClient:
    """Somebody who comes over plain http."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    transport = httpx.ASGITransport(story.app, client=peer)
    return httpx.AsyncClient(transport=transport, base_url=PLAIN, headers=named)


@pytest.mark.capability("S0-17", "S0-81", "DEF-21")
async def test_plain_http_is_sent_on_or_refused() -> None:
    async with telling(**PRODUCTION) as story:
        client = caller(story, ("203.0.113.9", 1))
        for path in ("/auth/me", "/nowhere?a=b&c=%2f", "//evil.example/x", "/a%20b"):
            for method in ("GET", "HEAD"):
                for host in (HOST, f"{HOST}:8080", "localhost"):
                    answer = await client.request(method, f"{PLAIN}{path}", headers={"Host": host})
                    assert answer.status_code == 301, path
                    assert answer.headers["location"] == f"{SITE}{path}"
                    assert answer.headers["cache-control"] == "no-store"
                    assert "strict-transport-security" not in answer.headers
                    assert answer.headers["x-content-type-options"] == "nosniff"
        for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            answer = await client.request(method, "/auth/login", json={})
            problem(answer, 403, "https_required")
            assert "location" not in answer.headers
        answer = await client.get("/auth/me", headers={"Host": "evil.example"})
        problem(answer, 421, "host_not_allowed")  # and nobody is sent anywhere
        assert (await story.client.get("/auth/me")).status_code == 401


@pytest.mark.capability("S0-17")
@pytest.mark.parametrize(
    ("options", "is_required"),
    [
        ({}, False),
        ({"public_url": "https://localhost:8443"}, False),
        ({"require_https": True}, True),
        (PRODUCTION, True),
        (PRODUCTION | {"require_https": False}, False),
    ],
    ids=["development", "https there", "asked for", "production", "not asked for"],
)
async def test_https_is_required_in_production_or_where_it_is_asked_for(
    options: dict[str, Any], is_required: bool
) -> None:
    async with telling(**options) as story:
        transport = httpx.ASGITransport(story.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            answer = await client.get("/auth/me")
        assert answer.status_code == (301 if is_required else 401)


@pytest.mark.invariant("I-22")
@pytest.mark.capability("S0-17")
async def test_a_trusted_proxy_says_what_the_request_came_by() -> None:
    async with telling(**PRODUCTION, trusted_proxies=("10.0.0.0/8",)) as story:
        for said, status in (
            ("https", 401),
            ("HTTPS", 401),
            ("http, https", 401),
            ("http", 301),
            ("https, http", 301),
            ("https,", 403),
            ("gopher", 403),
            ("", 403),
        ):
            answer = await caller(story, X_Forwarded_Proto=said).get("/auth/me")
            assert answer.status_code == status, said
            has_hsts = "strict-transport-security" in answer.headers
            assert has_hsts is (status == 401)
        silent = problem(await caller(story).get("/auth/me"), 403, "https_required")
        assert "X-Forwarded-Proto" in silent["detail"]


@pytest.mark.invariant("I-22")
@pytest.mark.capability("S0-17")
async def test_a_proxy_that_nobody_named_is_not_believed_and_gets_no_circle() -> None:
    """Sent to https it would come back by http, for ever: it is told what to set instead."""
    named: dict[str, Any] = {"trusted_proxies": ("192.0.2.0/24",)}
    for options in ({}, named):
        async with telling(**(PRODUCTION | options)) as story:
            for headers in (
                {"X_Forwarded_Proto": "https"},
                {"X_Forwarded_For": "203.0.113.9"},
                {"Forwarded": "for=203.0.113.9;proto=https"},
                {"Via": "1.1 proxy"},
            ):
                for method in ("GET", "POST"):
                    answer = await caller(story, **headers).request(method, "/auth/me")
                    body = problem(answer, 403, "https_required")
                    assert "WATCHWORD_TRUSTED_PROXIES" in body["detail"]
                    assert "strict-transport-security" not in answer.headers


@pytest.mark.capability("S0-17")
async def test_a_socket_may_be_the_trusted_proxy() -> None:
    async with telling(**PRODUCTION, trusted_proxies=("unix",)) as story:
        for peer, status in ((None, 401), (("203.0.113.9", 1), 403)):
            answer = await caller(story, peer, X_Forwarded_Proto="https").get("/auth/me")
            assert answer.status_code == status


@asynccontextmanager
async def served(**options: Any) -> AsyncGenerator[httpx.AsyncClient]:
    auth = Watchword(
        "sqlite://",
        environ={},
        secret=generate_secret(),
        **PRODUCTION,
        **options,
    )
    transport = httpx.ASGITransport(server_app(auth), client=("203.0.113.9", 1))
    async with (
        auth.running(),
        httpx.AsyncClient(transport=transport, base_url="http://10.1.2.3:8000") as client,
    ):
        yield client


@pytest.mark.invariant("I-22")
async def test_a_supervisor_asks_by_address_and_without_tls() -> None:
    async with served() as client:
        for path in ("/healthz", "/readyz"):
            assert (await client.get(path)).status_code == 200
        assert (await client.get("/metrics")).status_code == 404  # no token
        problem(await client.post("/healthz"), 421, "host_not_allowed")
        problem(await client.get("/healthz/x"), 421, "host_not_allowed")
        problem(await client.get("/healthz", headers={"Host": "a/b"}), 400, "host_malformed")
    async with served(probe_paths=()) as client:
        problem(await client.get("/healthz"), 421, "host_not_allowed")
    async with telling() as story:  # at a desk a page of anybody's may be the one who asks
        answer = await story.client.get("/healthz", headers={"Host": "evil.example"})
        problem(answer, 421, "host_not_allowed")


@pytest.mark.parametrize(
    "wrong",
    [
        {"allowed_hosts": ("https://app.example.com",)},
        {"allowed_hosts": ("app.example.com:443",)},
        {"allowed_hosts": ("a*.example.com",)},
        {"allowed_hosts": ("",)},
        {"probe_paths": ("healthz",)},
        {"probe_paths": ("/",)},
        {"probe_paths": ("/**",)},
        {"forwarded": "both"},
    ],
    ids=repr,
)
def test_names_and_paths_that_are_none_stop_the_start(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        Watchword(
            "sqlite://", environ={}, environment="development", secret=generate_secret(), **wrong
        )
