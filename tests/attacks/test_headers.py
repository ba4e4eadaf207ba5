"""Slow, oversized and misnamed requests, against a server that really runs."""

import contextlib
import re
import select
import socket
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.cli.command import Folder, Running

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(path=tmp_path)


SERVE = ("serve", "--port", "0", "--data", "things")
LOGIN = b"POST /auth/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@contextlib.contextmanager
def connected(server: Running) -> Generator[socket.socket]:
    found = re.fullmatch(r"http://(.+):(\d+)", server.address)
    assert found is not None
    with socket.create_connection((found[1], int(found[2])), timeout=20) as line:
        yield line


def told(server: Running, *sent: bytes, every: float = 0) -> bytes:
    """All that the server says until it hangs up, when this is sent piece by piece."""
    heard = b""
    with connected(server) as line, contextlib.suppress(ConnectionError):
        for each in sent:
            line.sendall(each)
            if select.select([line], [], [], every)[0]:
                break  # it answers, and need not hear the rest
        while more := line.recv(65536):
            heard += more
    return heard


def status(heard: bytes) -> int:
    return int(heard.split(b" ", 2)[1]) if heard else 0


@pytest.mark.standard("CVE row 52", "CVE row 24", "CVE row 54")
@pytest.mark.invariant("I-22")
def test_a_server_is_not_held_up_by_what_is_slow_large_or_misnamed(folder: Folder) -> None:
    with folder.running(*SERVE, WATCHWORD_BODY_TIMEOUT="1s") as server:
        # A body that trickles in: the whole of it has a second, not each piece.
        trickle = told(server, LOGIN + b"Content-Length: 1000\r\n\r\n", *[b"{"] * 12, every=0.2)
        assert status(trickle) == 408
        assert b'"code":"body_too_slow"' in trickle
        assert b"x-content-type-options: nosniff" in trickle
        # The same, without saying how long it will be.
        chunked = (b"1\r\n{\r\n" for _ in range(12))
        head = LOGIN + b"Transfer-Encoding: chunked\r\n\r\n"
        assert status(told(server, head, *chunked, every=0.2)) == 408
        # More than any of our routes takes, said before or found out.
        declared = LOGIN + b"Connection: close\r\nContent-Length: 99999999\r\n\r\n"
        assert status(told(server, declared)) == 422
        # A head without end, in one line or in many.
        assert status(
            told(server, b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ", *[b"x" * 8192] * 20)
        ) in (0, 400)
        assert status(told(server, b"GET /" + b"x" * 200_000)) in (0, 400)
        # Names.
        for hosts in (
            b"",
            b"Host: localhost\r\nHost: localhost\r\n",
            b"Host: a/public?\r\n",
            b"Host: x@localhost\r\n",
        ):
            asked = b"GET /auth/me HTTP/1.1\r\n" + hosts + b"Connection: close\r\n\r\n"
            assert status(told(server, asked)) == 400, hosts
        foreign = b"GET /auth/me HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
        assert status(told(server, foreign)) == 421
        absolute = foreign.replace(b"/auth", b"http://evil.example/auth").replace(
            b": evil.example", b": localhost"
        )
        assert status(told(server, absolute)) == 401
        # Thousands of ranges, and thousands of headers.
        ranges = b"Range: bytes=" + b",".join(b"0-%d" % each for each in range(5000)) + b"\r\n"
        asked = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + ranges
        assert status(told(server, asked + b"\r\n")) == 200
        many = b"".join(b"X-%d: y\r\n" % each for each in range(3000))
        asked = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + many
        assert status(told(server, asked + b"\r\n")) == 200
        with server.client() as client:
            assert client.get("/healthz").status_code == 200
