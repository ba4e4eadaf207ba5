"""Passwords under attack: what a stranger learns of an account, by answer, work or time."""

import asyncio
import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.told import (
    ADA,
    ANOTHER,
    ORIGIN,
    PASSWORD,
    PRODUCTION,
    Story,
    hashes,
    plain,
    problem,
    telling,
)
from watchword.crypto.keys import generate_secret
from watchword.features.passwords import passwords
from watchword.kernel.errors import ConfigurationError
from watchword.testing.story import bearer, without_limits

UNKNOWN = "nob@example.com"


async def with_people(story: Story) -> None:
    """Ada, and Dis who was switched off."""
    for email in (ADA, "dis@example.com"):
        await story.auth.passwords.create_user(email=email, password=PASSWORD, is_verified=True)
    await story.auth.users.disable((await story.auth.users.find("dis@example.com")).id)


@pytest.mark.capability("DEF-08", "DEF-15", "S2-04")
async def test_unknown_wrong_and_disabled_look_the_same_and_cost_the_same(
    database_url: str, work: Any
) -> None:
    async with telling(database_url) as story:
        await with_people(story)
        seen, costs = [], []
        for email in (UNKNOWN, ADA, "dis@example.com", "no address at all"):
            body = {"email": email, "password": "a wrong horse battery"}
            with work.watched() as done:
                answer = await story.client.post("/auth/login", json=body)
            problem(answer, 401, "invalid_credentials")
            seen.append(plain(answer))
            costs.append(dict(done))
        assert all(each == seen[0] for each in seen)
        assert all(cost == costs[0] for cost in costs), costs
        assert hashes(done) == 1


@pytest.mark.capability("DEF-15", "S2-03")
@pytest.mark.standard("CVE row 36")
async def test_signing_up_says_nothing_where_addresses_must_be_proven(
    database_url: str, work: Any
) -> None:
    async with telling(database_url, **PRODUCTION) as story:
        await with_people(story)
        await story.register("waiting@example.com")
        seen, costs = [], []
        for email in (UNKNOWN, ADA, "dis@example.com", "waiting@example.com"):
            with work.watched() as done:
                answer = await story.register(email, ANOTHER)
            assert answer.status_code == 202
            seen.append(plain(answer))
            costs.append(hashes(done))
        assert all(each == seen[0] for each in seen)
        assert costs == [1] * 4
        await story.mails()
        assert len(story.outbox.to(UNKNOWN)) == 1
        told = story.outbox.to(ADA)
        assert len(told) == 1
        assert "ww" + "v_" not in told[0].text  # nothing in it opens anything
        assert await story.auth.passwords.prove(await story.auth.users.find(ADA), PASSWORD)


@pytest.mark.capability("DEF-15", "S2-07", "S2-09")
async def test_asking_for_mail_says_nothing_of_accounts(database_url: str, work: Any) -> None:
    async with telling(database_url, **PRODUCTION) as story:
        await with_people(story)
        await story.register("waiting@example.com")
        await story.mails()
        for path in ("password-reset-request", "verify-email-request"):
            seen, costs = [], []
            for email in (UNKNOWN, ADA, "dis@example.com", "waiting@example.com"):
                with work.watched() as done:
                    answer = await story.client.post(f"/auth/{path}", json={"email": email})
                assert answer.status_code == 202
                seen.append(plain(answer))
                costs.append(dict(done))
            assert all(each == seen[0] for each in seen)
            assert all(cost == costs[0] for cost in costs), costs
            assert hashes(done) == 0


@pytest.mark.real_cost
@pytest.mark.slow
@pytest.mark.capability("DEF-08")
async def test_unknown_and_wrong_take_the_same_time(count: Callable[[int, int], int]) -> None:
    async with telling() as story:
        await with_people(story)
        times: dict[str, list[float]] = {UNKNOWN: [], ADA: [], "dis@example.com": []}
        for _ in range(count(30, 200)):
            for email, taken in times.items():
                body = {"email": email, "password": "a wrong horse battery"}
                began = time.process_time()
                await story.client.post("/auth/login", json=body)
                taken.append(time.process_time() - began)
        medians = {email: statistics.median(taken) for email, taken in times.items()}
        print(medians)
        for email in (UNKNOWN, "dis@example.com"):
            assert 0.9 < medians[email] / medians[ADA] < 1.1, medians


