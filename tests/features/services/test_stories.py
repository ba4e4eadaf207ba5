"""Services that call one another: for exactly one other, for a while, until it is ended."""

import asyncio
import time
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from tests.features.services.pair import SCOPE, claims_of, pair
from tests.told import ADA, problem
from watchword.features.services import (
    ServiceAlreadyExists,
    ServiceEnded,
    ServiceGranted,
    ServiceNotFound,
)
from watchword.kernel.errors import InvalidInput
from watchword.testing.story import bearer

HEARD_WITHIN = 5.0  # seconds of real time; milliseconds as a rule


@pytest.mark.capability("S1-20")
@pytest.mark.invariant("I-02", "I-10")
async def test_a_service_calls_another_and_that_one_only(database_url: str, work: Any) -> None:
    async with pair(database_url) as two:
        token = await two.token()
        header, claims = claims_of(token)
        assert token.startswith("wwx_")
        assert header["typ"] == "service+jwt"
        lives = claims.pop("exp") - claims.pop("iat")
        assert lives == 3600
        assert len(claims.pop("jti")) == 26
        granted = await two.billing.auth.services.find("billing")
        assert claims == {
            "iss": "http://localhost:8000",
            "aud": "reports",
            "sub": "service:billing",
            "scope": SCOPE,
            "gid": granted.id,
        }
        with work.watched() as done:
            answer = await two.call(token)
        assert done["get ServiceGrant"] == 1
        assert answer.json() == {"kind": "service", "id": "service:billing", "scopes": [SCOPE]}
        with work.watched() as done:
            assert (await two.call(token)).status_code == 200
        assert not done  # a hit asks nobody
        own = await two.billing.client.get("/figures", headers=bearer(token))
        problem(own, 401, "invalid_token")  # not its own audience


@pytest.mark.capability("S1-20")
async def test_a_service_is_no_user_and_no_administrator(sqlite_url: str) -> None:
    async with pair(sqlite_url) as two:
        token = await two.token()
        assert (await two.call(token, "/both")).json() == "service:billing"
        for path in ("/mine", "/accepted", "/anybody", "/admin", "/auth/me"):
            problem(await two.call(token, path), 403, "forbidden")
        narrow = await two.billing.auth.services.grant("narrow", audience=["reports", "other"])
        assert narrow.audiences == ("reports", "other")
        unscoped = await two.billing.auth.services.token("narrow", audience="reports")
        problem(await two.call(unscoped), 403, "forbidden")
        elsewhere = await two.billing.auth.services.token("narrow", audience="other")
        problem(await two.call(elsewhere, "/both"), 401, "invalid_token")
        await two.reports.register()
        headers = bearer((await two.reports.log_in())["access_token"])
        assert (await two.reports.client.get("/both", headers=headers)).status_code == 200
        problem(await two.reports.client.get("/figures", headers=headers), 403, "forbidden")


@pytest.mark.capability("S1-20", "S1-42")
@pytest.mark.invariant("I-02", "I-07", "I-09")
async def test_what_is_ended_here_is_refused_there(database_url: str) -> None:
    async with pair(database_url) as two:
        heard: list[tuple[str, str]] = []

        @two.billing.auth.on(ServiceGranted)
        async def granted(event: ServiceGranted) -> None:
            heard.append(("granted", event.name))

        @two.billing.auth.on(ServiceEnded)
        async def ended(event: ServiceEnded) -> None:
            heard.append(("ended", event.name))

        token = await two.token()
        for _ in range(3):
            assert (await two.call(token)).status_code == 200
        assert two.reports.auth.cache.hits > 0
        await two.billing.auth.services.end("billing")
        until = time.monotonic() + HEARD_WITHIN  # its clock stands still: only the feed tells it
        while (answer := await two.call(token)).status_code == 200:
            assert time.monotonic() < until, "still believed"
            await asyncio.sleep(0.001)
        problem(answer, 401, "revoked_token")
        for verb in (
            two.billing.auth.services.end("billing"),
            two.billing.auth.services.find("billing"),
            two.billing.auth.services.token("billing", audience="reports"),
        ):
            with pytest.raises(ServiceNotFound):
                await verb
        anew = await two.token()
        problem(await two.call(token), 401, "revoked_token")
        assert (await two.call(anew)).status_code == 200
        assert heard == [("granted", "billing"), ("ended", "billing"), ("granted", "billing")]
        page = await two.billing.auth.services.page()
        assert sorted(each.ended_at is None for each in page.items) == [False, True]


