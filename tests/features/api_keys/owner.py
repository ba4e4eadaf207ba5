"""Words that the stories of API keys share: an app that takes them, and who owns them."""

from typing import Any

import httpx
from fastapi import FastAPI

from tests.told import ADA, Story
from watchword import CurrentUser, requires
from watchword.http.depends import FRESH_FOR
from watchword.testing.story import bearer

BOTH = ("session", "api_key")


def reporting() -> FastAPI:
    """An app with a route that takes keys and one that says nothing of them."""
    app = FastAPI()

    @app.get("/reports", dependencies=[requires(accepts=BOTH, scope="reports:read")])
    async def reports(user: CurrentUser) -> str:
        return user.email

    @app.get("/open", dependencies=[requires(accepts=BOTH)])
    async def unscoped(user: CurrentUser) -> str:
        return user.email

    @app.get("/fresh", dependencies=[requires(accepts=BOTH, fresh=FRESH_FOR)])
    async def fresh(user: CurrentUser) -> str:
        return user.email

    @app.get("/private")
    async def private(user: CurrentUser) -> str:
        return user.email

    return app


async def signed_in(story: Story, email: str = ADA) -> dict[str, str]:
    """The header of somebody who signed in just now."""
    return bearer((await story.log_in(email))["access_token"])


async def made(story: Story, headers: dict[str, str], **body: Any) -> dict[str, Any]:
    """A key of theirs."""
    body.setdefault("name", "nightly")
    body.setdefault("scopes", ["reports:read"])
    answer = await story.client.post("/auth/api-keys", json=body, headers=headers)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def listed(story: Story, headers: dict[str, str]) -> list[dict[str, Any]]:
    """Their keys."""
    answer = await story.client.get("/auth/api-keys", headers=headers)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


async def get(story: Story, key: str, path: str = "/reports") -> httpx.Response:
    """Ask with a key."""
    return await story.client.get(path, headers=bearer(key))
