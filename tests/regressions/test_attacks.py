"""Attacks that once worked, found by reading the code as an attacker does."""

import asyncio
import json
import tracemalloc
import unicodedata
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import create_async_engine

from watchword import Own, User, Watchword, user_fields
from watchword.crypto.keys import generate_secret
from watchword.features.mail.address import to_send_to
from watchword.features.verification import verification
from watchword.http.body import parse_json
from watchword.kernel.address import address_of
from watchword.kernel.errors import FieldError, InvalidInput, UserAlreadyExists
from watchword.sources import load
from watchword.testing import Story, telling
from watchword.testing.story import PASSWORD, bearer, client_of

VICTIM = "victim@corp.example"
THIEF = "thief@evil.example"


@pytest.mark.standard("CVE row 33")
@pytest.mark.parametrize(
    "lookalike", ["adm\uff49n@corp.example", "\u017fam@corp.example", "a\u00b2@corp.example"]
)
def test_an_address_that_cannot_be_mailed_to_makes_no_account(lookalike: str) -> None:
    """Its key was the owner's, its mail was refused: the owner was locked out for good."""
    with pytest.raises(FieldError):
        address_of(lookalike)


def test_two_mailboxes_are_two_accounts() -> None:
    """Case folding made `ß` into `ss`, in names and in domains: one account, two owners."""
    assert address_of("weiß@corp.example").key != address_of("weiss@corp.example").key
    assert address_of("ceo@faß.example").key != address_of("ceo@fass.example").key
    assert address_of("CEO@Faß.Example").key == address_of("ceo@faß.example").key


@given(st.lists(st.sampled_from("aAbBßſıİIiκΚςσΣéÉ"), min_size=1, max_size=4).map("".join))
def test_equal_keys_mean_one_mailbox_but_for_case(local: str) -> None:
    """Whatever is one account to us is one mailbox to a mail server that ignores case."""
    try:
        one = address_of(f"{local}@corp.example")
    except FieldError:
        return
    other = address_of(one.key)
    assert other.key == one.key
    mailed = [unicodedata.normalize("NFC", to_send_to(each.email).lower()) for each in (one, other)]
    assert mailed[0] == mailed[1]


@pytest.mark.invariant("I-13")
async def test_a_lured_click_gives_a_thief_no_account_with_the_victims_address(
    database_url: str,
) -> None:
    """The thief asked for the victim's address, the victim confirmed, the thief took it back."""
    async with telling(database_url) as story:
        await story.join(THIEF)
        held = await story.log_in(THIEF)
        asked = await story.client.post(
            "/auth/email/change",
            json={"new_email": VICTIM, "current_password": PASSWORD},
            headers=bearer(held["access_token"]),
        )
        assert asked.status_code == 202
        await story.mails()
        token = story.outbox.token(VICTIM, "wwe")
        clicked = await story.client.post("/auth/email/confirm", json={"token": token})
        assert (clicked.status_code, clicked.json()["code"]) == (401, "not_authenticated")
        assert await story.auth.users.by_email(VICTIM) is None
        wrong = {"token": token, "password": "not the password at all"}
        assert (await story.client.post("/auth/email/confirm", json=wrong)).status_code == 401
        # Nothing was spent by either.
        right = {"token": token, "password": PASSWORD}
        assert (await story.client.post("/auth/email/confirm", json=right)).status_code == 204


async def test_an_address_that_was_never_proven_reserves_nothing(database_url: str) -> None:
    """A stranger registered the victim's address, moved on, and kept it reserved for 72 hours."""
    async with telling(database_url) as story:
        (await story.register(VICTIM)).raise_for_status()
        held = await story.log_in(VICTIM)
        headers = bearer(held["access_token"])
        body = {"new_email": THIEF, "current_password": PASSWORD}
        await story.client.post("/auth/email/change", json=body, headers=headers)
        await story.mails()
        token = {"token": story.outbox.token(THIEF, "wwe")}
        moved = await story.client.post("/auth/email/confirm", json=token, headers=headers)
        assert moved.status_code == 204
        assert (await story.register(VICTIM, "the owner's own password")).status_code == 201


