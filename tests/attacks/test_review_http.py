"""What strangers could do at the edge: be taken for others, and have others sent elsewhere."""

import asyncio
import re
import socket
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast
from unittest.mock import MagicMock

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.routing import Mount, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from tests.told import ADA, PASSWORD, PRODUCTION, SITE, telling
from watchword import Watchword
from watchword.crypto.keys import generate_secret
from watchword.features.mail import Message, mail
from watchword.kernel.occasion import Occasion, occasion
from watchword.presets import standard
from watchword.server import protocol
from watchword.server.probes import may_know
from watchword.server.protocol import BoundedHttp
from watchword.testing.story import ORIGIN

VICTIM, STRANGER = "203.0.113.66", "198.51.100.7"


def made(**options: Any) -> Watchword:
    options = {"environ": {}, "environment": "development", "secret": generate_secret(), **options}
    return Watchword("sqlite://", **options)


def seen() -> tuple[str | None, str] | None:
    """From where, and by which path, this task thinks that it was asked."""
    now = occasion()
    return None if now is None else (now.client and now.client.address, now.path)


async def ask(app: Any, method: str, path: str, peer: str = VICTIM, **more: Any) -> httpx.Response:
    """One request, in this very task."""
    transport = httpx.ASGITransport(app=app, client=(peer, 1))
    async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
        return await client.request(method, path, **more)


class Noting:
    """A middleware of somebody's that notes what the task has in mind."""

    def __init__(self, app: ASGIApp, notes: list[Any]) -> None:
        self.app = app
        self.notes = notes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            self.notes.append(seen())
        await self.app(scope, receive, send)


# Who is taken for whom


@pytest.mark.capability("S1-05")
async def test_no_background_work_is_done_on_behalf_of_the_first_request() -> None:
    """Whoever came first would stand in the audit for all that a worker ever did by itself."""
    notes: list[Occasion | None] = []
    sent = asyncio.Event()

    class Sender:
        async def send(self, message: Message) -> None:
            assert message.recipient == ADA
            notes.append(occasion())
            sent.set()

    auth = made(features=[*(f for f in standard() if f.name != "mail"), mail(sender=Sender())])
    inner = FastAPI()
    auth.install(inner)
    outer = Starlette(routes=[Mount("/api", inner)])  # no lifespan: the first request starts it
    try:
        body = {"email": ADA, "password": PASSWORD}
        answer = await asyncio.create_task(ask(outer, "POST", "/api/auth/register", json=body))
        assert answer.status_code == 201
        async with asyncio.timeout(20):
            await sent.wait()
    finally:
        await auth.stop()
    assert notes == [None]


@contextmanager
def listening(app: FastAPI) -> Generator[socket.socket]:
    """A connection to the app at a real server, on the loop that hands contexts on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = uvicorn.Config(app, http=BoundedHttp, loop="asyncio", log_config=None)
        config.proxy_headers = False
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]}, daemon=True)
        thread.start()
        try:
            with socket.create_connection(taken.getsockname(), timeout=30) as connection:
                yield connection
        finally:
            server.should_exit = True
            thread.join(30)


def head(line: str, address: str, *more: str, host: str = "localhost") -> bytes:
    lines = (f"{line} HTTP/1.1", f"Host: {host}", f"X-Forwarded-For: {address}", *more, "", "")
    return "\r\n".join(lines).encode()


def answers(connection: socket.socket, many: int) -> list[tuple[bytes, bytes | None]]:
    """Status and request id of so many answers, all but the last of which have an id."""
    received = b""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        received += connection.recv(65536)
        heads = received.split(b"HTTP/1.1 ")[1:]
        if len(heads) == many and b"\r\n\r\n" in heads[-1]:
            named = [re.search(rb"x-request-id: (\S+)", each) for each in heads]
            return [(each[:3], name and name[1]) for each, name in zip(heads, named, strict=True)]
    raise AssertionError(received)


@pytest.mark.standard("ASVS 16.2.1")
def test_two_requests_of_one_connection_are_two() -> None:
    """A proxy sends those of many people on one: what is refused early bore another's id."""
    auth = made(trusted_proxies=("127.0.0.1",))
    app = FastAPI()
    auth.install(app)
    notes: list[Any] = []
    app.add_middleware(cast("Any", Noting), notes=notes)  # outside the gate

    @app.post("/long")
    async def long(request: Request) -> None:  # pyright: ignore[reportUnusedFunction]
        async for _ in request.stream():
            pass

    with listening(app) as connection:
        connection.sendall(
            head("GET /auth/me", VICTIM)
            + head("GET /auth/me", STRANGER, host="evil.example")
            + head("GET /auth/me", STRANGER)
        )
        first, second, third = answers(connection, 3)
        assert [each[0] for each in (first, second, third)] == [b"401", b"421", b"401"]
        assert len({each[1] for each in (first, second, third)}) == 3
        # A long body is read on by the task of its request, and so is all that comes after it.
        connection.sendall(head("POST /long", VICTIM, "Content-Length: 1000000") + b"a" * 1_000_000)
        assert answers(connection, 1) == [(b"200", None)]
        connection.sendall(head("GET /auth/me", STRANGER))
        assert answers(connection, 1)[0][0] == b"401"
    assert notes == [None] * 4  # before their gate they have nobody in mind


