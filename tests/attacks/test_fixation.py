"""Cookies that somebody else put into the browser: fixed sessions, tossed ones, forced logins."""

from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest

from tests.attacks.owing import Owing
from tests.told import (
    ADA,
    ANOTHER,
    ENVIRON,
    EVE,
    ORIGIN,
    PASSWORD,
    PRODUCTION,
    SITE,
    Story,
    browser,
    cookie_session,
    csrf_of,
    problem,
    telling,
)
from watchword.testing.story import bearer, without_limits

PLANTED = f"wwc_{'A' * 43}"
TRANSPORTS = ("cookie", "hybrid", "cookie_pair")


@pytest.fixture
async def owing() -> Owing:
    return Owing()


@pytest.fixture
async def story(owing: Owing) -> AsyncGenerator[Story, None]:
    environ = {**ENVIRON, "WATCHWORD_TOKENS__COOKIE_PAIR": "true"}
    async with telling(environ=environ, features=[*without_limits(), owing.feature()]) as told:
        for email in (ADA, EVE):
            await told.auth.passwords.create_user(email=email, password=PASSWORD, is_verified=True)
        yield told


def plant(client: httpx.AsyncClient, **cookies: str) -> None:
    """What a sub-domain, or somebody on the wire of plain http, can do."""
    for name, value in cookies.items():
        client.cookies.set(name, value)


async def who(client: httpx.AsyncClient, **headers: str) -> str | None:
    answer = await client.get("/auth/me", headers=headers)
    return answer.json()["email"] if answer.status_code == 200 else None


async def with_cookies(story: Story, **cookies: str) -> str | None:
    async with browser(story.app) as client:
        plant(client, **cookies)
        return await who(client)


async def sign_in(client: httpx.AsyncClient, email: str, transport: str, **more: Any) -> Any:
    body = {"email": email, "password": PASSWORD, "transport": transport, **more}
    return await client.post("/auth/login", json=body)


@pytest.mark.invariant("I-03", "I-21")
@pytest.mark.standard("6: 7.2.4")
@pytest.mark.parametrize("planted", [PLANTED, "chosen", "", f'"{PLANTED}"'], ids=repr)
async def test_a_planted_session_cookie_is_replaced_and_never_adopted(
    story: Story, planted: str
) -> None:
    async with browser(story.app, Cookie=f"session={planted}") as client:
        answer = await sign_in(client, ADA, "cookie")
        assert answer.status_code == 200
        given = answer.cookies["session"]
    assert given != planted
    assert await with_cookies(story, session=given) == ADA
    assert await with_cookies(story, session=planted) is None


@pytest.mark.invariant("I-03", "I-21")
@pytest.mark.standard("6: 7.2.4")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_whoever_signs_in_over_anothers_session_shares_nothing_with_it(
    story: Story, transport: str
) -> None:
    async with browser(story.app) as eve, browser(story.app) as ada:
        await cookie_session(story, eve, email=EVE)
        theirs = eve.cookies["session"]
        # Planted in Ada's browser: she is Eve there until she signs in, and Eve never is Ada.
        async with browser(story.app, Cookie=f"session={theirs}") as client:
            answer = await sign_in(client, ADA, transport)
            assert answer.status_code == 200
        assert theirs not in answer.cookies.values()
        plant(ada, **dict(answer.cookies.items()))
        token = answer.json().get("access_token")
        assert await who(ada, **(bearer(token) if token else {})) == ADA
        assert await with_cookies(story, session=theirs) in (None, EVE)


@pytest.mark.invariant("I-03", "I-15")
@pytest.mark.standard("6: 7.2.4")
async def test_every_rise_of_privilege_brings_another_cookie(story: Story, owing: Owing) -> None:
    async with browser(story.app) as client:
        await cookie_session(story, client)
        seen = [client.cookies["session"]]
        body = {"method": "password", "password": PASSWORD}
        answer = await client.post("/auth/reauthenticate", json=body, headers=csrf_of(client))
        assert answer.status_code == 204
        seen.append(client.cookies["session"])
        ada = await story.auth.users.find(ADA)
        owing.debtors.add(ada.id)
        owed = await client.post("/auth/reauthenticate", json=body, headers=csrf_of(client))
        challenge = owed.json()["challenge"]
        owing.debtors.discard(ada.id)
        answer = await client.post(
            "/auth/reauthenticate/continue", json={"challenge": challenge}, headers=csrf_of(client)
        )
        assert answer.status_code == 204, answer.text
        seen.append(client.cookies["session"])
        await sign_in(client, ADA, "cookie")
        seen.append(client.cookies["session"])
        assert len(set(seen)) == len(seen)
        for old in seen[:-1]:
            assert await with_cookies(story, session=old) is None
        assert await who(client) == ADA


