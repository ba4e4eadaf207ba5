"""A server in a process of its own, to be killed and started again on the same data."""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import httpx
import psutil

from watchword.crypto.keys import generate_secret

SITE = "https://accounts.example.com"
ROOT = Path(__file__).resolve().parents[2]
REAL = (str(Path(sys.executable).with_name("watchword")), "serve", "--port", "0")
_STARTS_IN = 60.0  # seconds
_LISTENS = re.compile(rb"listens on (http://\S+)\n")
_FORKED = re.compile(rb"pid (\d+)\n")


def environment(database: str, mails: Path, **more: str) -> dict[str, str]:
    """Settings of a production server whose mail is files; nothing of this process's own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WATCHWORD_")}
    return {
        **kept,
        "WATCHWORD_ENVIRONMENT": "production",
        "WATCHWORD_DATABASE": database,
        "WATCHWORD_SECRET": generate_secret().reveal(),
        "WATCHWORD_PUBLIC_URL": SITE,
        "WATCHWORD_MAIL": f"file:{mails}",
        "WATCHWORD_MAIL__ALLOW_PLAIN": "true",
        **more,
    }


@dataclass
class Victim:
    """One server at a time: `start`, `kill`, `start` again. `close` at the end."""

    folder: Path
    environ: Mapping[str, str]
    kills: int = 0
    address: str = ""
    _forker: "subprocess.Popen[bytes] | None" = None  # where cheap servers come from
    _real: "subprocess.Popen[bytes] | None" = None
    _server: psutil.Process | None = None

    async def start(self, **options: float) -> None:
        """Start a server that hashes at the test cost, and wait until it is ready."""
        if self._forker is None:
            self._forker = self._run((sys.executable, "-m", "tests.faults.server"))
        assert self._forker.stdin is not None
        before = len(self._said())
        self._forker.stdin.write(json.dumps(options).encode() + b"\n")
        self._forker.stdin.flush()
        pid = int((await self._hear(_FORKED, before)).group(1))
        self._server = psutil.Process(pid)  # nobody else's: the forker keeps it when it is dead
        await self._wait_until_ready(before)

    async def start_real(self) -> None:
        """Start `watchword serve` itself, and wait until it is ready."""
        before = len(self._said())
        self._real = self._run((*REAL, "--data", str(self.folder / "data")))
        self._server = psutil.Process(self._real.pid)
        await self._wait_until_ready(before)

    def kill(self) -> None:
        """SIGKILL to the process and whatever it started, unless it did that itself."""
        assert self._server is not None
        self.end()
        self.kills += 1

    def doom(self) -> None:
        """Let it begin to count the commits that it has left."""
        assert self._server is not None
        self._server.send_signal(signal.SIGUSR1)

    def close(self) -> None:
        """End whatever runs."""
        self.end()
        if self._forker is not None:
            self._forker.kill()
            self._forker.communicate()
            self._forker = None

    @property
    def _log(self) -> Path:
        return self.folder / "server.log"

    def _said(self) -> bytes:
        return self._log.read_bytes() if self._log.exists() else b""

    def _run(self, command: Sequence[str]) -> "subprocess.Popen[bytes]":
        with self._log.open("ab") as output:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=dict(self.environ),
                start_new_session=True,  # a group of its own: what it started dies with it
            )

    def end(self) -> None:
        """End the server, if one runs."""
        if self._server is not None and _is_alive(self._server):
            os.killpg(self._server.pid, signal.SIGKILL)
            while _is_alive(self._server):
                time.sleep(0.002)
        self._server = None
        if self._real is not None:
            self._real.communicate()
            self._real = None

    async def _hear(self, what: "re.Pattern[bytes]", after: int) -> "re.Match[bytes]":
        until = time.monotonic() + _STARTS_IN
        while time.monotonic() < until:
            if found := what.search(self._said(), after):
                return found
            await asyncio.sleep(0.01)
        raise AssertionError(f"not heard in {_STARTS_IN} s:\n{self._said().decode()}")

    async def _wait_until_ready(self, after: int) -> None:
        assert self._server is not None
        self.address = (await self._hear(_LISTENS, after)).group(1).decode()
        until = time.monotonic() + _STARTS_IN
        async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
            while time.monotonic() < until:
                assert _is_alive(self._server), self._said().decode()
                with contextlib.suppress(httpx.TransportError):
                    if (await client.get(f"{self.address}/readyz")).status_code == 200:
                        return
                await asyncio.sleep(0.01)
        raise AssertionError(f"not ready in {_STARTS_IN} s:\n{self._said().decode()}")


def _is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


@dataclass
class Letterbox:
    """The folder of mails, read as they come."""

    folder: Path
    _read: dict[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])

    def tokens(self, address: str, prefix: str) -> list[str]:
        """The tokens of this kind that were mailed to this address, oldest first."""
        self._look()
        found: list[str] = []
        for _, (recipient, text) in sorted(self._read.items()):
            if recipient == address:
                found += re.findall(rf"\b{prefix}_[A-Za-z0-9_-]{{43}}", text)
        return found

    async def newest(self, address: str, prefix: str, *, past: int = 0, wait: float = 3) -> str:
        """The newest token, once there are more than `past`. Raises LookupError."""
        until = time.monotonic() + wait
        while True:
            if len(tokens := self.tokens(address, prefix)) > past:
                return tokens[-1]
            if time.monotonic() > until:
                raise LookupError(f"no {prefix} mail to {address} in {wait} s")
            await asyncio.sleep(0.02)

    def _look(self) -> None:
        for path in self.folder.glob("*.eml"):
            if path.name not in self._read:
                mail = message_from_bytes(path.read_bytes(), policy=policy.default)
                assert isinstance(mail, EmailMessage)
                body = mail.get_body(("plain",))
                assert body is not None
                self._read[path.name] = (str(mail["To"]), str(body.get_content()))
