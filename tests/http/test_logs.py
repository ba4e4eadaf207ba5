"""Logs: one line a record, the request's id in it, and no secret."""

import io
import json
import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import Folder
from tests.told import ADA, telling
from watchword import logs
from watchword.crypto.keys import generate_secret
from watchword.kernel.secrets import new_secret

PREFIXES = "cdehkmprsuvx"
JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJlc2lnbmF0dXJl"


@pytest.fixture
def said() -> Iterator[io.StringIO]:
    """What is written, with the logger put back afterwards."""
    log = logging.getLogger("watchword")
    before = (log.level, list(log.handlers), log.propagate)
    stream = io.StringIO()
    yield stream
    log.level, log.handlers[:], log.propagate = before


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.capability("S1-40")
def test_ours_are_the_loggers_below_one_name_and_debug_is_a_switch(said: io.StringIO) -> None:
    logs.configure(format="json", stream=said)
    below = logging.getLogger("watchword.sessions")
    below.debug("quiet")
    below.info("heard")
    logs.configure(format="json", level="debug", stream=said)
    below.debug("now")
    assert [each["message"] for each in lines(said)] == ["heard", "now"]
    own = re.compile(r"""_log = logging.getLogger\("(\w+)""")
    named = {
        name
        for path in Path(logs.__file__).parent.rglob("*.py")
        for name in own.findall(path.read_text("utf-8"))
    }
    assert named == {"watchword"}


def test_a_record_is_one_json_object(said: io.StringIO) -> None:
    logs.configure(format="json", stream=said)
    log = logging.getLogger("watchword.test")
    try:
        raise ValueError("with\nlines")
    except ValueError:
        log.exception("it %s", "failed", extra={"attempt": 3, "api_key": "x", "place": "a\nb"})
    (one,) = lines(said)
    assert set(one) == {"time", "level", "logger", "message", "extra", "exception"}
    assert one["time"].endswith("Z")
    assert (one["level"], one["logger"], one["message"]) == ("ERROR", "watchword.test", "it failed")
    assert one["extra"] == {"attempt": 3, "api_key": "***", "place": "a\nb"}
    assert "ValueError" in one["exception"]


@pytest.mark.standard("16.4.1")
@pytest.mark.parametrize("form", ["text", "json"])
def test_nothing_that_is_logged_makes_a_line_of_its_own(form: Any, said: io.StringIO) -> None:
    logs.configure(format=form, stream=said)
    evil = "eve\r\n2026-01-01 INFO watchword: forged\x1b[31m\x00\u2028\u2029\x85\u202e\ud800"
    log = logging.getLogger("watchword.test")
    log.warning("user %s", evil, extra={"agent": evil})
    written = said.getvalue()
    assert written.count("\n") == 1
    assert len(written.splitlines()) == 1
    assert not set(written[:-1]) & set("\r\x1b\x00\u2028\u2029\x85\u202e\ud800")
    try:
        raise ValueError(evil)
    except ValueError:
        log.exception("it failed")
    for line in said.getvalue().splitlines()[1:]:
        forged = line.startswith("2026-01-01")
        assert not forged, "the lines of a traceback stand behind a bar"


@pytest.mark.standard("16.4.1")
async def test_what_a_stranger_sends_is_one_escaped_line_with_the_requests_id(
    sqlite_url: str, said: io.StringIO
) -> None:
    async with telling(sqlite_url) as story:
        logs.configure(format="json", level="debug", stream=said)
        evil = "x\x1b[31m%0d%0aforged"
        answer = await story.client.post(
            "/auth/login",
            json={"email": f"{ADA}\r\nforged: yes", "password": "x" * 20},
            headers={"User-Agent": evil, "X-Forwarded-For": evil},
        )
        refused = await story.client.get(
            "/auth/me", headers={"Authorization": f"Bearer {JWT[:-4]}%0aforged"}
        )
        for each in (answer, refused):
            assert 400 <= each.status_code < 500
        for one in lines(said):
            assert one["logger"].startswith("watchword")
        ids = {one.get("request_id") for one in lines(said)}
        assert refused.json()["request_id"] in ids
        assert {one["app"] for one in lines(said) if "request_id" in one} == {
            story.auth.core.client_id
        }


