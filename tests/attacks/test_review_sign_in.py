"""What a hostile reviewer got through sign-in and tokens once, and does not any more."""

import base64
import json
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tests.attacks.owing import Owing
from tests.told import ADA, ANOTHER, EVE, PASSWORD, Story, Work, browser, problem, telling
from watchword import requires
from watchword.features.passwords import passwords
from watchword.features.sessions import RefreshTokenReplayed, Session
from watchword.features.sign_in import sign_in
from watchword.features.tokens import tokens
from watchword.features.users import Users
from watchword.kernel.errors import InvalidToken, StoreUnavailable
from watchword.kernel.feature import Feature
from watchword.kernel.principal import Client
from watchword.storage.store import Paging, Store
from watchword.testing.story import bearer, without_limits

CROSS = (
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
)


def but(*own: Feature[Any]) -> list[Feature[Any]]:
    """The standard features, some of them replaced."""
    names = {feature.name for feature in own}
    return [*own, *(feature for feature in without_limits() if feature.name not in names)]


async def refresh(client: httpx.AsyncClient, token: str, **headers: str) -> httpx.Response:
    return await client.post("/auth/refresh", json={"refresh_token": token}, headers=headers)


async def rows(story: Story) -> tuple[Session, ...]:
    return (await story.auth.store.find(Session, Paging(order=("started_at", "id")))).items


@pytest.mark.invariant("I-21")
@pytest.mark.standard("CVE row 43")
@pytest.mark.parametrize("transport", ["hybrid", "cookie_pair"])
async def test_another_sites_page_plants_no_session_by_a_refresh_in_the_body(
    transport: str,
) -> None:
    features = but(tokens(cookie_pair=True))
    async with (
        telling(features=features) as story,
        browser(story.app) as eve,
        browser(story.app) as victim,
    ):
        await story.register()
        await story.log_in(transport=transport, client=eve)
        planted = eve.cookies["refresh"]
        before = await rows(story)
        for headers in CROSS:
            problem(await refresh(victim, planted, **headers), 403, "csrf_refused")
        assert dict(victim.cookies) == {}
        assert await rows(story) == before
        # A page at another host that carries its tokens itself goes on as ever.
        own = (await story.log_in())["refresh_token"]
        for headers in CROSS:
            answer = await refresh(victim, own, **headers)
            assert answer.status_code == 200
            own = answer.json()["refresh_token"]


