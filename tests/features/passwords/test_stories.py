"""Passwords over HTTP: signing up, signing in, changing, and what each costs."""

from typing import Any

import pytest
from fastapi import FastAPI

from tests.told import (
    ADA,
    ANOTHER,
    EVE,
    ORIGIN,
    PASSWORD,
    PRODUCTION,
    SITE,
    Story,
    browser,
    cookie_session,
    fields_of,
    hashes,
    neighbour,
    problem,
    telling,
)
from watchword import Watchword
from watchword.crypto.keys import generate_secret
from watchword.features.passwords import NIST, passwords
from watchword.features.passwords.records import Password
from watchword.features.verification import verification
from watchword.storage.store import where
from watchword.testing.story import bearer, without_limits

LONG = "eleven quick foxes " + "a" * 53  # 72 bytes: bcrypt sees no more


def but(*features: Any) -> list[Any]:
    names = {feature.name for feature in features}
    return [*features, *(each for each in without_limits() if each.name not in names)]


async def change(story: Story, token: str, current: str, new: str) -> Any:
    body = {"current_password": current, "new_password": new}
    return await story.client.post("/auth/password/change", json=body, headers=bearer(token))


@pytest.mark.capability("S0-74", "S2-03", "S4-13")
async def test_signing_up_answers_with_the_user_and_no_hash(database_url: str) -> None:
    async with telling(database_url) as story:
        answer = await story.register("Ada@EXAMPLE.com")
        assert answer.status_code == 201
        assert answer.json()["email"] == "Ada@example.com"
        assert "argon2" not in answer.text
        stored = await story.auth.store.get(Password, user_id=answer.json()["id"])
        assert stored is not None
        assert stored.hash.startswith("$argon2id$v=19$")