@pytest.mark.standard("ASVS 16.2.1")
async def test_a_socket_is_on_behalf_of_who_opened_it() -> None:
    """Its tries counted for the request before it on that connection, or for nobody's address."""
    notes: list[Any] = []
    app = FastAPI()
    app.router.routes.append(WebSocketRoute("/open", Noting(nothing, notes)))
    async with telling(app=app):
        await ask(app, "GET", "/auth/me")
        await open_socket(app, STRANGER)
    assert notes[0] == (STRANGER, "/open")


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "websocket.close", "code": 1000})


async def open_socket(app: Any, peer: str, **more: Any) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: dict[str, Any]) -> None: ...

    scope = {
        "type": "websocket",
        "path": "/open",
        "root_path": "",
        "scheme": "ws",
        "query_string": b"",
        "subprotocols": [],
        "client": (peer, 1),
        "headers": [(b"host", b"localhost")],
    }
    await app(scope | more, receive, send)


@pytest.mark.standard("ASVS 16.2.1")
async def test_an_app_that_asks_another_in_its_own_task_is_still_asked_by_the_same() -> None:
    """The rest of the request stood in the audit as coming from this machine."""
    other, app = FastAPI(), FastAPI()
    notes: list[Any] = []

    @app.get("/front")
    async def front() -> None:  # pyright: ignore[reportUnusedFunction]
        notes.append(seen())
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app=other), base_url=ORIGIN
        ) as client:
            assert (await client.get("/auth/me")).status_code == 401
        notes.append(seen())

    async with telling(app=other), telling(app=app):
        await ask(app, "GET", "/front")
    assert notes == [(VICTIM, "/front")] * 2


@pytest.mark.capability("S1-05")
async def test_two_watchwords_one_in_the_other_know_their_own_visitor() -> None:
    """What one had read of the request was the other's: device, session, who it is."""
    notes: list[Any] = []

    class Reading(Noting):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            for _ in range(2):
                now = occasion()
                assert now is not None
                assert now.client is not None
                self.notes.append((now.app, now.client.device_cookie, now.request_id))
                if len(self.notes) % 3 == 1:
                    await self.app(scope, receive, send)

    inner, outer = FastAPI(), FastAPI()

    @inner.get("/who")
    async def who() -> None:  # pyright: ignore[reportUnusedFunction]
        now = occasion()
        assert now is not None
        assert now.client is not None
        notes.append((now.app, now.client.device_cookie, now.request_id))

    outer.mount("/in", inner)
    outer.add_middleware(cast("Any", Reading), notes=notes)  # within the gate, which comes last
    options: dict[str, Any] = {"client_id": "inner", "cookies": {"device": "inner"}}
    async with telling(app=inner, **options), telling(app=outer, client_id="outer"):
        held = {"device": "wwd_" + "a" * 43, "inner": "wwd_" + "b" * 43}
        cookie = "; ".join(f"{name}={value}" for name, value in held.items())
        answer = await ask(outer, "GET", "/in/who", headers={"Cookie": cookie})
    assert answer.status_code == 200
    told = [(app, value and value.reveal(), request_id) for app, value, request_id in notes]
    request_id = answer.headers["x-request-id"]
    assert told == [
        ("outer", held["device"], request_id),
        ("inner", held["inner"], request_id),
        ("outer", held["device"], request_id),
    ]


# Who is sent where


