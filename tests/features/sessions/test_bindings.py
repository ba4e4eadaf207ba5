"""What a session is bound to, over HTTP: an address, a browser, and who moves it."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from tests.told import (
    ORIGIN,
    PASSWORD,
    Story,
    browser,
    cookie_session,
    csrf_of,
    problem,
    telling,
)
from watchword.features.sessions import FingerprintChanged, Session
from watchword.storage.store import Paging
from watchword.testing.story import bearer

HOME, AWAY = "203.0.113.7", "198.51.100.9"
AGAIN = {"method": "password", "password": PASSWORD}


@asynccontextmanager
async def at(story: Story, address: str, **headers: str) -> AsyncGenerator[httpx.AsyncClient]:
    """A browser at this address."""
    transport = httpx.ASGITransport(app=story.app, client=(address, 40000))
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with httpx.AsyncClient(transport=transport, base_url=ORIGIN, headers=named) as client:
        yield client


def changes(story: Story) -> list[FingerprintChanged]:
    events: list[FingerprintChanged] = []

    @story.auth.on(FingerprintChanged)
    async def note(event: FingerprintChanged) -> None:
        events.append(event)

    return events


@pytest.mark.capability("S0-53", "S0-55", "S1-44", "DEF-10")
@pytest.mark.invariant("I-10")
async def test_a_session_bound_to_an_address_is_moved_by_a_proof_only(database_url: str) -> None:
    async with (
        telling(database_url, binding={"address": "address"}) as story,
        at(story, HOME) as home,
        at(story, AWAY, X_Forwarded_For=HOME) as away,
    ):
        await story.register()
        await cookie_session(story, home)
        tokens = await story.log_in(client=home)
        assert (await home.get("/auth/me")).status_code == 200
        away.cookies.update(home.cookies)
        # Also from the cache, and whatever a header says of where it comes from.
        for _ in range(2):
            problem(await away.get("/auth/me"), 403, "session_bound_elsewhere")
        refresh = {"refresh_token": tokens["refresh_token"]}
        answer = await away.post("/auth/refresh", json=refresh)
        problem(answer, 403, "session_bound_elsewhere")
        token = bearer(tokens["access_token"])
        async with at(story, AWAY) as bare:
            problem(await bare.get("/auth/me", headers=token), 403, "session_bound_elsewhere")
        shown = await home.get("/auth/sessions")
        assert {each["address"] for each in shown.json()["items"]} == {HOME}
        answer = await away.post("/auth/reauthenticate", json=AGAIN, headers=csrf_of(away))
        assert answer.status_code == 204
        assert (await away.get("/auth/me")).status_code == 200
        assert (await home.post("/auth/refresh", json=refresh)).status_code == 200


async def test_turning_the_binding_off_locks_nobody_out(sqlite_url: str) -> None:
    async with (
        telling(sqlite_url, binding={"address": "address"}) as story,
        at(story, HOME) as home,
    ):
        await story.register()
        await cookie_session(story, home)
        kept, secret = dict(home.cookies), story.auth.core.secret
    async with telling(sqlite_url, secret=secret) as story, at(story, AWAY) as away:
        away.cookies.update(kept)
        assert (await away.get("/auth/me")).status_code == 200


@pytest.mark.capability("S0-54", "S0-64", "S1-32")
async def test_another_fingerprint_passes_and_is_said_once(database_url: str) -> None:
    async with (
        telling(database_url, cache_size=0) as story,
        browser(story.app, User_Agent="one") as client,
    ):
        await story.register()
        events = changes(story)
        await cookie_session(story, client)
        tokens = await story.log_in(client=client)
        assert not events
        for _ in range(2):
            answer = await client.get("/auth/me", headers={"User-Agent": "two"})
            assert answer.status_code == 200
        assert [event.user_agent for event in events] == ["two"]
        body = {"refresh_token": tokens["refresh_token"]}
        async with browser(story.app, User_Agent="three") as program:
            assert (await program.post("/auth/refresh", json=body)).status_code == 200
        assert [event.user_agent for event in events] == ["two", "three"]
        assert len({event.session_id for event in events}) == 2


@pytest.mark.capability("S0-64")
async def test_fingerprints_that_are_demanded_hold_at_refresh_too(sqlite_url: str) -> None:
    async with (
        telling(sqlite_url, binding={"fingerprint": "reject"}) as story,
        browser(story.app, User_Agent="one") as client,
    ):
        await story.register()
        events = changes(story)
        await cookie_session(story, client)
        tokens = await story.log_in(client=client)
        other = {"User-Agent": "two"}
        problem(await client.get("/auth/me", headers=other), 401, "browser_changed")
        body = {"refresh_token": tokens["refresh_token"]}
        answer = await client.post("/auth/refresh", json=body, headers=other)
        problem(answer, 401, "browser_changed")
        assert (await client.post("/auth/refresh", json=body)).status_code == 200
        assert not events


@pytest.mark.parametrize(("mode", "keeps"), [("off", False), ("warn", True)])
async def test_where_fingerprints_are_off_none_is_kept(mode: Any, keeps: bool) -> None:
    async with telling(binding={"fingerprint": mode}) as story:
        await story.register()
        await story.log_in()
        (row,) = (await story.auth.store.find(Session, Paging(order=("id",)))).items
        assert (row.fingerprint is not None) == keeps
