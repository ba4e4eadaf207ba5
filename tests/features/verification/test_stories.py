"""Verification over HTTP: an address is proven, and by whom."""

import asyncio
from typing import Any

import pytest

from tests.told import (
    ADA,
    ANOTHER,
    EVE,
    PASSWORD,
    PRODUCTION,
    browser,
    cookie_session,
    hashes,
    problem,
    telling,
    texts_of,
)
from watchword import requires
from watchword.features.verification.records import EmailVerification
from watchword.storage.store import Paging
from watchword.testing.story import bearer


@pytest.mark.capability("S2-09", "S2-10", "S2-31")
async def test_signing_up_mails_a_token_that_verifies_once(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.register()
        assert (await story.verify()).status_code == 204
        tokens = await story.log_in()
        assert (await story.me(tokens["access_token"])).json()["is_verified"] is True
        problem(await story.verify(), 401, "invalid_token")


@pytest.mark.capability("S2-10", "S2-13")
async def test_the_token_is_stored_as_a_digest_and_a_new_one_voids_it(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.register()
        await story.mails()
        first = story.outbox.token(ADA, "wwv")
        page = await story.auth.store.find(EmailVerification, Paging(order=("user_id",)))
        assert first not in texts_of(page.items[0])
        answer = await story.client.post("/auth/verify-email-request", json={"email": ADA})
        assert (answer.status_code, answer.json()) == (202, {"status": "accepted"})
        await story.mails()
        body = {"token": first, "password": PASSWORD}
        problem(await story.client.post("/auth/verify-email", json=body), 401, "invalid_token")
        assert (await story.verify()).status_code == 204


async def test_a_token_ends_after_a_day(database_url: str) -> None:
    async with telling(database_url, background=False) as story:  # nothing is tidied up
        await story.register()
        await story.mails()
        story.move(hours=24)
        problem(await story.verify(), 401, "expired_token")


@pytest.mark.invariant("I-13")
async def test_a_wrong_password_spends_nothing(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.register()
        problem(await story.verify(password="not the password"), 401, "invalid_credentials")
        assert (await story.verify()).status_code == 204
        await story.log_in()


@pytest.mark.invariant("I-13")
@pytest.mark.capability("DEF-16")
async def test_first_proof_wins_over_whoever_waited(database_url: str) -> None:
    async with telling(database_url) as story, browser(story.app) as eve:
        await story.register()  # Eve registers Ada's address
        waiting = await story.log_in()
        await cookie_session(story, eve)
        assert (await story.verify(password=None)).status_code == 204  # Ada follows the link
        problem(await story.me(waiting["access_token"]), 401, "revoked_token")
        problem(await eve.get("/auth/me"), 401, "revoked_token")
        body = {"refresh_token": waiting["refresh_token"]}
        problem(await story.client.post("/auth/refresh", json=body), 401, "revoked_token")
        login = {"email": ADA, "password": PASSWORD}
        problem(await story.client.post("/auth/login", json=login), 401, "invalid_credentials")
        await story.client.post("/auth/password-reset-request", json={"email": ADA})
        await story.mails()
        body = {"token": story.outbox.token(ADA, "wwp"), "new_password": ANOTHER}
        assert (await story.client.post("/auth/password-reset", json=body)).status_code == 204
        me = await story.log_in(password=ANOTHER)
        assert me["user"]["is_verified"] is True


@pytest.mark.invariant("I-13")
@pytest.mark.parametrize("carriage", ["bearer", "cookie"])
async def test_the_accounts_own_session_keeps_everything(database_url: str, carriage: str) -> None:
    async with telling(database_url) as story, browser(story.app) as client:
        await story.register()
        tokens = await story.log_in()
        headers = (
            bearer(tokens["access_token"])
            if carriage == "bearer"
            else await cookie_session(story, client)
        )
        await story.mails()
        body = {"token": story.outbox.token(ADA, "wwv")}
        answer = await client.post("/auth/verify-email", json=body, headers=headers)
        assert answer.status_code == 204
        assert (await story.me(tokens["access_token"])).json()["is_verified"] is True
        await story.log_in()


@pytest.mark.invariant("I-13")
async def test_somebody_elses_session_is_not_the_accounts(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.register(ADA)
        await story.register(EVE)
        ada, eve = await story.log_in(ADA), await story.log_in(EVE)
        await story.mails()
        body = {"token": story.outbox.token(ADA, "wwv")}
        headers = bearer(eve["access_token"])
        answer = await story.client.post("/auth/verify-email", json=body, headers=headers)
        assert answer.status_code == 204
        problem(await story.me(ada["access_token"]), 401, "revoked_token")
        assert (await story.me(eve["access_token"])).json()["is_verified"] is False


@pytest.mark.invariant("I-21", "I-13")
async def test_a_cookie_without_its_csrf_token_spends_nothing(database_url: str) -> None:
    async with telling(database_url) as story, browser(story.app) as client:
        await story.register()
        await cookie_session(story, client)
        await story.mails()
        body = {"token": story.outbox.token(ADA, "wwv")}
        problem(await client.post("/auth/verify-email", json=body), 403, "csrf_refused")
        assert (await story.verify()).status_code == 204


@pytest.mark.invariant("I-05")
async def test_twenty_proofs_at_once_count_once(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.register()
        await story.mails()
        body = {"token": story.outbox.token(ADA, "wwv"), "password": PASSWORD}
        answers = await asyncio.gather(
            *(story.client.post("/auth/verify-email", json=body) for _ in range(20))
        )
        assert sorted(answer.status_code for answer in answers) == [204] + [401] * 19


@pytest.mark.capability("S2-32")
async def test_a_guard_may_ask_for_a_proven_address(database_url: str) -> None:
    async with telling(database_url) as story:

        @story.app.get("/members", dependencies=[requires(verified=True)])
        async def members() -> str:
            return "hello"

        await story.register()
        auth = bearer((await story.log_in())["access_token"])
        problem(await story.client.get("/members", headers=auth), 403, "email_not_verified")
        await story.verify()
        assert (await story.client.get("/members", headers=auth)).status_code == 200


@pytest.mark.capability("S2-03", "S2-32")
async def test_in_production_one_signs_in_after_the_proof(database_url: str, work: Any) -> None:
    async with telling(database_url, **PRODUCTION) as story:
        with work.watched() as done:
            answer = await story.register()
        assert (answer.status_code, answer.json()) == (202, {"status": "accepted"})
        assert hashes(done) == 1
        login = {"email": ADA, "password": PASSWORD}
        problem(await story.client.post("/auth/login", json=login), 403, "email_not_verified")
        assert (await story.verify()).status_code == 204
        await story.log_in()
