"""Change of address over HTTP: the new one confirms, the old one can take it back."""

import asyncio

import pytest

from tests.told import ADA, ANOTHER, EVE, PASSWORD, Story, browser, cookie_session, problem, telling
from watchword.testing.story import bearer

NEW = "new@example.com"


async def wish(story: Story, token: str, email: str = NEW, password: str = PASSWORD) -> None:
    body = {"new_email": email, "current_password": password}
    answer = await story.client.post("/auth/email/change", json=body, headers=bearer(token))
    assert (answer.status_code, answer.json()) == (202, {"status": "accepted"}), answer.text
    await story.mails()


async def confirm(story: Story, access: str | None, email: str = NEW, **more: str) -> object:
    body = {"token": story.outbox.token(email, "wwe"), **more}
    headers = bearer(access) if access else {}
    return await story.client.post("/auth/email/confirm", json=body, headers=headers)


@pytest.mark.standard("3: (email change)")
async def test_the_old_address_signs_in_until_the_new_one_confirms(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.join()
        this, other = await story.log_in(), await story.log_in()
        await wish(story, this["access_token"])
        await story.log_in(ADA)
        login = {"email": NEW, "password": PASSWORD}
        problem(await story.client.post("/auth/login", json=login), 401, "invalid_credentials")
        await story.client.post("/auth/password-reset-request", json={"email": NEW})
        await story.mails()
        assert len(story.outbox.to(NEW)) == 1  # no reset for what is not theirs yet
        assert (await confirm(story, this["access_token"])).status_code == 204  # type: ignore[attr-defined]
        me = (await story.me(this["access_token"])).json()
        assert (me["email"], me["is_verified"]) == (NEW, True)
        problem(await story.me(other["access_token"]), 401, "revoked_token")
        await story.log_in(NEW)
        login = {"email": ADA, "password": PASSWORD}
        problem(await story.client.post("/auth/login", json=login), 401, "invalid_credentials")
        again = await confirm(story, this["access_token"])
        problem(again, 401, "invalid_token")  # type: ignore[arg-type]


@pytest.mark.invariant("I-15")
async def test_the_old_address_takes_it_back_for_three_days(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.join()
        pair = await story.log_in()
        await wish(story, pair["access_token"])
        await confirm(story, pair["access_token"])
        await story.mails()
        undo = {"token": story.outbox.token(ADA, "wwu")}
        problem(await story.register(ADA), 409, "user_already_exists")  # reserved meanwhile
        story.move(hours=71)
        answer = await story.client.post("/auth/email/undo", json=undo)
        assert answer.status_code == 204
        assert (await story.me(pair["access_token"])).status_code == 401
        for email in (ADA, NEW):
            login = {"email": email, "password": PASSWORD}
            answer = await story.client.post("/auth/login", json=login)
            problem(answer, 401, "invalid_credentials")
        await story.client.post("/auth/password-reset-request", json={"email": ADA})
        await story.mails()
        body = {"token": story.outbox.token(ADA, "wwp"), "new_password": ANOTHER}
        assert (await story.client.post("/auth/password-reset", json=body)).status_code == 204
        await story.log_in(ADA, ANOTHER)
        problem(await story.client.post("/auth/email/undo", json=undo), 401, "invalid_token")


async def test_after_three_days_it_stays(database_url: str) -> None:
    async with telling(database_url, background=False) as story:  # nothing is tidied up
        await story.join()
        pair = await story.log_in()
        await wish(story, pair["access_token"])
        await confirm(story, pair["access_token"])
        await story.mails()
        undo = {"token": story.outbox.token(ADA, "wwu")}
        story.move(hours=72)
        problem(await story.client.post("/auth/email/undo", json=undo), 401, "expired_token")
        assert (await story.register(ADA)).status_code == 201


@pytest.mark.invariant("I-13")
async def test_a_confirmation_needs_the_accounts_session_or_password(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.join(ADA)
        await story.join(EVE)
        ada, eve = await story.log_in(ADA), await story.log_in(EVE)
        await wish(story, ada["access_token"])
        problem(await confirm(story, None), 401, "not_authenticated")  # type: ignore[arg-type]
        stranger = await confirm(story, eve["access_token"])
        problem(stranger, 401, "not_authenticated")  # type: ignore[arg-type]
        wrong = await confirm(story, None, password="wrong")
        problem(wrong, 401, "invalid_credentials")  # type: ignore[arg-type]
        right = await confirm(story, None, password=PASSWORD)
        assert right.status_code == 204  # type: ignore[attr-defined]


async def test_asking_needs_the_password_and_csrf(database_url: str) -> None:
    async with telling(database_url) as story, browser(story.app) as client:
        await story.join()
        csrf = await cookie_session(story, client)
        body = {"new_email": NEW, "current_password": PASSWORD}
        problem(await client.post("/auth/email/change", json=body), 403, "csrf_refused")
        wrong = {**body, "current_password": "wrong"}
        answer = await client.post("/auth/email/change", json=wrong, headers=csrf)
        problem(answer, 401, "invalid_credentials")
        problem(await story.client.post("/auth/email/change", json=body), 401, "not_authenticated")
        await story.mails()
        assert story.outbox.to(NEW) == []


@pytest.mark.capability("DEF-15")
async def test_a_taken_address_answers_the_same_and_gets_no_token(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.join(ADA)
        await story.join(EVE)
        pair = await story.log_in(ADA)
        await wish(story, pair["access_token"], EVE)
        with pytest.raises(LookupError):
            story.outbox.token(EVE, "wwe")
        await wish(story, pair["access_token"], NEW)
        await story.register(NEW)  # somebody takes it before the confirmation
        taken = await confirm(story, pair["access_token"])
        problem(taken, 401, "invalid_token")  # type: ignore[arg-type]
        assert (await story.me(pair["access_token"])).json()["email"] == ADA


@pytest.mark.invariant("I-01")
@pytest.mark.parametrize("how", ["change", "reset", "ended", "wish"])
async def test_what_raises_the_epoch_voids_the_wish(database_url: str, how: str) -> None:
    async with telling(database_url) as story:
        await story.join()
        pair = await story.log_in()
        await wish(story, pair["access_token"])
        password = PASSWORD
        if how == "change":
            body = {"current_password": PASSWORD, "new_password": ANOTHER}
            await story.client.post(
                "/auth/password/change", json=body, headers=bearer(pair["access_token"])
            )
            password = ANOTHER
        elif how == "reset":
            await story.client.post("/auth/password-reset-request", json={"email": ADA})
            await story.mails()
            body = {"token": story.outbox.token(ADA, "wwp"), "new_password": ANOTHER}
            await story.client.post("/auth/password-reset", json=body)
            password = ANOTHER
        elif how == "ended":
            await story.auth.users.end_all((await story.auth.users.find(ADA)).id, why="test")
        else:
            await wish(story, pair["access_token"], "third@example.com")
        answer = await confirm(story, None, password=password)
        problem(answer, 401, "invalid_token")  # type: ignore[arg-type]


@pytest.mark.invariant("I-05")
async def test_ten_confirmations_at_once_count_once(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.join()
        pair = await story.log_in()
        await wish(story, pair["access_token"])
        answers = await asyncio.gather(
            *(confirm(story, None, password=PASSWORD) for _ in range(10))
        )
        statuses = sorted(answer.status_code for answer in answers)  # type: ignore[attr-defined]
        assert statuses == [204] + [401] * 9
