"""Sessions under attack: other sites, other credentials, other people's cookies."""

import pytest

from tests.told import (
    ADA,
    ANOTHER,
    EVE,
    ORIGIN,
    PASSWORD,
    browser,
    cookie_session,
    csrf_of,
    problem,
    telling,
)
from watchword import CurrentUser
from watchword.features.sessions import Session
from watchword.storage.store import Paging
from watchword.testing.story import bearer

FORM = "application/x-www-form-urlencoded"
CROSS_SITE = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Site": "nonsense"},
    {"Sec-Fetch-Site": "cross-site", "Origin": ORIGIN},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://sub.localhost:8000"},
    {"Origin": "http://localhost:8001"},
    {"Origin": "https://localhost:8000"},
    {"Origin": "http://localhost:8000.evil.example"},
    {"Origin": ""},
]


@pytest.mark.invariant("I-21")
@pytest.mark.standard("13: 3.5.1-2")
@pytest.mark.parametrize("headers", CROSS_SITE, ids=repr)
async def test_another_site_changes_nothing_whatever_token_it_has(headers: dict[str, str]) -> None:
    async with telling() as story, browser(story.app) as client:
        await story.register()
        csrf = await cookie_session(story, client)
        for method, path in (
            ("POST", "/auth/logout"),
            ("PATCH", "/auth/me"),
            ("DELETE", "/auth/me"),
            ("POST", "/auth/password/change"),
            ("POST", "/auth/reauthenticate"),
        ):
            answer = await client.request(method, path, json={}, headers={**headers, **csrf})
            problem(answer, 403, "csrf_refused")
        assert (await client.get("/auth/me", headers=headers)).status_code == 200


@pytest.mark.invariant("I-21")
@pytest.mark.parametrize(
    "headers", [{}, {"Sec-Fetch-Site": "same-origin"}, {"Origin": ORIGIN}], ids=repr
)
async def test_our_own_pages_need_the_token_of_this_session(headers: dict[str, str]) -> None:
    async with telling() as story, browser(story.app) as client, browser(story.app) as eve:
        await story.register(ADA)
        await story.register(EVE)
        right = await cookie_session(story, client)
        others = await cookie_session(story, eve, email=EVE)
        value = right["X-CSRF-Token"]
        for wrong in (
            {},
            {"X-CSRF-Token": ""},
            {"X-CSRF-Token": "x" * 66},
            {"X-CSRF-Token": value[:-2] + ("AA" if value[-2:] != "AA" else "BB")},
            {"X-CSRF-Token": value.partition(".")[2]},
            {"X-CSRF-Token": value + value},
            {"X-CSRF-Token": client.cookies["session"]},
            {"X-CSRF-Token": b"\xff\xfe"},
            others,
        ):
            answer = await client.post("/auth/logout", headers={**headers, **wrong})  # type: ignore[dict-item]
            problem(answer, 403, "csrf_refused")
        twice = [*headers.items(), ("X-CSRF-Token", value), ("X-CSRF-Token", value)]
        problem(await client.post("/auth/logout", headers=twice), 403, "csrf_refused")
        accepted = await client.post("/auth/logout", headers={**headers, **right})
        assert accepted.status_code == 204


@pytest.mark.invariant("I-21")
async def test_a_form_of_the_apps_own_carries_the_token_in_a_field(database_url: str) -> None:
    async with telling(database_url) as story, browser(story.app) as client:

        @story.app.post("/boats")
        async def book(user: CurrentUser) -> str:
            return user.email

        await story.register()
        token = (await cookie_session(story, client))["X-CSRF-Token"]
        own = {"Origin": ORIGIN}
        booked = await client.post("/boats", data={"csrf_token": token, "x": "1"}, headers=own)
        assert (booked.status_code, booked.json()) == (200, ADA)
        for wrong in ({"x": "1"}, {"csrf_token": "x"}, {"csrf_token": ""}, {}):
            answer = await client.post("/boats", data=wrong, headers=own)
            problem(answer, 403, "csrf_refused")
        twice = f"csrf_token={token}&csrf_token={token}"
        answer = await client.post("/boats", content=twice, headers={**own, "Content-Type": FORM})
        assert answer.status_code in (403, 422)
        foreign = await client.post(
            "/boats", data={"csrf_token": token}, headers={"Origin": "https://evil.example"}
        )
        problem(foreign, 403, "csrf_refused")


@pytest.mark.invariant("I-21")
async def test_bearer_is_exempt_because_it_authenticated_not_because_it_is_there() -> None:
    async with telling() as story, browser(story.app) as client:
        await story.register()
        token = (await story.log_in())["access_token"]
        change = {"username": "Ada"}
        evil = {"Origin": "https://evil.example"}
        answer = await client.patch("/auth/me", json=change, headers={**bearer(token), **evil})
        assert answer.status_code == 200
        await cookie_session(story, client)
        for header in ("Bearer x", "Bearer ", "bearer", "Basic eDp5", "x", ""):
            answer = await client.patch(
                "/auth/me", json={"username": "Eve"}, headers={"Authorization": header, **evil}
            )
            assert answer.status_code in (401, 403), header
        assert (await client.get("/auth/me")).json()["username"] == "Ada"