async def raw(
    app: Any, peer: str = VICTIM, receive: Any = None, **more: Any
) -> tuple[int, bytes | None]:
    """Status and Location for a request as a server passes it on, of no client of ours."""
    told: list[Any] = []

    async def nothing_more() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        told.append(message)

    scope: dict[str, Any] = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": "/",
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "client": (peer, 1),
        "server": ("localhost", 80),
        "headers": [(b"host", b"accounts.example.com")],
    }
    await app(scope | more, receive or nothing_more, send)
    return told[0]["status"], dict(told[0]["headers"]).get(b"location")


@pytest.mark.capability("S0-17", "S0-81")
async def test_a_target_without_a_slash_leads_to_no_other_host() -> None:
    """h11 passes on what it is given: `.evil.example/` made our host one of theirs."""
    async with telling(**PRODUCTION) as story:
        for target in (".evil.example/", "@evil.example/", ":x@evil.example", "*", "", "x"):
            for given in (target.encode(), None):
                sent = await raw(story.app, path=target, raw_path=given)
                assert sent == (301, f"{SITE}/".encode()), target
        assert await raw(story.app, path="/\udc80") == (301, f"{SITE}/".encode())


@pytest.mark.capability("S0-17", "DEF-21")
async def test_whoever_came_by_https_is_not_sent_on_by_plain_http() -> None:
    """The framework mends a slash by a redirect: a password would go on again, unencrypted."""
    async with telling(**PRODUCTION, trusted_proxies=("10.0.0.0/8",)) as story:
        for said, peer, status, lead in (
            (b"https", "10.0.0.1", 307, b"https://accounts.example.com/auth/login"),
            (b"https", VICTIM, 403, None),  # whom nobody trusts is not believed
        ):
            headers = [(b"host", b"accounts.example.com"), (b"x-forwarded-proto", said)]
            path = "/auth/login/"
            sent = await raw(story.app, peer, method="POST", path=path, headers=headers)
            assert sent == (status, lead)


# What a connection may do


@pytest.mark.parametrize("reads", [True, False])
async def test_a_body_that_trickles_in_is_no_fault_of_a_middleware(reads: bool) -> None:
    """Through anybody's `@app.middleware("http")` it was a 500, and a traceback in the log."""
    app = FastAPI()

    async def watching(request: Request, call_next: Any) -> Any:
        if reads:
            await request.body()
        return await call_next(request)

    pieces = 0

    async def trickling() -> dict[str, Any]:
        nonlocal pieces
        pieces += 1
        await asyncio.sleep(0 if pieces == 1 else 30)
        return {"type": "http.request", "body": b"{", "more_body": True}

    async with telling(app=app, body_timeout="1s"):
        app.add_middleware(BaseHTTPMiddleware, dispatch=watching)
        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        path = "/auth/login"
        sent = await raw(app, receive=trickling, method="POST", path=path, headers=headers)
    assert sent == (408, None)


async def test_a_socket_whose_head_came_in_two_pieces_may_be_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was cut off as if its head had never ended."""
    monkeypatch.setattr(protocol, "PATIENCE", 0.01)
    sockets: list[Any] = []

    def taking(**_: Any) -> Any:
        sockets.append(MagicMock(asyncio.Protocol))
        return sockets[-1]

    async def app(scope: Scope, receive: Receive, send: Send) -> None: ...

    config = uvicorn.Config(cast("Any", app), lifespan="off", log_config=None, interface="asgi3")
    config.load()
    config.ws_protocol_class = cast("Any", taking)
    transport = MagicMock(asyncio.Transport)
    transport.is_closing.return_value = False
    connection = BoundedHttp(config, ServerState(), {}, asyncio.get_running_loop())
    connection.connection_made(transport)
    connection.data_received(b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n")
    connection.data_received(b"Connection: Upgrade\r\n\r\n")
    assert len(sockets) == 1
    await asyncio.sleep(0.1)
    transport.close.assert_not_called()


@pytest.mark.invariant("I-22")
@pytest.mark.parametrize("mark", ["via", "x-forwarded-for", "cf-visitor", "front-end-https"])
def test_a_proxy_on_this_machine_is_not_this_machine(mark: str) -> None:
    """Whichever way it says that it speaks for others."""
    headers = [(b"host", b"localhost")]
    scope: dict[str, Any] = {"type": "http", "client": ("127.0.0.1", 1), "headers": headers}
    assert may_know(Request(scope), None)
    headers.append((mark.encode(), b"on"))
    assert not may_know(Request(scope | {"headers": headers}), None)
