"""Refresh: what it costs, whom it answers twice, and what must still be true of who asks."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import jwt
import pytest

from tests.told import ADA, Story, Work, browser, csrf_of, problem, telling
from watchword.features.sessions import Session
from watchword.features.tokens import tokens
from watchword.storage.store import Paging
from watchword.testing.story import without_limits

LOGIN = {"email": ADA, "password": "correct horse battery staple"}
AUDITED = {"insert AuditEntry": 1, "transaction NoneType": 1}  # that it was refreshed


@asynccontextmanager
async def with_tokens(*, database: str = "sqlite://", **named: Any) -> AsyncGenerator[Story]:
    """A story with settings of tokens, and with Ada in it."""
    core = {name: named.pop(name) for name in ("binding", "csrf") if name in named}
    features = [tokens(**named), *(f for f in without_limits() if f.name != "tokens")]
    async with telling(database, features=features, **core) as story:
        await story.register()
        yield story


async def refresh(client: httpx.AsyncClient, token: str, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.post("/auth/refresh", json={"refresh_token": token}, headers=named)


async def row(story: Story) -> Session:
    page = await story.auth.store.find(Session, Paging(order=("started_at", "id")))
    assert len(page.items) == 1
    return page.items[0]


def at(story: Story, address: str) -> httpx.AsyncClient:
    """A client at another address."""
    transport = httpx.ASGITransport(app=story.app, client=(address, 40000))
    return httpx.AsyncClient(transport=transport, base_url="http://localhost:8000")


async def test_a_refresh_is_one_update_and_one_read(database_url: str, work: Work) -> None:
    async with with_tokens(database=database_url) as story:
        token = (await story.log_in())["refresh_token"]
        story.move(seconds=1)
        with work.watched() as done:
            answer = await refresh(story.client, token)
        assert answer.status_code == 200
        # Where sessions are kept apart the users may be away: they are asked first.
        first = {"get Session": 1} if story.auth.store.apart else {}
        assert done == {"update Session": 1, "get User": 1, **first, **AUDITED}
        with work.watched() as done:  # the answer was lost
            assert (await refresh(story.client, token)).status_code == 200
        missed = {} if first else {"update Session": 1}
        assert done == {"get Session": 1, "get User": 1, **missed}


@pytest.mark.invariant("I-21")
async def test_a_refresh_by_cookie_reads_once_more_to_know_whose_csrf_token_fits(
    work: Work,
) -> None:
    async with with_tokens() as story, browser(story.app) as client:
        await story.log_in(transport="hybrid", client=client)
        with work.watched() as done:
            answer = await client.post("/auth/refresh", headers=csrf_of(client))
        assert answer.status_code == 200
        assert done == {"get Session": 1, "update Session": 1, "get User": 1, **AUDITED}


@pytest.mark.invariant("I-14")
async def test_grace_is_for_the_device_that_rotated() -> None:
    async with with_tokens() as story:
        one, other = ("wwd_" + letter * 43 for letter in "ab")
        for second, status in ((one, 200), (other, 401), (None, 401)):
            token = (await story.log_in())["refresh_token"]
            assert (await refresh(story.client, token, Cookie=f"device={one}")).status_code == 200
            headers = {} if second is None else {"Cookie": f"device={second}"}
            again = await refresh(story.client, token, **headers)
            assert again.status_code == status, second
            if status == 401:
                problem(again, 401, "refresh_token_reused")


@pytest.mark.capability("S4-03")
async def test_two_sign_ins_share_nothing_and_ending_one_leaves_the_other() -> None:
    async with with_tokens() as story:
        first, second = await story.log_in(), await story.log_in()
        assert first["refresh_token"][4:26] != second["refresh_token"][4:26]
        read = [
            jwt.decode(pair["access_token"], options={"verify_signature": False})
            for pair in (first, second)
        ]
        assert read[0]["jti"] != read[1]["jti"]
        assert read[0]["sid"] != read[1]["sid"]
        assert await story.auth.tokens.revoke(first["refresh_token"])
        problem(await refresh(story.client, first["refresh_token"]), 401, "revoked_token")
        problem(await story.me(first["access_token"]), 401, "revoked_token")
        assert (await refresh(story.client, second["refresh_token"])).status_code == 200


@pytest.mark.capability("S0-22")
async def test_who_is_remembered_may_stay_away_for_thirty_days() -> None:
    async with with_tokens() as story:
        pairs: dict[bool, str] = {}
        for remember in (False, True):
            answer = await story.client.post("/auth/login", json={**LOGIN, "remember": remember})
            pairs[remember] = answer.json()["refresh_token"]
        assert pairs[False].startswith("wwr_")
        assert pairs[True].startswith("wwm_")
        story.move(days=10)
        problem(await refresh(story.client, pairs[False]), 401, "expired_token")
        again = await refresh(story.client, pairs[True])
        assert again.status_code == 200
        assert again.json()["refresh_token"].startswith("wwm_")
        story.move(days=19, hours=23, minutes=59)
        last = await refresh(story.client, again.json()["refresh_token"])
        assert last.status_code == 200
        story.move(minutes=1)  # thirty days since the sign-in: no refresh moves that
        problem(await refresh(story.client, last.json()["refresh_token"]), 401, "expired_token")


async def test_a_prefix_that_was_changed_makes_the_token_wrong_and_ends_nothing() -> None:
    async with with_tokens() as story:
        token = (await story.log_in())["refresh_token"]
        problem(await refresh(story.client, "wwm_" + token[4:]), 401, "invalid_token")
        story.move(days=8)
        problem(await refresh(story.client, "wwm_" + token[4:]), 401, "invalid_token")
        assert (await row(story)).ended_at is None
        problem(await refresh(story.client, token), 401, "expired_token")


@pytest.mark.parametrize("settings", [{"access_ttl": "1h"}, {"refresh_ttl": "2d"}])
@pytest.mark.capability("S0-22", "S1-03")
async def test_lifetimes_follow_their_settings(settings: dict[str, str]) -> None:
    async with with_tokens(**settings) as story:
        pair = await story.log_in()
        story.move(days=1, hours=23, minutes=59)
        pair = (await refresh(story.client, pair["refresh_token"])).json()
        assert pair["expires_in"] == (3600 if "access_ttl" in settings else 900)
        story.move(days=2)
        expected = 200 if "access_ttl" in settings else 401
        assert (await refresh(story.client, pair["refresh_token"])).status_code == expected


@pytest.mark.parametrize("mode", ["address", "network"])
async def test_a_bound_session_is_refreshed_from_its_address_alone(mode: str) -> None:
    async with (
        with_tokens(binding={"address": mode}) as story,
        at(story, "192.0.2.1") as home,
        at(story, "198.51.100.1") as away,
    ):
        token = (await home.post("/auth/login", json=LOGIN)).json()["refresh_token"]
        before = await row(story)
        problem(await refresh(away, token), 403, "session_bound_elsewhere")
        assert await row(story) == before  # neither rotated nor ended
        successor = (await refresh(home, token)).json()["refresh_token"]
        # within the grace, too; and who replays what is old ends it from anywhere
        problem(await refresh(away, token), 403, "session_bound_elsewhere")
        story.move(seconds=11)
        problem(await refresh(away, token), 401, "refresh_token_reused")
        problem(await refresh(home, successor), 401, "revoked_token")


async def test_a_session_bound_to_its_browser_is_refreshed_by_no_other() -> None:
    async with with_tokens(binding={"fingerprint": "reject"}) as story:
        answer = await story.client.post("/auth/login", json=LOGIN, headers={"User-Agent": "Hers"})
        token = answer.json()["refresh_token"]
        before = await row(story)
        other = await refresh(story.client, token, User_Agent="Another")
        problem(other, 401, "browser_changed")
        assert await row(story) == before
        assert (await refresh(story.client, token, User_Agent="Hers")).status_code == 200


async def test_a_session_from_before_sessions_were_bound_goes_on(sqlite_url: str) -> None:
    async with telling(sqlite_url) as story:
        await story.register()
        token = (await story.log_in())["refresh_token"]
        secret = story.auth.core.secret
    async with telling(sqlite_url, secret=secret, binding={"address": "address"}) as story:
        answer = await refresh(story.client, token)
        assert answer.status_code == 200
        again = await refresh(story.client, answer.json()["refresh_token"])
        assert again.status_code == 200


@pytest.mark.invariant("I-01", "I-14")
@pytest.mark.parametrize("how", ["disable", "delete", "end_all"])
async def test_no_refresh_for_who_is_gone_disabled_or_signed_out(how: str) -> None:
    async with with_tokens() as story:
        token = (await story.log_in())["refresh_token"]
        user = await story.auth.users.find(ADA)
        if how == "end_all":
            await story.auth.users.end_all(user.id, why="test")
        else:
            await getattr(story.auth.users, how)(user.id)
        answer = await refresh(story.client, token)
        code = "invalid_token" if how == "delete" else "revoked_token"
        assert answer.json()["code"] == code
        story.move(seconds=11)  # past any grace: asking again is no theft
        assert (await refresh(story.client, token)).json()["code"] == code
        if how == "disable":
            await story.auth.users.enable(user.id)
            problem(await refresh(story.client, token), 401, "revoked_token")
            pair = await story.log_in()
            assert (await refresh(story.client, pair["refresh_token"])).status_code == 200


@pytest.mark.capability("S1-11", "S1-12")
async def test_a_refresh_without_a_token_is_nobodys() -> None:
    async with with_tokens() as story:
        for body in (None, {}, {"refresh_token": None}):
            problem(await story.client.post("/auth/refresh", json=body), 401, "not_authenticated")
        problem(await story.client.post("/auth/refresh"), 401, "not_authenticated")
        for text in ("", "x", "wwr_", "wwr_" + "A" * 65, "wwr_" + "é" * 65, "wwx_" + "A" * 65):
            problem(await refresh(story.client, text), 401, "invalid_token")
        answer = await refresh(story.client, "A" * 513)
        problem(answer, 422, "validation_failed")