async def test_of_two_that_add_one_name_one_does(database_url: str) -> None:
    async with pair(database_url) as two:
        tries = await asyncio.gather(
            *(
                told.auth.services.grant("billing", audience="reports")
                for told in (two.billing, two.reports) * 3
            ),
            return_exceptions=True,
        )
        assert Counter(type(each).__name__ for each in tries) == {
            "ServiceGrant": 1,
            ServiceAlreadyExists.__name__: 5,
        }


@pytest.mark.capability("S1-20")
async def test_tokens_and_grants_run_out(sqlite_url: str) -> None:
    async with pair(sqlite_url) as two:
        services, clock = two.billing.auth.services, two.billing.clock

        def move(**by: float) -> None:
            two.billing.move(**by)
            two.reports.move(**by)

        token = await two.token()
        brief = await services.token("billing", audience="reports", ttl=timedelta(minutes=1))
        move(seconds=60)
        problem(await two.call(brief), 401, "expired_token")
        assert (await two.call(token)).status_code == 200
        move(minutes=59)
        problem(await two.call(token), 401, "expired_token")
        for ttl in (timedelta(0), timedelta(hours=24, seconds=1), timedelta(seconds=-1)):
            with pytest.raises(InvalidInput) as caught:
                await services.token("billing", audience="reports", ttl=ttl)
            assert [fault.field for fault in caught.value.faults] == ["ttl"]
        with pytest.raises(InvalidInput) as caught:
            await services.token("billing", audience="billing")
        assert [fault.field for fault in caught.value.faults] == ["audience"]

        until = clock.now() + timedelta(minutes=30)
        await services.grant("brief", audience="reports", scopes=[SCOPE], expires_at=until)
        token = await services.token("brief", audience="reports", ttl=timedelta(hours=24))
        assert claims_of(token)[1]["exp"] == int(until.timestamp())
        assert (await two.call(token)).status_code == 200
        move(minutes=30)
        problem(await two.call(token), 401, "expired_token")
        with pytest.raises(ServiceNotFound):
            await services.token("brief", audience="reports")


async def test_what_cannot_be_a_service_is_refused_field_by_field(sqlite_url: str) -> None:
    async with pair(sqlite_url) as two:
        wrong: list[tuple[str, dict[str, Any]]] = [
            ("name", {"name": ""}),
            ("name", {"name": "Billing"}),
            ("name", {"name": "a b"}),
            ("name", {"name": "x" * 64}),
            ("name", {"name": "billing:admin"}),
            ("audience", {"audience": []}),
            ("audience", {"audience": "a b"}),
            ("audience", {"audience": ["x"] + [str(number) for number in range(20)]}),
            ("scopes", {"scopes": ["a b"]}),
            ("scopes", {"scopes": [""]}),
            ("scopes", {"scopes": [str(number) for number in range(21)]}),
            ("expires_at", {"expires_at": two.billing.clock.now()}),
            ("expires_at", {"expires_at": two.billing.clock.now().replace(tzinfo=None)}),
        ]
        for field, change in wrong:
            fields: dict[str, Any] = {"name": "billing", "audience": "reports", **change}
            with pytest.raises(InvalidInput) as caught:
                await two.billing.auth.services.grant(**fields)
            assert {fault.field for fault in caught.value.faults} == {field}


@pytest.mark.invariant("I-02", "I-25")
@pytest.mark.parametrize("check", ["stateful", "stateless"])
async def test_whatever_tokens_are_believed_a_grant_is_read(check: Any, sqlite_url: str) -> None:
    async with pair(sqlite_url, token_check=check) as two:
        token = await two.token()
        assert await two.reports.auth.services.believe(token) is None
        assert (await two.call(token)).status_code == 200
        await two.reports.auth.services.end("billing")
        problem(await two.call(token), 401, "revoked_token")


async def test_two_workers_of_one_service_sign_what_either_verifies(database_url: str) -> None:
    async with pair(database_url) as two:
        await two.token()
        token = await two.reports.auth.services.token("billing", audience="reports")
        assert (await two.call(token)).status_code == 200
        await two.billing.register(ADA)
        assert await two.billing.auth.users.by_email(ADA) is not None