def secrets() -> dict[str, str]:
    found = {f"ww{letter}_": new_secret(f"ww{letter}_").reveal() for letter in PREFIXES}
    return {
        **found,
        "root": generate_secret().reveal(),
        "webhook": "whsec_" + "QUJD" * 11,
        "jwt": JWT,
        "basic": "Basic YWRhQGV4YW1wbGU6aHVudGVyMg==",
    }


@pytest.mark.capability("DEF-13", "S1-40")
def test_a_token_that_is_logged_by_mistake_is_hidden(said: io.StringIO) -> None:
    logs.configure(format="json", stream=said)
    log = logging.getLogger("watchword.test")
    given = secrets()
    for secret in given.values():
        log.warning("got %s", secret, extra={"given": f"<{secret}>"})
        try:
            raise ValueError(f"no good: {secret}")
        except ValueError:
            log.exception("it failed")
    written = said.getvalue()
    for secret in given.values():
        assert secret.rpartition(" ")[2] not in written
    assert not logs.SECRET.search(written)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("password=hunter22&next=/x", "password=***&next=/x"),
        ("{'new_password': 'two words', 'a': 1}", "{'new_password': ***, 'a': 1}"),
        ('{"client_secret": "abc", "b": 2}', '{"client_secret": ***, "b": 2}'),
        ("GET /verify?token=abcdef HTTP/1.1", "GET /verify?token=*** HTTP/1.1"),
        ("Authorization: Digest username", "Authorization: ***"),
        ("Cookie: a=b; c=d", "Cookie: ***"),
        ("postgresql://ada:hunter2@db/app", "postgresql://ada:***@db/app"),
        ("password: too short", "password: too short"),
        ("key wwk_ab12… of a user", "key wwk_ab12… of a user"),
        ("a bearer token came", "a bearer token came"),
        ("the cookie, and wwk_ as its prefix", "the cookie, and wwk_ as its prefix"),
    ],
)
def test_what_is_hidden_and_what_stays(text: str, kept: str) -> None:
    assert logs.redacted(text) == kept


def test_hiding_takes_no_longer_on_hostile_text() -> None:
    """Linear: ten times the text takes nothing like a hundred times as long."""
    for piece in (
        "eyJa.",
        "password",
        "wwr_",
        "://a:",
        "bearer ",
        "cookie:",
        "_password='",
        "a" * 9,
    ):
        began = time.process_time()
        logs.redacted(piece * (logs.LONGEST // len(piece)))
        assert time.process_time() - began < 5, piece


def test_the_filter_serves_handlers_of_ones_own() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(logs.Redaction())
    log = logging.getLogger("elsewhere")
    log.addHandler(handler)
    try:
        raise ValueError(JWT)
    except ValueError:
        log.exception("got %s", JWT)
    finally:
        log.removeHandler(handler)
    assert "got eyJ***" in stream.getvalue()
    assert JWT not in stream.getvalue()


def test_a_record_that_cannot_be_written_takes_nobody_down(said: io.StringIO) -> None:
    logs.configure(format="json", stream=said)
    logging.getLogger("watchword.test").warning("%s and %s", "one")  # noqa: PLE1206
    (one,) = lines(said)
    assert "one" not in one["message"] or "other arguments" in one["message"]
    with pytest.raises(ValueError, match="json"):
        logs.configure(format="xml")  # pyright: ignore[reportArgumentType]


@pytest.mark.slow
def test_the_server_writes_json_lines_and_no_token_of_an_address(tmp_path: Path) -> None:
    folder = Folder(path=tmp_path)
    told = {
        "WATCHWORD_LOG_FORMAT": "json",
        "WATCHWORD_LOG_LEVEL": "debug",
        "WATCHWORD_ENVIRONMENT": "development",
        "WATCHWORD_MAIL": f"file:{folder.path / 'mail'}",
    }
    with folder.running("serve", "--port", "0", **told) as server, server.client() as client:
        client.get("/auth/me", params={"token": "wwv_" + "a" * 43})
        client.get("/auth/me", headers={"Authorization": f"Bearer {JWT}"})
        until = time.monotonic() + 30
        while "uvicorn.access" not in server.said() and time.monotonic() < until:
            time.sleep(0.1)
    written = [json.loads(line) for line in server.said().splitlines() if line.startswith("{")]
    assert {"watchword.http", "uvicorn.access"} <= {each["logger"] for each in written}
    assert "a" * 43 not in server.said()
    assert JWT not in server.said()
    refused = [each for each in written if each["logger"] == "watchword.http"]
    assert all(len(each["request_id"]) == 26 for each in refused)
