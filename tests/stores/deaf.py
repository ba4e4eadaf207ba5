"""A line to PostgreSQL on which LISTEN works and hears nothing, as behind a pooler."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from urllib.parse import parse_qs, urlsplit

NOTIFICATION = b"A"


async def _reach(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(url)
    folder = parse_qs(parts.query).get("host", [""])[0]
    if folder.startswith("/"):
        return await asyncio.open_unix_connection(f"{folder}/.s.PGSQL.{parts.port or 5432}")
    return await asyncio.open_connection(folder or parts.hostname, parts.port or 5432)


@asynccontextmanager
async def deaf_line(url: str) -> AsyncGenerator[str, None]:
    """The same database through a line that leaves out every notification."""
    ends: list[asyncio.StreamWriter] = []

    async def forth(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while said := await reader.read(65536):
            writer.write(said)
        writer.close()

    async def back(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readexactly(5)
                body = await reader.readexactly(int.from_bytes(head[1:]) - 4)
                if head[:1] != NOTIFICATION:
                    writer.write(head + body)
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends.append(writer)
        there, here = await _reach(url)
        ends.append(here)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await asyncio.gather(forth(reader, here), back(there, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    parts = urlsplit(url)
    user = parts.netloc.rpartition("@")[0] or "postgres@"
    netloc = f"{user.removesuffix('@')}@127.0.0.1:{port}"
    try:
        yield parts._replace(netloc=netloc, query="sslmode=disable").geturl()
    finally:
        server.close()
        for end in ends:
            end.close()
        await asyncio.sleep(0)
