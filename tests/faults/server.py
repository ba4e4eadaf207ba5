"""What `watchword serve` serves, with hashing at the test cost and a clock that may be ahead.

Reads one line of JSON for every process to start, and forks: the imports, most of a start, are
made once. The process is a session of its own and writes to its own log; everything else comes
from the environment. A server takes a free port and says so.

    {"log": "/tmp/a.log", "ahead": 61, "die_after": 7}

With `die_after` it kills itself, as SIGKILL from elsewhere would, right after that many commits
that follow a SIGUSR1: moments between a commit and its answer are too short to hit by chance.
With `works`, a time, it is `watchword worker`, for which time goes ten times as fast since then;
where it holds a lease, it calls itself by the number of its process.
"""

import importlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import uvicorn

import watchword.app
from watchword import Watchword
from watchword.cli.worker import worker
from watchword.kernel.clock import SystemClock
from watchword.server.asgi import server_app
from watchword.storage.leases import Leases
from watchword.storage.store import Verbs
from watchword.testing import cheap_hashing

HASTE: Final = 10  # times as fast as the clock on the wall


class Hasty(SystemClock):
    """A clock that leaves leases behind soon. Those that began at the same time agree."""

    def __init__(self, since: float) -> None:
        self._since = datetime.fromtimestamp(since, UTC)

    def now(self) -> datetime:
        return self._since + (super().now() - self._since) * HASTE


class Ahead(SystemClock):
    """The clock of this machine, set forward."""

    def __init__(self, by: timedelta) -> None:
        self._by = by

    def now(self) -> datetime:
        return super().now() + self._by


class Doomed:
    """Counts the commits of a driver, once it is told to, and dies after the last."""

    def __init__(self, commits: int) -> None:
        self._left = commits
        self._is_counting = False
        signal.signal(signal.SIGUSR1, self._begin)

    def _begin(self, *_: object) -> None:
        self._is_counting = True

    def watch(self, driver: Any) -> None:
        """Count every transaction, and every write that commits by itself."""
        transaction, verbs = driver.transaction, type(driver.verbs)

        @asynccontextmanager
        async def counted() -> AsyncGenerator[Verbs]:
            async with transaction() as inside:
                yield inside
            self._committed()

        driver.transaction = counted
        for name in ("insert", "update", "take", "erase", "increment"):
            setattr(verbs, name, self._counting(getattr(verbs, name), of=driver.verbs))

    def _counting(self, verb: Any, *, of: object) -> Any:
        async def counted(verbs: Any, *given: Any, **named: Any) -> Any:
            answer = await verb(verbs, *given, **named)
            if verbs is of:  # else a transaction's
                self._committed()
            return answer

        return counted

    def _committed(self) -> None:
        self._left -= self._is_counting
        if self._left < 0:
            os.kill(os.getpid(), signal.SIGKILL)


def work(since: float) -> None:
    """One worker, until it is killed."""
    setattr(watchword.app, "SystemClock", partial(Hasty, since))  # noqa: B010
    setattr(watchword.app, "Leases", partial(Leases, holder=str(os.getpid())))  # noqa: B010
    worker(data=Path(), app=None)


def serve(*, ahead: float = 0.0, die_after: int | None = None) -> None:
    """One server, until it is killed."""
    with cheap_hashing(), socket.create_server(("127.0.0.1", 0)) as listening:
        auth = Watchword(served=True, clock=Ahead(timedelta(seconds=ahead)))
        if die_after is not None:
            doomed = Doomed(die_after)
            for driver in auth.drivers:
                doomed.watch(driver)
        app = server_app(auth)
        print(f"It listens on http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        config = uvicorn.Config(app, lifespan="on", log_level="warning", proxy_headers=False)
        uvicorn.Server(config).run(sockets=[listening])


def main() -> None:
    for module in MODULES:
        importlib.import_module(module)  # so that no server has to
    for line in sys.stdin:
        given = json.loads(line)
        # Nobody waits for those that die: until this process ends, no other gets their number.
        child = os.fork()
        if child == 0:
            os.setsid()
            become(**given)
            os._exit(0)
        print(f"pid {child}", flush=True)


def become(*, log: str, works: float | None = None, **options: Any) -> None:
    """What a child is from here on."""
    into = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(into, 1)
    os.dup2(into, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if works is None:
        serve(**options)
    else:
        work(works)


MODULES = (
    *("watchword.stores.sql.migrate", "aiosqlite", "asyncpg", "alembic.autogenerate"),
    *("watchword.stores.mongo", "pymongo", "watchword.stores.redis", "redis.asyncio"),
)

if __name__ == "__main__":
    main()
