"""Workers that race for tries: `python -m tests.races.limits_racer URL SECRET HOW_MANY`.

They are forked off once all is imported, as a server does it. For each line of `[address, emails]`
each of them tries all of these with a wrong password at once; the statuses come in one line.
"""

import asyncio
import json
import multiprocessing
import os
import sys
from multiprocessing.connection import Connection
from typing import Any

import httpx
from fastapi import FastAPI

from tests.features.limits.conftest import limited_features, wrong
from tests.told import ORIGIN
from watchword import Watchword
from watchword.kernel.secrets import Secret
from watchword.testing import cheap_hashing


async def race(url: str, secret: str, orders: Connection) -> None:
    auth = Watchword(
        url,
        features=limited_features(),
        environment="development",
        secret=Secret(secret),
        environ=os.environ,
        background=False,
    )
    app = FastAPI()
    auth.install(app)

    async def apart(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.create_task(app(scope, receive, send))

    async with auth.running():
        orders.send("ready")
        while order := await asyncio.to_thread(orders.recv):
            address, emails = order
            transport = httpx.ASGITransport(app=apart, client=(address, 1))
            async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
                answers = await asyncio.gather(*(wrong(client, email) for email in emails))
            orders.send([answer.status_code for answer in answers])


def worker(url: str, secret: str, orders: Connection) -> None:
    with cheap_hashing():
        asyncio.run(race(url, secret, orders))


def main(url: str, secret: str, how_many: int) -> None:
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe() for _ in range(how_many)]
    workers = [context.Process(target=worker, args=(url, secret, there)) for _, there in pipes]
    for each in workers:
        each.start()
    print(json.dumps([here.recv() for here, _ in pipes]), flush=True)
    for line in sys.stdin:
        for here, _ in pipes:
            here.send(json.loads(line))
        print(json.dumps([status for here, _ in pipes for status in here.recv()]), flush=True)
    for here, _ in pipes:
        here.send(None)
    for each in workers:
        each.join()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
