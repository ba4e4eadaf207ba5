"""Endpoints of others: real servers on this machine, that behave as told."""

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from tests.features.mail.conftest import Authority
from tests.told import telling
from watchword.features.webhooks import IssuedEndpoint, WebhookDelivery
from watchword.storage.store import Paging
from watchword.testing import Story


@dataclass
class Received:
    """One request as it came."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    def verified(self, secret: str) -> dict[str, Any]:
        """The payload, as somebody else's library verifies it."""
        checked: dict[str, Any] = Webhook(secret).verify(self.body, dict(self.headers))
        return checked


@dataclass
class Endpoint:
    """A server of somebody else's: keeps what came, and says what it is told to."""

    scheme: str = "http"
    status: str = "204 No Content"
    extra: str = ""  # further headers, each with its CRLF
    hangs: bool = False  # takes requests and says nothing
    endless: bool = False  # its answer does not end
    received: list[Received] = field(default_factory=list[Received])
    connections: int = 0
    port: int = 0
    host: str = "127.0.0.1"
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    _open: list[asyncio.StreamWriter] = field(default_factory=list[asyncio.StreamWriter])

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}/hooks?of=ours"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.append(writer)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {
                name.lower(): value
                for name, _, value in (line.partition(": ") for line in head[1:] if line)
            }
            body = await reader.readexactly(int(headers["content-length"]))
            self.received.append(Received(path=head[0].split(" ")[1], headers=headers, body=body))
            self.answered.set()
            if self.hangs:
                await asyncio.sleep(60)
            writer.write(f"HTTP/1.1 {self.status}\r\n{self.extra}".encode())
            if self.endless:
                writer.write(b"Transfer-Encoding: chunked\r\n\r\n")
                while True:
                    writer.write(b"10\r\n" + b"x" * 16 + b"\r\n")
                    await writer.drain()
            writer.write(b"Content-Length: 0\r\n\r\n")
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.answered.set()
            writer.close()

    async def has_received(self, count: int) -> None:
        """Wait until this many came."""
        async with asyncio.timeout(60):
            while len(self.received) < count:
                self.answered.clear()
                await self.answered.wait()

    def end(self) -> None:
        for writer in self._open:
            writer.transport.abort()

    @property
    def kinds(self) -> list[str]:
        """The types of what came."""
        return [json.loads(each.body)["type"] for each in self.received]


Serve = Callable[..., AbstractAsyncContextManager[Endpoint]]


@pytest.fixture
def endpoint() -> Serve:
    """`async with endpoint(status="410 Gone") as theirs:` runs a real HTTP server."""

    @asynccontextmanager
    async def run(tls: ssl.SSLContext | None = None, **told: Any) -> AsyncGenerator[Endpoint]:
        made = Endpoint(**told)
        if tls is not None:
            made.scheme = "https"
        server = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=tls)
        made.port = server.sockets[0].getsockname()[1]
        try:
            yield made
        finally:
            server.close()
            made.end()
            await asyncio.sleep(0)

    return run


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@asynccontextmanager
async def told_of(
    url: str, endpoint: Endpoint, *events: str, with_email: bool = False, **options: Any
) -> AsyncGenerator[tuple[Story, IssuedEndpoint]]:
    """A story in which an endpoint hears of events; nothing is sent but by `deliver_due`."""
    async with telling(url, background=False, **options) as story:
        made = await story.auth.webhooks.add(
            endpoint.url, events=events or ("*",), with_email=with_email
        )
        yield story, made


async def rows(story: Story) -> tuple[WebhookDelivery, ...]:
    """The outbox."""
    page = await story.auth.store.find(WebhookDelivery, Paging(order=("id",), limit=500))
    return page.items
