"""One process of a race: `python -m tests.races.racer URL SECRET METHOD PATH N`.

Says `ready`, reads one line of JSON bodies, sends all at once, prints status and body of each.
"""

import asyncio
import json
import sys

from fastapi import FastAPI

from tests.told import browser
from watchword import Watchword
from watchword.kernel.secrets import Secret
from watchword.testing import Outbox, cheap_hashing
from watchword.features.mail import mail
from watchword.presets import standard


async def race(url: str, secret: str, path: str) -> None:
    features = [*(each for each in standard() if each.name != "mail"), mail(sender=Outbox())]
    auth = Watchword(
        url, features=features, environment="development", secret=Secret(secret), environ={}
    )
    app = FastAPI()
    auth.install(app)
    async with auth.running(), browser(app) as client:
        print("ready", flush=True)
        bodies = json.loads(await asyncio.to_thread(sys.stdin.readline))
        answers = await asyncio.gather(*(client.post(path, json=body) for body in bodies))
        said = [
            [answer.status_code, answer.json() if answer.content else {}] for answer in answers
        ]
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    with cheap_hashing():
        asyncio.run(race(*sys.argv[1:]))
