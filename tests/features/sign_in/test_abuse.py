"""A half-finished sign-in under attack: it grants nothing, to nobody, anywhere."""

import asyncio
from typing import Any

import pytest

from tests.features.sign_in.guests import NOT_ACCEPTED, PIN, Step, pin, stepping, terms
from tests.features.sign_in.test_stories import (
    REQUIRED,
    ask,
    but,
    count_of,
    given,
    log_in,
    sessions_of,
)
from tests.told import ADA, ANOTHER, EVE, PASSWORD, browser, problem, telling
from watchword.features.sign_in import Challenge, SignInFailed, sign_in
from watchword.features.tokens import tokens
from watchword.testing.story import bearer

OPTIONAL = {"/auth/verify-email", "/auth/email/confirm"}  # a dead cookie is nobody there


@pytest.mark.standard("CVE row 25", "CVE row 26")
@pytest.mark.invariant("I-02", "I-03")
@pytest.mark.parametrize("check", ["cached", "stateful", "stateless"])
async def test_a_challenge_is_no_credential_and_no_credential_is_a_challenge(check: str) -> None:
    async with telling(features=but(pin()), token_check=check) as story, browser(story.app) as eve:
        await story.register()
        token = problem(await log_in(eve, transport="cookie"), 401, "mfa_required")["mfa_token"]
        for name in ("session", "access", "refresh", "csrf"):
            assert eve.cookies.get(name) is None
        paths = [
            (method.upper(), path.replace("{", "").replace("}", ""))
            for path, methods in (await story.client.get("/openapi.json")).json()["paths"].items()
            for method, operation in methods.items()
            if "security" in operation
        ]
        assert ("GET", "/auth/me") in paths
        assert len(paths) > 5
        for method, path in paths:
            held = {"Authorization": f"Bearer {token}"}
            problem(await eve.request(method, path, headers=held), 401, "invalid_token")
            held = {"Cookie": f"session={token}; access={token}"}
            answer = await story.client.request(method, path, headers=held)
            if path in OPTIONAL:  # nobody came, and brought nothing
                problem(answer, 422, "validation_failed")
            else:
                problem(answer, 401, "invalid_token")
        for path, field, more in (
            ("refresh", "refresh_token", {}),
            ("logout", "refresh_token", {}),
            ("verify-email", "token", {}),
            ("password-reset", "token", {"new_password": ANOTHER}),
            ("email/confirm", "token", {}),
            ("email/undo", "token", {}),
        ):
            answer = await ask(story.client, path, **{field: token}, **more)
            problem(answer, 401, "invalid_token")

        # The other way round: whatever else a client may hold does not go on with a sign-in.
        answer = await ask(eve, "pin", mfa_token=token, pin=PIN)
        assert answer.status_code == 200
        held_by_eve = dict(eve.cookies)
        eve.cookies.clear()
        owed = problem(await log_in(eve), 401, "mfa_required")["mfa_token"]
        pair = (await ask(eve, "pin", mfa_token=owed, pin=PIN)).json()
        await story.mails()
        await ask(story.client, "password-reset-request", email=ADA)
        await story.mails()
        kinds = [
            pair["access_token"],
            pair["refresh_token"],
            story.outbox.token(ADA, "wwv"),
            story.outbox.token(ADA, "wwp"),
            *held_by_eve.values(),
            "",
            "wwh_" + "A" * 43,
        ]
        for kind in kinds:
            for path in ("login/continue", "reauthenticate/continue"):
                held = bearer(pair["access_token"]) if "re" in path else {}
                answer = await eve.post(f"/auth/{path}", json={"challenge": kind}, headers=held)
                if len(kind) > 128:
                    problem(answer, 422, "validation_failed")
                else:
                    problem(answer, 401, "invalid_token")


@pytest.mark.invariant("I-20")
async def test_a_stolen_challenge_is_void_for_thief_and_owner(database_url: str) -> None:
    reasons: list[str] = []
    async with (
        telling(database_url, features=but(terms())) as story,
        browser(story.app, User_Agent="mine") as ada,
    ):

        @story.auth.on(SignInFailed)
        async def hear(event: SignInFailed) -> None:
            reasons.append(event.reason)

        await story.register()
        for thief, agent in (("agent", "theirs"), ("device", "mine"), ("no device", "mine")):
            owed = problem(await log_in(ada, transport="cookie"), 403, "terms_not_accepted")
            mine = ada.cookies.get("device") or ""
            assert mine.startswith("wwd_")
            async with browser(story.app, User_Agent=agent) as eve:
                if thief == "agent":
                    eve.cookies.set("device", mine)
                elif thief == "device":
                    await log_in(eve, transport="cookie")
                    assert eve.cookies.get("device") not in (None, mine)
                answer = await ask(eve, "login/continue", challenge=owed["challenge"])
                problem(answer, 401, "invalid_token")
                assert given(answer) == {}
            answer = await ask(ada, "login/continue", challenge=owed["challenge"])
            problem(answer, 401, "invalid_token")
        assert await sessions_of(story) == []
        assert reasons == ["challenge_elsewhere"] * 3


