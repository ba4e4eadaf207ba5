"""Requests that no browser sends, on real sockets; forms of other sites; and every GET, crawled."""

import json
import re
import socket
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import httpx
import psutil
import pytest

from tests.cli.command import Folder, Running
from tests.told import ADA, PASSWORD, Story, browser, cookie_session, problem, telling
from watchword.testing.story import bearer

MIB = 1024 * 1024
LOGIN = "/auth/login"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server in production that waits a second for a body."""
    folder = Folder(path=tmp_path_factory.mktemp("server"))
    with folder.running("serve", "--port", "0", WATCHWORD_BODY_TIMEOUT="1s") as running:
        yield running


class Wire:
    """One connection, and what came back on it."""

    def __init__(self, server: Running) -> None:
        parts = urlsplit(server.address)
        self.socket = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=30)

    def send(self, *pieces: bytes) -> "Wire":
        """Send what the server still takes."""
        with suppress(OSError):  # it may have hung up in the middle
            for piece in pieces:
                self.socket.sendall(piece)
        return self

    def status(self) -> int | None:
        """The status of the answer; None: hung up without one."""
        received = b""
        with suppress(ConnectionError):
            while b"\r\n" not in received and (piece := self.socket.recv(65536)):
                received += piece
        found = re.match(rb"HTTP/1\.1 (\d{3}) ", received)
        return int(found[1]) if found else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def head(
    line: str = f"POST {LOGIN} HTTP/1.1",
    *,
    body: bytes | None = None,
    kind: str = "application/json",
    more: Iterable[str] = (),
) -> bytes:
    """A request's head, and its body where there is one."""
    length = [] if body is None else [f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    lines = (line, "Host: 127.0.0.1", *length, *more, "Connection: close", "", "")
    return "\r\n".join(lines).encode("latin-1") + (body or b"")


def deep(depth: int) -> bytes:
    return b'{"email":' + b"[" * depth + b"]" * depth + b"}"


FORM = "application/x-www-form-urlencoded"
GET = "GET /auth/me HTTP/1.1"
WANTED: dict[str, bytes] = {
    "a line of 100 KB": head(f"GET /auth/me?{'a' * 100_000} HTTP/1.1"),
    "a path of 30 KB": head(f"GET /auth/{'a' * 30_000} HTTP/1.1"),
    "a header of 100 KB": head(GET, more=[f"X-Long: {'a' * 100_000}"]),
    "5000 headers": head(GET, more=[f"X-{number}: a" for number in range(5000)]),
    "a cookie of 50 KB": head(GET, more=[f"Cookie: __Host-session={'a' * 50_000}"]),
    "3000 cookies": head(GET, more=[f"Cookie: {'; '.join(f'c{n}=a' for n in range(3000))}"]),
    "a token of 50 KB": head(GET, more=[f"Authorization: Bearer {'a.' * 25_000}"]),
    "a token of 20000 dots": head(GET, more=[f"Authorization: Bearer {'.' * 20_000}"]),
    "addresses of 50 KB": head(GET, more=[f"X-Forwarded-For: {'1.2.3.4,' * 6000}"]),
    "a body of 20 MB": head(body=b'{"email":"' + b"a" * (20 * MIB) + b'"}'),
    "JSON of 30000 lists": head(body=deep(30_000)),
    "JSON of 8000 objects": head(body=b'{"a":' * 8000 + b"1" + b"}" * 8000),
    "a number of 50000 digits": head(body=b'{"email":' + b"9" * 50_000 + b"}"),
    "a number past all": head(body=b'{"email":1e999999999,"password":-1e-999999999}'),
    "4000 keys": head(body=json.dumps({f"k{n}": n for n in range(4000)}).encode()),
    "one key 4000 times": head(body=b"{" + b'"email":1,' * 4000 + b'"email":2}'),
    "a password of 60 KB": head(body=json.dumps({"email": ADA, "password": "a" * 60_000}).encode()),
    "half of a surrogate pair": head(body=b'{"email":"\\ud800@example.com","password":"\\udfff"}'),
    "10000 fields": head(
        body=b"&".join(b"f%d=a" % number for number in range(7000)),
        kind=FORM,
        more=["Sec-Fetch-Site: same-origin"],
    ),
    "a scope of 50 KB": head(
        body=b"username=a&password=b&grant_type=password&scope=" + b"a+" * 25_000,
        kind=FORM,
        more=["Sec-Fetch-Site: same-origin"],
    ),
    "2000 parts": head(
        body=b"".join(
            b'--x\r\nContent-Disposition: form-data; name="f%d"\r\n\r\na\r\n' % n
            for n in range(1000)
        )
        + b"--x--\r\n",
        kind="multipart/form-data; boundary=x",
        more=["Sec-Fetch-Site: same-origin"],
    ),
    "a part without end": head(
        body=b'--x\r\nContent-Disposition: form-data; name="' + b"a" * 50_000,
        kind="multipart/form-data; boundary=x",
        more=["Sec-Fetch-Site: same-origin"],
    ),
    "two lengths": head(more=["Content-Length: 5", "Content-Length: 6"]) + b"aaaaaa",
    "a length and chunks": head(more=["Content-Length: 5", "Transfer-Encoding: chunked"])
    + b"0\r\n\r\n",
    "a length below nothing": head(more=["Content-Length: -1"]),
    "a header over two lines": head(GET, more=["X-Folded: a", " b"]),
    "a NUL in a header": head(GET, more=["X-Nul: a\x00b"]),
    "no HTTP": b"\x16\x03\x01\x02\x00" + b"\x00" * 512 + b"\r\n\r\n",
    "the other HTTP": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.standard("CVE row 52")
@pytest.mark.parametrize("name", WANTED)
def test_too_much_of_anything_is_refused_and_costs_nobody_else(server: Running, name: str) -> None:
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    with Wire(server) as wire:
        status = wire.send(WANTED[name]).status()
    assert status is None or 400 <= status < 500, status
    assert httpx.get(f"{server.address}/healthz", timeout=30).status_code == 200
    assert process.memory_info().rss - before < 80 * MIB
    said = server.said()
    assert "Traceback" not in said, said
    assert "unexpected" not in said, said


def test_a_body_in_chunks_without_end_is_cut_off(server: Running) -> None:
    start = head(more=["Transfer-Encoding: chunked", "Content-Type: application/json"])
    with Wire(server) as wire:
        wire.send(start, *([b"10000\r\n" + b"a" * 0x10000 + b"\r\n"] * 64))
        status = wire.status()
    assert status is None or status in (400, 413, 422), status
    assert "Traceback" not in server.said()


def test_a_hundred_slow_bodies_keep_nobody_waiting_and_are_let_go(server: Running) -> None:
    """Each names a length and sends one byte of it. They end, not the server."""
    held = [Wire(server) for _ in range(100)]
    try:
        for wire in held:
            wire.send(head(more=["Content-Length: 1000", "Content-Type: application/json"]), b"{")
        with httpx.Client(base_url=server.address, timeout=30) as client:
            answer = client.post(LOGIN, json={"email": ADA, "password": "a wrong horse battery"})
            assert answer.status_code == 401, answer.text
        said = [wire.status() for wire in held]
        assert set(said) <= {408, 400, None}, set(said)
    finally:
        for wire in held:
            wire.__exit__()
    until = time.monotonic() + 20
    inside = psutil.Process(server.process.pid)
    while len(inside.net_connections(kind="tcp")) > 20:
        assert time.monotonic() < until, "connections are kept"
        time.sleep(0.1)
    assert "Traceback" not in server.said()


# --- forms of other sites -------------------------------------------------------------------


SAFE = {"get", "head", "options"}
KINDS = ("text/plain", FORM, "multipart/form-data; boundary=x")
FOREIGN = (
    {
        "Sec-Fetch-Site": "cross-site",
        "Origin": "https://evil.example",
        "Sec-Fetch-Mode": "navigate",
    },
    {"Sec-Fetch-Site": "same-site", "Origin": "http://sub.localhost:8000"},
    {"Origin": "null"},
    {"Origin": "https://evil.example"},
)


def routes(story: Story, *, safe: bool) -> Iterator[tuple[str, str]]:
    """Method and path of every route, the ids of paths still in braces."""
    openapi: dict[str, Any] = story.app.openapi()
    for path, operations in openapi["paths"].items():
        for method in operations:
            if (method in SAFE) == safe:
                yield method, path


def rows(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table of ours."""
    path = Path(unquote(urlsplit(url).path))
    with closing(sqlite3.connect(path)) as database:
        names = [
            name
            for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            if name.startswith("watchword_")
        ]
        return {
            name: sorted(database.execute(f'SELECT * FROM "{name}"'), key=repr) for name in names
        }


def changed(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    """The tables whose rows are others."""
    return {name for name in after if before.get(name) != after[name]}


KEPT = {"watchword_audit_entry", "watchword_attempt_window"}  # that somebody tried is written down


@pytest.mark.invariant("I-21")
@pytest.mark.capability("S0-77")
@pytest.mark.standard("3.5.1-2", "CVE row 51")
async def test_no_form_of_another_site_changes_anything(sqlite_url: str) -> None:
    """Every route, every kind of form, every sign of another site; the cookie comes along."""
    async with telling(sqlite_url, background=False) as story, browser(story.app) as client:
        await story.join()
        proof = await cookie_session(story, client)
        body = f'{{"email":"{ADA}","password":"{PASSWORD}","x":"="}}'
        fields = f"username={ADA}&email={ADA}&password={PASSWORD}&csrf_token=guessed"
        sent = {
            KINDS[0]: body,
            KINDS[1]: fields,
            KINDS[2]: "--x\r\nContent-Disposition: form-data; name=username\r\n\r\n"
            f"{ADA}\r\n--x--\r\n",
            "application/json": body,
        }
        found = list(routes(story, safe=False))
        assert len(found) > 20
        cookies = dict(client.cookies)
        before = rows(sqlite_url)
        for method, path in found:
            for site in FOREIGN:
                for kind, text in sent.items():
                    answer = await client.request(
                        method,
                        re.sub(r"\{\w+\}", "0" * 26, path),
                        content=text,
                        headers={"Content-Type": kind, **site},
                    )
                    named = (method, path, kind, site, answer.text)
                    if kind != "application/json":
                        assert 400 <= answer.status_code < 500, named
                        assert "set-cookie" not in answer.headers, named
        # JSON of another site needs a preflight, which nobody answers; a bearer's is its own.
        assert changed(before, rows(sqlite_url)) <= KEPT | {"watchword_outbox_mail"}
        assert dict(client.cookies) == cookies
        assert (await client.get("/auth/me")).status_code == 200
        before = rows(sqlite_url)
        ours = {"Sec-Fetch-Site": "same-origin", **proof}
        assert (await client.post("/auth/logout", headers=ours)).status_code == 204
        assert "watchword_session" in changed(before, rows(sqlite_url)), "the watch works"


@pytest.mark.invariant("I-21")
async def test_a_form_of_another_site_signs_nobody_in_or_out() -> None:
    """Who is signed in as somebody else leaves there what is theirs."""
    async with telling(background=False) as story, browser(story.app) as victim:
        await story.join()
        await story.join("eve@example.com")
        proof = await cookie_session(story, victim)
        form = {"username": "eve@example.com", "password": PASSWORD}
        for site in FOREIGN:
            answer = await victim.post(LOGIN, data=form, headers=site)
            assert answer.status_code == 403, (site, answer.text)
            assert "set-cookie" not in answer.headers
            for path in ("/auth/logout", "/auth/logout-all"):
                problem(await victim.post(path, headers=site), 403, "csrf_refused")
                # Not with a token that leaked, either: the browser says who asks.
                refused = await victim.post(path, headers={**site, **proof})
                problem(refused, 403, "csrf_refused")
        me = await victim.get("/auth/me")
        assert me.json()["email"] == ADA


# --- GET ------------------------------------------------------------------------------------


@pytest.mark.invariant("I-21")
@pytest.mark.standard("3.5.3")
async def test_no_get_changes_anything(sqlite_url: str) -> None:
    """Crawled by a stranger, a user and an administrator, with a cookie and with a token."""
    async with telling(sqlite_url, background=False) as story:
        await story.join()
        admin = await story.auth.passwords.create_user(
            email="grace@example.com", password=PASSWORD, is_verified=True, roles=("admin",)
        )
        crowd: list[tuple[httpx.AsyncClient, dict[str, str]]] = [(browser(story.app), {})]
        for email in (ADA, "grace@example.com"):
            by_cookie = browser(story.app)
            await story.log_in(email, transport="cookie", client=by_cookie)
            token = (await story.log_in(email))["access_token"]
            crowd += [(by_cookie, {}), (browser(story.app), bearer(token))]
        (session, *_) = (await crowd[1][0].get("/auth/sessions")).json()["items"]
        made = await crowd[2][0].post("/auth/api-keys", json={"name": "ci"}, headers=crowd[2][1])
        ids = {
            "session_id": session["id"],
            "user_id": admin.id,
            "key_id": made.json().get("id", "0" * 26),
        }
        crawled: set[tuple[str, int]] = set()
        before = rows(sqlite_url)
        for client, headers in crowd:
            for _, path in [*routes(story, safe=True), ("get", "/auth/nothing-here")]:
                filled = re.sub(r"\{(\w+)\}", lambda found: ids.get(found[1], "0" * 26), path)
                for method in ("GET", "HEAD", "OPTIONS"):
                    for query in ("", "?limit=1&after=x&token=wwv_x&logout=1&_method=DELETE"):
                        answer = await client.request(method, filled + query, headers=headers)
                        assert answer.status_code < 500, (path, answer.text)
                        crawled.add((path, answer.status_code))
            # What only POST may do is not done by asking with GET.
            for _, path in routes(story, safe=False):
                filled = re.sub(r"\{(\w+)\}", lambda found: ids.get(found[1], "0" * 26), path)
                answer = await client.get(
                    filled, headers={**headers, "X-HTTP-Method-Override": "POST"}
                )
                assert answer.status_code in {200, 401, 403, 404, 405}, (path, answer.text)
        after = rows(sqlite_url)
        assert changed(before, after) <= {"watchword_audit_entry"}, "a GET changed something"
        entries = set(after["watchword_audit_entry"]) - set(before["watchword_audit_entry"])
        assert all("request_refused" in entry for entry in entries), entries
        assert ("/auth/me", 200) in crawled
        assert ("/auth/admin/users/{user_id}/sessions", 200) in crawled
        ended = await crowd[2][0].delete(f"/auth/sessions/{ids['session_id']}", headers=crowd[2][1])
        assert ended.status_code == 204, ended.text
        assert "watchword_session" in changed(after, rows(sqlite_url)), "the watch works"
        for client, _ in crowd:
            await client.aclose()
