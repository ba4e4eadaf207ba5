"""The policy over HTTP: registration, change, reset and sign-in, and what leaves the machine."""

import asyncio
import contextlib
import hashlib
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import httpx
import pytest

from tests.told import (
    ADA,
    ANOTHER,
    EVE,
    PASSWORD,
    PRODUCTION,
    Story,
    browser,
    fields_of,
    problem,
    telling,
)
from watchword.features.passwords import BreachesUnknown, Password, passwords
from watchword.features.passwords.events import PasswordChanged, PasswordDistrusted
from watchword.kernel.errors import (
    BreachCheckUnavailable,
    ConfigurationError,
    InvalidInput,
    UserNotFound,
)
from watchword.storage.store import where
from watchword.testing.story import bearer, without_limits

pytestmark = pytest.mark.slow  # scripts/test runs them

COMMON = "password123"
BREACHED = "nine lazy zebras jumping"
LENIENT = {"min_length": 8, "min_score": 0, "check_common": False, "check_at_login": False}


def but(**options: Any) -> list[Any]:
    others = [each for each in without_limits() if each.name != "passwords"]
    return [passwords(**options), *others]


async def change(story: Story, token: str, new: str, current: str = PASSWORD) -> httpx.Response:
    body = {"current_password": current, "new_password": new}
    return await story.client.post("/auth/password/change", json=body, headers=bearer(token))


async def reset_token(story: Story) -> str:
    await story.client.post("/auth/password-reset-request", json={"email": ADA})
    await story.mails()
    return story.outbox.token(ADA, "wwp")


async def reset(story: Story, token: str, new: str) -> httpx.Response:
    body = {"token": token, "new_password": new}
    return await story.client.post("/auth/password-reset", json=body)


async def login(story: Story, password: str = PASSWORD, **more: Any) -> httpx.Response:
    body = {"email": ADA, "password": password, **more}
    return await story.client.post("/auth/login", json=body)


async def replace(story: Story, challenge: str, new: str = ANOTHER) -> httpx.Response:
    body = {"challenge": challenge, "new_password": new}
    return await story.client.post("/auth/password/change-required", json=body)


# At registration, change and reset


@pytest.mark.capability("S0-66", "S0-70", "DEF-20")
@pytest.mark.standard("1: 6.1.2", "1: 6.2.4", "1: 6.2.9", "1: 6.2.11")
async def test_every_way_of_setting_a_password_asks_the_same(database_url: str) -> None:
    async with telling(database_url) as story:
        assert (await story.register(username="Countess")).status_code == 201
        token = (await story.log_in())["access_token"]
        by_mail = await reset_token(story)
        for password, wrong in {
            COMMON: {"too_short", "common"},
            "aaaaaaaaaaaaaaaa": {"too_guessable"},
            "the countess of nothing": {"contains_context"},
            "from example to example": {"contains_context"},
            "watchword is my word": {"contains_context"},
            "localhost, sweet localhost": {"contains_context"},
            "x" * 4_000: {"too_long", "too_guessable"},
            "x" * 20_000: {"too_long"},
        }.items():
            for field_name, answer in (
                ("password", await story.register("b@example.com", password, username="Countess")),
                ("new_password", await change(story, token, password)),
                ("new_password", await reset(story, by_mail, password)),
            ):
                faults = fields_of(problem(answer, 422, "validation_failed"))
                assert faults == {(field_name, f"password_{name}") for name in wrong}, password
            with pytest.raises(InvalidInput):
                await story.auth.passwords.set((await story.auth.users.find(ADA)).id, password)
            with pytest.raises(InvalidInput):
                await story.auth.passwords.create_user(
                    email="b@example.com", password=password, username="Countess"
                )
        # Nobody else's names are in the way, and the token is still good.
        assert (await reset(story, by_mail, "the princess of nothing")).status_code == 204


@pytest.mark.capability("S0-66")
@pytest.mark.standard("1: 6.1.2", "1: 6.2.11")
async def test_a_password_can_be_judged_before_it_is_sent() -> None:
    async with telling(features=but(context_words=["Difference"])) as story:
        validate = story.auth.passwords.validate
        assert validate(PASSWORD, email=ADA) == ()
        assert [each.code for each in validate("difference engine, no. 2")] == [
            "password_contains_context"
        ]
        assert (await story.register("zebra.crossing@example.com")).status_code == 201
        user = await story.auth.users.find("zebra.crossing@example.com")
        (fault,) = validate("nine lazy zebra stripes", user=user, field="secret")
        assert (fault.field, fault.code) == ("secret", "password_contains_context")
        assert "zebra" not in fault.detail


