"""Runs the server: one socket, one or several workers of uvicorn."""

import asyncio
import contextlib
import copy
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import uvicorn
from uvicorn.config import LOGGING_CONFIG
from uvicorn.supervisors import ChangeReload, Multiprocess

from watchword.kernel.errors import ConfigurationError
from watchword.presets import Watchword
from watchword.server.protocol import BoundedHttp
from watchword.server.serving import Serving, announce

GRACE: Final = 30  # seconds that requests in flight have after SIGTERM


def serve(serving: Serving, *, workers: int, say: Callable[[str], None]) -> None:
    """Check everything, then serve until a signal ends it.

    Settings are checked, the secret is made and the database is opened here, before any worker
    starts: what is wrong is said once and stops the start.

    Raises:
        ConfigurationError, SchemaBehind, SchemaNewer, StoreUnavailable
    """
    with _listen(serving.host, serving.port) as listening:
        serving = replace(serving, port=int(listening.getsockname()[1]))
        auth = serving.watchword()
        asyncio.run(_look_at_database(auth))
        announce(serving)
        development = auth.core.environment == "development"
        say(f"Watchword serves {auth.public_url} in {auth.core.environment}")
        if auth.public_url != serving.address:
            say(f"It listens on {serving.address}")
        if development:
            say(f"The interactive API: {serving.address}/docs")
        config = uvicorn.Config(
            "watchword.server.asgi:make",
            factory=True,
            workers=workers,
            access_log=development,
            **_common(),
        )
        _run(config, listening)


def develop(app: str, *, host: str, port: int, reload: bool, say: Callable[[str], None]) -> None:
    """Run somebody's own app in development.

    Raises:
        ConfigurationError: the address is taken.
    """
    with _listen(host, port) as listening:
        port = int(listening.getsockname()[1])
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        os.environ["WATCHWORD_ENVIRONMENT"] = "development"
        os.environ.setdefault("WATCHWORD_PUBLIC_URL", address)
        say(f"Watchword runs {app} in development at {address}")
        say(f"The interactive API: {address}/docs")
        _run(uvicorn.Config(app, reload=reload, **_common()), listening)


def _common() -> dict[str, Any]:
    logs = copy.deepcopy(LOGGING_CONFIG)
    logs["loggers"]["watchword"] = {"handlers": ["default"], "level": "INFO", "propagate": False}
    return {
        "http": BoundedHttp,
        "lifespan": "on",
        "proxy_headers": False,  # only our own parser may read forwarding headers
        "server_header": False,
        "timeout_keep_alive": 15,
        "timeout_graceful_shutdown": GRACE,
        "log_config": logs,
    }


def _run(config: uvicorn.Config, listening: socket.socket) -> None:
    if config.should_reload:
        ChangeReload(config, target=uvicorn.Server(config).run, sockets=[listening]).run()
    elif config.workers > 1:
        Multiprocess(config, sockets=[listening]).run()
    else:
        uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    """Take the address now, so that port 0 has a number and a taken one is said plainly."""
    with contextlib.ExitStack() as undo:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, kind, protocol, _, address = found[0]
            listening = undo.enter_context(socket.socket(family, kind, protocol))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
        except OSError as error:
            raise ConfigurationError(
                [f"--host and --port: cannot listen on {host}:{port}: {error.strerror}"]
            ) from error
        undo.pop_all()
    listening.set_inheritable(True)
    return listening


async def _look_at_database(auth: Watchword) -> None:
    try:
        await auth.driver.open(auth.records)
    finally:
        await auth.driver.close()
        auth.hash_pool.close()
