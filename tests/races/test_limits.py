"""Four workers that share a limit let exactly as many through as one would."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from pathlib import Path

import pytest

from tests.features.limits.conftest import SHARED, Place, counting, place_named

ROOT = Path(__file__).resolve().parents[2]
WORKERS = 4
EACH = 13  # tries of each worker at once


@pytest.fixture(params=SHARED)
def place(request: pytest.FixtureRequest) -> Place:
    """Each place that several workers may share."""
    return place_named(request)


async def tries(crew: Process, address: str, emails: list[str]) -> dict[int, int]:
    """Let each worker try all of these at the same moment; how often each status came."""
    assert crew.stdin is not None
    assert crew.stdout is not None
    crew.stdin.write(json.dumps([address, emails]).encode() + b"\n")
    return dict(Counter(json.loads(await crew.stdout.readline())))


@pytest.mark.slow
@pytest.mark.capability("S0-88", "DEF-09", "S2-37")
@pytest.mark.standard("15")
@pytest.mark.invariant("I-20")
async def test_four_workers_let_exactly_five_guesses_through(place: Place) -> None:
    async with counting(place) as story:
        assert story.auth.core.secret is not None
        secret = story.auth.core.secret.reveal()
        command = (sys.executable, "-m", "tests.races.limits_racer", place.url, secret)
        crew = await asyncio.create_subprocess_exec(
            *command,
            str(WORKERS),
            cwd=ROOT,
            stdin=PIPE,
            stdout=PIPE,
            env=os.environ | place.environ,
        )
        assert crew.stdin is not None
        assert crew.stdout is not None
        try:
            async with asyncio.timeout(100):
                assert json.loads(await crew.stdout.readline()) == ["ready"] * WORKERS
                # One client at one account: the pair is full after five.
                found = await tries(crew, "192.0.2.1", ["ada@example.com"] * EACH)
                assert found == {401: 5, 429: WORKERS * EACH - 5}
                # One client at many accounts: its address is full after twenty.
                emails = [f"user{n}@example.com" for n in range(EACH)]
                assert await tries(crew, "192.0.2.2", emails) == {401: 20, 429: WORKERS * EACH - 20}
        finally:
            crew.stdin.close()
            await crew.wait()
