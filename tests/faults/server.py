"""What `watchword serve` serves, with hashing at the test cost and a clock that may be ahead.

    python -m tests.faults.server --ahead 61

Takes a free port and prints it. Everything else comes from the environment.
"""

import argparse
import socket
from datetime import datetime, timedelta

import uvicorn

from watchword import Watchword
from watchword.kernel.clock import SystemClock
from watchword.server.asgi import server_app
from watchword.testing import cheap_hashing


class Ahead(SystemClock):
    """The clock of this machine, set forward."""

    def __init__(self, by: timedelta) -> None:
        self._by = by

    def now(self) -> datetime:
        return super().now() + self._by


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--ahead", type=float, default=0.0)
    ahead = timedelta(seconds=arguments.parse_args().ahead)
    with cheap_hashing(), socket.create_server(("127.0.0.1", 0)) as listening:
        auth = Watchword(served=True, clock=Ahead(ahead))
        app = server_app(auth)
        print(f"It listens on http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        config = uvicorn.Config(app, lifespan="on", log_level="warning", proxy_headers=False)
        uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
