"""One process of a race: `python -m tests.races.racer URL SECRET`.

Says `ready`. For each line of `[path, bodies]` it posts all at once and prints, in one line, the
status and the body of each answer.
"""

import asyncio
import json
import os
import sys

from fastapi import FastAPI

from tests.told import browser
from watchword import Watchword
from watchword.features.mail import Mail
from watchword.kernel.secrets import Secret
from watchword.testing import cheap_hashing, without_limits


async def deliver_nothing(_: Mail) -> bool:
    """The test's own process mails, into the outbox that it reads."""
    return False


async def race(url: str, secret: str) -> None:
    auth = Watchword(
        url,
        features=without_limits(),
        environment="development",
        secret=Secret(secret),
        environ=os.environ,
    )
    Mail.deliver_due = deliver_nothing  # type: ignore[method-assign]
    app = FastAPI()
    auth.install(app)
    async with auth.running(), browser(app) as client:
        print("ready", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            path, bodies = json.loads(line)
            answers = await asyncio.gather(*(client.post(path, json=body) for body in bodies))
            said = [
                [answer.status_code, answer.json() if answer.content else {}] for answer in answers
            ]
            print(json.dumps(said), flush=True)


if __name__ == "__main__":
    with cheap_hashing():
        asyncio.run(race(*sys.argv[1:]))
