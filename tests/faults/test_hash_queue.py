"""More sign-ins than the machine can hash: the rest of it goes on."""

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

from tests.told import ADA, PASSWORD, Story, problem, telling
from watchword.crypto import hashing
from watchword.server.probes import probes

THREADS, QUEUE, PARALLEL = 2, 6, 100


async def lag(until: asyncio.Event) -> float:
    """The longest that the loop kept a sleeper waiting, in seconds."""
    longest = 0.0
    while not until.is_set():
        began = time.perf_counter()
        await asyncio.sleep(0.001)
        longest = max(longest, time.perf_counter() - began - 0.001)
    return longest


async def busy_or(story: Story, password: str) -> int:
    """Sign in; 0 if it was refused at once, as it should be."""
    body = {"email": ADA, "password": password}
    answer = await story.client.post("/auth/login", json=body)
    if answer.status_code == 503:
        problem(answer, 503, "busy")
        assert int(answer.headers["retry-after"]) > 0
        return 0
    return answer.status_code


@pytest.mark.capability("DEF-37")
async def test_a_hundred_sign_ins_at_once_leave_the_loop_free_and_the_queue_bounded(
    database_url: str, monkeypatch: pytest.MonkeyPatch, say: Callable[[str], None]
) -> None:
    go_on, matches = threading.Event(), hashing._matches
    at_work: list[int] = []

    def held(password: bytes, stored: str) -> bool | None:
        at_work.append(story.auth.hash_pool.running)
        go_on.wait()
        return matches(password, stored)

    async with telling(database_url, hash_threads=THREADS, hash_queue=QUEUE) as story:
        story.app.include_router(probes(story.auth))
        await story.join()
        token = (await story.log_in())["access_token"]
        pool = story.auth.hash_pool
        monkeypatch.setattr(hashing, "_matches", held)
        try:
            passwords = [PASSWORD, "wrong horse battery staple"] * (PARALLEL // 2)
            tasks = [asyncio.create_task(busy_or(story, each)) for each in passwords]
            finished = asyncio.Event()
            lagging = asyncio.create_task(lag(finished))
            # Nobody's hash is done, and yet: those beyond the queue have their answer,
            # and everything else is answered as ever.
            async with asyncio.timeout(60):
                while sum(task.done() for task in tasks) < PARALLEL - THREADS - QUEUE:
                    await asyncio.sleep(0)  # what comes from the cache waits for nothing
                    assert (await story.client.get("/healthz")).status_code == 200
                    assert (await story.me(token)).status_code == 200
                    assert pool.running <= THREADS
                    assert pool.waiting <= QUEUE
            assert (pool.running, pool.waiting) == (THREADS, QUEUE)
            assert {task.result() for task in tasks if task.done()} == {0}
            for _ in range(20):
                assert (await story.client.get("/healthz")).status_code == 200
                assert (await story.client.get("/readyz")).status_code == 200
        finally:
            go_on.set()
        answers = await asyncio.gather(*tasks)
        finished.set()
        longest = await lagging
        assert len([each for each in answers if each]) == THREADS + QUEUE
        assert set(answers) <= {0, 200, 401}
        assert max(at_work) <= THREADS
        assert (pool.running, pool.waiting) == (0, 0)
        await story.log_in()
        say(f"{PARALLEL} sign-ins at once: the loop was late by {longest * 1000:.0f} ms")