@pytest.mark.capability("S2-04", "S1-08", "S1-06")
async def test_signing_in_with_a_swagger_form_of_this_origin(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.register()
        form = {
            "grant_type": "password",
            "username": ADA,
            "password": PASSWORD,
            "scope": "",
            "client_id": "",
            "client_secret": "",
        }
        for own in ({"Origin": ORIGIN}, {"Sec-Fetch-Site": "same-origin"}):
            answer = await story.client.post("/auth/login", data=form, headers=own)
            assert answer.status_code == 200
            assert (await story.me(answer.json()["access_token"])).status_code == 200
        answer = await story.client.post(
            "/auth/login",
            data={**form, "transport": "cookie", "remember": "on"},
            headers={"Origin": ORIGIN},
        )
        assert answer.status_code == 200
        user = await story.auth.users.find(ADA)
        begun = (await story.auth.sessions.page(user)).items
        assert [each.remembered for each in begun if each.transport == "cookie"] == [True]
        story.client.cookies.clear()
        wrong = await story.client.post(
            "/auth/login", data={**form, "password": "x"}, headers={"Origin": ORIGIN}
        )
        body = problem(wrong, 401, "invalid_credentials")
        assert body["detail"] == "Incorrect username or password"
        assert wrong.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.capability("S2-31")
@pytest.mark.standard("CVE row 51", "13: 3.5.1-2")
@pytest.mark.parametrize(
    "kind", ["text/plain", "text/plain; charset=utf-8", "", "multipart/form-data", "text/json"]
)
async def test_json_under_another_name_is_not_read(kind: str) -> None:
    async with telling() as story:
        await story.register()
        body = f'{{"email": "{ADA}", "password": "{PASSWORD}"}}'
        headers = {"Content-Type": kind} if kind else {}
        answer = await story.client.post("/auth/login", content=body, headers=headers)
        problem(answer, 415, "unsupported_media_type")


@pytest.mark.capability("S2-04")
@pytest.mark.invariant("I-10")
async def test_a_changed_password_ends_the_others_and_keeps_this(database_url: str) -> None:
    async with telling(database_url) as story, browser(story.app) as client:
        await story.register()
        this, other = await story.log_in(), await story.log_in()
        await cookie_session(story, client)
        answer = await change(story, this["access_token"], PASSWORD, ANOTHER)
        assert answer.status_code == 204
        assert (await story.me(this["access_token"])).status_code == 200
        renewed = await story.client.post(
            "/auth/refresh", json={"refresh_token": this["refresh_token"]}
        )
        assert renewed.status_code == 200
        problem(await story.me(other["access_token"]), 401, "revoked_token")
        problem(await client.get("/auth/me"), 401, "revoked_token")
        old = await story.client.post("/auth/login", json={"email": ADA, "password": PASSWORD})
        problem(old, 401, "invalid_credentials")
        await story.log_in(password=ANOTHER)


@pytest.mark.standard("1: 6.2.2-3")
async def test_a_change_asks_for_the_present_password(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.register()
        token = (await story.log_in())["access_token"]
        problem(await change(story, token, "wrong", ANOTHER), 401, "invalid_credentials")
        missing = await story.client.post(
            "/auth/password/change", json={"new_password": ANOTHER}, headers=bearer(token)
        )
        assert fields_of(problem(missing, 422, "validation_failed")) == {
            ("current_password", "missing")
        }
        weak = problem(await change(story, token, PASSWORD, "xk7 qv"), 422, "validation_failed")
        assert fields_of(weak) == {("new_password", "password_too_short")}
        await story.log_in()


@pytest.mark.capability("S2-15", "S4-16")
async def test_an_old_policy_lists_all_that_is_missing_at_once() -> None:
    classes = {f"require_{name}": True for name in ("upper", "lower", "digit", "symbol")}
    policy: Any = {"min_length": 8, "min_score": 0, **classes}
    async with telling(features=but(passwords(**policy))) as story:
        cases = {
            "": {"too_short", "missing_upper", "missing_lower", "missing_digit", "missing_symbol"},
            "abkdefgh": {"missing_upper", "missing_digit", "missing_symbol"},
            "Abkdefg1": {"missing_symbol"},
            "ABKDEF1!": {"missing_lower"},
            "Abcd1! ": {"too_short"},
            "    A1aa": {"missing_symbol"},
        }
        for password, missing in cases.items():
            body = problem(await story.register(ADA, password), 422, "validation_failed")
            wanted = {("password", f"password_{name}") for name in missing}
            assert fields_of(body) == wanted, password
        assert (await story.register(ADA, "Abkdef1!")).status_code == 201


@pytest.mark.capability("DEF-23")
@pytest.mark.standard("1: 6.2.5", "1: 6.2.8", "1: 6.2.9")
@pytest.mark.parametrize(
    "password",
    [
        "bqzmfhwtkepvlna",
        "  spaces at both ends  ",
        "".join(chr(0x1F600 + place * 37 % 64) for place in range(128)),
        "déjà vu à la fenêtre où l’été a brûlé " + "é" * 26,
        "ten tall trees " + "x" * 113,
        "tab\tand\nnewline\r\n ok",
        "пароль из многих букв",
    ],
    ids=["lower", "spaces", "emoji", "two bytes", "long", "controls", "cyrillic"],
)
async def test_a_password_is_taken_as_it_is(password: str) -> None:
    async with telling() as story:
        assert (await story.register(ADA, password)).status_code == 201
        await story.log_in(password=password)
        for near in (password[:-1], password + " ", password.swapcase(), password.strip()):
            if near != password:
                answer = await story.client.post(
                    "/auth/login", json={"email": ADA, "password": near}
                )
                problem(answer, 401, "invalid_credentials")


@pytest.mark.capability("DEF-23")
@pytest.mark.standard("1: 6.2.8")
async def test_composed_and_decomposed_letters_are_one_password(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.register(ADA, "Ångström’s passé word")
        await story.log_in(password="A\u030angstro\u0308m’s passe\u0301 word")


@pytest.mark.capability("DEF-23")
@pytest.mark.parametrize("scheme", ["argon2id", "bcrypt"])
async def test_nothing_is_cut_at_72_bytes(scheme: Any) -> None:
    async with telling(features=but(passwords(hash_scheme=scheme))) as story:
        password = f"{LONG}{'b' * 20}"
        answer = await story.register(ADA, password)
        if scheme == "bcrypt":
            body = problem(answer, 422, "validation_failed")
            assert fields_of(body) == {("password", "password_too_long")}
            assert (await story.register(ADA, password[:72])).status_code == 201
        else:
            assert answer.status_code == 201
        wrong = await story.client.post(
            "/auth/login", json={"email": ADA, "password": f"{LONG}{'c' * 20}"}
        )
        problem(wrong, 401, "invalid_credentials")


@pytest.mark.capability("S0-72", "S2-16", "S4-14", "S4-15")
async def test_a_sign_in_makes_an_older_hash_anew(database_url: str) -> None:
    old = but(passwords(hash_scheme="bcrypt", bcrypt_rounds=10))
    async with telling(database_url, features=old) as story:
        user_id = (await story.register()).json()["id"]
        stored = await story.auth.store.get(Password, user_id=user_id)
        assert stored is not None
        assert stored.hash.startswith("$2b$")
        async with neighbour(story, database_url) as today:
            wrong = await today.client.post("/auth/login", json={"email": ADA, "password": "x"})
            problem(wrong, 401, "invalid_credentials")
            assert await today.auth.store.get(Password, user_id=user_id) == stored
            await today.log_in()
            after = await today.auth.store.get(Password, user_id=user_id)
            assert after is not None
            assert after.hash.startswith("$argon2id$")
            await today.log_in()
            assert await today.auth.store.get(Password, user_id=user_id) == after


@pytest.mark.capability("S1-07", "S0-72")
@pytest.mark.parametrize("garbage", ["", "plain", PASSWORD, "$2b$", "$argon2id$", "5f4dcc3b" * 4])
async def test_a_stored_form_that_is_none_signs_nobody_in(garbage: str) -> None:
    async with telling() as story:
        user_id = (await story.register()).json()["id"]
        await story.auth.store.update(Password, where(user_id=user_id), hash=garbage)
        for guess in (PASSWORD, garbage or "x"):
            answer = await story.client.post("/auth/login", json={"email": ADA, "password": guess})
            problem(answer, 401, "invalid_credentials")


@pytest.mark.capability("S2-20", "S2-32", "S2-31")
async def test_only_the_right_password_hears_what_is_owed(database_url: str) -> None:
    features = but(verification(email_verification="required"))
    async with telling(database_url, features=features) as story:
        assert (await story.register()).status_code == 202
        login = {"email": ADA, "password": PASSWORD}
        problem(await story.client.post("/auth/login", json=login), 403, "email_not_verified")
        wrong = await story.client.post("/auth/login", json={**login, "password": "x"})
        problem(wrong, 401, "invalid_credentials")
        assert (await story.verify()).status_code == 204
        await story.log_in()
        await story.auth.users.disable((await story.auth.users.find(ADA)).id)
        problem(await story.client.post("/auth/login", json=login), 403, "account_disabled")
        wrong = await story.client.post("/auth/login", json={**login, "password": "x"})
        problem(wrong, 401, "invalid_credentials")


async def test_where_strangers_may_not_sign_up_nobody_does(database_url: str) -> None:
    async with telling(database_url, features=but(passwords(registration="closed"))) as story:
        problem(await story.register(), 403, "registration_closed")
        await story.auth.passwords.create_user(email=EVE, password=PASSWORD)
        await story.log_in(EVE)


async def test_a_user_and_their_password_are_made_together_or_not(database_url: str) -> None:
    async with telling(database_url) as story:
        with pytest.raises(Exception, match="not valid"):
            await story.auth.passwords.create_user(email=ADA, password="short")
        assert await story.auth.users.by_email(ADA) is None


@pytest.mark.capability("DEF-23", "S2-15")
@pytest.mark.parametrize(
    ("max_body", "field", "code"),
    [(2 * 1024 * 1024, "{}", "password_too_long"), (64 * 1024, "body", "body_too_large")],
)
async def test_a_megabyte_of_password_is_refused_before_it_costs(
    work: Any, max_body: int, field: str, code: str
) -> None:
    async with telling(max_body=max_body) as story:
        await story.register(EVE)
        token = (await story.log_in(EVE))["access_token"]
        with work.watched() as done:
            body = problem(await story.register(ADA, "x" * 1_000_000), 422, "validation_failed")
            assert fields_of(body) == {(field.format("password"), code)}
            answer = await change(story, token, PASSWORD, "x" * 1_000_000)
            body = problem(answer, 422, "validation_failed")
            assert fields_of(body) == {(field.format("new_password"), code)}
        assert hashes(done) == 0
        login = {"email": EVE, "password": "x" * 1_000_000}
        answer = await story.client.post("/auth/login", json=login)
        assert answer.status_code in (401, 422)


@pytest.mark.capability("S2-30")
async def test_production_without_mail_says_so_to_everybody_alike(database_url: str) -> None:
    app = FastAPI()
    auth = Watchword(database_url, environ={}, secret=generate_secret(), **PRODUCTION)
    auth.install(app)
    async with auth.running(), browser(app, SITE) as client:
        user = await auth.passwords.create_user(email=ADA, password=PASSWORD, is_verified=True)
        answers = []
        for email in (ADA, EVE):
            for path in ("register", "password-reset-request", "verify-email-request"):
                body = {"email": email} | ({"password": PASSWORD} if path == "register" else {})
                answers.append(await client.post(f"/auth/{path}", json=body))
        for answer in answers:
            problem(answer, 503, "mail_unavailable")
        assert [page.id for page in (await auth.users.page()).items] == [user.id]


@pytest.mark.standard("1: 6.2.1")
async def test_the_nist_preset_asks_for_fifteen_and_a_short_minimum_is_named_at_the_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with telling(features=but(passwords(**NIST))) as story:
        short = problem(await story.register(password="vkqzmfhwtgepbn"), 422, "validation_failed")
        assert fields_of(short) == {("password", "password_too_short")}
        assert (await story.register(password="vkqzmfhwtgepbna")).status_code == 201
    assert "min_length" not in caplog.text
    async with telling(features=but(passwords(min_length=8))):
        assert "passwords.min_length is 8" in caplog.text
