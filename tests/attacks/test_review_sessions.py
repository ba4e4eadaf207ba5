"""Sessions, the gate and the guards, as a hostile reviewer looked at them."""

from datetime import timedelta
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI

from tests.told import (
    ADA,
    EVE,
    ORIGIN,
    PASSWORD,
    browser,
    cookie_session,
    csrf_of,
    problem,
    telling,
)
from watchword import CurrentUser, OptionalUser, requires
from watchword.crypto.keys import generate_secret
from watchword.features.sessions import FingerprintChanged, SessionsEnded
from watchword.http.lift import lift
from watchword.storage.store import where
from watchword.testing.story import bearer


class Stop(Exception):
    """Somebody's own feature, which fails in the middle of a transaction."""


@pytest.mark.invariant("I-01", "I-04")
async def test_a_kept_session_does_not_outlive_the_next_ending_of_all(
    database_or_redis_url: str,
) -> None:
    """Sessions in Redis are no part of the transaction that raises the epoch."""
    async with telling(database_or_redis_url) as story, browser(story.app) as thief:
        await story.register()
        csrf = await cookie_session(story, thief)
        fails = [True]

        async def partner(_: object, __: SessionsEnded) -> None:
            if fails.pop():
                fails.append(False)
                raise Stop

        story.auth.events.join(SessionsEnded, partner)
        answer = await thief.post("/auth/logout-all", json={"keep_current": True}, headers=csrf)
        assert answer.status_code == 500
        fails[:] = [False]
        user = await story.auth.users.find(ADA)
        await story.auth.users.end_all(user.id, why="password_reset")
        problem(await thief.get("/auth/me"), 401, "revoked_token")


@pytest.mark.standard("6.3.5")
async def test_sign_ins_without_end_fill_no_mailbox(database_or_redis_url: str) -> None:
    """A thief with the password, or a script that keeps no cookies, signs in every minute."""
    async with telling(database_or_redis_url) as story:
        await story.join()
        for _ in range(25):
            async with browser(story.app) as client:
                await cookie_session(story, client)
            story.move(minutes=1)
        await story.mails()
        subjects = [mail.subject for mail in story.outbox.to(ADA)]
        assert sum("new device" in each for each in subjects) == 4
        assert sum("oldest session" in each for each in subjects) == 1
        story.move(days=1, minutes=1)
        async with browser(story.app) as client:
            await cookie_session(story, client)
        await story.mails()
        later = [mail.subject for mail in story.outbox.to(ADA)][len(subjects) :]
        assert ["new device" in each for each in later] == [True]


def app_with_orders() -> FastAPI:
    app = FastAPI()

    async def whoever(user: CurrentUser) -> str:
        return user.email

    lets_keys_in = requires(accepts=["session", "api_key"])

    @app.get("/before")
    async def before(
        email: Annotated[str, Depends(whoever)], _: Annotated[None, lets_keys_in]
    ) -> str:
        return email

    @app.get("/after", dependencies=[lets_keys_in])
    async def after(email: Annotated[str, Depends(whoever)]) -> str:
        return email

    return app


@pytest.mark.invariant("I-02")
@pytest.mark.parametrize("lifted", [True, False])
async def test_lifting_guards_lets_no_key_past_a_guard_that_came_before(
    sqlite_url: str, lifted: bool
) -> None:
    async with telling(sqlite_url, app=app_with_orders()) as story:
        await story.join()
        if lifted:  # as at the start of a server
            lift(story.app)
        token = (await story.log_in())["access_token"]
        made = await story.client.post(
            "/auth/api-keys", json={"name": "ci", "scopes": []}, headers=bearer(token)
        )
        assert made.status_code == 201, made.text
        key = bearer(made.json()["key"])
        for headers in (bearer(token), key):
            assert (await story.client.get("/after", headers=headers)).status_code == 200
        assert (await story.client.get("/before", headers=bearer(token))).status_code == 200
        problem(await story.client.get("/before", headers=key), 403, "forbidden")


@pytest.mark.capability("S0-54", "S0-64")
@pytest.mark.invariant("I-10")
async def test_a_token_in_another_browser_is_said_once_like_a_cookie(database_url: str) -> None:
    async with telling(database_url, cache_size=0, binding={"address": "address"}) as story:
        await story.register()
        events: list[FingerprintChanged] = []

        @story.auth.on(FingerprintChanged)
        async def note(event: FingerprintChanged) -> None:
            events.append(event)

        token = bearer((await story.log_in())["access_token"])
        other = {**token, "User-Agent": "a thief's"}
        # Refused for its address: not used, so nothing is said and nothing changed.
        transport = httpx.ASGITransport(app=story.app, client=("198.51.100.9", 1))
        async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as away:
            answer = await away.get("/auth/me", headers=other)
            problem(answer, 403, "session_bound_elsewhere")
        assert not events
        for _ in range(2):
            assert (await story.client.get("/auth/me", headers=other)).status_code == 200
        assert [event.user_agent for event in events] == ["a thief's"]


