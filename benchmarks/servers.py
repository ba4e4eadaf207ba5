"""Starts the contenders' servers and stops them again, by process."""

import http.client
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.environments import python_of
from benchmarks.measure import ROOT

SUITS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A row of a table: an app in an environment, and how it is asked."""

    name: str
    module: str  # under benchmarks.contenders
    variant: str = "-"
    peer: str | None = None  # whose environment; ours if None
    store: str | None = None  # sqlite unless it says postgresql
    status: int = SUITS  # what a request gets
    path: str = "/hello"
    posts: bool = False  # it is sent bodies instead of headers


@dataclass(frozen=True, slots=True)
class Server:
    """A contender that runs."""

    contender: Contender
    pid: int
    port: int
    headers: list[dict[str, str]]  # sent in turn; bodies, if it is posted to

    def ask(self) -> int:
        """One request; its status. Who is posted to has a /hello too."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            if self.contender.posts:
                connection.request("GET", "/hello")
            else:
                connection.request("GET", self.contender.path, headers=self.headers[0])
            answer = connection.getresponse()
            answer.read()
        finally:
            connection.close()
        return answer.status


@contextmanager
def serving(
    contender: Contender, *, core: int | None, database: str | None = None
) -> Generator[Server]:
    """Start a server, on one core if told so, and stop it at the end.

    Raises:
        RuntimeError: it does not start, or answers otherwise than it should.
    """
    python = python_of(contender.peer)
    with tempfile.TemporaryDirectory(prefix="watchword-bench-") as data:
        command = [python, "-m", "benchmarks.serve", contender.module, contender.variant, data]
        process = subprocess.Popen(
            [*command, database] if database else command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=None if core is None else lambda: os.sched_setaffinity(0, {core}),  # noqa: PLW1509  no threads yet
        )
        try:
            yield _ready(process, contender, Path(data))
        finally:
            process.terminate()
            try:
                process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


def _ready(process: "subprocess.Popen[str]", contender: Contender, data: Path) -> Server:
    if process.stdout is None or process.stderr is None:
        raise RuntimeError("no pipes")
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{contender.name} ({data}) did not start:\n{process.stderr.read()}")
    said = json.loads(line)
    server = Server(contender, process.pid, said["port"], said["headers"])
    until = time.monotonic() + 20
    while True:
        try:
            status = server.ask()
            break
        except OSError:
            if time.monotonic() > until:
                raise RuntimeError(f"{contender.name} does not answer") from None
            time.sleep(0.05)
    if status != contender.status:
        raise RuntimeError(f"{contender.name} answers {status} instead of {contender.status}")
    return server
