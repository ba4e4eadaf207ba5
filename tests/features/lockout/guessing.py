"""Somebody who guesses passwords, from wherever they like."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from tests.told import ADA, PASSWORD, Story, telling
from watchword.features.limits import limits
from watchword.features.lockout import lockout
from watchword.kernel.feature import Feature
from watchword.presets import standard

HERE, THERE = "203.0.113.9", "198.51.100.7"
WRONG = "not the right password"


def features(**options: Any) -> list[Feature[Any]]:
    """All that there is, lockout with these settings; limits would refuse before it."""
    kept = [each for each in standard() if each.name not in {"limits", "lockout"}]
    return [*kept, limits(enabled=False), lockout(**options)]


@asynccontextmanager
async def guarded(
    database: str, *, core: dict[str, Any] | None = None, joins: bool = True, **options: Any
) -> AsyncGenerator[Story]:
    """A story whose people come through a proxy, from addresses of their own; Ada has joined."""
    trusted = {"trusted_proxies": ["127.0.0.1"], **(core or {})}
    async with telling(database, features=features(**options), **trusted) as story:
        if joins:
            await story.join()
        yield story


async def attempt(
    story: Story,
    password: str = WRONG,
    *,
    email: str = ADA,
    at: str = HERE,
    client: httpx.AsyncClient | None = None,
    **body: str,
) -> httpx.Response:
    """POST /auth/login from an address."""
    return await (client or story.client).post(
        "/auth/login",
        json={"email": email, "password": password, **body},
        headers={"X-Forwarded-For": at},
    )


async def fail(story: Story, times: int, **named: Any) -> None:
    """Fail so often; each is looked at."""
    for _ in range(times):
        answer = await attempt(story, **named)
        assert answer.status_code == 401, answer.text


async def lock(story: Story, **named: Any) -> None:
    """Fail as often as it takes."""
    await fail(story, 5, **named)
    refused = await attempt(story, **named)
    assert refused.status_code == 429, refused.text


async def right(story: Story, **named: Any) -> int:
    """Bring the right password; the status."""
    return (await attempt(story, PASSWORD, **named)).status_code
