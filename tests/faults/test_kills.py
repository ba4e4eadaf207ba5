"""SIGKILL in the middle of anything: everybody goes on, and nothing works twice."""

import asyncio
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.places import Place
from tests.faults.users_in_flight import LATER, Person, Site
from tests.faults.victim import Forker, Letterbox, Victim
from watchword.features.mail import OutboxMail
from watchword.features.users.records import UserIntent
from watchword.storage.store import Store

NEW_A_ROUND = 3  # people; each is at another step than those of the round before
REAL_ROUNDS = 1  # of `watchword serve` itself, with hashing at its real cost
MOST_COMMITS = 15  # of the about twenty that a flight takes
MOST_WRITES = 60  # where each of them is a commit
MOMENTS = (0.02, 0.05, 0.1, 0.2)  # seconds; a flight takes about a tenth
STEPS = ("register", "verify", "refresh", "ask", "reset")


async def fly(people: list[Person]) -> None:
    """Everybody takes a step at once."""
    async with asyncio.TaskGroup() as group:
        for person in people:
            group.create_task(person.step())


async def start(site: Site, number: int) -> bool:
    """Start the server of this round; will it count its commits?"""
    if number < REAL_ROUNDS:
        await site.victim.start_real()
    elif is_doomed := number % 2 == 1:
        most = MOST_COMMITS if site.is_transactional else MOST_WRITES
        await site.victim.start(die_after=site.chance.randrange(most))
        return is_doomed
    else:
        await site.victim.start()
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


async def done_later(store: Store) -> list[str]:
    """Wait until nothing is left of what dead servers began; what is, after all."""
    until = time.monotonic() + 60
    while True:
        mails, intents = await store.count(OutboxMail), await store.count(UserIntent)
        if not mails and not intents:
            return []
        if time.monotonic() > until:
            return [f"{mails} mails and {intents} intents are still there"]
        await asyncio.sleep(0.1)


@pytest.mark.slow
@pytest.mark.invariant("I-01", "I-04", "I-05", "I-12", "I-14")
async def test_a_killed_server_leaves_nobody_stuck_and_no_token_that_works_twice(
    place: Place,
    tmp_path: Path,
    count: Callable[[int, int], int],
    say: Callable[[str], None],
) -> None:
    kills = count(12, 200)
    seed = int(os.environ.get("WATCHWORD_TEST_SEED") or random.SystemRandom().randrange(10**9))
    began = time.monotonic()
    mails = tmp_path / "mails"
    victim = Victim(tmp_path, Forker(place.environment(mails)))
    async with place.store() as store:
        site = Site(
            victim,
            Letterbox(mails),
            store,
            random.Random(seed),
            is_transactional=place.is_transactional,
        )
        try:
            everybody = await kill_again_and_again(site, kills)
        finally:
            victim.close()
            await site.client.aclose()
            say(report(place, site, seed, time.monotonic() - began))
    totals = site.totals
    assert victim.kills == kills
    assert not totals.stuck
    assert not totals.worked_twice
    assert not totals.mails_lost
    assert {person.stage for person in everybody} == {"done"}
    assert all(totals.cut[step] for step in ("register", "verify", "refresh", "reset"))


async def kill_again_and_again(site: Site, kills: int) -> list[Person]:
    """Kill, let everybody find out, and at the end let all of them arrive; who they were."""
    victim = site.victim
    everybody: list[Person] = []
    moving: list[Person] = []
    for number in range(kills):
        is_doomed = await start(site, number)
        await settle(moving)
        moving = [person for person in moving if person.stage in STEPS]
        if number <= kills - len(STEPS):
            joined = [Person(site) for _ in range(NEW_A_ROUND)]
            everybody += joined
            moving += joined
        await kill_in_flight(victim, moving, site.chance, is_doomed=is_doomed)
        await site.hang_up()
    await victim.start()
    await settle(moving)
    while moving := [person for person in moving if person.stage in STEPS]:
        await fly(moving)
        await settle(moving)
    victim.end()  # nobody is on the way
    await site.hang_up()
    await victim.start(ahead=LATER)
    site.totals.mails_lost += await done_later(site.store)
    for person in everybody:
        person.look_for_lost_mail()
    await asyncio.gather(*(p.replay() for p in everybody if p.stage == "done"))
    return everybody


def report(place: Place, site: Site, seed: int, took: float) -> str:
    """What happened, for whoever reads the log."""
    totals, recovered = site.totals, sorted(site.victim.recovered_in)
    lines = [f"{place.name}: seed {seed} (WATCHWORD_TEST_SEED), {took:.0f} s"]
    lines += [
        f"  {step:<8}  in flight: {totals.in_flight[step]:>3}"
        f"  cut: {totals.cut[step]:>3}  answer lost: {totals.lost[step]:>3}"
        f"  done, of these: {totals.committed[step]:>3}"
        for step in STEPS
    ]
    half = recovered[len(recovered) // 2] if recovered else 0.0
    lines.append(
        f"{place.name} kills: tries {site.victim.kills}  stuck users {len(totals.stuck)}  "
        f"tokens that worked twice {len(totals.worked_twice)}  "
        f"mails lost {len(totals.mails_lost)}  time to recover {half:.1f} s"
    )
    return "\n".join(lines)
