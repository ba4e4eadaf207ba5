"""Whoever asked has gone: nothing stays open, nothing is half done."""

import asyncio
import contextlib
import json
import random
import socket
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from tests.told import ADA, PASSWORD, Story, problem, telling
from watchword.crypto import hashing
from watchword.features.passwords.records import Password
from watchword.features.sessions import sessions
from watchword.features.users import User
from watchword.stores.sql import SqlDriver
from watchword.testing.story import without_limits

SOON = 5.0  # seconds; "at once" on a busy machine
Count = Callable[[int, int], int]
# So many that none of theirs is ended for another.
FEATURES = [sessions(max_sessions=1000), *(f for f in without_limits() if f.name != "sessions")]


class Caller:
    """Asks for the same things again and again, and often goes away."""

    def __init__(self, story: Story, seed: int) -> None:
        self.story = story
        self.chance = random.Random(seed)
        self.refresh_token = ""
        self.strangers: list[str] = []

    def request(self) -> tuple[str, dict[str, str]]:
        """A path and a body; each writes."""
        match self.chance.choice(("login", "refresh", "register")):
            case "login":
                return "/auth/login", {"email": ADA, "password": PASSWORD}
            case "refresh":
                return "/auth/refresh", {"refresh_token": self.refresh_token}
            case _:
                self.strangers.append(f"s{len(self.strangers)}@example.com")
                return "/auth/register", {"email": self.strangers[-1], "password": PASSWORD}

    async def move_in(self) -> None:
        await self.story.join()
        self.refresh_token = (await self.story.log_in())["refresh_token"]

    async def refresh(self) -> None:
        """The clock stands still: a token whose answer was lost is still within its grace."""
        body = {"refresh_token": self.refresh_token}
        answer = await self.story.client.post("/auth/refresh", json=body)
        assert answer.status_code == 200, answer.text
        self.refresh_token = answer.json()["refresh_token"]

    async def check_at_once(self) -> None:
        """The next write waits for nobody."""
        async with asyncio.timeout(SOON):
            await self.story.log_in()
            await self.refresh()

    async def check_at_the_end(self) -> None:
        """No lock, no connection, no place; whoever signed up did so wholly or not at all."""
        story = self.story
        await idle(story)
        await self.check_at_once()
        await story.mails()
        known = 0
        for email in self.strangers:
            user = await story.auth.users.by_email(email)
            if user is None:
                assert (await story.register(email)).status_code == 201
            else:
                known += 1
                assert await story.auth.store.get(Password, user_id=user.id)
                assert story.outbox.token(email, "wwv")
            await story.log_in(email)
        total = len(self.strangers) + 1
        assert await story.auth.store.count(User) == total
        assert await story.auth.store.count(Password) == total
        assert 0 < known < len(self.strangers)


async def idle(story: Story) -> None:
    """Wait until nothing is held; it must come by itself."""
    driver = story.auth.driver
    assert isinstance(driver, SqlDriver)
    pool, queue, hashes = driver._pool.engine.pool, driver._pool._queue, story.auth.hash_pool
    held: Any = None
    for _ in range(int(SOON * 100)):
        checked_out: Any = getattr(pool, "checkedout", lambda: 0)()
        held = (
            checked_out,
            queue is not None and queue._lock.locked(),
            hashes.running,
            hashes.waiting,
        )
        if held == (0, False, 0, 0):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"connections, writer, hashing, waiting: {held}")


@pytest.mark.slow
@pytest.mark.invariant("I-04", "I-05")
async def test_a_request_cancelled_anywhere_leaves_nothing_open_or_half_done(
    sql_database_url: str, count: Count
) -> None:
    async with telling(sql_database_url, features=FEATURES) as story:
        caller = Caller(story, seed=20)
        await caller.move_in()
        cancelled = 0
        for number in range(count(150, 1500)):
            path, body = caller.request()
            task = asyncio.create_task(story.client.post(path, json=body))
            if number % 2:
                await asyncio.sleep(caller.chance.random() * 0.015)
            else:
                for _ in range(caller.chance.randrange(40)):
                    await asyncio.sleep(0)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                cancelled += 1
            if path == "/auth/refresh" or number % 10 == 0:
                await caller.check_at_once()
        assert cancelled > 50
        await caller.check_at_the_end()


@asynccontextmanager
async def listening(story: Story) -> AsyncGenerator[int, None]:
    """A real server in this process; its port."""
    with socket.create_server(("127.0.0.1", 0)) as place:
        server = uvicorn.Server(uvicorn.Config(story.app, lifespan="off", log_level="warning"))
        task = asyncio.create_task(server._serve([place]))
        try:
            yield int(place.getsockname()[1])
        finally:
            server.should_exit = True
            await task


@pytest.mark.slow
@pytest.mark.invariant("I-04", "I-05")
async def test_a_client_that_hangs_up_leaves_nothing_open_or_half_done(
    sql_database_url: str, count: Count, caplog: pytest.LogCaptureFixture
) -> None:
    async with telling(sql_database_url, features=FEATURES) as story, listening(story) as port:
        caller = Caller(story, seed=21)
        await caller.move_in()
        for number in range(count(100, 1000)):
            path, body = caller.request()
            content = json.dumps(body).encode()
            agent = story.client.headers["User-Agent"]  # a grace is for the same client (I-14)
            head = (
                f"POST {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: {agent}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
            ).encode()
            # Some never send all of it.
            sent = content[: caller.chance.choice((0, len(content) // 2, *[len(content)] * 4))]
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head + sent)
            await asyncio.sleep(caller.chance.random() * 0.015)
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            if path == "/auth/refresh" or number % 10 == 0:
                await caller.check_at_once()
        await caller.check_at_the_end()
    # Hanging up is no fault of ours: it fills no log.
    assert [entry.getMessage() for entry in caplog.records if entry.levelname == "ERROR"] == []


@pytest.mark.capability("DEF-37")
async def test_places_in_the_hash_queue_come_back_when_those_who_wait_go_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go_on, matches = threading.Event(), hashing._matches

    def held(password: bytes, stored: str) -> bool | None:
        go_on.wait()
        return matches(password, stored)

    async with telling(hash_threads=1, hash_queue=3) as story:
        await story.join()
        monkeypatch.setattr(hashing, "_matches", held)
        pool = story.auth.hash_pool
        try:
            for _ in range(5):
                tasks = [asyncio.create_task(story.log_in()) for _ in range(4 - pool.running)]
                while pool.waiting < 3:  # noqa: ASYNC110  it tells nobody
                    await asyncio.sleep(0)
                body = {"email": ADA, "password": PASSWORD}
                problem(await story.client.post("/auth/login", json=body), 503, "busy")
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                assert pool.waiting == 0
        finally:
            go_on.set()
        await idle(story)
        await story.log_in()
