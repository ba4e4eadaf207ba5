"""Runs the server: one socket, one or several workers of uvicorn."""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, get_args

import uvicorn
from uvicorn.supervisors import ChangeReload, Multiprocess

from watchword import logs
from watchword.kernel.errors import ConfigurationError
from watchword.kernel.settings import CoreSettings
from watchword.presets import Watchword
from watchword.server.protocol import BoundedHttp
from watchword.server.serving import Serving, address_at, announce

GRACE: Final = 30  # seconds that requests in flight have after SIGTERM


def serve(serving: Serving, *, workers: int, say: Callable[[str], None]) -> None:
    """Check everything, then serve until a signal ends it.

    Settings are checked, the secret is made, and all of it is started and stopped here, before
    any worker starts: what is wrong is said once and stops the start.

    Raises:
        ConfigurationError, SchemaBehind, SchemaNewer, StoreUnavailable
        SystemExit: the workers failed.
    """
    with _listen(serving.host, serving.port) as listening:
        serving = replace(serving, port=int(listening.getsockname()[1]))
        auth = serving.watchword()
        _refuse_counting_apart(auth, workers)
        asyncio.run(_try(auth))
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
            **_common(auth.core.log_format, auth.core.log_level),
        )
        _run(config, listening)


def _refuse_counting_apart(auth: Watchword, workers: int) -> None:
    if workers > 1 and auth.has("limits") and auth.limits.is_counting_apart:
        raise ConfigurationError(
            [
                (
                    f"limits.store (WATCHWORD_LIMITS__STORE) is memory:, so each of {workers} "
                    "workers would count for itself: leave it out, or name redis://…"
                )
            ]
        )


def develop(app: str, *, host: str, port: int, reload: bool, say: Callable[[str], None]) -> None:
    """Run somebody's own app in development.

    Raises:
        ConfigurationError: the address is taken.
    """
    with _listen(host, port) as listening:
        port = int(listening.getsockname()[1])
        address = address_at(host, port)
        os.environ["WATCHWORD_ENVIRONMENT"] = "development"
        os.environ.setdefault("WATCHWORD_PUBLIC_URL", address)
        say(f"Watchword runs {app} in development at {address}")
        say(f"The interactive API: {address}/docs")
        _run(uvicorn.Config(app, reload=reload, **_common(*_said_outside())), listening)


def _said_outside() -> tuple[logs.Format, str]:
    """How to log before the app is there to ask; what cannot be, it will refuse itself."""
    format_ = os.environ.get("WATCHWORD_LOG_FORMAT", "")
    level = os.environ.get("WATCHWORD_LOG_LEVEL", "")
    levels = get_args(CoreSettings.model_fields["log_level"].annotation)
    return "json" if format_ == "json" else "text", level if level in levels else "info"


def _common(log_format: logs.Format, log_level: str) -> dict[str, Any]:
    return {
        "http": BoundedHttp,
        "lifespan": "on",
        "proxy_headers": False,  # only our own parser may read forwarding headers
        "server_header": False,
        "timeout_keep_alive": 15,
        "timeout_graceful_shutdown": GRACE,
        "log_config": logs.for_servers(log_format, log_level),
    }


def _run(config: uvicorn.Config, listening: socket.socket) -> None:
    if config.should_reload:
        ChangeReload(config, target=uvicorn.Server(config).run, sockets=[listening]).run()
    elif config.workers > 1:
        workers = _Workers(config, sockets=[listening])
        workers.run()
        if workers.failed:
            raise SystemExit(1)
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
        except (OSError, UnicodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "that is no host"
            raise ConfigurationError(
                [f"--host and --port: cannot listen on {host}:{port}: {why}"]
            ) from error
        undo.pop_all()
    listening.set_inheritable(True)
    return listening


async def _try(auth: Watchword) -> None:
    """Start and stop it: no connection, thread or task is left for a worker to inherit."""
    log = logging.getLogger("watchword")
    level = log.level
    log.setLevel(logging.ERROR)  # each worker says its warnings again
    try:
        await auth.start(background=False)
    finally:
        await auth.stop()
        log.setLevel(level)


class _Workers(Multiprocess):
    """uvicorn's supervisor, which does not say whether a signal or a failure ended it."""

    failed = False

    def keep_subprocess_alive(self) -> None:
        """Start those again that died; one that cannot start ends them all."""
        was_ending = self.should_exit.is_set()
        super().keep_subprocess_alive()
        if self.should_exit.is_set() and not was_ending:
            self.failed = True
