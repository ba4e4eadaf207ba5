"""Between us and a server: lets through, stalls, cuts, refuses. One TCP port, one server."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Self
from urllib.parse import urlsplit, urlunsplit

_PIECE: Final = 65536  # bytes


@dataclass
class Proxy:
    """Forwards every connection to one place, as long as it lets them through."""

    host: str
    port: int
    room: int | None = None  # connections at a time; one more is closed at once
    cuts: int = 0
    _open: set[asyncio.StreamWriter] = field(default_factory=set[asyncio.StreamWriter])
    _server: asyncio.Server | None = None
    _flows: asyncio.Event = field(default_factory=asyncio.Event)
    _pairs: int = 0

    @classmethod
    @asynccontextmanager
    async def before(cls, url: str) -> AsyncGenerator[tuple[Self, str], None]:
        """A proxy in front of the server of this URL, and the URL that goes through it."""
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        proxy = cls(parts.hostname, parts.port)
        proxy._flows.set()
        proxy._server = await asyncio.start_server(proxy._forward, "127.0.0.1", 0)
        port = proxy._server.sockets[0].getsockname()[1]
        try:
            yield proxy, urlunsplit(parts._replace(netloc=f"127.0.0.1:{port}"))
        finally:
            proxy._server.close()
            proxy._flows.set()
            proxy.cut()
            await asyncio.sleep(0)

    def cut(self) -> None:
        """End every connection, in the middle of whatever it carries."""
        for writer in tuple(self._open):
            self.cuts += 1
            writer.transport.abort()

    @asynccontextmanager
    async def refusing(self) -> AsyncGenerator[None, None]:
        """Nobody is connected, and nobody gets in: as a server that has no room left."""
        before, self.room = self.room, 0
        self.cut()
        try:
            yield
        finally:
            self.room = before

    @asynccontextmanager
    async def stalling(self) -> AsyncGenerator[None, None]:
        """Connections stay open, new ones are taken, and nothing is said."""
        self._flows.clear()
        try:
            yield
        finally:
            self._flows.set()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.room is not None and self._pairs >= self.room:
            writer.transport.abort()
            return
        self._pairs += 1
        ends = [writer]
        self._open.add(writer)
        try:
            with contextlib.suppress(OSError):
                their_reader, their_writer = await asyncio.open_connection(self.host, self.port)
                ends.append(their_writer)
                self._open.add(their_writer)
                ways = [
                    asyncio.create_task(self._carry(reader, their_writer)),
                    asyncio.create_task(self._carry(their_reader, writer)),
                ]
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            self._pairs -= 1
            for end in ends:
                self._open.discard(end)
                end.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(_PIECE):
                await self._flows.wait()
                writer.write(piece)
                await writer.drain()
