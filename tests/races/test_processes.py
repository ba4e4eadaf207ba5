"""What is raced by real processes: one winner, one row, never one too many."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.told import ADA, ANOTHER, PASSWORD, Story, telling
from watchword.features.sessions import Session

ROOT = Path(__file__).resolve().parents[2]
PROCESSES = 4
RUNS = 20  # answers of a race
TABS = 50  # that refresh one session at once


@dataclass
class Race:
    """Four processes over one database."""

    processes: list[Process]

    async def run(self, path: str, bodies: list[dict[str, Any]]) -> list[Any]:
        """Let each process send its share, all at the same moment; status and body of each."""
        for number, process in enumerate(self.processes):
            assert process.stdin is not None
            job = [path, bodies[number::PROCESSES]]
            process.stdin.write(json.dumps(job).encode() + b"\n")
        answers: list[Any] = []
        for process in self.processes:
            assert process.stdout is not None
            answers += json.loads(await process.stdout.readline())
        return answers


@asynccontextmanager
async def racing(story: Story, url: str) -> AsyncGenerator[Race, None]:
    """Start the processes, and end them afterwards."""
    assert story.auth.core.secret is not None
    secret = story.auth.core.secret.reveal()
    command = (sys.executable, "-m", "tests.races.racer", url, secret)
    processes = [
        await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=PIPE, stdout=PIPE)
        for _ in range(PROCESSES)
    ]
    try:
        async with asyncio.timeout(100):
            for process in processes:
                assert process.stdout is not None
                assert (await process.stdout.readline()).strip() == b"ready"
            yield Race(processes)
    finally:
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
        await asyncio.gather(*(process.wait() for process in processes))


def statuses(answers: list[Any]) -> dict[int, int]:
    return dict(Counter(status for status, _ in answers))


@pytest.mark.slow
@pytest.mark.capability("DEF-33", "DEF-07", "S2-08", "S2-10")
@pytest.mark.invariant("I-05", "I-14", "I-18")
@pytest.mark.standard("CVE row 34")
async def test_four_processes_find_one_winner_from_sign_up_to_reset(database_url: str) -> None:
    # Its clock runs ahead: it must not forget successors before the processes think it time.
    still = telling(database_url, background=False)
    async with still as story, racing(story, database_url) as race:
        emails = [ADA, ADA.upper(), "Ada@Example.Com", "ada@EXAMPLE.com"] * (RUNS // 4)
        bodies = [{"email": email, "password": PASSWORD} for email in emails]
        signed_up = await race.run("/auth/register", bodies)
        assert statuses(signed_up) == {201: 1, 409: RUNS - 1}
        (user,) = (await story.auth.users.page()).items

        story.move(minutes=5)  # the processes' clocks run on, and what they queued is due by then
        await story.mails()
        token = story.outbox.token(user.email, "wwv")
        body = {"token": token, "password": PASSWORD}
        proofs = await race.run("/auth/verify-email", [body] * RUNS)
        assert statuses(proofs) == {204: 1, 401: RUNS - 1}

        refresh = (await story.log_in())["refresh_token"]
        refreshed = await race.run("/auth/refresh", [{"refresh_token": refresh}] * TABS)
        assert statuses(refreshed) == {200: TABS}
        (successor,) = {body["refresh_token"] for _, body in refreshed}
        assert (await story.me(refreshed[0][1]["access_token"])).status_code == 200
        # Five minutes on, as the story's clock has it, the same token ends the session for all.
        late = await story.client.post("/auth/refresh", json={"refresh_token": refresh})
        assert (late.status_code, late.json()["code"]) == (401, "refresh_token_reused")
        over = await race.run("/auth/refresh", [{"refresh_token": successor}] * PROCESSES)
        assert {(status, body["code"]) for status, body in over} == {(401, "revoked_token")}

        signed_in = await race.run("/auth/login", [{"email": ADA, "password": PASSWORD}] * RUNS)
        assert statuses(signed_in) == {200: RUNS}
        alive = await story.auth.store.count(Session, ended_at=None)
        assert alive == story.auth.sessions.settings.max_sessions

        await story.client.post("/auth/password-reset-request", json={"email": ADA})
        await story.mails()
        token = story.outbox.token(user.email, "wwp")
        bodies = [
            {"token": token, "new_password": f"{ANOTHER} number {number}"} for number in range(RUNS)
        ]
        resets = await race.run("/auth/password-reset", bodies)
        assert statuses(resets) == {204: 1, 401: RUNS - 1}
        assert {body["code"] for status, body in resets if status == 401} == {"invalid_token"}