@pytest.mark.invariant("I-20")
async def test_tries_are_counted_before_anything_is_compared(database_url: str) -> None:
    async with telling(database_url, features=but(pin(), sign_in(challenge_tries=3))) as story:
        await story.register()
        token = problem(await log_in(story.client), 401, "mfa_required")["mfa_token"]
        answers = await asyncio.gather(
            *(ask(story.client, "pin", mfa_token=token, pin=f"{n:04}") for n in range(8))
        )
        codes = sorted(answer.json()["code"] for answer in answers)
        assert codes == ["invalid_credentials"] * 3 + ["invalid_token"] * 5
        answer = await ask(story.client, "pin", mfa_token=token, pin=PIN)
        problem(answer, 401, "invalid_token")
        assert await sessions_of(story) == []


@pytest.mark.invariant("I-01", "I-05")
async def test_a_challenge_ends_with_what_it_rests_on(database_url: str) -> None:
    async with telling(database_url, features=but(terms())) as story:
        await story.join()
        user, password = await story.auth.users.find(ADA), PASSWORD

        async def owed() -> dict[str, str]:
            answer = await ask(story.client, "login", email=ADA, password=password)
            return {"challenge": problem(answer, 403, "terms_not_accepted")["challenge"]}

        async def over(challenge: dict[str, str], *codes: str) -> None:
            for path, more in (("login/continue", {}), ("terms/accept", {"version": 1})):
                answer = await ask(story.client, path, **challenge, **more)
                assert answer.status_code == 401
                assert answer.json()["code"] in (codes or ("invalid_token",))

        challenge = await owed()
        story.move(minutes=5)
        await over(challenge, "expired_token", "invalid_token")  # the second once it was tidied up

        challenge = await owed()
        await story.auth.users.end_all(user.id, why="test")
        await over(challenge)

        challenge = await owed()
        await ask(story.client, "password-reset-request", email=ADA)
        await story.mails()
        reset = {"token": story.outbox.token(ADA, "wwp"), "new_password": ANOTHER}
        assert (await ask(story.client, "password-reset", **reset)).status_code == 204
        await over(challenge)
        password = ANOTHER

        challenge = await owed()
        await story.auth.users.disable(user.id)
        await over(challenge)
        await story.auth.users.enable(user.id)
        await over(challenge)

        challenge = await owed()
        await story.auth.users.delete(user.id)
        assert await story.auth.store.count(Challenge, user_id=user.id) == 0
        await over(challenge)


@pytest.mark.invariant("I-05")
async def test_of_many_who_go_on_at_once_one_gets_a_session(database_url: str) -> None:
    features = but(REQUIRED, sign_in(challenge_tries=10))
    async with telling(database_url, features=features) as story, browser(story.app) as ada:
        await story.register()
        owed = problem(await log_in(ada, transport="cookie"), 403, "email_not_verified")
        await story.verify()
        body = {"challenge": owed["challenge"]}
        answers = await asyncio.gather(*(ask(ada, "login/continue", **body) for _ in range(10)))
        assert sorted(answer.status_code for answer in answers) == [200] + [401] * 9
        assert len(await sessions_of(story)) == 1


@pytest.mark.invariant("I-21")
@pytest.mark.capability("DEF-06")
@pytest.mark.parametrize("transport", ["cookie", "hybrid", "cookie_pair"])
async def test_another_sites_page_signs_nobody_in(transport: str) -> None:
    features = but(terms(), tokens(cookie_pair=True))
    async with telling(features=features) as story, browser(story.app) as victim:
        await story.register(EVE)
        cross: list[dict[str, str]] = [
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
        ]
        body = {"email": EVE, "password": PASSWORD, "transport": transport}
        for headers in cross:
            answer = await victim.post("/auth/login", json=body, headers=headers)
            problem(answer, 403, "csrf_refused")
            form = {"username": EVE, "password": PASSWORD, "transport": transport}
            answer = await victim.post("/auth/login", data=form, headers=headers)
            problem(answer, 403, "csrf_refused")
        owed = problem(await log_in(victim, EVE, transport=transport), 403, "terms_not_accepted")
        accepted = await ask(victim, "terms/accept", challenge=owed["challenge"], version=1)
        assert accepted.status_code == 204
        challenge = {"challenge": owed["challenge"]}
        answer = await victim.post("/auth/login/continue", json=challenge, headers=cross[0])
        problem(answer, 403, "csrf_refused")
        assert given(answer) == {}
        assert await sessions_of(story, EVE) == []
        answer = await victim.post("/auth/login/continue", json=challenge)
        assert answer.status_code == 200


