"""A server in a process of its own, to be killed and started again on the same data."""

import asyncio
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

from watchword.crypto.keys import generate_secret

SITE = "https://accounts.example.com"
ROOT = Path(__file__).resolve().parents[2]
CHEAP = (sys.executable, "-m", "tests.faults.server")
REAL = (str(Path(sys.executable).with_name("watchword")), "serve", "--port", "0")
_STARTS_IN = 30.0  # seconds
_LISTENS = re.compile(rb"listens on (http://\S+)")


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
    """One server at a time: `start`, `kill`, `start` again."""

    folder: Path
    environ: Mapping[str, str]
    kills: int = 0
    address: str = ""
    _process: "subprocess.Popen[bytes] | None" = None

    async def start(self, command: Sequence[str] = CHEAP) -> None:
        """Start it and wait until it is ready."""
        log = self.folder / "server.log"
        began = log.stat().st_size if log.exists() else 0
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=dict(self.environ),
                start_new_session=True,  # a group of its own: what it started dies with it
            )
        until = time.monotonic() + _STARTS_IN
        async with httpx.AsyncClient(trust_env=False, timeout=2) as client:
            while time.monotonic() < until:
                said = log.read_bytes()[began:]
                assert self._process.poll() is None, said.decode()
                if found := _LISTENS.search(said):
                    self.address = found[1].decode()
                    try:
                        if (await client.get(f"{self.address}/readyz")).status_code == 200:
                            return
                    except httpx.TransportError:
                        pass
                await asyncio.sleep(0.02)
        raise AssertionError(f"not ready in {_STARTS_IN} s:\n{log.read_text()}")

    def kill(self) -> None:
        """SIGKILL to the process and whatever it started, unless it did that itself."""
        assert self._process is not None
        assert self._process.poll() in {None, -signal.SIGKILL}, "it had ended otherwise"
        self.stop()
        self.kills += 1

    def doom(self) -> None:
        """Let it begin to count the commits that it has left."""
        assert self._process is not None
        self._process.send_signal(signal.SIGUSR1)

    def stop(self) -> None:
        """End it, if it runs."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process = None


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