@pytest.mark.invariant("I-03")
@pytest.mark.standard("CVE row 32")
async def test_a_token_in_the_cookie_and_a_cookie_in_the_header_prove_nothing(
    database_url: str,
) -> None:
    async with telling(database_url) as story, browser(story.app) as client:
        await story.register()
        tokens = await story.log_in()
        await cookie_session(story, client)
        cookie = client.cookies["session"]
        csrf = client.cookies["csrf"]
        for value in (tokens["access_token"], tokens["refresh_token"], csrf):
            async with browser(story.app, Cookie=f"session={value}") as thief:
                problem(await thief.get("/auth/me"), 401, "invalid_token")
        for value in (cookie, tokens["refresh_token"], csrf):
            problem(await story.me(value), 401, "invalid_token")
        assert (await story.me(tokens["access_token"])).status_code == 200
        problem(await story.me(cookie), 401, "invalid_token")  # after a hit on both


@pytest.mark.invariant("I-21")
@pytest.mark.parametrize(
    "form",
    [
        "session={0}; session={1}",
        "session={0};session={0}",
        "session=; session={0}",
        "a=b; session={0}; session=x",
    ],
)
async def test_a_cookie_given_twice_is_refused(form: str) -> None:
    async with telling() as story, browser(story.app) as ada, browser(story.app) as eve:
        await story.register(ADA)
        await story.register(EVE)
        await cookie_session(story, ada)
        await cookie_session(story, eve, email=EVE)
        header = form.format(ada.cookies["session"], eve.cookies["session"])
        async with browser(story.app, Cookie=header) as client:
            problem(await client.get("/auth/me"), 401, "invalid_token")
        twice = [("Cookie", f"session={each.cookies['session']}") for each in (ada, eve)]
        async with browser(story.app) as client:
            problem(await client.get("/auth/me", headers=twice), 401, "invalid_token")


@pytest.mark.standard("CVE row 21")
async def test_a_user_id_in_the_body_stands_for_nobody(database_url: str) -> None:
    async with telling(database_url) as story:
        made = (await story.register()).json()
        for method, path in (
            ("PATCH", "/auth/me"),
            ("DELETE", "/auth/me"),
            ("POST", "/auth/logout"),
            ("POST", "/auth/password/change"),
            ("POST", "/auth/reauthenticate"),
            ("POST", "/auth/email/change"),
        ):
            for name in ("user_id", "userId", "id", "sub", "session_id", "sid"):
                answer = await story.client.request(method, path, json={name: made["id"]})
                assert answer.status_code in (401, 422), (path, answer.text)
                assert answer.status_code == 401 or path == "/auth/logout"


@pytest.mark.invariant("I-21")
async def test_a_session_id_is_nowhere_proof(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.register()
        await story.log_in()
        page = await story.auth.store.find(Session, Paging(order=("started_at", "id")))
        session_id = page.items[0].id
        problem(await story.me(session_id), 401, "invalid_token")
        for value in (session_id, f"wwc_{session_id}"):
            async with browser(story.app, Cookie=f"session={value}") as thief:
                problem(await thief.get("/auth/me"), 401, "invalid_token")


@pytest.mark.invariant("I-21")
@pytest.mark.standard("13: 3.5.1-2")
@pytest.mark.parametrize("headers", [*CROSS_SITE, {}], ids=repr)
async def test_no_other_site_signs_its_visitor_in(headers: dict[str, str]) -> None:
    async with telling() as story, browser(story.app) as client:
        await story.register()
        form = {"username": ADA, "password": PASSWORD, "transport": "cookie"}
        answer = await client.post("/auth/login", data=form, headers=headers)
        problem(answer, 403, "csrf_refused")
        assert not client.cookies
        if headers:
            body = {"email": ADA, "password": PASSWORD, "transport": "cookie"}
            answer = await client.post("/auth/login", json=body, headers=headers)
            problem(answer, 403, "csrf_refused")
            assert not client.cookies


@pytest.mark.standard("13: 3.5.3")
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "TRACE"])
async def test_nothing_changes_but_by_the_methods_meant_for_it(method: str) -> None:
    async with telling() as story, browser(story.app) as client:
        await story.join()
        csrf = await cookie_session(story, client)
        await story.client.post("/auth/password-reset-request", json={"email": ADA})
        await story.mails()
        token = story.outbox.token(ADA, "wwp")
        for path in (
            "/auth/logout",
            f"/auth/verify-email?token={token}",
            f"/auth/password-reset?token={token}&new_password={ANOTHER}",
            "/auth/email/confirm",
            "/auth/me?_method=DELETE",
        ):
            headers = {**csrf, "X-HTTP-Method-Override": "DELETE"}
            answer = await client.request(method, path, headers=headers)
            assert answer.status_code in (200, 405), answer.text
        assert (await client.get("/auth/me")).json()["email"] == ADA
        await story.log_in()


@pytest.mark.invariant("I-21")
async def test_the_token_of_an_older_session_does_not_fit_the_new_one(database_url: str) -> None:
    async with telling(database_url) as story, browser(story.app) as client:
        await story.register()
        old = await cookie_session(story, client)
        await cookie_session(story, client)
        problem(await client.post("/auth/logout", headers=old), 403, "csrf_refused")
        assert (await client.post("/auth/logout", headers=csrf_of(client))).status_code == 204
