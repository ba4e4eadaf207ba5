"""Where tries are counted: in each kind of database, in Redis, and in one process's memory."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.conftest import URLS
from tests.told import ADA, ORIGIN, Story, telling
from watchword.features.limits import limits
from watchword.features.lockout import lockout
from watchword.kernel.feature import Feature
from watchword.presets import standard


@dataclass
class Place:
    """A database, and settings that say where it is counted."""

    name: str
    url: str
    environ: dict[str, str] = field(default_factory=dict[str, str])


SHARED = [*URLS, "redis"]


@pytest.fixture(params=[*SHARED, "memory"])
def place(request: pytest.FixtureRequest) -> Place:
    """Each place where tries may be counted."""
    return place_named(request)


def place_named(request: pytest.FixtureRequest) -> Place:
    """The place that a fixture's parameter names."""
    name: str = request.param
    url: str = request.getfixturevalue(URLS.get(name, "sqlite_url"))
    environ: dict[str, str] = {}
    if name == "redis":
        environ["WATCHWORD_LIMITS__STORE"] = request.getfixturevalue("redis_url")
    elif name == "memory":
        environ["WATCHWORD_LIMITS__STORE"] = "memory:"
    return Place(name, url, environ)


def limited_features(**options: Any) -> list[Feature[Any]]:
    """All features, with limits on and nobody locked out."""
    chosen = [each for each in standard() if each.name not in {"limits", "lockout"}]
    return [*chosen, limits(**options), lockout(enabled=False)]


@asynccontextmanager
async def counting(place: Place | str, **options: Any) -> AsyncGenerator[Story, None]:
    """A story with limits; `options` are their settings, and those of the App in `core`."""
    core = options.pop("core", {})
    url = place if isinstance(place, str) else place.url
    environ = {} if isinstance(place, str) else place.environ
    features = limited_features(**options)
    async with telling(url, features=features, environ=environ, background=False, **core) as story:
        yield story


def at(story: Story, address: str, app: Any = None, **headers: str) -> httpx.AsyncClient:
    """A client at an address; each request runs in a task of its own, as a server has it."""

    async def run(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.create_task((app or story.app)(scope, receive, send))

    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=run, client=(address, 4711)),
        base_url=ORIGIN,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


async def wrong(client: httpx.AsyncClient, email: str = ADA, **more: str) -> httpx.Response:
    """Try to sign in with a wrong password."""
    body = {"email": email, "password": "not the password of anybody", **more}
    return await client.post("/auth/login", json=body)


async def until_refused(client: httpx.AsyncClient, email: str = ADA, most: int = 60) -> int:
    """How many wrong passwords may be tried."""
    for tried in range(most):
        if (await wrong(client, email)).status_code == 429:
            return tried
    return most