@pytest.mark.invariant("I-15")
async def test_a_challenge_is_for_one_purpose_and_one_session() -> None:
    async with telling(features=but(pin())) as story:
        await story.register()

        async def session() -> dict[str, str]:
            owed = problem(await log_in(story.client), 401, "mfa_required")["mfa_token"]
            answer = await ask(story.client, "pin", mfa_token=owed, pin=PIN)
            return bearer(answer.json()["access_token"])

        mine, other = await session(), await session()
        prove = {"method": "password", "password": PASSWORD}

        async def renewing() -> str:
            answer = await story.client.post("/auth/reauthenticate", json=prove, headers=mine)
            token: str = problem(answer, 401, "mfa_required")["mfa_token"]
            proven = await ask(story.client, "pin", mfa_token=token, pin=PIN)
            assert proven.status_code == 204
            return token

        async def go_on(path: str, token: str, headers: dict[str, str]) -> Any:
            body = {"challenge": token}
            return await story.client.post(f"/auth/{path}/continue", json=body, headers=headers)

        token = await renewing()
        problem(await go_on("login", token, {}), 401, "invalid_token")
        problem(await go_on("reauthenticate", token, {}), 401, "not_authenticated")
        assert (await go_on("reauthenticate", token, mine)).status_code == 204
        problem(await go_on("reauthenticate", token, mine), 401, "invalid_token")

        token = await renewing()
        problem(await go_on("reauthenticate", token, other), 401, "invalid_token")
        problem(await go_on("reauthenticate", token, mine), 401, "invalid_token")  # void by now

        owed = problem(await log_in(story.client), 401, "mfa_required")["mfa_token"]
        problem(await go_on("reauthenticate", owed, mine), 401, "invalid_token")
        assert len(await sessions_of(story)) == 2


@pytest.mark.invariant("I-01", "I-15")
async def test_a_password_changed_meanwhile_leaves_no_session_fresh() -> None:
    async with telling(features=but(pin())) as story:
        await story.register()
        owed = problem(await log_in(story.client), 401, "mfa_required")["mfa_token"]
        pair = (await ask(story.client, "pin", mfa_token=owed, pin=PIN)).json()
        headers = bearer(pair["access_token"])
        prove = {"method": "password", "password": PASSWORD}
        answer = await story.client.post("/auth/reauthenticate", json=prove, headers=headers)
        token = problem(answer, 401, "mfa_required")["mfa_token"]
        await ask(story.client, "pin", mfa_token=token, pin=PIN)
        change = {"current_password": PASSWORD, "new_password": ANOTHER}
        answer = await story.client.post("/auth/password/change", json=change, headers=headers)
        assert answer.status_code == 204  # the session itself goes on
        answer = await story.client.post(
            "/auth/reauthenticate/continue", json={"challenge": token}, headers=headers
        )
        problem(answer, 401, "invalid_token")


@pytest.mark.invariant("I-04")
async def test_a_step_that_fails_signs_nobody_in() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    seen: list[str] = []
    steps = stepping(Step(step="fine", seen=seen), Step(step="later", after=("fine",), does=fail))
    async with telling(features=but(*steps)) as story, browser(story.app) as ada:
        await story.register()
        answer = await log_in(ada, transport="cookie")
        problem(answer, 500, "error")
        assert given(answer) == {}
        assert seen == ["fine"]
        assert await sessions_of(story) == []
        assert await count_of(story) == 0


@pytest.mark.capability("DEF-15")
async def test_two_who_hear_the_same_refusal_get_a_challenge_each() -> None:
    async with telling(features=but(terms())) as story:
        for email in (ADA, EVE):
            await story.register(email)
        answers = await asyncio.gather(
            *(log_in(story.client, email) for email in (ADA, EVE, ADA, EVE))
        )
        tokens = [problem(each, 403, "terms_not_accepted")["challenge"] for each in answers]
        assert len(set(tokens)) == 4
        async with browser(story.app) as ada:
            await log_in(ada, transport="cookie")
        assert (NOT_ACCEPTED.extra, NOT_ACCEPTED.headers) == ({}, {})  # it is everybody's
        accepted = await ask(story.client, "terms/accept", challenge=tokens[0], version=1)
        assert accepted.status_code == 204
        going = [await ask(story.client, "login/continue", challenge=each) for each in tokens]
        assert [answer.status_code for answer in going] == [200, 403, 200, 403]
        assert {each.json()["user"]["email"] for each in (going[0], going[2])} == {ADA}
