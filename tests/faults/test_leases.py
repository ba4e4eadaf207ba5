"""`watchword worker`, three of them: whoever works is killed, and every mail comes all the same."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.faults.places import Place
from tests.faults.server import HASTE
from tests.faults.victim import Forker, Letterbox, Victim
from tests.told import PASSWORD
from watchword.features.mail import OutboxMail
from watchword.storage.leases import Lease
from watchword.storage.store import Store

WORKERS = 3
A_ROUND = 15  # mails
AT_ONCE = 4  # mails that a worker sends at once: those under way when it dies come again
DELIVERED_IN = 60.0  # seconds; a mail whose worker died waits 60 s of the clock that goes fast


async def holder(store: Store, workers: list[Victim]) -> Victim:
    """Whoever sends mail now."""
    lease: Lease | None = None
    until = time.monotonic() + DELIVERED_IN
    while time.monotonic() < until:
        lease = await store.get(Lease, name="outbox")
        for worker in workers:
            if lease is not None and lease.holder == str(worker.pid):
                return worker
        await asyncio.sleep(0.02)
    raise AssertionError(f"none of them sends mail: {lease}")


async def ask_for_mail(address: str, people: list[str]) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=20, base_url=address) as client:
        for email in people:
            body = {"email": email, "password": PASSWORD}
            answer = await client.post("/auth/register", json=body)
            assert answer.status_code == 202, answer.text


@pytest.mark.slow
@pytest.mark.invariant("I-12", "I-24")
async def test_every_mail_comes_though_whoever_sends_is_killed(
    place: Place,
    tmp_path: Path,
    count: Callable[[int, int], int],
    say: Callable[[str], None],
) -> None:
    kills = count(3, 40)
    box = Letterbox(tmp_path / "mails")
    environ = place.environment(tmp_path / "mails", WATCHWORD_BACKGROUND="false")
    forker, since = Forker(environ), time.time()
    web = Victim(tmp_path, forker, name="web")
    workers = [Victim(tmp_path, forker, name=f"worker{n}") for n in range(WORKERS)]
    everybody: list[str] = []
    waits: list[float] = []
    try:
        async with place.store() as store:
            await web.start()
            await asyncio.gather(*(worker.start_worker(since=since) for worker in workers))
            for number in range(kills):
                at_work = await holder(store, workers)
                people = [f"round{number}.{each}@example.com" for each in range(A_ROUND)]
                everybody += people
                asking = asyncio.create_task(ask_for_mail(web.address, people))
                until = time.monotonic() + DELIVERED_IN
                while not any(box.tokens(each, "wwv") for each in people):  # it is at it
                    assert time.monotonic() < until, "nobody sends"
                    await asyncio.sleep(0.002)
                at_work.kill()
                killed = time.monotonic()
                await asking
                others = [worker for worker in workers if worker is not at_work]
                await holder(store, others)
                waits.append(time.monotonic() - killed)
                await at_work.start_worker(since=since)
            until = time.monotonic() + DELIVERED_IN
            while left := await store.count(OutboxMail):
                assert time.monotonic() < until, f"{left} are still in the outbox"
                await asyncio.sleep(0.1)
    finally:
        for each in (web, *workers):
            each.end()
        forker.close()
        came = Counter(len(box.tokens(email, "wwv")) for email in everybody)
        took = max(waits, default=0.0)
        say(
            f"{place.name} workers: holders killed {len(waits)}  mails {len(everybody)}  "
            f"came once {came[1]}  more than once {sum(came.values()) - came[0] - came[1]}  "
            f"never {came[0]}  another took over within {took * HASTE:.0f} s of its clock"
        )
    assert len(waits) == kills
    assert came[0] == 0
    assert len(everybody) - came[1] <= kills * AT_ONCE, "as a rule each comes once"
