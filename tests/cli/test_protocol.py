"""How much a connection may send around a body, without a server."""

import asyncio
from typing import Any, cast
from unittest.mock import MagicMock

import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from watchword.server import protocol
from watchword.server.protocol import MAX_HEAD, BoundedHttp

POST = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


class Connection:
    """A client that reads nothing; `scopes` and `bodies` are what the app saw."""

    def __init__(self, *, reads: bool = True) -> None:
        self.reads = reads
        self.scopes: list[Any] = []
        self.bodies: list[bytes] = []
        config = Config(cast("Any", self.app), lifespan="off", log_config=None, interface="asgi3")
        config.load()
        self.transport = MagicMock(asyncio.Transport)
        self.transport.is_closing.return_value = False
        self.transport.close.side_effect = self.hang_up
        self.protocol = BoundedHttp(config, ServerState(), {}, asyncio.get_running_loop())
        self.protocol.connection_made(self.transport)

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", self.reads
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.scopes.append(scope)
        self.bodies.append(body)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    def hang_up(self) -> None:
        self.transport.is_closing.return_value = True

    @property
    def is_closed(self) -> bool:
        return bool(self.transport.is_closing())

    def send(self, data: bytes) -> None:
        if not self.is_closed:
            self.protocol.data_received(data)

    async def end(self) -> None:
        await asyncio.sleep(0.05)
        self.protocol.connection_lost(ConnectionResetError())
        await asyncio.gather(*self.protocol.tasks)


async def test_trailers_do_not_reach_the_app() -> None:
    connection = Connection()
    connection.send(POST + b"3\r\nabc\r\n0\r\nAuthorization: Bearer x\r\n\r\n")
    await connection.end()
    assert connection.bodies == [b"abc"]
    assert [name for name, _ in connection.scopes[0]["headers"]] == [b"host", b"transfer-encoding"]
    assert not connection.is_closed


@pytest.mark.parametrize("lead", [b"", b"3\r\nabc\r\n"])
@pytest.mark.parametrize("line", [b"x: y\r\n", b"x" * 1000, b"x: y\r\n" * 20_000])
async def test_trailers_without_end_are_cut_off(lead: bytes, line: bytes) -> None:
    connection = Connection()
    connection.send(POST + lead + b"0\r\n")
    sent = 0
    while not connection.is_closed and sent < 4 * MAX_HEAD:
        connection.send(line)
        sent += len(line)
    assert connection.is_closed
    assert len(connection.protocol.headers) == 2
    await connection.end()


async def test_a_head_without_end_is_cut_off_after_a_long_body() -> None:
    connection = Connection()
    chunk = b"10000\r\n" + b"a" * 0x10000 + b"\r\n"
    connection.send(POST + chunk)
    for _ in range(8):
        connection.send(chunk)
    connection.send(b"0\r\n\r\n")
    await asyncio.sleep(0.05)
    assert connection.bodies == [b"a" * 0x10000 * 9]
    connection.send(b"GET / HTTP/1.1\r\n")
    for _ in range(70):
        connection.send(b"X-Filler: " + b"a" * 1000 + b"\r\n")
    assert connection.is_closed
    await connection.end()


async def test_chunks_that_come_in_pieces_are_no_trailers() -> None:
    connection = Connection()
    connection.send(POST)
    for _ in range(100):
        connection.send(b"400\r\n")
        connection.send(b"a" * 512)
        connection.send(b"a" * 512 + b"\r\n")
    connection.send(b"0\r\n\r\n")
    await connection.end()
    assert connection.bodies == [b"a" * 102_400]
    assert not connection.is_closed


@pytest.mark.standard("CVE row 52")
@pytest.mark.parametrize(
    "sent",
    [
        [],
        [b"\r\n"],
        [b"GET / HT"],
        [b"GET / HTTP/1.1\r\n", b"Host: localhost\r\n"],
        [b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\r\n"],
        [b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET / HT"],
    ],
    ids=["nothing", "an empty line", "half a line", "half a head", "empty after one", "a second"],
)
async def test_a_head_that_does_not_come_is_not_waited_for(
    sent: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "PATIENCE", 0.05)
    connection = Connection()
    for each in sent:
        connection.send(each)
        await asyncio.sleep(0.01)  # what was whole is answered
    await ended(connection)
    await connection.end()


async def test_the_rest_of_a_body_that_was_answered_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(protocol, "PATIENCE", 0.05)
    connection = Connection(reads=False)
    connection.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n")
    await ended(connection, drip=b"x")
    await connection.end()


async def test_a_whole_request_is_not_hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is still answered, and a body that is still read, may take what they take."""
    monkeypatch.setattr(protocol, "PATIENCE", 0.01)
    connection = Connection()
    connection.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n")
    for _ in range(3):
        await asyncio.sleep(0.03)
        assert not connection.is_closed
        connection.send(b"x")
    await asyncio.sleep(0.05)
    assert connection.bodies == [b"xxx"]
    assert not connection.is_closed  # what is kept alive has a timer of uvicorn's
    await connection.end()


async def ended(connection: Connection, drip: bytes = b"") -> None:
    """Wait until the server hangs up."""
    for _ in range(500):
        if connection.is_closed:
            return
        await asyncio.sleep(0.01)
        connection.send(drip)
    raise AssertionError("the connection is held open")
