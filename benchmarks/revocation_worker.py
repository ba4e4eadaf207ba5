"""One of several workers over one store, as `watchword serve` makes them, on a port of its own.

    python -m benchmarks.revocation_worker

Reads one line of JSON (database, where sessions are if apart from it, secret), and prints one
with its port. Hashing is at the test cost: nothing here is about passwords.
"""

import asyncio
import json
import socket
import sys
from typing import Any

import uvicorn
import uvloop
from fastapi import FastAPI

from watchword import CurrentPrincipal, Watchword
from watchword.features.sessions import sessions
from watchword.server.asgi import server_app
from watchword.testing import cheap_hashing, without_limits


def watchword(*, database: str, sessions_in: str | None, secret: str) -> Watchword:
    """A Watchword in production; the same in all workers."""
    features = [each for each in without_limits() if each.name != "sessions"]
    apart: dict[str, Any] = {} if sessions_in is None else {"store": sessions_in}
    return Watchword(
        database,
        features=[*features, sessions(**apart)],
        environ={},
        environment="production",
        public_url="https://bench.example.com",
        require_https=False,  # a proxy of theirs speaks https; here there is none
        secret=secret,
        accept_missing=("limiter", "events"),
    )


def asked(auth: Watchword) -> FastAPI:
    """The application that the benchmark asks."""
    app = server_app(auth)

    @app.get("/hello")
    async def hello(principal: CurrentPrincipal) -> dict[str, str]:
        return {"hello": "world" if principal.id else ""}

    @app.post("/disable/{email}")
    async def disable(email: str) -> dict[str, str]:
        await auth.users.disable((await auth.users.find(email)).id)
        return {}

    @app.get("/heard")
    async def heard() -> dict[str, Any]:
        following = auth.following
        status = None if following is None else following.status
        return {
            "wakers": [] if status is None else status.wakers,
            "deaf": [] if status is None else status.deaf,
            "polls": status is not None,
            "believed": auth.cache._max_age,  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            "hits": auth.cache.hits,
            "misses": auth.cache.misses,
        }

    return app


async def serve(given: dict[str, Any]) -> None:
    """Serve until SIGTERM."""
    app = asked(watchword(**given))
    listening = socket.create_server(("127.0.0.1", 0), backlog=512)
    listening.setblocking(False)  # noqa: FBT003  its only parameter
    config = uvicorn.Config(
        app, loop="uvloop", http="httptools", access_log=False, log_level="error", lifespan="on"
    )
    print(json.dumps({"port": listening.getsockname()[1]}), flush=True)
    await uvicorn.Server(config).serve(sockets=[listening])


if __name__ == "__main__":
    with cheap_hashing(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(json.loads(sys.stdin.readline())))