@pytest.mark.invariant("I-06", "I-09")
async def test_a_request_after_an_ending_shares_no_read_that_began_before(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow read under way when the session ended let requests in that came after it."""
    async with telling(database_url) as story:
        await story.join()
        held = await story.log_in()
        reading, go_on = asyncio.Event(), asyncio.Event()
        real = type(story.auth.tokens).authenticate

        async def slow(self: Any, presented: str, client: Any) -> Any:
            identity = await real(self, presented, client)
            reading.set()
            await go_on.wait()
            return identity

        monkeypatch.setattr(type(story.auth.tokens), "authenticate", slow)
        first = asyncio.create_task(story.me(held["access_token"]))
        await reading.wait()
        user = await story.auth.users.find("ada@example.com")
        await story.auth.users.end_all(user.id, why="test")
        second = asyncio.create_task(story.me(held["access_token"]))
        await asyncio.sleep(0.05)
        go_on.set()
        assert (await second).status_code == 401
        await first
        assert (await story.me(held["access_token"])).status_code == 401


@pytest.mark.standard("CVE row 52")
@pytest.mark.parametrize(
    "body",
    [
        json.dumps({f"n{number}": 0 for number in range(6000)}),
        json.dumps(["\x00"] * 6000),
        "[" * 2000 + "]" * 2000,
        json.dumps([0] * 20_000),
    ],
    ids=["names", "faults", "depth", "numbers"],
)
async def test_a_strangers_body_costs_little_and_is_answered_with_little(body: str) -> None:
    """Two megabytes of unknown names held the event loop for two seconds and gave back fourteen."""
    async with telling() as story:
        answer = await story.client.post(
            "/auth/login", content=body, headers={"content-type": "application/json"}
        )
        assert answer.status_code in (400, 422)
        assert len(answer.content) < 8192
        large = await story.client.post(
            "/auth/login", json={"email": "a" * 70_000, "password": "x"}
        )
        assert (large.status_code, large.json()["errors"][0]["code"]) == (422, "body_too_large")


def test_a_long_name_over_many_values_costs_what_it_weighs() -> None:
    """Each value's path repeated the name: 64 KB sent took 250 MB, and came back as a megabyte."""
    name = "A" * 54_000
    tracemalloc.start()
    parse_json(json.dumps({name: [0] * 4990}).encode())
    with pytest.raises(InvalidInput) as refused:
        parse_json(json.dumps({name: ["\x00"] * 30}).encode())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4_000_000
    assert max(len(fault.field) for fault in refused.value.faults) <= 200


async def test_a_mounted_app_whose_store_is_away_says_so(tmp_path: Path) -> None:
    """It starts at the first request; what it raised then went past every handler as a 500."""
    folder = tmp_path / "not-a-folder"
    folder.write_text("")
    auth = Watchword(
        f"sqlite:///{folder}/app.db",
        environment="development",
        secret=generate_secret(),
        environ={},
    )
    app, outer = FastAPI(), FastAPI()
    auth.install(app)
    outer.mount("/inner", app)
    async with client_of(outer) as client:
        answer = await client.get("/inner/auth/me")
    assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")


async def test_the_case_of_an_address_may_be_changed() -> None:
    """Its owner counted as somebody who has it already: no mail ever left."""
    async with telling() as story:
        await story.join("ada@example.com")
        headers = bearer((await story.log_in("ada@example.com"))["access_token"])
        body = {"new_email": "Ada@example.com", "current_password": PASSWORD}
        await story.client.post("/auth/email/change", json=body, headers=headers)
        await story.mails()
        token = {"token": story.outbox.token("Ada@example.com", "wwe")}
        assert (
            await story.client.post("/auth/email/confirm", json=token, headers=headers)
        ).status_code == 204
        assert (await story.client.get("/auth/me", headers=headers)).json()["email"] == body[
            "new_email"
        ]


async def test_an_empty_json_body_is_malformed_and_no_500() -> None:
    """The parser's own exception came through."""
    async with telling() as story:
        headers = {"content-type": "application/json"}
        for path in ("/auth/login", "/auth/register", "/auth/verify-email"):
            answer = await story.client.post(path, content=b"", headers=headers)
            assert answer.status_code in (400, 422), path
        # No body is right here: the token may come in a cookie. None came.
        answer = await story.client.post("/auth/refresh", content=b"", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated")


@user_fields
class Aged(User):
    """A user with a number."""

    age: Annotated[int, Own(read="self", write="self")] = 0


async def test_a_number_that_no_database_holds_is_a_422(database_url: str) -> None:
    """2**70 reached the driver."""
    async with telling(database_url, user=Aged) as story:
        assert (await story.register(age=2**70)).status_code == 422
        assert (await story.register(age=36)).json()["age"] == 36


async def test_wishes_for_another_address_at_once_are_all_taken_in(database_url: str) -> None:
    """On PostgreSQL two first wishes at once were a 500."""
    async with telling(database_url) as story:
        await story.join()
        headers = bearer((await story.log_in())["access_token"])
        answers = await asyncio.gather(
            *(
                story.client.post(
                    "/auth/email/change",
                    json={"new_email": f"n{number}@example.com", "current_password": PASSWORD},
                    headers=headers,
                )
                for number in range(8)
            )
        )
        assert {answer.status_code for answer in answers} == {202}


@pytest.mark.invariant("I-04")
async def test_a_refused_verb_leaves_nothing_in_a_callers_transaction(
    sql_database_url: str,
) -> None:
    """The row of a refused registration was committed with the caller's own rows."""
    async with telling(sql_database_url) as story:
        await story.join()
        headers = bearer((await story.log_in())["access_token"])
        body = {"new_email": "new@example.com", "current_password": PASSWORD}
        await story.client.post("/auth/email/change", json=body, headers=headers)
        await story.mails()
        token = {"token": story.outbox.token("new@example.com", "wwe")}
        await story.client.post("/auth/email/confirm", json=token, headers=headers)
        kind, _, place = sql_database_url.partition("://")
        driver = "sqlite+aiosqlite" if kind == "sqlite" else "postgresql+asyncpg"
        engine = create_async_engine(f"{driver}://{place}")
        try:
            async with engine.connect() as connection:
                users = story.auth.users.joining(connection)
                with pytest.raises(UserAlreadyExists):
                    await users.create(email="ada@example.com")  # reserved for an undo
                await users.create(email="eve@example.com")
                await connection.commit()
        finally:
            await engine.dispose()
        assert await story.auth.users.by_email("ada@example.com") is None
        assert await story.auth.users.by_email("eve@example.com") is not None


@pytest.mark.invariant("I-01")
async def test_a_session_of_a_deleted_user_does_not_fit_who_gets_the_id_next(
    database_url: str,
) -> None:
    """Epochs began at nought: a sign-in held over deletion fitted the next user of that id."""
    async with telling(database_url) as story:
        users = story.auth.users
        first = await users.create(email="first@example.com", id="42")
        await users.delete("42")
        second = await users.create(email="second@example.com", id="42")
        assert first.epoch != second.epoch


async def test_account_verbs_at_once_do_not_deadlock(database_url: str) -> None:
    """Password first in one, user first in the other: PostgreSQL killed one of the two."""
    async with telling(database_url) as story:
        await story.join()
        for _ in range(5):
            await _race_change_and_reset(story)


async def _race_change_and_reset(story: Story) -> None:
    held = await story.log_in()
    await story.client.post("/auth/password-reset-request", json={"email": "ada@example.com"})
    await story.mails()
    change = story.client.post(
        "/auth/password/change",
        json={"current_password": PASSWORD, "new_password": PASSWORD},
        headers=bearer(held["access_token"]),
    )
    reset = story.client.post(
        "/auth/password-reset",
        json={"token": story.outbox.token("ada@example.com", "wwp"), "new_password": PASSWORD},
    )
    changed, done = await asyncio.gather(change, reset)
    assert 503 not in (changed.status_code, done.status_code)
    assert 204 in (changed.status_code, done.status_code)


def test_passwords_in_a_query_are_not_printed() -> None:
    """`watchword config` printed `?password=` whole."""
    url = "postgresql:///db?user=u&password=hunter2&sslpassword=hunter3"
    loaded = load({"database": url, "secret": "x" * 40}, [verification()], environ={})
    shown = next(setting.value for setting in loaded.report if setting.key == "database")
    assert "hunter" not in shown
