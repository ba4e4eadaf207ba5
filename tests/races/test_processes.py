"""What is raced by real processes: one winner, one row, never one too many."""

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.told import ADA, ANOTHER, PASSWORD, Story, telling
from watchword.features.sessions import Session

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
PROCESSES = 4


async def raced(story: Story, url: str, path: str, bodies: list[dict[str, Any]]) -> list[Any]:
    """Let each of four processes send its share, all at the same moment."""
    assert story.auth.core.secret is not None
    racers = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.races.racer", url),
            *(story.auth.core.secret.reveal(), path),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(PROCESSES)
    ]
    answers: list[Any] = []
    async with asyncio.timeout(90):
        for racer in racers:
            assert racer.stdout is not None
            assert (await racer.stdout.readline()).strip() == b"ready"
        for number, racer in enumerate(racers):
            assert racer.stdin is not None
            racer.stdin.write(json.dumps(bodies[number::PROCESSES]).encode() + b"\n")
        for racer in racers:
            said, _ = await racer.communicate()
            answers += json.loads(said)
    return answers


def statuses(answers: list[Any]) -> dict[int, int]:
    return dict(Counter(status for status, _ in answers))


@pytest.mark.capability("DEF-33")
@pytest.mark.invariant("I-05")
async def test_twenty_registrations_make_one_row(database_url: str) -> None:
    async with telling(database_url) as story:
        emails = [ADA, ADA.upper(), "Ada@Example.Com", "ada@EXAMPLE.com"] * 5
        bodies = [{"email": email, "password": PASSWORD} for email in emails]
        answers = await raced(story, database_url, "/auth/register", bodies)
        assert statuses(answers) == {201: 1, 409: 19}
        assert len((await story.auth.users.page()).items) == 1
        await story.log_in()


@pytest.mark.capability("DEF-07")
@pytest.mark.invariant("I-05", "I-14")
@pytest.mark.standard("CVE row 34")
async def test_twenty_refreshes_get_one_successor(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.register()
        token = (await story.log_in())["refresh_token"]
        answers = await raced(
            story, database_url, "/auth/refresh", [{"refresh_token": token}] * 20
        )
        assert statuses(answers) == {200: 20}
        assert len({body["refresh_token"] for _, body in answers}) == 1


@pytest.mark.invariant("I-05")
@pytest.mark.capability("S2-08")
async def test_of_twenty_resets_one_wins(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.join()
        await story.client.post("/auth/password-reset-request", json={"email": ADA})
        await story.mails()
        token = story.outbox.token(ADA, "wwp")
        bodies = [
            {"token": token, "new_password": f"{ANOTHER} number {number}"} for number in range(20)
        ]
        answers = await raced(story, database_url, "/auth/password-reset", bodies)
        assert statuses(answers) == {204: 1, 401: 19}


@pytest.mark.invariant("I-05")
@pytest.mark.capability("S2-10")
async def test_of_twenty_proofs_one_counts(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.register()
        await story.mails()
        body = {"token": story.outbox.token(ADA, "wwv"), "password": PASSWORD}
        answers = await raced(story, database_url, "/auth/verify-email", [body] * 20)
        assert statuses(answers) == {204: 1, 401: 19}


@pytest.mark.invariant("I-18")
async def test_never_more_sessions_than_the_cap(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.register()
        body = {"email": ADA, "password": PASSWORD}
        answers = await raced(story, database_url, "/auth/login", [body] * 24)
        assert statuses(answers) == {200: 24}
        alive = await story.auth.store.count(Session, ended_at=None)
        assert 1 <= alive <= story.auth.sessions.settings.max_sessions
