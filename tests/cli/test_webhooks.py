"""`watchword webhooks`."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from standardwebhooks.webhooks import Webhook

from tests.cli.command import Folder
from tests.told import ADA, PASSWORD, telling
from watchword.crypto.keys import generate_secret

SECRET = generate_secret()


class Theirs(HTTPServer):
    """An endpoint of somebody else's, in a thread of its own."""

    status = 204
    received: list[tuple[dict[str, str], bytes]]


class _Taking(BaseHTTPRequestHandler):
    server: Theirs  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.received.append(
            ({name.lower(): value for name, value in self.headers.items()}, body)
        )
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name
        pass


@pytest.fixture
def theirs() -> Iterator[Theirs]:
    with Theirs(("127.0.0.1", 0), _Taking) as server:
        server.received = []
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.invariant("I-12")
def test_an_operator_adds_tests_rotates_and_removes_an_endpoint(
    folder: Folder, theirs: Theirs
) -> None:
    database = f"sqlite:///{folder.path / 'app.db'}"
    env = {"WATCHWORD_SECRET": SECRET.reveal(), "WATCHWORD_ENVIRONMENT": "development"}
    url = f"http://127.0.0.1:{theirs.server_port}/hooks"

    def run(*arguments: str, code: int = 0, **more: str) -> str:
        done = folder.run("webhooks", *arguments, "--database", database, **{**env, **more})
        assert done.returncode == code, (done.stdout, done.stderr)
        return done.stdout if code == 0 else done.stderr

    async def made() -> None:
        async with telling(database, secret=SECRET):
            pass

    asyncio.run(made())
    assert "events" in run("add", url, "--events", "users.*", code=1)
    assert "url" in run("add", "http://10.0.0.1/", "--events", "*", code=1)
    secret = run("add", url, "--events", "user.*", "--events", "session.ended").strip()
    assert secret.startswith("whsec_")
    (item,) = json.loads(run("list", "--json"))["items"]
    assert (item["url"], item["events"]) == (url, ["user.*", "session.ended"])
    listed = run("list") + run("show", item["id"])
    assert url in listed
    assert secret not in listed
    assert "204" in run("test", item["id"])
    headers, body = theirs.received[-1]
    assert Webhook(secret).verify(body, headers)["type"] == "webhook.test"
    theirs.status = 500
    assert "status 500" in run("test", item["id"], code=1)
    renewed = run("rotate", item["id"]).strip()
    assert renewed != secret

    # What another command does is kept for it, under the secret of the servers or not at all.
    create = ("users", "create", ADA, "--password-stdin", "--database", database)
    without: dict[str, str] = {}
    done = folder.run(*create, stdin=PASSWORD, **without)
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert "webhooks_unsealable" in done.stderr
    assert "WATCHWORD_SECRET" in done.stderr
    done = folder.run(*create, stdin=PASSWORD, **env)
    assert done.returncode == 0, done.stderr
    assert json.loads(run("show", item["id"]))["waiting"] >= 1
    assert "0 are tried" in run("retry", item["id"])

    theirs.status = 410

    async def deliver() -> None:
        async with telling(database, secret=SECRET, background=False) as story:
            with contextlib.suppress(TimeoutError):
                await story.auth.webhooks.deliver_due()

    asyncio.run(deliver())
    items = {each["kind"]: each for each in json.loads(run("dead", "--json"))["items"]}
    dead = items["user.created"]
    assert {each["last_error"] for each in items.values()} <= {"status 410", "endpoint gone"}
    assert dead["id"] in run("dead")
    assert "off: gone" in run("list")
    run("enable", item["id"])
    assert json.loads(run("show", item["id"]))["is_active"] is True
    run("disable", item["id"])
    run("remove", item["id"])
    assert "webhook_endpoint_not_found" in run("show", item["id"], code=1)