@pytest.mark.invariant("I-03", "I-21")
@pytest.mark.standard("6: 7.2.4", "CVE row 25")
async def test_a_planted_cookie_does_not_ride_along_while_something_is_owed(
    story: Story, owing: Owing
) -> None:
    ada = await story.auth.users.find(ADA)
    owing.debtors.add(ada.id)
    async with browser(story.app, Cookie=f"session={PLANTED}") as client:
        owed = await sign_in(client, ADA, "cookie")
        assert owed.status_code == 403
        assert not {"session", "access", "refresh", "csrf"} & owed.cookies.keys()
        held = "; ".join(f"{name}={value}" for name, value in owed.cookies.items())
        assert await who(client, Cookie=f"session={PLANTED}; {held}") is None
        owing.debtors.clear()
        answer = await client.post(
            "/auth/login/continue",
            json={"challenge": owed.json()["challenge"]},
            headers={"Cookie": f"session={PLANTED}; {held}"},
        )
        assert answer.status_code == 200, answer.text
        assert answer.cookies["session"] != PLANTED
    assert await with_cookies(story, session=answer.cookies["session"]) == ADA
    assert await with_cookies(story, session=PLANTED) is None


@pytest.mark.invariant("I-21")
@pytest.mark.standard("13: 3.5.1-2", "CVE row 25")
async def test_nobody_is_signed_in_with_an_attackers_challenge(story: Story, owing: Owing) -> None:
    eve = await story.auth.users.find(EVE)
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}, {}):
        owing.debtors.add(eve.id)
        async with browser(story.app, User_Agent="Eve's") as attacker:
            owed = await sign_in(attacker, EVE, "cookie")
            challenge = owed.json()["challenge"]
        owing.debtors.clear()
        async with browser(story.app, User_Agent="Ada's") as victim:
            answer = await victim.post(
                "/auth/login/continue", json={"challenge": challenge}, headers=headers
            )
            assert answer.status_code in (401, 403), answer.text
            assert "session" not in victim.cookies
            assert await who(victim) is None


@pytest.mark.invariant("I-21")
@pytest.mark.standard("13: 3.5.1-2")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_no_other_site_signs_its_visitor_in_as_somebody(story: Story, transport: str) -> None:
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ):
        async with browser(story.app) as victim:
            body = {"email": EVE, "password": PASSWORD, "transport": transport}
            form = {"username": EVE, **body}
            for answer in (
                await victim.post("/auth/login", headers=headers, json=body),
                await victim.post("/auth/login", headers=headers, data=form),
            ):
                problem(answer, 403, "csrf_refused")
            # A simple request with JSON in it: text/plain needs no preflight.
            answer = await victim.post(
                "/auth/login",
                content=httpx.Request("POST", ORIGIN, json=body).content,
                headers={**headers, "Content-Type": "text/plain"},
            )
            assert answer.status_code in (403, 415)
            assert not {"session", "access", "refresh"} & victim.cookies.keys()


@pytest.mark.invariant("I-21")
@pytest.mark.standard("13: 3.5.1-2")
async def test_a_planted_pair_of_csrf_cookie_and_header_proves_nothing(story: Story) -> None:
    async with browser(story.app) as ada, browser(story.app) as eve:
        right = await cookie_session(story, ada)
        theirs = await cookie_session(story, eve, email=EVE)
        session = ada.cookies["session"]
        made_up = f"{'A' * 22}.{int(story.clock.now().timestamp())}.{'B' * 43}"
        for value in (theirs["X-CSRF-Token"], made_up, "x", "", session):
            for method, path in (("POST", "/auth/logout"), ("PATCH", "/auth/me")):
                async with browser(story.app, Cookie=f"session={session}; csrf={value}") as client:
                    answer = await client.request(
                        method, path, json={}, headers={"X-CSRF-Token": value}
                    )
                    problem(answer, 403, "csrf_refused")
        # Nor does a planted cookie stand in the way of the right token.
        async with browser(story.app, Cookie=f"session={session}; csrf=planted") as client:
            assert (await client.post("/auth/logout", headers=right)).status_code == 204


@pytest.mark.invariant("I-21")
@pytest.mark.parametrize("order", ["{ours}; {theirs}", "{theirs}; {ours}"])
@pytest.mark.parametrize("name", ["session", "access", "refresh"])
async def test_a_tossed_cookie_beside_ours_is_refused_in_either_order(
    story: Story, name: str, order: str
) -> None:
    transport = {"session": "cookie", "access": "cookie_pair", "refresh": "hybrid"}[name]
    async with browser(story.app) as ada, browser(story.app) as eve:
        for client, email in ((ada, ADA), (eve, EVE)):
            assert (await sign_in(client, email, transport)).status_code == 200
        ours, theirs = (f"{name}={client.cookies[name]}" for client in (ada, eve))
        for csrf in (csrf_of(ada), csrf_of(eve), {}):
            header = {"Cookie": order.format(ours=ours, theirs=theirs), **csrf}
            async with browser(story.app) as client:
                if name == "refresh":
                    answer = await client.post("/auth/refresh", headers=header)
                else:
                    answer = await client.get("/auth/me", headers=header)
                problem(answer, 401, "invalid_token")
        # Neither of them was used up by it.
        answer = await ada.post("/auth/refresh", headers=csrf_of(ada))
        assert answer.status_code == (401 if name == "session" else 200), answer.text


