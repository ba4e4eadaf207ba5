"""Guessing, read with an attacker's eye: waits that are not true, locks that bite the wrong one."""

import asyncio
import hashlib
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, cast

import httpx
import pytest

from tests.features.passwords.test_policy import Range, a_range
from tests.told import (
    ADA,
    ANOTHER,
    EVE,
    PASSWORD,
    PRODUCTION,
    Story,
    csrf_of,
    plain,
    problem,
    telling,
)
from watchword.features.limits import limits
from watchword.features.passwords import BreachesUnknown
from watchword.features.passwords.breaches import RangeChecker
from watchword.kernel.attempts import Attempt, Attempts
from watchword.kernel.clock import SystemClock
from watchword.kernel.errors import InvalidCredentials, StoreUnavailable, TooManyAttempts
from watchword.kernel.principal import Client
from watchword.kernel.quotas import OWN, Quota
from watchword.presets import standard

HERE, THERE = "203.0.113.9", "198.51.100.7"
WRONG = "a wrong horse battery"
TRUSTED: dict[str, Any] = {"trusted_proxies": ("127.0.0.1/32",)}


@asynccontextmanager
async def town(database: str = "sqlite://", **options: Any) -> AsyncGenerator[Story]:
    """All of it switched on, in production, behind a proxy; Ada lives there."""
    features = {each.name: each for each in standard()}
    features |= {each.name: each for each in options.pop("features", ())}
    named = {"background": False, **PRODUCTION, **TRUSTED, **options}
    async with telling(database, features=[*features.values()], **named) as story:
        await story.auth.passwords.create_user(email=ADA, password=PASSWORD, is_verified=True)
        yield story


async def attempt(
    story: Story,
    password: str = WRONG,
    *,
    email: str = ADA,
    at: str = HERE,
    client: httpx.AsyncClient | None = None,
    **body: Any,
) -> httpx.Response:
    """POST /auth/login from an address."""
    return await (client or story.client).post(
        "/auth/login",
        json={"email": email, "password": password, **body},
        headers={"X-Forwarded-For": at},
    )


def wait_of(answer: httpx.Response) -> int:
    """What a 429 tells one to wait."""
    body = problem(answer, 429, "too_many_attempts")
    assert answer.headers["retry-after"] == str(body["retry_after"])
    assert body["detail"] == f"Try again in {body['retry_after']} s"
    return int(body["retry_after"])


@pytest.mark.invariant("I-20")
@pytest.mark.capability("DEF-04", "S0-90")
async def test_after_retry_after_the_right_password_works_with_lock_and_limits_on(
    database_url: str,
) -> None:
    async with town(database_url) as story:
        for each in range(5):
            assert (await attempt(story)).status_code == 401
            assert (await attempt(story, email=EVE)).status_code == 401
            story.clock.advance(timedelta(seconds=each))
        known, unknown = await attempt(story), await attempt(story, email=EVE)
        assert wait_of(known) == 290, "the lock is over after 30 s, and the limit is not"
        assert plain(unknown) == plain(known)
        assert wait_of(await attempt(story, PASSWORD)) == 290
        story.clock.advance(timedelta(seconds=289))
        assert wait_of(await attempt(story, PASSWORD)) == 1
        story.clock.advance(timedelta(seconds=1))
        assert (await attempt(story, PASSWORD)).status_code == 200


class Wall:
    """A guard that lets nobody pass for so long, or nobody knows how long."""

    def __init__(self, turn: int, refuses: int, waits: int | None) -> None:
        self.turn, self.refuses, self.left = turn, refuses, waits

    async def before(self, attempt: Attempt) -> None:
        if self.refuses:
            raise TooManyAttempts(
                retry_after=self.refuses, note="a wall", headers={"RateLimit": "r"}
            )

    async def after(self, attempt: Attempt, *, is_right: bool) -> None: ...

    async def waits(self, attempt: Attempt) -> int:
        if self.left is None:
            raise StoreUnavailable
        return self.left


@pytest.mark.capability("DEF-04", "S0-90")
@pytest.mark.parametrize(
    ("walls", "wait"),
    [
        ([Wall(0, 30, 30), Wall(1, 0, 270)], 270),
        ([Wall(0, 0, 3600), Wall(1, 300, 300)], 3600),  # it locked meanwhile
        ([Wall(0, 0, 7), Wall(1, 300, 300)], 300),
        ([Wall(0, 30, 30), Wall(1, 0, None)], 30),  # it cannot be asked: refused all the same
    ],
)
async def test_whoever_refuses_tells_the_longest_wait_of_all(walls: list[Wall], wait: int) -> None:
    attempts = Attempts(walls)
    with pytest.raises(TooManyAttempts) as counted:
        await attempts.count("login", account=ADA)
    with pytest.raises(TooManyAttempts) as tried:
        async with attempts.trying("login", account=ADA):
            pytest.fail("it was looked at")
    for caught in (counted.value, tried.value):
        assert caught.retry_after == caught.extra["retry_after"] == wait
        assert caught.headers == {"Retry-After": str(wait), "RateLimit": "r"}
        assert str(wait) in str(caught)
        assert caught.note == "a wall"


async def crowd(story: Story, net: int = 10) -> None:
    """A hundred failures at Ada's account, from all over the world."""
    for number in range(100):
        answer = await attempt(story, at=f"{net}.{number // 5}.0.1")
        assert answer.status_code == 401, answer.text


UNLIMITED: dict[str, Any] = {"features": [limits(enabled=False)]}


