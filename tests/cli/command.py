"""The console script as a user runs it: a process of its own, in a folder of its own."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import httpx

from watchword.cli import main
from watchword.testing import cheap_hashing

WATCHWORD = str(Path(sys.executable).with_name("watchword"))
PASSWORD = "correct horse battery staple"


def clean(environ: Mapping[str, str]) -> dict[str, str]:
    """The process's environment without settings of ours, and these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WATCHWORD_")}
    return {**kept, "PYTHONUNBUFFERED": "1", "COLUMNS": "200", **environ}


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A command that ended."""

    returncode: int
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A folder that commands run in."""

    path: Path
    environ: Mapping[str, str] = field(default_factory=dict[str, str])

    def run(self, *arguments: str, stdin: str = "", **env: str) -> Done:
        """Run a command in this process: the same `main`, without the time to start Python."""
        out, err = io.StringIO(), io.StringIO()
        code = 0
        with (
            contextlib.chdir(self.path),
            mock.patch.dict(os.environ, clean({**self.environ, **env}), clear=True),
            mock.patch.object(sys, "argv", ["watchword", *arguments]),
            mock.patch.object(sys, "stdin", io.StringIO(stdin)),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            cheap_hashing(),
        ):
            try:
                main()
            except SystemExit as ending:
                code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
        return Done(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())

    def script(
        self, *arguments: str, stdin: str = "", command: tuple[str, ...] = (WATCHWORD,), **env: str
    ) -> Done:
        """Run the installed console script to its end."""
        done = subprocess.run(
            [*command, *arguments],
            cwd=self.path,
            env=clean({**self.environ, **env}),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Done(returncode=done.returncode, stdout=done.stdout, stderr=done.stderr)

    @contextmanager
    def running(self, *arguments: str, **env: str) -> Generator["Running"]:
        """A server that is up; ended afterwards."""
        log = self.path / f"log-{time.monotonic_ns()}"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [WATCHWORD, *arguments],
                cwd=self.path,
                env=clean({**self.environ, **env}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            server = Running(process=process, log=log)
            try:
                server.wait_until_up()
                yield server
            finally:
                server.end()


@dataclass(slots=True, kw_only=True)
class Running:
    """A server that was started."""

    process: subprocess.Popen[bytes]
    log: Path
    address: str = ""

    def said(self) -> str:
        """All it printed so far."""
        return self.log.read_text("utf-8", "replace")

    def wait_until_up(self) -> None:
        """Wait for its address, and for an answer there."""
        until = time.monotonic() + 90
        while time.monotonic() < until:
            assert self.process.poll() is None, self.said()
            found = [
                word
                for word in self.said().split()
                if word.startswith("http://") and ":0" not in word
            ]
            if found:
                self.address = found[0]
                try:
                    httpx.get(f"{self.address}/openapi.json", timeout=5).raise_for_status()
                except httpx.TransportError:
                    pass
                else:
                    return
            time.sleep(0.1)
        raise AssertionError(self.said())

    def client(self, **options: Any) -> httpx.Client:
        """A client that keeps cookies."""
        return httpx.Client(base_url=self.address, timeout=60, **options)

    def end(self) -> int:
        """Ask it to end and wait; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
            raise
