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
from collections.abc import Mapping
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
_WORKS = re.compile(rb"Working on ")


def environment(database: str, mails: Path, **more: str) -> dict[str, str]:
    """Settings of a production server whose mail is files; nothing of this process's own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WATCHWORD_")}
    return {
        **kept,
        "WATCHWORD_ENVIRONMENT": "production",
        "WATCHWORD_DATABASE": database,
        "WATCHWORD_SECRET": generate_secret().reveal(),
        "WATCHWORD_PUBLIC_URL": SITE,
        "WATCHWORD_REQUIRE_HTTPS": "false",  # it is asked over plain http, on this machine
        "WATCHWORD_MAIL": f"file:{mails}",
        "WATCHWORD_MAIL__ALLOW_PLAIN": "true",
        # All that come here come from one address, and in a hurry.
        "WATCHWORD_LIMITS__ENABLED": "false",
        "WATCHWORD_LOCKOUT__ENABLED": "false",
        "WATCHWORD_ACCEPT_MISSING": "limiter",
        **more,
    }


@dataclass
class Forker:
    """A process that has imported everything, and of which cheap processes are forked."""

    environ: Mapping[str, str]
    _process: "subprocess.Popen[bytes] | None" = None
    _taking_turns: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def fork(self, **options: object) -> psutil.Process:
        """Start one, with these options of `tests.faults.server`."""
        async with self._taking_turns:
            return await self._fork(options)

    async def _fork(self, options: Mapping[str, object]) -> psutil.Process:
        if self._process is None:
            self._process = subprocess.Popen(  # noqa: ASYNC220  it takes milliseconds
                (sys.executable, "-m", "tests.faults.server"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=ROOT,
                env=dict(self.environ),
                start_new_session=True,
            )
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(options).encode() + b"\n")
        stdin.flush()
        said = await asyncio.to_thread(stdout.readline)
        found = _FORKED.fullmatch(said)
        assert found is not None, said
        return psutil.Process(int(found.group(1)))  # nobody else's: the forker keeps the dead

    def close(self) -> None:
        """End it; what was forked lives on."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@dataclass
class Victim:
    """One server at a time: `start`, `kill`, `start` again. `close` at the end."""

    folder: Path
    forker: Forker
    name: str = "server"
    kills: int = 0
    address: str = ""
    recovered_in: list[float] = field(default_factory=list[float])  # seconds from kill to ready
    _killed_at: float | None = None
    _real: "subprocess.Popen[bytes] | None" = None
    _server: psutil.Process | None = None

    async def start(self, **options: float) -> None:
        """Start a server that hashes at the test cost, and wait until it is ready."""
        before = len(self._said())
        self._server = await self.forker.fork(log=str(self._log), **options)
        await self._wait_until_ready(before)

    async def start_worker(self, *, since: float) -> None:
        """Start `watchword worker`, with a clock that goes fast since then."""
        before = len(self._said())
        self._server = await self.forker.fork(log=str(self._log), works=since)
        await self._hear(_WORKS, before)

    async def start_real(self) -> None:
        """Start `watchword serve` itself, and wait until it is ready."""
        before = len(self._said())
        with self._log.open("ab") as output:
            self._real = subprocess.Popen(  # noqa: ASYNC220  it takes milliseconds
                (*REAL, "--data", str(self.folder / "data")),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=dict(self.forker.environ),
                start_new_session=True,  # a group of its own: what it started dies with it
            )
        self._server = psutil.Process(self._real.pid)
        await self._wait_until_ready(before)

    @property
    def pid(self) -> int:
        """The number of the process that runs."""
        assert self._server is not None
        return self._server.pid

    @property
    def process(self) -> psutil.Process:
        """The process that runs."""
        assert self._server is not None
        return self._server

    def kill(self) -> None:
        """SIGKILL to the process and whatever it started, unless it did that itself."""
        assert self._server is not None
        self.end()
        self.kills += 1
        self._killed_at = time.monotonic()

    def doom(self) -> None:
        """Let it begin to count the commits that it has left."""
        assert self._server is not None
        self._server.send_signal(signal.SIGUSR1)

    def close(self) -> None:
        """End whatever runs, and what it was forked of."""
        self.end()
        self.forker.close()

    @property
    def _log(self) -> Path:
        return self.folder / f"{self.name}.log"

    def _said(self) -> bytes:
        return self._log.read_bytes() if self._log.exists() else b""

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
        assert self._server is not None
        until = time.monotonic() + _STARTS_IN
        while time.monotonic() < until:
            if found := what.search(self._said(), after):
                return found
            assert _is_alive(self._server), self._said().decode()
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
                        if self._killed_at is not None:
                            self.recovered_in.append(time.monotonic() - self._killed_at)
                            self._killed_at = None
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
