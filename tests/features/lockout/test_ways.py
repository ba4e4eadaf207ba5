"""A lock holds on every route that takes a password, and every one of them counts."""

import re
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from tests.features.lockout.guessing import HERE, THERE, WRONG, attempt, fail, guarded
from tests.told import ADA, ANOTHER, PASSWORD, Story, browser, problem
from watchword.testing.story import bearer

pytestmark = pytest.mark.slow  # scripts/test runs them

Way = Callable[[Story, httpx.AsyncClient, dict[str, str], str], Awaitable[httpx.Response]]
FROM_HERE = {"X-Forwarded-For": HERE}
NEW = "ada.new@example.com"


async def by_json(
    story: Story, client: httpx.AsyncClient, _: dict[str, str], password: str
) -> httpx.Response:
    return await attempt(story, password, client=client)


async def by_form(
    _: Story, client: httpx.AsyncClient, __: dict[str, str], password: str
) -> httpx.Response:
    form = {"username": ADA, "password": password}
    headers = {**FROM_HERE, "Sec-Fetch-Site": "same-origin"}
    return await client.post("/auth/login", data=form, headers=headers)


def posting(path: str, **body: str) -> Way:
    """A way in of a session: its body, `PASSWORD` being what is tried."""

    async def way(
        _: Story, client: httpx.AsyncClient, session: dict[str, str], password: str
    ) -> httpx.Response:
        filled = {name: password if value == PASSWORD else value for name, value in body.items()}
        return await client.post(path, json=filled, headers={**session, **FROM_HERE})

    return way


def proving(path: str, purpose: str) -> Way:
    """A way that takes a token from a mail, and the password with it."""

    async def way(
        story: Story, client: httpx.AsyncClient, _: dict[str, str], password: str
    ) -> httpx.Response:
        address = NEW if purpose == "wwe" else ADA
        body = {"token": story.outbox.token(address, purpose), "password": password}
        return await client.post(path, json=body, headers=FROM_HERE)

    return way


WAYS: dict[str, Way] = {
    "/auth/login": by_json,
    "/auth/login as a form": by_form,
    "/auth/reauthenticate": posting("/auth/reauthenticate", method="password", password=PASSWORD),
    "/auth/password/change": posting(
        "/auth/password/change", current_password=PASSWORD, new_password=ANOTHER
    ),
    "/auth/email/change": posting(
        "/auth/email/change", new_email="b@example.com", current_password=PASSWORD
    ),
    "/auth/email/confirm": proving("/auth/email/confirm", "wwe"),
    "/auth/verify-email": proving("/auth/verify-email", "wwv"),
}
# Their password is a new one.
NOT_TRIED = {"/auth/register", "/auth/password-reset", "/auth/password/change-required"}


def takes_password(schema: dict[str, Any], operation: dict[str, Any]) -> bool:
    """Has its body a field that is a password?"""
    body = str(operation.get("requestBody", ""))
    named = re.findall(r"#/components/schemas/([\w.]+)", body)
    fields = [
        field for name in named for field in schema["components"]["schemas"][name]["properties"]
    ]
    return "password" in body + " ".join(fields)


@pytest.mark.standard("CVE-2026-9798")
@pytest.mark.capability("S3-05")
@pytest.mark.parametrize("path", WAYS)
async def test_a_lock_holds_on_every_route_that_takes_a_password(path: str) -> None:
    way = WAYS[path]
    joined = path != "/auth/verify-email"  # which takes a password of unproven accounts only
    async with guarded("sqlite://", joins=joined) as story, browser(story.app) as client:
        if not joined:
            await story.register()
            await story.mails()
        answer = await attempt(story, PASSWORD, at=THERE)
        session = bearer(answer.json()["access_token"])
        wish = {"new_email": NEW, "current_password": PASSWORD}
        await client.post("/auth/email/change", json=wish, headers=session)
        await story.mails()

        for _ in range(5):
            problem(await way(story, client, session, WRONG), 401, "invalid_credentials")
        refused = await way(story, client, session, PASSWORD)
        problem(refused, 429, "too_many_attempts")
        assert refused.headers["retry-after"] == "30"
        problem(await attempt(story, PASSWORD), 429, "too_many_attempts")

        story.move(seconds=30)
        answer = await way(story, client, session, PASSWORD)
        assert answer.is_success, answer.text


async def test_no_route_that_takes_a_password_was_forgotten() -> None:
    async with guarded("sqlite://") as story:
        schema = story.app.openapi()
        taking = {
            path
            for path, item in schema["paths"].items()
            if any(takes_password(schema, operation) for operation in item.values())
        }
        assert taking - NOT_TRIED == {path.partition(" ")[0] for path in WAYS}


async def test_ways_count_together() -> None:
    async with guarded("sqlite://") as story, browser(story.app) as client:
        session = bearer((await attempt(story, PASSWORD, at=THERE)).json()["access_token"])
        await fail(story, 3)
        for path in ("/auth/reauthenticate", "/auth/password/change"):
            answer = await WAYS[path](story, client, session, WRONG)
            assert answer.status_code == 401
        problem(await attempt(story, PASSWORD), 429, "too_many_attempts")