@pytest.mark.invariant("I-14", "I-21")
async def test_a_planted_refresh_cookie_needs_the_token_of_its_own_session(story: Story) -> None:
    async with browser(story.app) as ada, browser(story.app) as eve:
        for client, email in ((ada, ADA), (eve, EVE)):
            assert (await sign_in(client, email, "hybrid")).status_code == 200
        theirs = eve.cookies["refresh"]
        async with browser(story.app, Cookie=f"refresh={theirs}") as victim:
            answer = await victim.post("/auth/refresh", headers=csrf_of(ada))
            problem(answer, 403, "csrf_refused")
            problem(await victim.post("/auth/refresh"), 403, "csrf_refused")
            cross = {**csrf_of(eve), "Sec-Fetch-Site": "cross-site"}
            problem(await victim.post("/auth/refresh", headers=cross), 403, "csrf_refused")
        assert (await eve.post("/auth/refresh", headers=csrf_of(eve))).status_code == 200


@pytest.mark.invariant("I-21")
async def test_a_planted_device_cookie_names_a_device_and_nobody(story: Story) -> None:
    async with browser(story.app) as eve:
        await cookie_session(story, eve, email=EVE)
        device, theirs = eve.cookies["device"], eve.cookies["session"]
    async with browser(story.app, Cookie=f"device={device}") as client:
        assert await who(client) is None
        answer = await client.post("/auth/refresh")
        assert answer.status_code == 401
        answer = await sign_in(client, ADA, "cookie", password="wrong horse battery staple")
        problem(answer, 401, "invalid_credentials")
        answer = await sign_in(client, ADA, "cookie")
        assert answer.status_code == 200
        session = answer.cookies["session"]
    # Two users of one device see their own sessions and end their own.
    async with browser(story.app, Cookie=f"session={session}; device={device}") as ada:
        listed = (await ada.get("/auth/sessions")).json()["items"]
        assert [each["current"] for each in listed] == [True]
        answer = await ada.post(
            "/auth/logout-all", headers={"X-CSRF-Token": answer.cookies["csrf"]}
        )
        assert answer.status_code == 204
    assert await with_cookies(story, session=theirs) == EVE


@pytest.mark.standard("CVE row 43")
@pytest.mark.parametrize("transport", ["bearer", *TRANSPORTS])
async def test_one_browser_two_users_each_gets_their_own(story: Story, transport: str) -> None:
    async with browser(story.app) as client:
        first = await sign_in(client, ADA, transport)
        kept = dict(client.cookies.items())
        # She signs out without her cookie, so her session lives on; then he sits down.
        for name in ("session", "access", "refresh", "csrf"):
            client.cookies.pop(name, None)
        assert (await client.post("/auth/logout")).status_code == 401
        second = await sign_in(client, EVE, transport)
        assert second.status_code == 200
        assert second.json()["user"]["email"] == EVE
        token = second.json().get("access_token")
        headers = bearer(token) if token else {}
        assert await who(client, **headers) == EVE
        listed = (await client.get("/auth/sessions", headers=headers)).json()["items"]
        assert len(listed) == 1
        for name in ("session", "access", "refresh", "csrf"):
            if name in kept:
                assert client.cookies[name] != kept[name]
        if "refresh_token" in first.json():
            renewed = await client.post(
                "/auth/refresh", json={"refresh_token": first.json()["refresh_token"]}
            )
            assert await who(client, **bearer(renewed.json()["access_token"])) == ADA


@pytest.mark.invariant("I-10")
async def test_cookie_and_token_of_two_users_are_nobody(story: Story) -> None:
    async with browser(story.app) as ada:
        await cookie_session(story, ada)
        token = (await story.log_in(EVE))["access_token"]
        for _ in range(2):
            answer = await ada.get("/auth/me", headers=bearer(token))
            problem(answer, 401, "conflicting_credentials")
        change = {"current_password": PASSWORD, "new_password": ANOTHER}
        answer = await ada.post(
            "/auth/password/change", json=change, headers={**bearer(token), **csrf_of(ada)}
        )
        problem(answer, 401, "conflicting_credentials")
        await story.log_in(EVE)


@pytest.mark.invariant("I-21")
async def test_in_production_only_prefixed_cookies_count() -> None:
    async with telling(**PRODUCTION) as story:
        await story.auth.passwords.create_user(email=ADA, password=PASSWORD, is_verified=True)
        async with browser(story.app, SITE) as client:
            answer = await sign_in(client, ADA, "cookie")
            cookie = answer.cookies["__Host-session"]
            lines = answer.headers.get_list("set-cookie")
            for line in lines:
                assert line.startswith(("__Host-", "__Secure-"))
                assert "secure" in line.lower()
                assert "domain" not in line.lower()
        for name in (
            *("session", "__Secure-session", "__host-session", "__HOST-SESSION", "Host-session"),
            *(" __Host-session ", "__Host-session2", "x__Host-session", "__Host-Session"),
        ):
            async with browser(story.app, SITE, Cookie=f"{name}={cookie}") as client:
                assert await who(client) is None, name
        async with browser(story.app, SITE, Cookie=f"__Host-session={cookie}") as client:
            assert await who(client) == ADA
