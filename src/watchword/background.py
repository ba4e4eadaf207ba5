"""Background work: what an App does besides answering requests."""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

from watchword.kernel.errors import StoreUnavailable
from watchword.kernel.feature import Job
from watchword.storage.leases import Leases

_log = logging.getLogger("watchword")

_SHORTEST_LEASE = timedelta(seconds=15)
_TURNS_A_LEASE = 3


class Background:
    """Runs jobs, each as a rule in one worker only; two at once do no harm (I-24).

    A wake-up is followed at once and without a lease: it comes from this very process.
    """

    def __init__(self, jobs: Sequence[Job], leases: Leases) -> None:
        self._jobs = jobs
        self._leases = leases
        self._tasks: list[asyncio.Task[None]] = []
        self.failures: Counter[str] = Counter()  # by job
        self.failing: set[str] = set()  # jobs whose last turn failed

    def start(self) -> None:
        """Begin."""
        for job in self._jobs:
            task = asyncio.create_task(self._work(job), name=f"watchword {job.name}")
            self._tasks.append(task)

    async def stop(self) -> None:
        """End it, and let other workers take over at once."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        with contextlib.suppress(StoreUnavailable):  # then the leases end by themselves
            await self._leases.give_up()

    async def _work(self, job: Job) -> None:
        pause = job.every.total_seconds()
        lives = max(_SHORTEST_LEASE, _TURNS_A_LEASE * job.every)
        woken = False
        while True:
            more = False
            try:
                if woken or await self._leases.hold(job.name, lives=lives):
                    more = await job.run()
                    self.failing.discard(job.name)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001  whatever it was, the next turn may work
                self.failures[job.name] += 1
                self.failing.add(job.name)
                _log.warning("background work %s failed: %s", job.name, type(error).__name__)
                if not isinstance(error, StoreUnavailable):  # that is the same for all
                    with contextlib.suppress(StoreUnavailable):
                        await self._leases.let_go(job.name, lives=lives)
            if more:
                await asyncio.sleep(0)
                continue
            woken = await _woken(job, pause)


async def _woken(job: Job, pause: float) -> bool:
    """Wait for a wake-up, or until the pause is over; which of them came."""
    if job.wake is None:
        await asyncio.sleep(pause)
        return False
    # Not wait_for: in 3.11 it loses a cancellation that comes with the wake-up, and the App
    # would never stop.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(pause):
            await job.wake()
            return True
    return False