# Breaches


@dataclass
class Range:
    """A range service on this machine: what it was asked, and what it answers."""

    url: str = ""
    breached: dict[str, int] = field(default_factory=dict[str, int])
    status: str = "200 OK"
    body: str | None = None
    headers: str = ""
    is_mute: bool = False
    requests: list[str] = field(default_factory=list[str])

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.requests.append(request)
        if not self.is_mute:
            writer.write(self._answered(request.split()[1].rpartition("/")[2]))
            writer.write_eof()
        with contextlib.suppress(OSError):
            await reader.read()  # until whoever asked has gone
            writer.close()
            await writer.wait_closed()

    def _answered(self, prefix: str) -> bytes:
        lines = [f"{'0' * 35}:0"]
        for password, times in self.breached.items():
            digest = hashlib.sha1(password.encode()).hexdigest().upper()
            lines += [f"{digest[5:]}:{times}"] if digest.startswith(prefix) else []
        body = ("\r\n".join(lines) if self.body is None else self.body).encode()
        head = f"HTTP/1.1 {self.status}\r\n{self.headers}Content-Length: {len(body)}\r\n"
        return head.encode() + b"Connection: close\r\n\r\n" + body


@asynccontextmanager
async def a_range(**given: Any) -> AsyncGenerator[Range, None]:
    service = Range(**given)
    server = await asyncio.start_server(service.answer, "127.0.0.1", 0)
    service.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/range/"
    async with server:
        yield service


def asking(service: Range, **more: Any) -> list[Any]:
    return but(check_breaches=True, breach_url=service.url, **more)


@pytest.mark.capability("S0-67", "S0-71", "S3-02")
@pytest.mark.standard("1: 6.2.4", "1: 6.2.12")
async def test_five_digits_leave_and_a_breached_password_is_refused_everywhere(
    database_url: str,
) -> None:
    async with (
        a_range(breached={BREACHED: 3}) as service,
        telling(database_url, features=asking(service)) as story,
    ):
        answer = await story.register(ADA, BREACHED)
        body = problem(answer, 422, "validation_failed")
        assert fields_of(body) == {("password", "password_compromised")}
        (request,) = service.requests
        digest = hashlib.sha1(BREACHED.encode()).hexdigest().upper()
        assert request.startswith(f"GET /range/{digest[:5]} HTTP/1.1\r\n")
        assert "add-padding: true" in request.lower()
        for kept in (digest[5:], digest[:6], BREACHED, ADA, "example", "cookie"):
            assert kept.lower() not in request.lower()
        assert (await story.register()).status_code == 201
        token, by_mail = (await story.log_in())["access_token"], await reset_token(story)
        for refused in (
            await change(story, token, BREACHED),
            await reset(story, by_mail, BREACHED),
        ):
            body = problem(refused, 422, "validation_failed")
            assert fields_of(body) == {("new_password", "password_compromised")}
        user = await story.auth.users.find(ADA)
        (fault,) = await story.auth.passwords.check(BREACHED, user=user)
        assert fault.code == "password_compromised"
        assert await story.auth.passwords.check(ANOTHER, user=user) == ()
        assert story.auth.passwords.tally.found == 4


@pytest.mark.capability("S0-71", "S3-02")
async def test_an_answer_is_believed_for_an_hour_and_padding_is_no_breach() -> None:
    async with (
        a_range(breached={BREACHED: 1, PASSWORD: 0}) as service,
        telling(features=asking(service)) as story,
    ):
        for _ in range(3):
            (fault,) = await story.auth.passwords.check(BREACHED)
            assert fault.code == "password_compromised"
        assert len(service.requests) == 1
        assert await story.auth.passwords.check(PASSWORD) == ()
        assert len(service.requests) == 2
        story.move(minutes=61)
        await story.auth.passwords.check(BREACHED)
        assert len(service.requests) == 3
        # What is refused anyway is nobody else's business.
        assert await story.auth.passwords.check("aaaaaaaaaaaaaaaa") != ()
        assert len(service.requests) == 3


