"""Asks workers over connections that stay open, and notes when each first refuses."""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.contenders.ours import PASSWORD

EAGER = 0.1  # seconds in which one is asked again at once
PAUSE = 0.01  # between two askings from then on
ASKED_AFTERWARDS = 5
GIVEN_UP = 20.0  # seconds


class Line:
    """A connection to one worker."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(
        self, path: str, *, token: str = "", body: Mapping[str, object] | None = None
    ) -> tuple[int, bytes]:
        """GET, or POST what is given; status and body."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        sent = b"" if body is None else json.dumps(body).encode()
        head = f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        if token:
            head += f"Authorization: Bearer {token}\r\n"
        if body is not None:
            head += f"Content-Type: application/json\r\nContent-Length: {len(sent)}\r\n"
        writer.write(head.encode() + b"\r\n" + sent)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = answer.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
        return int(answer[9:12]), await reader.readexactly(int(length or b"0"))

    async def text(self, path: str) -> str:
        """What a path says of the worker."""
        status, body = await self.ask(path)
        if status != 200:
            raise RuntimeError(f"{path} is answered {status}: {body[:200]!r}")
        return body.decode()

    async def json(self, path: str) -> dict[str, Any]:
        """The same, of a path that answers with JSON."""
        found: dict[str, Any] = json.loads(await self.text(path))
        return found

    def close(self) -> None:
        """Let it go."""
        if self._streams is not None:
            self._streams[1].close()


@dataclass
class Refusals:
    """What came of the endings of one kind."""

    delays: list[float] = field(default_factory=list[float])  # milliseconds, one a worker
    last: float = 0.0  # milliseconds after which nobody who asked was believed any more
    at_once: int = 0  # refused when first asked
    late: int = 0  # yes to what was sent after the bound
    again: int = 0  # yes after a no


async def signed_in(line: Line, name: str) -> str:
    """The access token of a new session."""
    status, body = await line.ask(
        "/auth/login", body={"email": f"{name}@example.com", "password": PASSWORD}
    )
    if status != 200:
        raise RuntimeError(f"sign-in is answered {status}: {body[:200]!r}")
    return str(json.loads(body)["access_token"])


async def cached(line: Line, token: str) -> None:
    """Ask until the worker answers from its cache."""
    await _believed(line, token)
    for _ in range(50):
        before = (await line.json("/heard"))["hits"]
        await _believed(line, token)
        if (await line.json("/heard"))["hits"] > before:
            return
    raise RuntimeError("a worker keeps nothing in its cache")


async def _believed(line: Line, token: str) -> None:
    status, _ = await line.ask("/hello", token=token)
    if status != 200:
        raise RuntimeError(f"a session that lives is answered {status}")


async def refused(
    line: Line, token: str, found: Refusals, *, ended: float, bound: float, every: float = 0.0
) -> None:
    """Ask until the answer is no, as fast as it goes or with a pause, then a few times more."""
    first = True
    while True:
        sent = time.perf_counter()
        status, _ = await line.ask("/hello", token=token)
        now = time.perf_counter()
        if status == 401:
            break
        if status != 200 or now - ended > GIVEN_UP:
            raise RuntimeError(f"an ended session is answered {status} after {now - ended:.1f} s")
        found.last = max(found.last, (sent - ended) * 1e3)
        found.late += sent - ended > bound
        first = False
        if every or now - ended > EAGER:
            await asyncio.sleep(every or PAUSE)
    found.delays.append((now - ended) * 1e3)
    found.at_once += first
    for _ in range(ASKED_AFTERWARDS):
        found.again += (await line.ask("/hello", token=token))[0] != 401


@dataclass(frozen=True, slots=True)
class Asking:
    """How the workers are asked: several things at a time, each on connections of its own."""

    ports: Sequence[int]
    bound: float  # seconds after which nobody may be believed
    together: int
    every: float  # seconds between two askings; 0: as fast as it goes

    async def several(self, many: int, one: Any, *, together: int | None = None) -> None:
        """Do one thing so often."""
        numbers = iter(range(many))

        async def lane() -> None:
            lines = [Line(port) for port in self.ports]
            try:
                for number in numbers:
                    await one(number, lines)
            finally:
                for line in lines:
                    line.close()

        await asyncio.gather(*(lane() for _ in range(together or self.together)))

    async def until_refused(
        self, lines: Sequence[Line], token: str, found: Refusals, *, ended: float, but: int | None
    ) -> None:
        """Ask all but the one that it was ended at."""
        others = [line for number, line in enumerate(lines) if number != but]
        await asyncio.gather(
            *(
                refused(line, token, found, ended=ended, bound=self.bound, every=self.every)
                for line in others
            )
        )


def counted(text: str, name: str) -> float:
    """A figure of `/metrics`."""
    for line in text.splitlines():
        if line.startswith(f"{name} "):
            return float(line.rpartition(" ")[2])
    raise LookupError(name)


def buckets(text: str, name: str) -> dict[float, float]:
    """A histogram of `/metrics`: how many were at most so much."""
    lead = f'{name}_bucket{{le="'
    return {
        float(line.removeprefix(lead).partition('"')[0].replace("+Inf", "inf")): float(
            line.rpartition(" ")[2]
        )
        for line in text.splitlines()
        if line.startswith(lead)
    }