@pytest.mark.invariant("I-14")
async def test_users_being_away_makes_no_theft_of_a_refresh(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stolen: list[str] = []
    environ = {"WATCHWORD_SESSIONS__STORE": redis_url}
    async with telling(environ=environ) as story:

        @story.auth.on(RefreshTokenReplayed)
        async def hear(event: RefreshTokenReplayed) -> None:
            stolen.append(event.session_id)

        await story.register()
        token = (await story.log_in())["refresh_token"]

        async def away(*_: object) -> None:
            raise StoreUnavailable

        with monkeypatch.context() as outage:
            outage.setattr(Users, "get", away)
            problem(await refresh(story.client, token), 503, "store_unavailable")
        story.move(minutes=1)
        assert (await refresh(story.client, token)).status_code == 200
        assert stolen == []


@pytest.mark.invariant("I-14")
async def test_a_refresh_that_cannot_be_answered_uses_no_token_up(sqlite_url: str) -> None:
    pair = but(tokens(cookie_pair=True))
    async with telling(sqlite_url, features=pair) as story, browser(story.app) as ada:
        await story.register()
        secret = story.auth.core.secret
        token = (await story.log_in())["refresh_token"]
        await story.log_in(transport="cookie_pair", client=ada)
        in_cookie = ada.cookies["refresh"]
    # Claims are asked for that no hook gives (yet).
    asking = but(tokens(required_claims=["org"]))
    async with telling(sqlite_url, features=asking, secret=secret) as story:
        problem(await refresh(story.client, token), 503, "claims_unavailable")
        # And the transport of a session was switched off.
        problem(await refresh(story.client, in_cookie), 401, "revoked_token")
    async with telling(sqlite_url, features=pair, secret=secret) as story:
        story.move(minutes=1)
        assert (await refresh(story.client, token)).status_code == 200
        assert (await refresh(story.client, in_cookie)).status_code == 200


@pytest.mark.invariant("I-14")
async def test_a_refresh_that_comes_after_a_sign_out_is_no_theft(database_url: str) -> None:
    stolen: list[str] = []
    async with telling(database_url) as story:

        @story.auth.on(RefreshTokenReplayed)
        async def hear(event: RefreshTokenReplayed) -> None:
            stolen.append(event.session_id)

        await story.register()
        for agent, seconds, code in (
            ("mine", 1, "revoked_token"),
            ("another", 1, "refresh_token_reused"),
            ("mine", 11, "refresh_token_reused"),
        ):
            first = (await story.log_in())["refresh_token"]
            pair = (await refresh(story.client, first, **{"User-Agent": "mine"})).json()
            signed_out = {"refresh_token": pair["refresh_token"]}
            answer = await story.client.post("/auth/logout", json=signed_out)
            assert answer.status_code == 204
            story.move(seconds=seconds)
            before = len(stolen)
            # Another tab, which has heard of neither.
            late = await refresh(story.client, first, **{"User-Agent": agent})
            problem(late, 401, code)
            assert len(stolen) - before == (code == "refresh_token_reused")


@pytest.mark.standard("CVE row 52")
async def test_a_deeply_nested_token_is_no_token_to_look_at() -> None:
    def part(text: str) -> str:
        return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()

    async with telling() as story:
        kid = story.auth.keys.active().kid
        header = part(json.dumps({"alg": "ES256", "typ": "at+jwt", "kid": kid}))
        for depth in (100, 300, 500, 900, 1400):
            claims = part('{"iss":' + "[" * depth + "]" * depth + "}")
            text = f"{header}.{claims}.AAAA"
            problem(await story.me(text), 401, "invalid_token")
            with pytest.raises(InvalidToken):
                story.auth.tokens.peek(text)
            failing = (await story.auth.tokens.inspect(text)).failing
            assert failing is not None


async def test_a_hook_whose_claims_are_nested_too_deeply_makes_no_token() -> None:
    def hook(*_asked: object) -> dict[str, object]:
        nested: object = 1
        for _ in range(300):
            nested = [nested]
        return {"deep": nested}

    async with telling(features=but(tokens(claims=hook))) as story:
        await story.register()
        body = {"email": ADA, "password": PASSWORD}
        problem(await story.client.post("/auth/login", json=body), 503, "claims_unavailable")


@pytest.mark.standard("16.2.5")
async def test_a_pair_shows_no_token_in_a_log() -> None:
    async with telling() as story:
        await story.register()
        token = (await story.log_in())["refresh_token"]
        nobody = Client(address=None, user_agent="", device=None)
        pair = await story.auth.tokens.refresh(token, client=nobody)
        assert (await story.me(pair.access_token)).status_code == 200
        assert pair.access_token not in repr(pair)
        assert pair.refresh_token.reveal() not in repr(pair)


@pytest.mark.invariant("I-02")
async def test_an_audience_that_was_left_empty_is_not_ours() -> None:
    async with telling() as story:
        await story.register()
        await story.log_in()
        (session,) = await rows(story)
        user = await story.auth.users.find(ADA)
        text = await story.auth.tokens.access_token(session, user, audience="")
        problem(await story.me(text), 401, "invalid_token")


async def test_a_trust_domain_may_name_ourselves_too() -> None:
    features = but(tokens(audiences=["http://localhost:8000", "https://billing.example.com"]))
    async with telling(features=features) as story:
        await story.register()
        assert (await story.me((await story.log_in())["access_token"])).status_code == 200


@pytest.mark.standard("16.2.5")
async def test_looking_at_a_token_shows_no_claim_of_the_apps_own() -> None:
    def hook(*_asked: object) -> dict[str, object]:
        return {"salary": "4711"}

    features = but(tokens(required_claims=["salary"], claims=hook))
    async with telling(features=features) as story:
        await story.register()
        found = await story.auth.tokens.inspect((await story.log_in())["access_token"])
        assert found.failing is None
        assert "salary" in {check.name for check in found.checks}
        assert "4711" not in str(found)


@pytest.mark.invariant("I-21")
async def test_a_heap_of_refresh_cookies_at_a_sign_in_is_not_looked_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[type] = []
    get = Store.get

    async def counted(self: Store, kind: type[Any], /, **conditions: object) -> Any:
        asked.append(kind)
        return await get(self, kind, **conditions)

    async with telling() as story:
        await story.register()
        heap = "; ".join(f"refresh=wwr_{number:065d}" for number in range(200))
        body = {"email": ADA, "password": PASSWORD, "transport": "cookie"}
        monkeypatch.setattr(Store, "get", counted)
        answer = await story.client.post("/auth/login", json=body, headers={"Cookie": heap})
        assert answer.status_code == 200
        assert asked.count(Session) == 0


@pytest.mark.capability("S2-20")
async def test_the_right_password_of_a_hidden_account_costs_no_hash_more(
    sqlite_url: str, work: Work
) -> None:
    async with telling(sqlite_url) as story:
        await story.register()
        secret = story.auth.core.secret
        await story.auth.users.disable((await story.auth.users.find(ADA)).id)
    # Its hash is one of before: a sign-in that goes on makes it anew.
    features = but(sign_in(hide_disabled=True), passwords(hash_scheme="bcrypt"))
    async with telling(sqlite_url, features=features, secret=secret) as story:
        done: list[dict[str, int]] = []
        # The first event of all reads who wants to hear of events.
        await story.client.post("/auth/login", json={"email": EVE, "password": ANOTHER})
        for password in (PASSWORD, ANOTHER):
            body = {"email": ADA, "password": password}
            with work.watched() as counter:
                answer = await story.client.post("/auth/login", json=body)
            problem(answer, 401, "invalid_credentials")
            done.append(dict(counter))
        assert done[0] == done[1]


@pytest.mark.invariant("I-15")
@pytest.mark.parametrize("again", [False, True], ids=["sign_in", "reauthenticate"])
async def test_going_on_makes_an_old_proof_no_younger(again: bool) -> None:
    app, owing = FastAPI(), Owing()

    @app.post("/danger", dependencies=[requires(fresh=timedelta(minutes=5))])
    async def danger() -> str:
        return "done"

    async with telling(features=[*without_limits(), owing.feature()], app=app) as story:
        await story.register()
        user = await story.auth.users.find(ADA)
        path, headers = "login", dict[str, str]()
        body: dict[str, Any] = {"email": ADA, "password": PASSWORD}
        if again:
            path, headers = "reauthenticate", bearer((await story.log_in())["access_token"])
            body = {"method": "password", "password": PASSWORD}
        story.move(minutes=9)
        owing.debtors.add(user.id)
        answer = await story.client.post(f"/auth/{path}", json=body, headers=headers)
        body = {"challenge": problem(answer, 403, "email_not_verified")["challenge"]}
        owing.debtors.clear()
        story.move(minutes=4)
        answer = await story.client.post(f"/auth/{path}/continue", json=body, headers=headers)
        assert answer.is_success
        headers = headers or bearer(answer.json()["access_token"])
        assert (await story.client.post("/danger", headers=headers)).status_code == 200
        story.move(seconds=61)  # five minutes and a second since the password came
        answer = await story.client.post("/danger", headers=headers)
        problem(answer, 401, "insufficient_user_authentication")
