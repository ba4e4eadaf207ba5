"""Four workers go on answering while the key changes, and all refuse what a revoked one signed."""

import asyncio
import itertools
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import jwt
import pytest

from tests.faults.crew import Asker, crew
from tests.faults.places import KINDS, Place
from tests.faults.victim import Victim
from tests.told import ADA, PASSWORD
from watchword import Watchword

WORKERS = 4
REQUESTS = 1000
BOUND = 1.0  # seconds
WATCHED = 0.3  # seconds that everybody is asked after all have refused
RIPE = 2.1  # seconds: max-age of the JWKS and the bound, with no leeway
SHORT = {
    "WATCHWORD_KEYS__JWKS_MAX_AGE": "1s",
    "WATCHWORD_KEYS__LEEWAY": "0s",
    "WATCHWORD_FEED_BOUND": "1s",
}
WATCHWORD = str(Path(sys.executable).with_name("watchword"))


@pytest.fixture(params=[kind for kind in KINDS if "-" not in kind])
def place(request: pytest.FixtureRequest) -> Place:
    """An empty place of each kind of database: keys stay there, wherever sessions are."""
    urls = {"sqlite": "sqlite_url", "postgresql": "postgres_url", "mongodb": "mongo_url"}
    return Place(name=request.param, database=request.getfixturevalue(urls[request.param]))


async def rotate(environ: Mapping[str, str], *options: str) -> bool:
    """`watchword keys rotate` in a process of its own; did the key change?"""
    process = await asyncio.create_subprocess_exec(
        *(WATCHWORD, "keys", "rotate", *options),
        env=dict(environ),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return b"signs now" in out


async def active(auth: Watchword) -> str:
    """The one key that signs."""
    (kid,) = (row.kid for row in await auth.keys.ring() if row.state == "active")
    return kid


@dataclass
class Traffic:
    """People who ask four servers, each with tokens that any of them signed."""

    servers: list[Victim]
    chance: random.Random
    tokens: dict[str, list[str]] = field(default_factory=dict[str, list[str]])  # by kid
    statuses: Counter[int] = field(default_factory=Counter[int])

    async def get_pair(
        self, client: httpx.AsyncClient, server: Victim, path: str, **body: str
    ) -> str:
        """Sign in or refresh; the refresh token."""
        answer = await client.post(f"{server.address}/auth/{path}", json=body)
        self.statuses[answer.status_code] += 1
        pair = answer.json()
        token = pair["access_token"]
        self.tokens.setdefault(jwt.get_unverified_header(token)["kid"], []).append(token)
        return str(pair["refresh_token"])

    async def ask(self, client: httpx.AsyncClient, server: Victim) -> None:
        signed = self.chance.choice(list(self.tokens.values()))
        header = {"Authorization": f"Bearer {self.chance.choice(signed)}"}
        answer = await client.get(f"{server.address}/auth/me", headers=header)
        self.statuses[answer.status_code] += 1

    async def run(self, over: asyncio.Event) -> None:
        """Go on until enough was asked, and the key has changed."""
        async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
            server = self.servers[0]
            held = await self.get_pair(client, server, "login", email=ADA, password=PASSWORD)
            for turn in itertools.count():
                server = self.servers[turn % WORKERS]
                if turn % 19 == 0:
                    held = await self.get_pair(client, server, "refresh", refresh_token=held)
                await self.ask(client, server)
                if over.is_set() and self.statuses.total() >= REQUESTS:
                    return


async def rotate_under(traffic: Traffic, environ: Mapping[str, str]) -> None:
    """Two operators rotate at once, in the middle of everything."""
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(traffic.run(over))
        while traffic.statuses.total() < REQUESTS / 4:
            assert not over.is_set()
            await asyncio.sleep(0.02)
        # Whoever comes after the other has finished publishes the one after that.
        assert any(await asyncio.gather(rotate(environ), rotate(environ)))
        until = traffic.statuses.total() + REQUESTS / 4
        while traffic.statuses.total() < until:
            assert not over.is_set()
            await asyncio.sleep(0.02)
        over.set()


async def refused_everywhere(
    servers: list[Victim], token: str, environ: Mapping[str, str]
) -> tuple[list[float], list[str]]:
    """Rotate `--compromised`; how long after the first server the others refused; what was wrong.

    The first cannot refuse before the revocation is committed, and the bound counts from there.
    """
    askers = [Asker(server.address, f"Authorization: Bearer {token}") for server in servers]
    asking = [asyncio.create_task(asker.run()) for asker in askers]
    try:
        await asyncio.gather(*(asker.believed(times=3) for asker in askers))
        began = time.monotonic()
        assert await rotate(environ, "--compromised")
        until = time.monotonic() + BOUND + 5
        while any(asker.refused_after(began) is None for asker in askers):
            assert time.monotonic() < until, "somebody believes it still"
            await asyncio.sleep(0.01)
        await asyncio.sleep(WATCHED)
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    after = [asker.refused_after(began) or 0.0 for asker in askers]
    ended = began + min(after)
    took = [each - min(after) for each in after]
    return took, [fault for asker in askers for fault in asker.faults(ended, BOUND)]


@pytest.mark.slow
@pytest.mark.capability("S1-31", "DEF-02")
@pytest.mark.invariant("I-16", "I-10", "I-24")
async def test_nobody_is_refused_while_the_key_rotates_and_everybody_once_it_is_compromised(
    place: Place, tmp_path: Path, say: Callable[[str], None]
) -> None:
    environ = place.environment(tmp_path / "mails", **SHORT)
    async with crew(tmp_path, environ, WORKERS) as servers, place.operator(environ) as auth:
        await auth.passwords.create_user(email=ADA, password=PASSWORD, is_verified=True)
        before = await active(auth)
        assert not (await auth.keys.rotate()).is_done
        await asyncio.sleep(RIPE)

        traffic = Traffic(servers, random.Random(16))
        async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
            login = {"email": ADA, "password": PASSWORD}
            await traffic.get_pair(client, servers[0], "login", **login)
            assert set(traffic.tokens) == {before}
            await rotate_under(traffic, environ)
            after = await active(auth)
            assert set(traffic.tokens) == {before, after}
            for server in servers:  # both generations, once more, at each
                for signed in traffic.tokens.values():
                    header = {"Authorization": f"Bearer {signed[0]}"}
                    answer = await client.get(f"{server.address}/auth/me", headers=header)
                    assert answer.status_code == 200
        said = traffic.statuses
        refused, failed = said[401], sum(n for status, n in said.items() if status >= 500)
        took, wrong = await refused_everywhere(servers, traffic.tokens[after][-1], environ)
        last = await active(auth)
    say(
        f"{place.name} rotate: requests {said.total()} over {WORKERS} workers  "
        f"kid {before[:8]}… -> {after[:8]}…  401: {refused}  5xx: {failed}"
    )
    say(
        f"{place.name} rotate --compromised: kid -> {last[:8]}…  refused at {len(took)} "
        f"workers, slowest {max(took) * 1000:.0f} ms after the first, bound "
        f"{BOUND * 1000:.0f} ms  over it or taken back {len(wrong)}"
    )
    assert before != after != last
    assert set(said) == {200}, said
    assert said.total() >= REQUESTS
    assert not wrong, "\n".join(wrong)
