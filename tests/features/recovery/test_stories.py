"""Recovery over HTTP: a forgotten password is replaced, once, and everything else ends."""

import asyncio

import pytest

from tests.told import ADA, ANOTHER, PASSWORD, Story, fields_of, problem, telling, texts_of
from watchword.features.recovery.records import PasswordReset
from watchword.storage.store import Paging
from watchword.testing.story import bearer


async def asked(story: Story, email: str = ADA) -> str:
    answer = await story.client.post("/auth/password-reset-request", json={"email": email})
    assert (answer.status_code, answer.json()) == (202, {"status": "accepted"})
    await story.mails()
    return story.outbox.token(email, "wwp")


async def reset(story: Story, token: str, password: str = ANOTHER) -> object:
    body = {"token": token, "new_password": password}
    return await story.client.post("/auth/password-reset", json=body)


@pytest.mark.capability("S2-07", "S2-08")
async def test_a_reset_works_once_ends_all_and_signs_nobody_in(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.join()
        pairs = [await story.log_in(), await story.log_in()]
        token = await asked(story)
        answer = await reset(story, token)
        assert (answer.status_code, answer.content) == (204, b"")  # type: ignore[attr-defined]
        assert not story.client.cookies
        for pair in pairs:
            problem(await story.me(pair["access_token"]), 401, "revoked_token")
            body = {"refresh_token": pair["refresh_token"]}
            problem(await story.client.post("/auth/refresh", json=body), 401, "revoked_token")
        login = {"email": ADA, "password": PASSWORD}
        problem(await story.client.post("/auth/login", json=login), 401, "invalid_credentials")
        problem(await reset(story, token), 401, "invalid_token")  # type: ignore[arg-type]
        await story.log_in(password=ANOTHER)


@pytest.mark.capability("S2-08", "S2-13", "DEF-16")
@pytest.mark.standard("3: 6.4.3")
async def test_a_token_is_short_lived_a_digest_at_rest_and_void_after_the_next(
    database_url: str,
) -> None:
    async with telling(database_url, background=False) as story:  # nothing is tidied up
        await story.join()
        first = await asked(story)
        page = await story.auth.store.find(PasswordReset, Paging(order=("user_id",)))
        assert first not in texts_of(page.items[0])
        second = await asked(story)
        problem(await reset(story, first), 401, "invalid_token")  # type: ignore[arg-type]
        story.move(minutes=15)
        problem(await reset(story, second), 401, "expired_token")  # type: ignore[arg-type]
        await story.log_in()


@pytest.mark.capability("DEF-16")
@pytest.mark.standard("3: 6.4.3")
@pytest.mark.parametrize("how", ["password", "email", "disabled", "deleted", "ended"])
async def test_a_change_of_the_account_voids_the_token(database_url: str, how: str) -> None:
    async with telling(database_url) as story:
        await story.join()
        pair = await story.log_in()
        auth = bearer(pair["access_token"])
        token = await asked(story)
        user = await story.auth.users.find(ADA)
        if how == "password":
            body = {"current_password": PASSWORD, "new_password": "yet another fine horse"}
            await story.client.post("/auth/password/change", json=body, headers=auth)
        elif how == "email":
            body = {"new_email": "new@example.com", "current_password": PASSWORD}
            await story.client.post("/auth/email/change", json=body, headers=auth)
            await story.mails()
            body = {"token": story.outbox.token("new@example.com", "wwe")}
            answer = await story.client.post("/auth/email/confirm", json=body, headers=auth)
            assert answer.status_code == 204
        elif how == "disabled":
            await story.auth.users.disable(user.id)
        elif how == "deleted":
            await story.auth.users.delete(user.id)
        else:
            await story.auth.users.end_all(user.id, why="test")
        problem(await reset(story, token), 401, "invalid_token")  # type: ignore[arg-type]


async def test_a_weak_password_leaves_the_token_good(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.join()
        token = await asked(story)
        body = problem(await reset(story, token, "xk7 qv"), 422, "validation_failed")  # type: ignore[arg-type]
        assert fields_of(body) == {("new_password", "password_too_short")}
        assert (await reset(story, token)).status_code == 204  # type: ignore[attr-defined]


@pytest.mark.invariant("I-13")
async def test_a_reset_proves_the_address_and_throws_out_who_waited(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.register()  # Eve registers Ada's address
        waiting = await story.log_in()
        assert (await reset(story, await asked(story))).status_code == 204  # type: ignore[attr-defined]
        problem(await story.me(waiting["access_token"]), 401, "revoked_token")
        ada = await story.log_in(password=ANOTHER)
        assert ada["user"]["is_verified"] is True
        problem(await story.verify(), 401, "invalid_token")


@pytest.mark.invariant("I-05")
async def test_twenty_resets_at_once_count_once(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.join()
        token = await asked(story)
        passwords = [f"horse number {number} of the race" for number in range(20)]
        answers = await asyncio.gather(*(reset(story, token, each) for each in passwords))
        statuses = [answer.status_code for answer in answers]  # type: ignore[attr-defined]
        assert sorted(statuses) == [204] + [401] * 19
        await story.log_in(password=passwords[statuses.index(204)])


@pytest.mark.standard("CVE row 36")
async def test_no_step_can_be_skipped(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.join()
        for token in ("", "wwp_", "wwp_" + "A" * 43, "null", "0", ADA):
            problem(await reset(story, token), 401, "invalid_token")  # type: ignore[arg-type]
        for body in ({"new_password": ANOTHER}, {"email": ADA, "new_password": ANOTHER}):
            answer = await story.client.post("/auth/password-reset", json=body)
            problem(answer, 422, "validation_failed")
        await story.log_in()
