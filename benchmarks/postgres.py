"""A PostgreSQL server for a run: the tests' own way of finding or starting one."""

import asyncio
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.measure import say
from tests.servers import Postgres


@contextmanager
def postgres(*, core: int | None = None) -> Generator["Databases | None"]:
    """Databases to use, on another core than the one measured; None if there is no server."""
    try:
        server = Postgres.start()
    except (ImportError, OSError, RuntimeError) as error:
        say(f"no PostgreSQL here, its rows are left out: {error}")
        yield None
        return
    databases = Databases(server)
    try:
        if core is not None:
            _move(server, core)
        yield databases
    finally:
        databases.drop()
        server.stop()


class Databases:
    """Fresh databases, dropped at the end."""

    def __init__(self, server: Postgres) -> None:
        self._server = server
        self._made: list[str] = []

    def make(self) -> str:
        """The URL of an empty database."""
        self._made.append(asyncio.run(self._server.make_database()))
        return self._made[-1]

    def drop(self) -> None:
        """Drop those made."""
        while self._made:
            asyncio.run(self._server.drop_database(self._made.pop()))


def _move(server: Postgres, core: int) -> None:
    """Put a server of ours, and with it the processes it starts, onto this core."""
    own = server._server  # noqa: SLF001  a user's own server is left where it is
    if own is None:
        return
    parent = own.get_postmaster_info().pid
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            pid = int(stat.parent.name)
            if pid == parent or stat.read_text().rpartition(")")[2].split()[1] == str(parent):
                os.sched_setaffinity(pid, {core})
