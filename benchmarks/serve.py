"""One contender's server, as a process of its own and in its own environment.

    python -m benchmarks.serve MODULE VARIANT DATA [DATABASE]

Prints one line of JSON once somebody has signed in there: the port, and what to send. Imports
nothing but uvicorn and the contender, so that it runs in a peer's environment.
"""

import asyncio
import json
import socket
import sys
from importlib import import_module
from pathlib import Path

import uvicorn
import uvloop


async def serve(module: str, variant: str, data: str, database: str | None) -> None:
    """Prepare the contender and serve it until SIGTERM."""
    contender = import_module(f"benchmarks.contenders.{module}")
    app, headers = await contender.prepared(variant, data=Path(data), database=database)
    listening = socket.create_server(("127.0.0.1", 0), backlog=512)
    listening.setblocking(False)  # noqa: FBT003  its only parameter
    config = uvicorn.Config(
        app, loop="uvloop", http="httptools", access_log=False, log_level="warning", lifespan="on"
    )
    several = headers if isinstance(headers, list) else [headers]
    print(json.dumps({"port": listening.getsockname()[1], "headers": several}), flush=True)
    await uvicorn.Server(config).serve(sockets=[listening])


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(*sys.argv[1:4], sys.argv[4] if len(sys.argv) > 4 else None))