@pytest.mark.invariant("I-01")
@pytest.mark.capability("DEF-04")
async def test_a_thief_who_was_in_once_is_a_stranger_after_the_password_was_replaced(
    database_or_redis_url: str,
) -> None:
    async with town(database_or_redis_url, **UNLIMITED) as story, story.another_client() as thief:
        entered = await attempt(story, PASSWORD, at=THERE, client=thief, transport="cookie")
        assert entered.status_code == 200
        ada = await story.auth.users.by_email(ADA)
        assert ada is not None
        await story.auth.passwords.set(ada.id, ANOTHER)
        await crowd(story)
        for _ in range(3):  # the cookie of then opens no way around the lock
            assert wait_of(await attempt(story, client=thief, at=THERE)) == 30
        story.clock.advance(timedelta(seconds=30))
        async with story.another_client() as owner:  # known from here on, and the lock is over
            entered = await attempt(story, ANOTHER, client=owner, transport="cookie")
            assert entered.status_code == 200
            await crowd(story, net=11)
            assert (await attempt(story, ANOTHER)).status_code == 429
            assert (await attempt(story, ANOTHER, client=owner)).status_code == 200


@pytest.mark.invariant("I-01")
@pytest.mark.capability("DEF-04")
async def test_whoever_changes_their_password_stays_known_where_they_did(
    database_or_redis_url: str,
) -> None:
    async with town(database_or_redis_url, **UNLIMITED) as story, story.another_client() as owner:
        entered = await attempt(story, PASSWORD, client=owner, transport="cookie")
        assert entered.status_code == 200
        body = {"current_password": PASSWORD, "new_password": ANOTHER}
        changed = await owner.post("/auth/password/change", json=body, headers=csrf_of(owner))
        assert changed.status_code == 204, changed.text
        await crowd(story)
        assert (await attempt(story, ANOTHER)).status_code == 429
        assert (await attempt(story, ANOTHER, client=owner)).status_code == 200


@pytest.mark.capability("DEF-04")
async def test_what_comes_from_nowhere_locks_nobody_else() -> None:
    """A script, or a socket of the application's own: there is no address to hold it against."""
    async with town(**UNLIMITED) as story:
        for number in range(60):
            with pytest.raises(InvalidCredentials):
                await story.auth.passwords.sign_in(email=f"u{number}@example.com", password=WRONG)
        assert await story.auth.passwords.sign_in(email=ADA, password=PASSWORD)
        for _ in range(5):
            with pytest.raises(InvalidCredentials):
                await story.auth.passwords.sign_in(email=ADA, password=WRONG)
        with pytest.raises(TooManyAttempts):
            await story.auth.passwords.sign_in(email=ADA, password=PASSWORD)


@pytest.mark.capability("DEF-04")
async def test_a_way_of_signing_in_without_addresses_is_locked_by_place_only() -> None:
    async with town(**UNLIMITED) as story:
        tries: Attempts = story.auth.attempts
        for number in range(150):
            client = Client(address=f"10.0.{number}.1", user_agent="", device=None)
            async with tries.trying("login", client=client) as tried:
                tried.is_right = False
        here = Client(address=HERE, user_agent="", device=None)
        async with tries.trying("login", client=here) as tried:
            tried.is_right = True


def checker_of(service: Range) -> RangeChecker:
    """One that believes no answer for longer than it takes."""
    lasts = timedelta(seconds=5)
    return RangeChecker(url=service.url, timeout=lasts, keep_for=timedelta(), clock=SystemClock())


@asynccontextmanager
async def ranges(**given: Any) -> AsyncGenerator[Range]:
    """A range service that has hung up when the test goes on."""
    async with a_range(**given) as service:
        yield service
        await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()}, timeout=5)


@pytest.mark.standard("1: 6.2.12")
async def test_no_log_says_what_was_asked_of_the_breaches(
    caplog: pytest.LogCaptureFixture,
) -> None:
    digest = hashlib.sha1(ANOTHER.encode()).hexdigest().upper()
    caplog.set_level(logging.DEBUG)
    async with ranges() as service:
        checker = checker_of(service)
        for _ in range(2):
            assert await checker.is_breached(ANOTHER) is False
        async with httpx.AsyncClient(trust_env=False) as other:  # somebody else's are still logged
            await other.get(service.url + "00000")
    assert len(service.requests) == 3
    assert digest[:5] in service.requests[0]
    assert digest[:5] not in caplog.text
    assert "/range/00000" in caplog.text


@pytest.mark.parametrize(
    "answer",
    [
        {"body": f"{'A' * 35}:{'9' * 5000}"},  # more digits than int() reads
        {"headers": "Content-Encoding: gzip\r\n"},
    ],
)
async def test_an_odd_answer_about_breaches_is_no_answer(answer: dict[str, Any]) -> None:
    async with ranges(**answer) as service:
        checker = checker_of(service)
        with pytest.raises(BreachesUnknown):
            await checker.is_breached(ANOTHER)


async def test_what_a_stranger_makes_long_is_not_kept_in_memory() -> None:
    async with town(features=[limits(store="memory:")]) as story:
        taken = story.auth.limits
        quotas = [Quota(1, timedelta(minutes=1), OWN)]
        for letter in "ab":
            await taken.admit("route x", quotas, {OWN: f"own:{'x' * 10_000}{letter}"})
        with pytest.raises(TooManyAttempts):
            await taken.admit("route x", quotas, {OWN: f"own:{'x' * 10_000}a"})
        kept = cast("Any", taken.windows)._windows
        assert len(kept) == 2
        assert max(map(len, kept)) < 1000
