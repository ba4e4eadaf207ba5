"""What `watchword serve` serves, with hashing at the test cost and a clock that may be ahead.

    python -m tests.faults.server --ahead 61 --die-after 7

Takes a free port and prints it. Everything else comes from the environment. With `--die-after`
it kills itself, as SIGKILL from elsewhere would, right after that many commits that follow a
SIGUSR1: moments between a commit and its answer are too short to be hit by chance.
"""

import argparse
import os
import signal
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import uvicorn

from watchword import Watchword
from watchword.kernel.clock import SystemClock
from watchword.server.asgi import server_app
from watchword.storage.store import Verbs
from watchword.testing import cheap_hashing


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
        signal.signal(signal.SIGUSR1, lambda *_: self._begin())

    def _begin(self) -> None:
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


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--ahead", type=float, default=0.0)
    arguments.add_argument("--die-after", type=int, default=None)
    given = arguments.parse_args()
    ahead = timedelta(seconds=given.ahead)
    with cheap_hashing(), socket.create_server(("127.0.0.1", 0)) as listening:
        auth = Watchword(served=True, clock=Ahead(ahead))
        if given.die_after is not None:
            Doomed(given.die_after).watch(auth.driver)
        app = server_app(auth)
        print(f"It listens on http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        config = uvicorn.Config(app, lifespan="on", log_level="warning", proxy_headers=False)
        uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
