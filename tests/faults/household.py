"""Somebody at home while the store goes away: what they ask then, and whether all goes on."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx

from tests.told import (
    ADA,
    ANOTHER,
    PASSWORD,
    Story,
    browser,
    csrf_of,
    neighbour,
    problem,
    telling,
)
from watchword import CurrentPrincipal, CurrentUser
from watchword.features.passwords.records import Password
from watchword.features.users import User
from watchword.kernel.errors import StoreUnavailable
from watchword.kernel.feature import Feature
from watchword.server.probes import probes
from watchword.testing.story import bearer

BOUND = 15.0  # seconds in which every request is answered, whatever the store does
BACK_IN = 10.0  # seconds in which everything works again
STRANGER = "new@example.com"


@asynccontextmanager
async def served(url: str, **options: Any) -> AsyncGenerator[Story, None]:
    """A story with the probes of the server and two routes of its own."""
    async with telling(url, **options) as story:
        story.app.include_router(probes(story.auth))

        @story.app.get("/mine")
        async def mine(user: CurrentUser) -> str:
            return user.email

        @story.app.get("/who")
        async def who(principal: CurrentPrincipal) -> str:
            return principal.id

        yield story


class Household:
    """Somebody with a token, a cookie and a refresh token, from before the outage."""

    def __init__(
        self, story: Story, url: str, features: Sequence[Feature[Any]] | None = None
    ) -> None:
        self.story = story
        self.url, self.features = url, features  # how another worker reaches the same store
        self.people = 1
        self.browser = browser(story.app)
        self.tokens: dict[str, Any] = {}
        self.csrf: dict[str, str] = {}

    async def move_in(self) -> None:
        await self.story.join()
        self.tokens = await self.story.log_in()
        await self.story.log_in(transport="cookie", client=self.browser)
        self.csrf = csrf_of(self.browser)
        for path in ("/mine", "/who", "/auth/me"):
            assert (await self.read(path)).status_code == 200
            assert (await self.browser.get(path)).status_code == 200
        await self.story.mails()

    async def read_at_once(self) -> None:
        """What the cache knows it may say while the feed is fresh; else nobody knows."""
        for answer in await asyncio.gather(*self.reads()):
            assert answer.status_code in {200, 503}, answer.text

    async def read(self, path: str) -> httpx.Response:
        return await self.story.client.get(path, headers=bearer(self.tokens["access_token"]))

    def reads(self) -> list[Awaitable[httpx.Response]]:
        """Each a protected route."""
        paths = ("/mine", "/who", "/auth/me")
        return [*map(self.read, paths), *map(self.browser.get, paths)]

    def writes(self) -> list[Awaitable[httpx.Response]]:
        """Each would change something."""
        post = self.story.client.post
        refresh = {"refresh_token": self.tokens["refresh_token"]}
        return [
            post("/auth/login", json={"email": ADA, "password": PASSWORD}),
            post("/auth/refresh", json=refresh),
            post("/auth/register", json={"email": STRANGER, "password": PASSWORD}),
            post("/auth/password-reset-request", json={"email": ADA}),
        ]

    def looks(self) -> list[Awaitable[httpx.Response]]:
        """Each asks the store before it could change anything."""
        post, own = self.story.client.post, bearer(self.tokens["access_token"])
        reset = {"token": "wwp_" + "x" * 43, "new_password": ANOTHER}
        change = {"current_password": PASSWORD, "new_password": ANOTHER}
        return [
            post("/auth/login", json={"email": "nobody@example.com", "password": PASSWORD}),
            post("/auth/password/change", json=change, headers=own),
            post("/auth/verify-email", json={"token": "wwv_" + "x" * 43}),
            post("/auth/password-reset", json=reset),
            post("/auth/logout", headers=own),
            self.browser.post("/auth/logout", headers=self.csrf),
        ]

    async def go_on(self) -> None:
        """All is as it was before: the same tokens work, and what was refused left nothing."""
        until = time.monotonic() + BACK_IN
        while (await self.story.client.get("/readyz")).status_code != 200:
            assert time.monotonic() < until, "not ready again"
            await asyncio.sleep(0.05)
        for answer in await asyncio.gather(*self.reads()):
            assert answer.status_code == 200, answer.text
        await self._count_people()
        refresh = {"refresh_token": self.tokens["refresh_token"]}
        answer = await self.story.client.post("/auth/refresh", json=refresh)
        assert answer.status_code == 200, answer.text
        self.tokens = answer.json()
        assert (await self.story.register(STRANGER)).status_code == 201
        assert (await self.story.verify(STRANGER)).status_code == 204
        self.people += 1
        await self._hear_of_others()

    async def _count_people(self) -> None:
        """What was refused left nothing but, where nothing holds writes together, hashes."""
        store = self.story.auth.store
        assert await store.count(User) == self.people
        hashes = await store.count(Password)
        assert hashes == self.people or (hashes > self.people and not store.is_transactional)

    async def _hear_of_others(self) -> None:
        """What ends at another worker is refused here: at once, or once the cache forgets."""
        options: dict[str, Any] = {} if self.features is None else {"features": self.features}
        async with neighbour(self.story, self.url, **options) as other:
            behind = self.story.clock.now() - other.clock.now()
            late = other if behind > timedelta(0) else self.story
            late.clock.advance(abs(behind))
            token = (await self.story.log_in())["access_token"]
            for _ in range(2):
                assert (await self.story.me(token)).status_code == 200
            answer = await other.client.post("/auth/logout", headers=bearer(token))
            assert answer.status_code == 204, answer.text
        feed = self.story.auth.driver.feed
        if feed is None or not feed.is_coherent:
            self.story.move(seconds=2)
        until = time.monotonic() + BACK_IN
        while (await self.story.me(token)).status_code != 401:
            assert time.monotonic() < until, "the feed is not heard again"
            await asyncio.sleep(0.02)


async def all_refused(
    story: Story, requests: list[Awaitable[httpx.Response]], *, bound: float = BOUND
) -> float:
    """503 without a word about the store, in time; how long the slowest took."""
    began = time.monotonic()
    async with asyncio.timeout(bound):
        answers = await asyncio.gather(*requests)
    for answer in answers:
        body = problem(answer, 503, "store_unavailable")
        assert body["detail"] == body["title"] == StoreUnavailable.title
        assert set(body) == {"type", "title", "status", "detail", "code", "request_id"}
        assert int(answer.headers["retry-after"]) > 0
        assert "set-cookie" not in answer.headers
    return time.monotonic() - began


async def probed(story: Story) -> None:
    """Alive, and not ready."""
    async with asyncio.timeout(BOUND):
        assert (await story.client.get("/healthz")).status_code == 200
        assert (await story.client.get("/readyz")).status_code == 503
