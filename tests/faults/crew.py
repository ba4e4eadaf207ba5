"""Several servers over one place, and somebody who asks all of them all the time."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tests.faults.victim import Forker, Victim

_ASKED_EVERY: Final = 0.015  # seconds


@asynccontextmanager
async def crew(folder: Path, environ: dict[str, str], size: int) -> AsyncGenerator[list[Victim]]:
    """So many servers, all ready."""
    forker = Forker(environ)
    servers = [Victim(folder, forker, name=f"server{number}") for number in range(size)]
    try:
        await asyncio.gather(*(server.start() for server in servers))
        yield servers
    finally:
        for server in servers:
            server.end()
        forker.close()


class Asker:
    """Asks one server `GET /auth/me` again and again on one connection, and notes what it says."""

    def __init__(self, address: str, header: str) -> None:
        self._place = urlsplit(address)
        self._ask = (
            f"GET /auth/me HTTP/1.1\r\nHost: {self._place.netloc}\r\n{header}\r\n\r\n".encode()
        )
        self.answers: list[tuple[float, int]] = []  # when the question was sent, and the status

    async def run(self) -> None:
        """Ask until it is cancelled."""
        assert self._place.port is not None
        reader, writer = await asyncio.open_connection(self._place.hostname, self._place.port)
        try:
            while True:
                sent = time.monotonic()
                writer.write(self._ask)
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length))
                self.answers.append((sent, int(head.split(b" ", 2)[1])))
                await asyncio.sleep(_ASKED_EVERY)
        finally:
            writer.close()

    async def believed(self, times: int) -> None:
        """Wait until it was believed that often."""
        while sum(status == 200 for _, status in self.answers) < times:
            assert all(status == 200 for _, status in self.answers), self.answers
            await asyncio.sleep(_ASKED_EVERY)

    def refused_after(self, ended: float) -> float | None:
        """The seconds until the first refusal of what was asked after the end, or None."""
        for sent, status in self.answers:
            if status == 401:
                return max(0.0, sent - ended)
        return None

    def faults(self, ended: float, bound: float) -> list[str]:
        """A yes after the bound, a yes after a no, or neither yes nor no."""
        found: list[str] = []
        refused = False
        for sent, status in self.answers:
            if status not in (200, 401):
                found.append(f"{status}, {sent - ended:.3f} s after the end")
            if status == 200 and refused:
                found.append(f"a yes after a no, {sent - ended:.3f} s after the end")
            elif status == 200 and sent - ended > bound:
                found.append(f"a yes {sent - ended:.3f} s after the end")
            refused = refused or status == 401
        return found