@pytest.mark.capability("S0-64", "S0-55")
@pytest.mark.parametrize("transport", ["cookie", "hybrid"])
async def test_another_browser_is_refused_with_401_and_may_prove_itself(transport: str) -> None:
    app = FastAPI()

    @app.get("/maybe")
    async def maybe(user: OptionalUser) -> bool:
        return user is not None

    async with (
        telling(app=app, binding={"fingerprint": "reject"}) as story,
        browser(story.app, User_Agent="hers") as hers,
        browser(story.app, User_Agent="another") as another,
    ):
        await story.register()
        given = await story.log_in(transport=transport, client=hers)
        another.cookies.update(hers.cookies)
        headers = csrf_of(another)
        if "access_token" in given:
            headers |= bearer(given["access_token"])
            for _ in range(2):  # the cookie is not taken back: its session lives
                answer = await another.post("/auth/refresh", headers=headers)
                problem(answer, 401, "browser_changed")
        for path in ("/auth/me", "/maybe"):
            answer = await another.get(path, headers=headers)
            problem(answer, 401, "browser_changed")
            assert 'error="invalid_token"' in answer.headers["www-authenticate"]
            assert "set-cookie" not in answer.headers
        proof = {"method": "password", "password": PASSWORD}
        answer = await another.post("/auth/reauthenticate", json=proof, headers=headers)
        assert answer.status_code == 204
        assert (await another.get("/auth/me", headers=headers)).status_code == 200


@pytest.mark.capability("S0-53", "S3-11")
@pytest.mark.parametrize("transport", ["cookie", "bearer"])
async def test_a_new_root_secret_moves_nobody_elsewhere(sqlite_url: str, transport: str) -> None:
    old, new = generate_secret(), generate_secret()
    options: dict[str, Any] = {"binding": {"address": "address", "fingerprint": "reject"}}
    async with telling(sqlite_url, secret=old, **options) as story:
        await story.register()
        async with browser(story.app) as client:
            given = await story.log_in(transport=transport, client=client)
            kept = dict(client.cookies)
    async with telling(sqlite_url, secret=new, old_secrets=(old,), **options) as story:
        headers = bearer(given["access_token"]) if "access_token" in given else {}
        transport_away = httpx.ASGITransport(app=story.app, client=("198.51.100.9", 1))
        async with (
            browser(story.app) as client,
            httpx.AsyncClient(transport=transport_away, base_url=ORIGIN) as away,
        ):
            client.cookies.update(kept)
            away.cookies.update(kept)
            for _ in range(2):
                assert (await client.get("/auth/me", headers=headers)).status_code == 200
                problem(await away.get("/auth/me", headers=headers), 403, "session_bound_elsewhere")
            if "refresh_token" in given:
                body = {"refresh_token": given["refresh_token"]}
                answer = await away.post("/auth/refresh", json=body)
                problem(answer, 403, "session_bound_elsewhere")
                assert (await client.post("/auth/refresh", json=body)).status_code == 200


@pytest.mark.invariant("I-19", "I-01")
async def test_after_a_failover_no_session_of_the_lost_time_lives_under_the_raised_epoch(
    database_or_redis_url: str,
) -> None:
    """Sessions in Redis do not fail over with the users: theirs may be the higher epoch."""
    async with telling(database_or_redis_url) as story, browser(story.app) as thief:
        await story.register()
        users = story.auth.users
        before = await users.find(ADA)
        await users.end_all(before.id, why="password_reset")
        await cookie_session(story, thief)
        stolen = {"Cookie": f"session={thief.cookies['session']}"}
        await users.end_all(before.id, why="password_reset")
        problem(await story.client.get("/auth/me", headers=stolen), 401, "revoked_token")
        lost = await story.auth.store.update(
            users.kind, where(id=before.id), epoch=before.epoch
        )  # the copy has never heard of both
        assert lost is not None
        async for _ in story.auth.sessions.end_since(story.clock.now() - timedelta(hours=1)):
            pass
        problem(await story.client.get("/auth/me", headers=stolen), 401, "revoked_token")
        async with browser(story.app) as again:
            await cookie_session(story, again)
            assert (await again.get("/auth/me")).status_code == 200


@pytest.mark.invariant("I-10")
async def test_a_form_from_elsewhere_is_refused_like_everything_else() -> None:
    app = FastAPI()

    @app.post("/boats")
    async def book(user: CurrentUser) -> str:
        return user.email

    async with (
        telling(app=app, binding={"fingerprint": "reject"}) as story,
        browser(story.app, User_Agent="hers") as hers,
        browser(story.app, User_Agent="another") as another,
    ):
        await story.register()
        form = {"csrf_token": (await cookie_session(story, hers))["X-CSRF-Token"]}
        another.cookies.update(hers.cookies)
        assert (await hers.post("/boats", data=form)).json() == ADA
        problem(await another.post("/boats", data=form), 401, "browser_changed")


@pytest.mark.invariant("I-03", "I-21")
async def test_two_cookies_of_two_users_are_refused_though_both_are_known() -> None:
    environ = {"WATCHWORD_TOKENS__COOKIE_PAIR": "true"}
    async with telling(environ=environ) as story, browser(story.app) as ada:
        await story.register(ADA)
        await story.register(EVE)
        await cookie_session(story, ada)
        async with browser(story.app) as eve:
            await story.log_in(EVE, transport="cookie_pair", client=eve)
            access = eve.cookies["access"]
            for client in (ada, eve):
                assert (await client.get("/auth/me")).status_code == 200
        ada.cookies.set("access", access)
        problem(await ada.get("/auth/me"), 401, "conflicting_credentials")
