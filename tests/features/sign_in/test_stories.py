"""Signing in as a chain of steps, over HTTP: what is owed, how it is brought, what is proven."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from http.cookies import SimpleCookie
from typing import Any

import httpx
import pytest

from tests.features.sign_in.guests import PIN, pin, terms
from tests.told import (
    ADA,
    ANOTHER,
    EVE,
    ORIGIN,
    PASSWORD,
    Story,
    browser,
    cookie_session,
    csrf_of,
    fields_of,
    problem,
    telling,
)
from watchword import requires
from watchword.features.sessions import Session
from watchword.features.sign_in import Challenge, SignInFailed, SignInOwed, sign_in
from watchword.features.tokens import tokens
from watchword.features.verification import verification
from watchword.storage.store import Paging
from watchword.testing.story import bearer, without_limits

REQUIRED = verification(email_verification="required")


def but(*features: Any) -> list[Any]:
    names = {feature.name for feature in features}
    return [*features, *(each for each in without_limits() if each.name not in names)]


async def ask(client: httpx.AsyncClient, path: str, **body: Any) -> httpx.Response:
    return await client.post(f"/auth/{path}", json=body)


async def log_in(client: httpx.AsyncClient, email: str = ADA, **more: Any) -> httpx.Response:
    return await ask(client, "login", email=email, password=PASSWORD, **more)


def given(answer: httpx.Response) -> dict[str, str]:
    """The cookies that an answer sets."""
    jar: SimpleCookie = SimpleCookie()
    for header in answer.headers.get_list("set-cookie"):
        jar.load(header)
    return {name: morsel.value for name, morsel in jar.items()}


async def sessions_of(story: Story, email: str = ADA) -> list[Session]:
    user = await story.auth.users.find(email)
    order = ("started_at", "id")
    page = await story.auth.store.find(Session, Paging(order=order), user_id=user.id)
    return list(page.items)


async def count_of(story: Story, email: str = ADA) -> int:
    user = await story.auth.users.find(email)
    return await story.auth.store.count(Challenge, user_id=user.id)


@asynccontextmanager
async def guarded(*features: Any, url: str = "sqlite://") -> AsyncGenerator[Story]:
    """Somebody who joined, and a route that wants a fresh sign-in."""
    async with telling(url, features=but(*features) if features else None) as story:

        @story.app.post("/danger", dependencies=[requires(fresh=timedelta(minutes=5))])
        async def danger() -> str:
            return "done"

        await story.register()
        assert (await story.verify()).status_code == 204
        yield story


@pytest.mark.capability("S2-32", "S0-43")
@pytest.mark.invariant("I-15")
@pytest.mark.parametrize("transport", ["bearer", "cookie"])
async def test_a_sign_in_goes_on_once_the_address_is_proven(
    database_url: str, transport: str
) -> None:
    async with telling(database_url, features=but(REQUIRED)) as story, browser(story.app) as ada:
        await story.register()
        wrong = await ask(ada, "login", email=ADA, password="not it", transport=transport)
        assert "challenge" not in problem(wrong, 401, "invalid_credentials")
        assert given(wrong) == {}
        answer = await log_in(ada, transport=transport, remember=True)
        owed = problem(answer, 403, "email_not_verified")
        assert owed["expires_in"] == 300
        assert given(answer).keys() == ({"device"} if transport == "cookie" else set())
        assert await sessions_of(story) == []
        story.move(seconds=60)
        still = problem(
            await ask(ada, "login/continue", challenge=owed["challenge"]), 403, "email_not_verified"
        )
        assert (still["challenge"], still["expires_in"]) == (owed["challenge"], 240)
        assert (await story.verify()).status_code == 204
        answer = await ask(ada, "login/continue", challenge=owed["challenge"])
        assert answer.status_code == 200
        assert answer.json()["user"]["is_verified"] is True
        (session,) = await sessions_of(story)
        assert (session.transport, session.remembered) == (transport, True)
        assert session.amr == ("pwd",)
        if transport == "bearer":
            assert (await story.me(answer.json()["access_token"])).status_code == 200
        else:
            assert set(answer.json()) == {"user"}
            assert (await ada.get("/auth/me")).status_code == 200
        again = await ask(ada, "login/continue", challenge=owed["challenge"])
        problem(again, 401, "invalid_token")
        assert await count_of(story) == 0


@pytest.mark.invariant("I-13", "I-01")
async def test_a_proof_without_password_ends_the_sign_in_that_waits() -> None:
    async with telling(features=but(REQUIRED)) as story:
        await story.register()  # Eve registers Ada's address, and waits
        owed = problem(await log_in(story.client), 403, "email_not_verified")
        assert (await story.verify(password=None)).status_code == 204
        answer = await ask(story.client, "login/continue", challenge=owed["challenge"])
        problem(answer, 401, "invalid_token")
        assert await sessions_of(story) == []


@pytest.mark.capability("S0-43")
async def test_a_third_partys_step_comes_where_it_wants_to_and_is_completed(
    database_url: str,
) -> None:
    heard: list[Any] = []
    features = but(terms(), REQUIRED, pin())
    async with telling(database_url, features=features) as story, browser(story.app) as ada:

        @story.auth.on(SignInOwed)
        async def hear(event: SignInOwed) -> None:
            heard.append((event.purpose, event.owed))

        @story.auth.on(SignInFailed)
        async def fail(event: SignInFailed) -> None:
            heard.append(event.reason)

        await story.register()
        answer = await log_in(ada, transport="cookie")
        token = problem(answer, 401, "mfa_required")["mfa_token"]  # `pin` is after nothing
        assert "challenge" not in answer.json()
        problem(await ask(ada, "pin", mfa_token=token, pin="0000"), 401, "invalid_credentials")
        owed = problem(await ask(ada, "pin", mfa_token=token, pin=PIN), 403, "email_not_verified")
        assert owed["challenge"] == token
        assert (await story.verify()).status_code == 204
        answer = await ask(ada, "login/continue", challenge=token)
        assert problem(answer, 403, "terms_not_accepted")["challenge"] == token
        assert await sessions_of(story) == []
        answer = await ask(ada, "terms/accept", challenge=token, version=3)
        assert answer.status_code == 204
        problem(await ada.get("/auth/me"), 401, "not_authenticated")
        answer = await ask(ada, "login/continue", challenge=token)
        assert answer.status_code == 200
        assert (await ada.get("/auth/me")).json()["email"] == ADA
        (session,) = await sessions_of(story)
        assert session.amr == ("pwd", "pin")
        assert heard == [("sign_in", "mfa_required")]  # nothing failed


@pytest.mark.invariant("I-15")
@pytest.mark.standard("7.2.4", "7.5.1", "7.5.3", "RFC 9470")
@pytest.mark.parametrize("transport", ["bearer", "cookie", "hybrid", "cookie_pair"])
async def test_what_wants_a_fresh_sign_in_gets_one(transport: str) -> None:
    pair = tokens(cookie_pair=True)
    async with guarded(pair) as story, browser(story.app) as ada:
        body = (await log_in(ada, transport=transport)).json()
        headers = bearer(body["access_token"]) if "access_token" in body else csrf_of(ada)
        assert (await ada.post("/danger", headers=headers)).status_code == 200
        story.move(minutes=5, seconds=1)
        answer = await ada.post("/danger", headers=headers)
        assert problem(answer, 401, "insufficient_user_authentication")["max_age"] == 300
        challenge = answer.headers["www-authenticate"]
        assert 'error="insufficient_user_authentication"' in challenge
        assert 'max_age="300"' in challenge
        (before,) = await sessions_of(story)
        old = ada.cookies.get("session")
        body = {"method": "password", "password": PASSWORD}
        answer = await ada.post("/auth/reauthenticate", json=body, headers=headers)
        assert (answer.status_code, answer.content) == (204, b"")
        assert (await ada.post("/danger", headers=headers)).status_code == 200
        (after,) = await sessions_of(story)
        assert after.auth_time - before.auth_time > timedelta(minutes=5)
        if transport == "cookie":
            assert old is not None
            assert ada.cookies.get("session") not in (None, old)
            async with browser(story.app) as thief:
                thief.cookies.set("session", old)
                problem(await thief.get("/auth/me"), 401, "invalid_token")
        else:
            assert "session" not in given(answer)


@pytest.mark.invariant("I-15", "I-20")
@pytest.mark.capability("DEF-14")
async def test_proving_oneself_again_wants_the_right_thing() -> None:
    failures: list[str] = []
    async with guarded() as story:

        @story.auth.on(SignInFailed)
        async def hear(event: SignInFailed) -> None:
            failures.append(event.reason)

        headers = bearer((await story.log_in())["access_token"])
        story.move(minutes=6)

        async def again(**body: Any) -> httpx.Response:
            return await story.client.post("/auth/reauthenticate", json=body, headers=headers)

        problem(await again(method="password", password="wrong"), 401, "invalid_credentials")
        assert failures == ["wrong_password"]
        wrong: dict[str, dict[str, Any]] = {
            "method": {"method": "telepathy", "password": PASSWORD},
            "password": {"method": "password"},
            "code": {"method": "password", "password": PASSWORD, "code": "1"},
        }
        for field, body in wrong.items():
            faults = fields_of(problem(await again(**body), 422, "validation_failed"))
            assert {name for name, _ in faults} == {field}
        problem(await again(password=PASSWORD), 422, "validation_failed")
        problem(
            await story.client.post("/danger", headers=headers),
            401,
            "insufficient_user_authentication",
        )
        answer = await story.client.post(
            "/auth/reauthenticate", json={"method": "password", "password": PASSWORD}
        )
        problem(answer, 401, "not_authenticated")


@pytest.mark.invariant("I-15", "I-21")
async def test_a_cookie_proves_itself_again_with_its_csrf_token_only() -> None:
    async with guarded() as story, browser(story.app) as ada:
        headers = await cookie_session(story, ada)
        body = {"method": "password", "password": PASSWORD}
        problem(await ada.post("/auth/reauthenticate", json=body), 403, "csrf_refused")
        cross = {**headers, "Sec-Fetch-Site": "cross-site"}
        answer = await ada.post("/auth/reauthenticate", json=body, headers=cross)
        problem(answer, 403, "csrf_refused")
        answer = await ada.post("/auth/reauthenticate", json=body, headers=headers)
        assert answer.status_code == 204
        assert given(answer).keys() >= {"session", "csrf"}
        # The token from before fits still: the session is the same one.
        assert (await ada.post("/danger", headers=headers)).status_code == 200


@pytest.mark.invariant("I-15")
@pytest.mark.standard("7.5.1")
async def test_a_session_is_fresh_when_every_factor_was_proven_now(database_url: str) -> None:
    async with guarded(pin(), url=database_url) as story, browser(story.app) as ada:
        token = problem(await log_in(ada, transport="cookie"), 401, "mfa_required")["mfa_token"]
        assert (await ask(ada, "pin", mfa_token=token, pin=PIN)).status_code == 200
        story.move(minutes=6)
        headers, old = csrf_of(ada), ada.cookies.get("session")
        body = {"method": "password", "password": PASSWORD}
        answer = await ada.post("/auth/reauthenticate", json=body, headers=headers)
        token = problem(answer, 401, "mfa_required")["mfa_token"]
        stale = await ada.post("/danger", headers=headers)
        problem(stale, 401, "insufficient_user_authentication")
        assert ada.cookies.get("session") == old
        go_on = {"json": {"challenge": token}, "headers": headers}
        answer = await ada.post("/auth/reauthenticate/continue", **go_on)  # type: ignore[arg-type]
        problem(answer, 401, "mfa_required")
        proven = await ada.post("/auth/pin", json={"mfa_token": token, "pin": PIN}, headers=headers)
        assert proven.status_code == 204
        answer = await ada.post("/auth/reauthenticate/continue", **go_on)  # type: ignore[arg-type]
        assert answer.status_code == 204
        assert ada.cookies.get("session") != old
        assert (await ada.post("/danger", headers=headers)).status_code == 200
        (session,) = await sessions_of(story)
        assert session.amr == ("pwd", "pin")
        assert story.clock.now() - session.auth_time < timedelta(seconds=5)


@pytest.mark.capability("S0-55")
@pytest.mark.invariant("I-15", "I-10")
@pytest.mark.parametrize("transport", ["bearer", "cookie"])
async def test_proving_oneself_again_moves_the_binding(transport: str) -> None:
    options: dict[str, Any] = {"binding": {"address": "address"}}
    async with telling(**options) as story:

        def at(address: str) -> httpx.AsyncClient:
            reached: Any = httpx.ASGITransport(app=story.app, client=(address, 4711))
            return httpx.AsyncClient(transport=reached, base_url=ORIGIN)

        async with at("192.0.2.1") as home, at("198.51.100.7") as away:
            await story.register()
            body = (await log_in(home, transport=transport)).json()
            headers = bearer(body["access_token"]) if "access_token" in body else csrf_of(home)
            away.cookies.update(home.cookies)
            for _ in range(2):
                answer = await away.get("/auth/me", headers=headers)
                problem(answer, 403, "session_bound_elsewhere")
                assert (await home.get("/auth/me", headers=headers)).status_code == 200
            wrong = {"method": "password", "password": ANOTHER}
            answer = await away.post("/auth/reauthenticate", json=wrong, headers=headers)
            problem(answer, 401, "invalid_credentials")
            answer = await away.get("/auth/me", headers=headers)
            problem(answer, 403, "session_bound_elsewhere")
            right = {"method": "password", "password": PASSWORD}
            if transport == "cookie":
                answer = await away.post("/auth/reauthenticate", json=right)
                problem(answer, 403, "csrf_refused")
            answer = await away.post("/auth/reauthenticate", json=right, headers=headers)
            assert answer.status_code == 204
            assert (await away.get("/auth/me", headers=headers)).status_code == 200
            answer = await home.get("/auth/me", headers=headers)
            if transport == "bearer":
                problem(answer, 403, "session_bound_elsewhere")
            else:
                problem(answer, 401, "invalid_token")  # its cookie was replaced


@pytest.mark.capability("S4-20")
@pytest.mark.standard("CVE row 43", "7.2.4")
@pytest.mark.parametrize("second", [ADA, EVE])
@pytest.mark.parametrize("transport", ["cookie", "hybrid", "cookie_pair"])
async def test_who_signs_in_takes_the_browsers_old_session_away(
    second: str, transport: str
) -> None:
    features = but(tokens(cookie_pair=True))
    async with telling(features=features) as story, browser(story.app) as shared:
        await story.register(ADA)
        await story.register(EVE)
        first = (await log_in(shared, transport=transport)).json()
        (before,) = await sessions_of(story)
        held = dict(shared.cookies)
        answer = await log_in(shared, second, transport=transport)
        assert answer.status_code == 200
        assert answer.json()["user"]["email"] == second
        after = next(each for each in await sessions_of(story) if each.id == before.id)
        assert after.ended_why == "signed_in_again"
        for name in {"session", "access", "refresh"} & held.keys():
            assert shared.cookies.get(name) != held[name]
        headers = bearer(first["access_token"]) if transport == "hybrid" else {}
        async with browser(story.app) as thief:
            for name in {"session", "access"} & held.keys():
                thief.cookies.set(name, held[name])
            problem(await thief.get("/auth/me", headers=headers), 401, "revoked_token")
        if transport != "hybrid":
            assert (await shared.get("/auth/me")).json()["email"] == second


@pytest.mark.capability("S4-20")
async def test_a_bearer_sign_in_takes_nothing_away() -> None:
    async with telling() as story, browser(story.app) as shared:
        await story.register()
        await cookie_session(story, shared)
        assert (await log_in(shared, transport="bearer")).status_code == 200
        assert [each.ended_at for each in await sessions_of(story)] == [None, None]
        assert (await shared.get("/auth/me")).status_code == 200


@pytest.mark.capability("S4-20")
async def test_a_sign_in_that_goes_on_takes_the_old_session_away_too() -> None:
    features = but(REQUIRED)
    async with telling(features=features) as story, browser(story.app) as shared:
        await story.join(EVE)
        await cookie_session(story, shared, email=EVE)
        await story.register(ADA)
        owed = problem(await log_in(shared, transport="cookie"), 403, "email_not_verified")
        assert (await shared.get("/auth/me")).json()["email"] == EVE  # until somebody else is in
        await story.verify(ADA)
        answer = await shared.post(
            "/auth/login/continue", json={"challenge": owed["challenge"]}, headers=csrf_of(shared)
        )
        assert answer.status_code == 200
        assert (await shared.get("/auth/me")).json()["email"] == ADA
        (eves,) = await sessions_of(story, EVE)
        assert eves.ended_why == "signed_in_again"


@pytest.mark.capability("S2-20", "DEF-15")
@pytest.mark.parametrize("hidden", [False, True])
async def test_a_disabled_account_is_named_to_who_knows_its_password_or_to_nobody(
    hidden: bool,
) -> None:
    features = but(sign_in(hide_disabled=hidden))
    async with telling(features=features) as story:
        await story.join()
        await story.auth.users.disable((await story.auth.users.find(ADA)).id)
        right = await log_in(story.client, transport="cookie")
        wrong = await ask(story.client, "login", email=ADA, password=ANOTHER, transport="cookie")
        problem(wrong, 401, "invalid_credentials")
        if hidden:
            problem(right, 401, "invalid_credentials")
            body, other = right.json(), wrong.json()
            assert {**body, "request_id": ""} == {**other, "request_id": ""}
            assert given(right) == given(wrong)
        else:
            problem(right, 403, "account_disabled")
