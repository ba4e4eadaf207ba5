"""An App that was started and then forked: `python -m tests.faults.forked URL [SESSIONS]`.

Parent and child each start theirs, and end each other's sessions by turns. Says what it found.
"""

import asyncio
import json
import os
import socket
import sys
import time
from typing import Any

import httpx
from fastapi import FastAPI

from tests.faults.places import Place
from watchword import Watchword
from watchword.crypto.keys import generate_secret
from watchword.testing import cheap_hashing, without_limits
from watchword.testing.story import PASSWORD, bearer, client_of

ROUNDS = 5
EMAIL = "ada@example.com"
HEARD_WITHIN = 2.0  # seconds


class Side:
    """One of the two processes."""

    def __init__(self, auth: Watchword, app: FastAPI) -> None:
        self.auth = auth
        self.client: httpx.AsyncClient = client_of(app)

    async def sign_in(self) -> str:
        body = {"email": EMAIL, "password": PASSWORD}
        answer = await self.client.post("/auth/login", json=body)
        answer.raise_for_status()
        return str(answer.json()["access_token"])

    async def keep(self, token: str) -> bool:
        """Believe it, so that the cache does."""
        answers = [await self.client.get("/auth/me", headers=bearer(token)) for _ in range(2)]
        return all(answer.status_code == 200 for answer in answers)

    async def end(self, token: str) -> bool:
        answer = await self.client.post("/auth/logout", headers=bearer(token))
        return answer.status_code == 204

    async def hear(self, token: str) -> float | None:
        """The seconds after which it was last asked and still believed; None: for ever."""
        began, believed = time.monotonic(), 0.0
        while (sent := time.monotonic() - began) < HEARD_WITHIN + 1:
            answer = await self.client.get("/auth/me", headers=bearer(token))
            if answer.status_code == 401:
                return believed
            believed = sent
            await asyncio.sleep(0.005)
        return None

    async def stop(self) -> bool:
        await self.auth.stop()
        return True


async def obey(side: Side, line: socket.socket) -> None:
    """The child: do what the parent says."""
    await side.auth.start(background=False)
    with line.makefile("rw") as words:
        while text := await asyncio.to_thread(words.readline):
            name, *given = json.loads(text)
            words.write(json.dumps(await getattr(side, name)(*given)) + "\n")
            words.flush()
            if name == "stop":
                return


async def lead(side: Side, line: socket.socket) -> dict[str, Any]:
    """The parent: end sessions on either side, hear of them on the other."""
    await side.auth.start(background=False)
    assert side.auth.following is not None
    ours = side.auth.following
    found: dict[str, Any] = {"heard by the child": [], "heard by the parent": []}
    with line.makefile("rw") as words:

        async def child(*what: str) -> Any:
            words.write(json.dumps(what) + "\n")
            words.flush()
            return json.loads(await asyncio.to_thread(words.readline))

        for _ in range(ROUNDS):
            token = await side.sign_in()
            assert await side.keep(token)
            assert await child("keep", token)
            assert await side.end(token)
            found["heard by the child"].append(await child("hear", token))
            token = await child("sign_in")
            assert await child("keep", token)
            assert await side.keep(token)
            assert await child("end", token)
            found["heard by the parent"].append(await side.hear(token))
        assert await child("stop")
    # What the child closed was its own.
    assert side.auth.following is ours
    assert ours.status.is_fresh
    token = await side.sign_in()
    assert await side.keep(token)
    await side.auth.users.end_all((await side.auth.users.find(EMAIL)).id, why="tried")
    found["heard after the child"] = await side.hear(token)
    found["wakers"] = list(ours.status.wakers)
    await side.stop()
    return found


def main(database: str, sessions: str | None = None) -> None:
    place = Place(name="forked", database=database, sessions=sessions)
    auth = Watchword(
        database,
        features=without_limits(place.features()),
        environ={},
        environment="development",
        secret=generate_secret(),
    )
    app = FastAPI()
    auth.install(app)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(auth.start(background=False))
    made = auth.passwords.create_user(email=EMAIL, password=PASSWORD, is_verified=True)
    loop.run_until_complete(made)
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        asyncio.run(obey(Side(auth, app), theirs))
        os._exit(0)
    theirs.close()
    print(json.dumps(loop.run_until_complete(lead(Side(auth, app), ours))))
    assert os.waitpid(child, 0)[1] == 0


if __name__ == "__main__":
    with cheap_hashing():
        main(*sys.argv[1:])