@pytest.mark.invariant("I-01")
@pytest.mark.parametrize("meanwhile", ["reset", "change", "set", "disable"])
async def test_a_sign_in_that_checked_the_old_password_is_dead_at_birth(
    database_url: str, meanwhile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with telling(database_url) as story:
        await story.join()
        token = (await story.log_in())["access_token"]
        await story.client.post("/auth/password-reset-request", json={"email": ADA})
        await story.mails()
        user = await story.auth.users.find(ADA)
        kind = type(story.auth.sessions)
        start = kind.start

        async def held(self: Any, *given: Any, **named: Any) -> Any:
            monkeypatch.setattr(kind, "start", start)  # between the hash and the insert
            if meanwhile == "reset":
                body = {"token": story.outbox.token(ADA, "wwp"), "new_password": ANOTHER}
                answer = await story.client.post("/auth/password-reset", json=body)
            elif meanwhile == "change":
                body = {"current_password": PASSWORD, "new_password": ANOTHER}
                answer = await story.client.post(
                    "/auth/password/change", json=body, headers=bearer(token)
                )
            elif meanwhile == "set":
                await story.auth.passwords.set(user.id, ANOTHER)
                answer = None
            else:
                await story.auth.users.disable(user.id)
                await story.auth.users.enable(user.id)
                answer = None
            assert answer is None or answer.status_code == 204
            return await start(self, *given, **named)

        monkeypatch.setattr(kind, "start", held)
        pair = await story.log_in()
        problem(await story.me(pair["access_token"]), 401, "revoked_token")
        answer = await story.client.post(
            "/auth/refresh", json={"refresh_token": pair["refresh_token"]}
        )
        problem(answer, 401, "revoked_token")


@pytest.mark.invariant("I-04")
async def test_nobody_hashes_while_a_transaction_is_open(database_url: str) -> None:
    async with telling(database_url) as story, story.auth.store.transaction():
        with pytest.raises(RuntimeError):
            await story.auth.passwords.hashed(PASSWORD)


@pytest.mark.invariant("I-01", "I-05")
async def test_of_two_changes_at_once_one_wins(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.register()
        pair = await story.log_in()
        wanted = [f"horse number {number} of the race" for number in range(4)]

        async def change(new: str) -> int:
            body = {"current_password": PASSWORD, "new_password": new}
            answer = await story.client.post(
                "/auth/password/change", json=body, headers=bearer(pair["access_token"])
            )
            return answer.status_code

        statuses = await asyncio.gather(*map(change, wanted))
        assert sorted(statuses) == [204, 401, 401, 401]
        await story.log_in(password=wanted[statuses.index(204)])


@pytest.mark.capability("DEF-36")
@pytest.mark.parametrize("value", [{"$ne": ""}, {"$gt": ""}, ["a"], 1, None, True])
async def test_an_operator_object_is_no_text(value: object) -> None:
    async with telling() as story:
        await story.register()
        for field in ("email", "password"):
            body: dict[str, object] = {"email": ADA, "password": PASSWORD, field: value}
            for path in ("login", "register"):
                answer = await story.client.post(f"/auth/{path}", json=body)
                faults = problem(answer, 422, "validation_failed")["errors"]
                assert {fault["field"] for fault in faults} == {field}


@pytest.mark.standard("13: 3.5.1-2")
@pytest.mark.capability("DEF-16")
async def test_the_host_header_alters_nothing_in_a_mail(database_url: str) -> None:
    async with telling(database_url, **PRODUCTION, allowed_hosts=["evil.example"]) as story:
        await with_people(story)
        spoofed = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "Origin": "null"}
        for headers in ({}, spoofed):
            await story.client.post(
                "/auth/password-reset-request", json={"email": ADA}, headers=headers
            )
            await story.client.post(
                "/auth/register",
                json={"email": f"n{len(headers)}@example.com", "password": PASSWORD},
                headers=headers,
            )
            await story.mails()
        assert len(story.outbox.messages) == 4
        assert not any("evil" in f"{m.text}{m.html}{m.subject}" for m in story.outbox.messages)


@pytest.mark.capability("S3-24")
async def test_only_clients_that_show_a_secret_bring_passwords_where_that_is_asked(
    work: Any,
) -> None:
    secret = generate_secret()
    chosen = passwords(client_id="ours", client_secret=secret)
    features = [chosen, *(each for each in without_limits() if each.name != "passwords")]
    async with telling(features=features) as story:
        await story.register()
        login = {"email": ADA, "password": PASSWORD}
        form = {"username": ADA, "password": PASSWORD, "scope": ""}
        own = {"Origin": ORIGIN}
        ours = {"client_id": "ours", "client_secret": secret.reveal()}
        wrong: list[dict[str, str]] = [
            {},
            {"client_id": "ours"},
            {"client_secret": secret.reveal()},
            {**ours, "client_secret": secret.reveal()[:-1]},
            {**ours, "client_id": "Ours"},
            {**ours, "client_secret": ""},
        ]
        with work.watched() as done:
            for client in wrong:
                for answer in (
                    await story.client.post("/auth/login", json={**login, **client}),
                    await story.client.post("/auth/login", data={**form, **client}, headers=own),
                ):
                    problem(answer, 401, "invalid_client")
        assert not done  # nothing was looked up or hashed
        for answer in (
            await story.client.post("/auth/login", json={**login, **ours}),
            await story.client.post("/auth/login", data={**form, **ours}, headers=own),
        ):
            assert answer.status_code == 200
    with pytest.raises(ConfigurationError, match="go together"):
        async with telling(features=[passwords(client_id="ours")]):
            pass
    async with telling() as story:  # off by default: then JSON has no such field
        await story.register()
        answer = await story.client.post("/auth/login", json={**login, **ours})
        faults = problem(answer, 422, "validation_failed")["errors"]
        assert {fault["field"] for fault in faults} == set(ours)
