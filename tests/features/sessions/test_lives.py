"""How long sessions live, what a sign-in leaves of the one before, and signing out by a cookie."""

from datetime import datetime
from typing import Any

import httpx
import pytest

from tests.told import (
    ADA,
    PASSWORD,
    Work,
    browser,
    cookie_session,
    csrf_of,
    problem,
    telling,
)
from watchword.features.sessions import Session
from watchword.storage.store import Paging


async def remembered(client: httpx.AsyncClient) -> httpx.Response:
    body = {"email": ADA, "password": PASSWORD, "transport": "cookie", "remember": True}
    answer = await client.post("/auth/login", json=body)
    assert answer.status_code == 200, answer.text
    return answer


def max_age(answer: httpx.Response, name: str) -> int:
    (header,) = [
        each for each in answer.headers.get_list("set-cookie") if each.startswith(f"{name}=")
    ]
    (age,) = [part for part in header.split("; ") if part.startswith("Max-Age=")]
    return int(age.removeprefix("Max-Age="))


@pytest.mark.capability("S0-62", "S4-22")
async def test_who_asked_to_be_remembered_is_for_thirty_days(sqlite_url: str) -> None:
    async with telling(sqlite_url) as story, browser(story.app) as client:
        await story.register()
        answer = await remembered(client)
        assert max_age(answer, "session") == max_age(answer, "csrf") == 30 * 86400
        story.move(days=20)
        (item,) = (await client.get("/auth/sessions")).json()["items"]
        assert item["remembered"] is True
        lives = datetime.fromisoformat(item["expires_at"]) - story.clock.now()
        assert 9 * 86400 < lives.total_seconds() <= 10 * 86400
        again = {"method": "password", "password": PASSWORD}
        renewed = await client.post("/auth/reauthenticate", json=again, headers=csrf_of(client))
        assert renewed.status_code in {204, 403}
        if renewed.status_code == 403:  # its CSRF token is old: a read brings another
            renewed = await client.post("/auth/reauthenticate", json=again, headers=csrf_of(client))
        assert 9 * 86400 < max_age(renewed, "session") <= 10 * 86400
        story.move(days=10)
        problem(await client.get("/auth/me"), 401, "expired_token")


@pytest.mark.capability("S0-58", "S4-22")
async def test_use_moves_the_idle_end_with_ten_writes_at_most(sqlite_url: str, work: Work) -> None:
    async with telling(sqlite_url, cache_size=0) as story, browser(story.app) as client:
        await story.register()
        await cookie_session(story, client)
        with work.watched() as done:
            for _ in range(60):
                story.move(seconds=30)
                assert (await client.get("/auth/me")).status_code == 200
        assert 0 < done["update Session"] <= 10
        assert done["insert Session"] == 0


@pytest.mark.capability("S4-20", "S4-21")
@pytest.mark.standard("6: 7.2.4")
async def test_a_sign_in_ends_what_this_browser_had_before(database_url: str) -> None:
    async with (
        telling(database_url) as story,
        browser(story.app) as client,
        browser(story.app) as other,
    ):
        await story.register()
        await cookie_session(story, other)
        await cookie_session(story, client)
        old = client.cookies["session"]
        await cookie_session(story, client)
        assert client.cookies["session"] != old
        async with browser(story.app, Cookie=f"session={old}") as thief:
            problem(await thief.get("/auth/me"), 401, "revoked_token")
        assert (await other.get("/auth/me")).status_code == 200
        rows = (await story.auth.store.find(Session, Paging(order=("id",)))).items
        assert [row.ended_why for row in rows if row.ended_at] == ["signed_in_again"]


@pytest.mark.capability("S4-20")
@pytest.mark.standard("6: 7.2.4")
async def test_a_planted_cookie_is_never_taken_over(sqlite_url: str) -> None:
    planted = "wwc_" + "A" * 43
    async with telling(sqlite_url) as story:
        await story.register()
        async with browser(story.app, Cookie=f"session={planted}; device=x") as victim:
            body = {"email": ADA, "password": PASSWORD, "transport": "cookie"}
            answer = await victim.post("/auth/login", json=body)
            assert answer.status_code == 200
            assert planted not in str(answer.headers)
        async with browser(story.app, Cookie=f"session={planted}") as thief:
            problem(await thief.get("/auth/me"), 401, "invalid_token")


@pytest.mark.capability("S4-36", "S4-21")
@pytest.mark.invariant("I-21")
@pytest.mark.parametrize("headers", [{}, {"X-CSRF-Token": "x"}, {"Sec-Fetch-Site": "same-site"}])
async def test_signing_out_by_refresh_cookie_needs_its_sessions_csrf_token(
    headers: dict[str, str], sqlite_url: str
) -> None:
    async with (
        telling(sqlite_url) as story,
        browser(story.app) as client,
        browser(story.app) as other,
    ):
        await story.register()
        await story.log_in(transport="hybrid", client=client)
        await story.log_in(transport="hybrid", client=other)
        assert "refresh" in client.cookies
        rights: dict[str, Any] = csrf_of(client)
        if headers.get("Sec-Fetch-Site"):
            headers = {**headers, **rights}
        elif headers:
            headers = csrf_of(other)
        problem(await client.post("/auth/logout", headers=headers), 403, "csrf_refused")
        assert await story.auth.store.count(Session, ended_at=None) == 2
        answer = await client.post("/auth/logout", headers=rights)
        assert answer.status_code == 204
        assert set(client.cookies) == {"device"}
        assert await story.auth.store.count(Session, ended_at=None) == 1
