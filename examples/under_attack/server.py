"""The server that is attacked, and connections to it; nothing but Python's own library."""

import http.client
import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WATCHWORD = Path(sys.executable).with_name("watchword")


@dataclass(frozen=True)
class Answer:
    """What came back. Status 0: the server hung up."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.body) if self.body else {}

    @property
    def cookies(self) -> list[str]:
        return [value for name, value in self.headers if name.lower() == "set-cookie"]

    @property
    def lasting(self) -> tuple[object, ...]:
        """All of it but what differs at every request."""
        body = {**self.json} if self.body[:1] == b"{" else {"": self.body}
        body.pop("request_id", None)
        headers = [pair for pair in self.headers if pair[0].lower() not in {"date", "x-request-id"}]
        return self.status, sorted(headers), sorted(map(str, body.items()))


@dataclass
class Server:
    """One `watchword serve` in production, with every default that matters here."""

    directory: Path
    address: str = ""
    process: subprocess.Popen[bytes] | None = None
    settings: Mapping[str, str] = field(default_factory=dict)  # beyond what is set below
    environ: dict[str, str] = field(default_factory=dict)
    kept: threading.local = field(default_factory=threading.local)  # a connection a thread

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def log(self) -> str:
        return (self.directory / "server.log").read_text("utf-8", "replace")

    def start(self) -> None:
        kept = {name: value for name, value in os.environ.items() if name[:10] != "WATCHWORD_"}
        self.environ = kept | {
            # This script plays the proxy too, so that one machine can be a crowd.
            "WATCHWORD_TRUSTED_PROXIES": "127.0.0.1/32",
            "WATCHWORD_MAIL": f"file:{self.directory / 'mail'}",
            "WATCHWORD_MAIL__ALLOW_PLAIN": "true",
            "WATCHWORD_BODY_TIMEOUT": "2s",  # instead of 30, so that nobody waits here
            **self.settings,
        }
        with (self.directory / "server.log").open("wb") as log:
            self.process = subprocess.Popen(
                [str(WATCHWORD), "serve", "--port", "0", "--data", str(self.data)],
                cwd=self.directory,
                env=self.environ,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        until = time.monotonic() + 60
        while True:
            if self.process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"the server did not start:\n{self.log}")
            found = re.search(r"http://([\d.]+:\d+)", self.log)
            if found:
                self.address = found[1]
                with suppress(OSError):
                    if self.ask("GET", "/readyz").status == 200:
                        return
            time.sleep(0.1)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(40)

    def command(self, *words: str, stdin: str = "") -> str:
        """A `watchword` command on the server's data; what it prints."""
        done = subprocess.run(
            [str(WATCHWORD), *words, "--data", str(self.data)],
            cwd=self.directory,
            env=self.environ,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout + done.stderr

    def ask(
        self,
        method: str,
        path: str,
        *,
        of: str = "192.0.2.1",
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request by the client at this address; a dict is sent as JSON."""
        named = {"X-Forwarded-For": of, **(headers or {})}
        if isinstance(body, dict):
            body = json.dumps(body)
            named.setdefault("Content-Type", "application/json")
        content = body.encode() if isinstance(body, str) else body
        for _ in range(2):  # one that was kept may have been closed meanwhile
            connection: http.client.HTTPConnection | None = getattr(self.kept, "open", None)
            self.kept.open = None
            fresh = connection is None
            if connection is None:
                connection = http.client.HTTPConnection(self.address, timeout=30)
            try:
                connection.request(method, path, body=content, headers=named)
                answer = connection.getresponse()
                read = Answer(answer.status, tuple(answer.getheaders()), answer.read())
            except (OSError, http.client.HTTPException):
                connection.close()
                if fresh:
                    raise
            else:
                self.kept.open = connection
                return read
        raise AssertionError("a fresh connection either answers or raises")

    def connect(self) -> socket.socket:
        host, _, port = self.address.partition(":")
        return socket.create_connection((host, int(port)), timeout=30)

    def raw(self, *pieces: bytes) -> Answer:
        """Bytes as they are."""
        received = b""
        with self.connect() as connection, suppress(OSError):
            for piece in pieces:
                connection.sendall(piece)
            while b"\r\n" not in received and (piece := connection.recv(65536)):
                received += piece
        found = re.match(rb"HTTP/1\.1 (\d{3})", received)
        return Answer(int(found[1]) if found else 0, body=received)

    def rows(self) -> dict[str, int]:
        """A digest of every table, but those in which requests are written down."""
        url = f"file:{self.data / 'watchword.db'}?mode=ro"
        with closing(sqlite3.connect(url, uri=True)) as database:
            names = [
                name
                for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type='table'")
                if not re.search(r"audit|attempt|lock|lease|change|outbox", name)
            ]
            return {
                name: hash(tuple(sorted(map(repr, database.execute(f'SELECT * FROM "{name}"')))))
                for name in names
            }
