"""SIGKILL in the middle of anything: everybody goes on, and nothing works twice."""

import asyncio
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.users_in_flight import LATER, Person, Site
from tests.faults.victim import Letterbox, Victim, environment
from watchword.features.mail import OutboxMail
from watchword.kernel.events import Events
from watchword.storage.store import Store
from watchword.stores.sql import driver

NEW_A_ROUND = 3  # people; each is at another step than those of the round before
REAL_ROUNDS = 2  # of `watchword serve` itself, with hashing at its real cost
MOST_COMMITS = 15  # of the about twenty that a flight takes
MOMENTS = (0.02, 0.05, 0.1, 0.2)  # seconds; a flight takes about a tenth
STEPS = ("register", "verify", "refresh", "ask", "reset")


async def fly(people: list[Person]) -> None:
    """Everybody takes a step at once."""
    async with asyncio.TaskGroup() as group:
        for person in people:
            group.create_task(person.step())


async def start(victim: Victim, number: int, chance: random.Random) -> bool:
    """Start the server of this round; will it count its commits?"""
    if number < REAL_ROUNDS:
        await victim.start_real()
    elif is_doomed := number % 2 == 1:
        await victim.start(die_after=chance.randrange(MOST_COMMITS))
        return is_doomed
    else:
        await victim.start()
    return False


async def kill_in_flight(
    victim: Victim, people: list[Person], chance: random.Random, *, is_doomed: bool
) -> None:
    """Let everybody begin, and kill the server at a random moment, by the clock or by commits."""
    if is_doomed:
        victim.doom()
    moment = None if is_doomed else chance.choice(MOMENTS) * chance.random()
    flight = asyncio.create_task(fly(people))
    await asyncio.wait([flight], timeout=moment)
    victim.kill()
    await flight


async def settle(people: list[Person]) -> None:
    """Everybody finds out what became of it."""
    async with asyncio.TaskGroup() as group:
        for person in people:
            group.create_task(person.go_on())


@pytest.mark.slow
@pytest.mark.invariant("I-04", "I-05", "I-12", "I-14")
async def test_a_killed_server_leaves_nobody_stuck_and_no_token_that_works_twice(
    database_url: str,
    tmp_path: Path,
    count: Callable[[int, int], int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    kills = count(20, 200)
    seed = int(os.environ.get("WATCHWORD_TEST_SEED") or random.SystemRandom().randrange(10**9))
    chance = random.Random(seed)
    name = database_url.partition(":")[0]
    began = time.monotonic()
    mails = tmp_path / "mails"
    made = driver(database_url)
    store = Store(driver=made, events=Events(), realm="main")
    site = Site(Victim(tmp_path, environment(database_url, mails)), Letterbox(mails), store, chance)
    victim, totals = site.victim, site.totals
    everybody: list[Person] = []
    moving: list[Person] = []
    try:
        for number in range(kills):
            is_doomed = await start(victim, number, chance)
            await settle(moving)
            moving = [person for person in moving if person.stage in STEPS]
            if number <= kills - len(STEPS):
                joined = [Person(site) for _ in range(NEW_A_ROUND)]
                everybody += joined
                moving += joined
            await kill_in_flight(victim, moving, chance, is_doomed=is_doomed)
            await site.hang_up()
        await victim.start()
        await settle(moving)
        while moving := [person for person in moving if person.stage in STEPS]:
            await fly(moving)
            await settle(moving)
        victim.end()  # nobody is on the way
        await site.hang_up()
        await victim.start(ahead=LATER)
        until = time.monotonic() + 30
        while (left := await store.count(OutboxMail)) and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        if left:
            totals.mails_lost.append(f"{left} are still in the outbox")
        for person in everybody:
            person.look_for_lost_mail()
        await asyncio.gather(*(p.replay() for p in everybody if p.stage == "done"))
    finally:
        victim.close()
        await site.client.aclose()
        await made.close()
        with capsys.disabled():
            print(f"\n{name}: seed {seed} (WATCHWORD_TEST_SEED), {time.monotonic() - began:.0f} s")
            for step in STEPS:
                print(
                    f"  {step:<8}  in flight: {totals.in_flight[step]:>3}"
                    f"  cut: {totals.cut[step]:>3}  answer lost: {totals.lost[step]:>3}"
                    f"  done, of these: {totals.committed[step]:>3}"
                )
            print(
                f"{name}: kills: {victim.kills}  stuck users: {len(totals.stuck)}  "
                f"tokens that worked twice: {len(totals.worked_twice)}  "
                f"mails lost: {len(totals.mails_lost)}"
            )
    assert victim.kills == kills
    assert not totals.stuck
    assert not totals.worked_twice
    assert not totals.mails_lost
    assert {person.stage for person in everybody} == {"done"}
    assert all(totals.cut[step] for step in ("register", "verify", "refresh", "reset"))
