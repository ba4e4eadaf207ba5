"""A failed sign-in is answered no sooner than the slowest kind of password takes (I-20)."""

import asyncio
import hashlib
import time
from base64 import b64encode
from typing import Any

import httpx
import pytest

from tests.told import ADA, EVE, PASSWORD, Story, telling
from watchword.features.passwords import Password
from watchword.features.sign_in import sign_in
from watchword.kernel.errors import ConfigurationError
from watchword.presets import Watchword
from watchword.storage.store import where
from watchword.testing.story import without_limits

SLOW = 400_000  # iterations: much more than a hash of the tests' own cost takes


def features(floor: str) -> list[Any]:
    kept = [each for each in without_limits() if each.name != "sign_in"]
    return [*kept, sign_in(login_floor=floor)]


async def fail(story: Story, email: str) -> httpx.Response:
    answer = await story.client.post("/auth/login", json={"email": email, "password": "wrong"})
    assert answer.status_code == 401, answer.text
    return answer


@pytest.mark.invariant("I-20")
@pytest.mark.standard("2: 6.3.8")
@pytest.mark.parametrize("email", [ADA, "nobody@example.com", "no address"])
async def test_no_failure_is_answered_sooner_than_the_floor(email: str) -> None:
    async with telling(features=features("300ms")) as story:
        await story.join()
        began = time.monotonic()
        await fail(story, email)
        assert time.monotonic() - began >= 0.3
        session = {"Authorization": f"Bearer {(await story.log_in())['access_token']}"}
        began = time.monotonic()
        body = {"method": "password", "password": "wrong"}
        answer = await story.client.post("/auth/reauthenticate", json=body, headers=session)
        assert answer.status_code == 401
        assert time.monotonic() - began >= 0.3


@pytest.mark.invariant("I-20")
async def test_waiting_for_the_floor_holds_no_place_of_hashing() -> None:
    core: dict[str, Any] = {"hash_threads": 1, "hash_queue": 3}
    async with telling(features=features("5s"), **core) as story:
        await story.join()
        waiting: list[asyncio.Task[httpx.Response]] = []
        for _ in range(8):  # twice as many as there are places; each would answer 503
            waiting.append(asyncio.create_task(fail(story, EVE)))
            await story.log_in()
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


@pytest.mark.invariant("I-20")
async def test_the_floor_is_measured_at_the_start_and_rises_with_what_is_met(
    database_url: str,
) -> None:
    async with telling(database_url) as story:
        await story.join()
        floor = story.auth.attempts.floor
        measured = floor.seconds
        assert measured > 0
        digest = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), b"salt-of-ada", SLOW)
        slow = f"pbkdf2_sha256${SLOW}$salt-of-ada${b64encode(digest).decode()}"
        user = await story.auth.users.find(ADA)
        await story.auth.store.update(Password, where(user_id=user.id), hash=slow)
        await fail(story, ADA)
        assert floor.seconds > measured
        began = time.monotonic()
        await fail(story, "nobody@example.com")
        assert time.monotonic() - began >= floor.seconds


async def test_a_floor_that_is_set_stays_as_it_is_and_has_its_bounds() -> None:
    async with telling(features=features("10ms")) as story:
        floor = story.auth.attempts.floor
        assert floor.seconds == 0.01
        floor.raise_to(1.0)
        assert floor.seconds == 0.01
    async with telling() as story:
        story.auth.attempts.floor.raise_to(60.0)
        assert story.auth.attempts.floor.seconds == 5.0, "one odd row holds nobody up for long"
    with pytest.raises(ConfigurationError, match="login_floor"):
        Watchword("sqlite://", features=features("6s"), environment="development")