@pytest.mark.capability("S0-71", "S3-02")
@pytest.mark.standard("1: 6.2.12")
@pytest.mark.parametrize(
    "outage",
    [
        {"is_mute": True},
        {"status": "503 Away"},
        {"status": "302 Found", "headers": "Location: /elsewhere/\r\n"},
        {"body": "<html>sign in to the hotel's network</html>"},
        {"body": f"{'A' * 35}:1\r\n" * 10_000},
        {"body": f"{'A' * 35}"},
    ],
    ids=["mute", "status", "redirect", "page", "large", "no count"],
)
async def test_while_the_service_is_away_the_setting_decides_and_the_list_still_counts(
    outage: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async with a_range(**outage) as service:
        # Only where nothing else ends the wait: a busy machine is slow by itself.
        wait = {"breach_timeout": "200ms"} if service.is_mute else {}
        quick = asking(service, **wait)
        async with telling(features=quick) as story:
            body = problem(await story.register(ADA, "iloveyou"), 422, "validation_failed")
            assert ("password", "password_common") in fields_of(body)
            assert not service.requests
            assert (await story.register()).status_code == 201
            assert story.auth.passwords.tally.failed == 1
            assert len(service.requests) <= 1  # no redirect was followed
            assert "was breached is not known" in caplog.text
        async with telling(features=asking(service, breach_failure="deny", **wait)) as story:
            refused = await story.register()
            problem(refused, 503, "breach_check_unavailable")
            assert int(refused.headers["retry-after"]) > 0
            assert await story.auth.users.by_email(ADA) is None
            with pytest.raises(BreachCheckUnavailable):
                await story.auth.passwords.hashed(PASSWORD)
    digest = hashlib.sha1(PASSWORD.encode()).hexdigest()
    assert digest[:5] not in caplog.text.lower()
    assert PASSWORD not in caplog.text


@pytest.mark.capability("S0-71", "S3-02", "DEF-32")
async def test_nothing_leaves_unless_it_is_switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[object] = []

    async def connect(*given: Any, **named: Any) -> Any:
        called.append((given, named))
        raise OSError("nothing may leave")

    monkeypatch.setattr(asyncio.BaseEventLoop, "create_connection", connect)
    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", connect)
    monkeypatch.setattr(socket.socket, "connect", called.append)
    async with a_range() as service, telling(features=but(breach_url=service.url)) as story:
        await story.join()
        token = (await story.log_in())["access_token"]
        assert (await change(story, token, ANOTHER)).status_code == 204
        assert (await reset(story, await reset_token(story), BREACHED)).status_code == 204
        assert await story.auth.passwords.check(PASSWORD) == ()
        assert not service.requests
    assert not called
    # The watch is no blind one: switched on, it is seen.
    async with a_range() as service, telling(features=asking(service)) as story:
        await story.auth.passwords.check(PASSWORD)
    assert called


@pytest.mark.invariant("I-04")
async def test_nobody_is_asked_while_a_transaction_is_open() -> None:
    async with a_range() as service, telling(features=asking(service)) as story:
        async with story.auth.store.transaction():
            with pytest.raises(RuntimeError, match="transaction"):
                await story.auth.passwords.check(PASSWORD)
        assert not service.requests


@pytest.mark.capability("S0-71")
async def test_only_https_is_asked_beyond_development_at_this_machine() -> None:
    for url, options in (
        ("http://127.0.0.1:9/", PRODUCTION),
        ("http://range.example/", {}),
    ):
        features = but(check_breaches=True, breach_url=url)
        with pytest.raises(ConfigurationError, match="must be https"):
            async with telling(features=features, **options):
                pass


@pytest.mark.capability("S3-02")
async def test_a_checker_of_ones_own_is_asked_instead() -> None:
    class Own:
        asked: ClassVar[list[str]] = []

        async def is_breached(self, password: str) -> bool:
            self.asked.append(password)
            if password == ANOTHER:
                raise BreachesUnknown("away")
            return password == BREACHED

    features = but(check_breaches=True, breach_checker=Own())
    async with telling(features=features) as story:
        body = problem(await story.register(ADA, BREACHED), 422, "validation_failed")
        assert fields_of(body) == {("password", "password_compromised")}
        assert (await story.register(ADA, ANOTHER)).status_code == 201
        assert Own.asked == [BREACHED, ANOTHER]


# At sign-in


async def known_to_others(story: Story, database: str, password: str = COMMON) -> None:
    """Somebody whose password was set under an older policy."""
    async with telling(database, features=but(**LENIENT), secret=story.auth.core.secret) as older:
        assert (await older.register(ADA, password)).status_code == 201


@pytest.mark.standard("1: 6.2.10")
@pytest.mark.capability("S0-70")
@pytest.mark.invariant("I-01", "I-05")
async def test_a_common_password_owes_another_before_there_is_a_session(database_url: str) -> None:
    async with telling(database_url) as story:
        await known_to_others(story, database_url)
        problem(await login(story, "not the password"), 401, "invalid_credentials")
        body = problem(await login(story, COMMON), 401, "password_change_required")
        assert body["reason"] == "common"
        assert "access_token" not in body
        user = await story.auth.users.find(ADA)
        assert (await story.auth.sessions.page(user)).items == ()
        going_on = {"challenge": body["challenge"]}
        again = await story.client.post("/auth/login/continue", json=going_on)
        problem(again, 401, "password_change_required")
        weak = problem(
            await replace(story, body["challenge"], "aaaaaaaaaaaaaaaa"), 422, "validation_failed"
        )
        assert fields_of(weak) == {("new_password", "password_too_guessable")}
        answer = await replace(story, body["challenge"])
        assert answer.status_code == 200, answer.text
        assert (await story.me(answer.json()["access_token"])).status_code == 200
        # It works once, the old password is gone and the new one owes nothing.
        problem(await replace(story, body["challenge"]), 401, "invalid_token")
        problem(await login(story, COMMON), 401, "invalid_credentials")
        assert (await login(story, ANOTHER)).status_code == 200


@pytest.mark.standard("1: 6.2.10")
async def test_a_breached_password_owes_another_and_an_outage_keeps_nobody_out() -> None:
    async with a_range() as service, telling(features=asking(service)) as story:
        await story.register(ADA, BREACHED)
        assert (await login(story, BREACHED)).status_code == 200
        service.breached[BREACHED] = 1
        story.move(hours=2)
        body = problem(await login(story, BREACHED), 401, "password_change_required")
        assert body["reason"] == "compromised"
        # What was found stays found while nobody answers; whoever changes it goes on.
        service.status = "503 Away"
        story.move(hours=2)
        body = problem(await login(story, BREACHED), 401, "password_change_required")
        assert (await replace(story, body["challenge"])).status_code == 200
    async with (
        a_range(status="503 Away") as service,
        telling(features=asking(service, breach_failure="deny")) as story,
    ):
        service.status = "200 OK"
        assert (await story.register()).status_code == 201
        service.status = "503 Away"
        story.move(hours=2)
        assert (await login(story)).status_code == 200


@pytest.mark.standard("1: 6.2.10")
async def test_nothing_is_owed_where_it_is_switched_off_and_no_password_grows_old(
    sqlite_url: str,
) -> None:
    async with telling(sqlite_url, features=but(**LENIENT)) as story:
        assert (await story.register(ADA, COMMON)).status_code == 201
        assert (await login(story, COMMON)).status_code == 200
    async with telling() as story:
        await story.register()
        story.move(days=730)
        assert (await login(story)).status_code == 200


@pytest.mark.invariant("I-01", "I-05")
@pytest.mark.capability("S0-32")
async def test_what_the_old_password_began_is_over_when_the_owed_one_is_set(
    database_url: str,
) -> None:
    async with telling(database_url) as story, browser(story.app) as other:
        await known_to_others(story, database_url)
        store = story.auth.store
        user = await story.auth.users.find(ADA)
        first = problem(await login(story, COMMON), 401, "password_change_required")
        second = problem(await login(story, COMMON), 401, "password_change_required")
        await store.update(Password, where(user_id=user.id), change_owed="")
        async with telling(
            database_url, features=but(**LENIENT), secret=story.auth.core.secret
        ) as older:
            stolen = (await older.log_in(ADA, COMMON))["access_token"]
        story.move(minutes=1)  # its clock stood still meanwhile
        assert (await story.me(stolen)).status_code == 200
        await store.update(Password, where(user_id=user.id), change_owed="common")
        # Of two that race one sets it; the other's sign-in is over like all else.
        answers = await asyncio.gather(
            replace(story, first["challenge"], ANOTHER),
            replace(story, second["challenge"], BREACHED),
        )
        assert sorted(answer.status_code for answer in answers) == [200, 401]
        problem(await story.me(stolen), 401, "revoked_token")
        won = ANOTHER if answers[0].status_code == 200 else BREACHED
        assert (await login(story, won)).status_code == 200
        # A thief of the challenge has another browser.
        await story.auth.passwords.require_change(user.id)
        owed = problem(await login(story, won), 401, "password_change_required")
        other.headers["User-Agent"] = "another"
        body = {"challenge": owed["challenge"], "new_password": PASSWORD}
        problem(await other.post("/auth/password/change-required", json=body), 401, "invalid_token")
        problem(await replace(story, owed["challenge"], PASSWORD), 401, "invalid_token")


@pytest.mark.standard("1: 6.2.10", "3: 6.4.1")
async def test_an_operator_asks_for_another_and_it_must_be_another(database_url: str) -> None:
    heard: list[object] = []
    async with telling(database_url) as story:
        await story.join()

        async def hear(event: object) -> None:
            heard.append(event)

        story.auth.events.on(PasswordDistrusted, hear)
        story.auth.events.on(PasswordChanged, hear)
        token = (await story.log_in())["access_token"]
        user = await story.auth.users.find(ADA)
        await story.auth.passwords.require_change(user.id)
        problem(await story.me(token), 401, "revoked_token")
        body = problem(await login(story), 401, "password_change_required")
        assert body["reason"] == "operator"
        same = problem(await replace(story, body["challenge"], PASSWORD), 422, "validation_failed")
        assert fields_of(same) == {("new_password", "password_unchanged")}
        assert (await replace(story, body["challenge"])).status_code == 200
        assert [(type(each).__name__, each.why) for each in heard] == [  # type: ignore[attr-defined]
            ("PasswordDistrusted", "operator"),
            ("PasswordChanged", "owed"),
        ]
        # A reset pays it as well.
        await story.auth.passwords.require_change(user.id)
        assert (await reset(story, await reset_token(story), PASSWORD)).status_code == 204
        assert (await login(story)).status_code == 200
        with pytest.raises(UserNotFound):
            await story.auth.passwords.require_change("nobody")


@pytest.mark.capability("DEF-15", "S2-20")
async def test_a_disabled_account_hears_nothing_of_its_password(sqlite_url: str, work: Any) -> None:
    async with telling(sqlite_url) as story:
        await known_to_others(story, sqlite_url)
        user = await story.auth.users.find(ADA)
        await story.auth.users.disable(user.id)
        problem(await login(story, COMMON), 403, "account_disabled")
        stored = await story.auth.store.get(Password, user_id=user.id)
        assert stored is not None
        assert stored.change_owed == ""


async def test_a_challenge_of_something_else_sets_no_password(sqlite_url: str) -> None:
    """What another step owes comes first, and what owes nothing changes nothing."""
    environ = {"WATCHWORD_VERIFICATION__EMAIL_VERIFICATION": "required"}
    async with telling(sqlite_url, environ=environ) as story:
        assert (await story.register(EVE)).status_code == 202
        body = {"email": EVE, "password": PASSWORD}
        owed = problem(await story.client.post("/auth/login", json=body), 403, "email_not_verified")
        problem(await replace(story, owed["challenge"]), 403, "email_not_verified")
        user = await story.auth.users.find(EVE)
        await story.auth.passwords.require_change(user.id)
        owed = problem(await story.client.post("/auth/login", json=body), 403, "email_not_verified")
        problem(await replace(story, owed["challenge"]), 403, "email_not_verified")
        assert await story.auth.passwords.prove(user, PASSWORD)
        await story.client.post("/auth/verify-email-request", json={"email": EVE})
        assert (await story.verify(EVE)).status_code == 204
        owed = problem(
            await story.client.post("/auth/login", json=body), 401, "password_change_required"
        )
        assert (await replace(story, owed["challenge"])).status_code == 200
        problem(await replace(story, "wwh" + "_nothing"), 401, "invalid_token")
