"""CSRF: what a request by cookie must show, and how its token comes and goes."""

import logging
from collections.abc import AsyncGenerator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Response
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Mount

from tests.told import (
    ADA,
    EVE,
    ORIGIN,
    PASSWORD,
    PRODUCTION,
    Story,
    browser,
    cookie_session,
    problem,
    telling,
)
from watchword import CurrentUser, OptionalUser
from watchword.crypto.keys import RootSecrets, generate_secret
from watchword.crypto.signing import Signer
from watchword.features.sessions import Session
from watchword.http.csrf import Csrf, matches
from watchword.kernel.settings import CsrfSettings
from watchword.storage.store import Paging
from watchword.testing import MovableClock
from watchword.testing.story import bearer

FORM = "application/x-www-form-urlencoded"


def writing() -> FastAPI:
    """An app whose routes only say that they were reached."""
    app = FastAPI()

    @app.post("/write")
    @app.put("/write")
    @app.delete("/write")
    @app.patch("/write")
    async def write(user: CurrentUser) -> str:
        return user.email

    @app.get("/read")
    async def read(user: OptionalUser) -> str:
        return user.email if user else "nobody"

    return app


def token_of(story: Story, session: str, **named: Any) -> str:
    """A token made with another secret, purpose or moment than the App would take."""
    secret = named.get("secret", story.auth.core.secret)
    return Csrf(
        signer=Signer(RootSecrets(secret), named.get("purpose", "csrf")),
        origin=ORIGIN,
        settings=story.auth.csrf.settings,
        clock=story.clock,
    ).token_for(session)


@pytest.mark.invariant("I-21")
@pytest.mark.capability("DEF-06", "S0-77", "S0-78", "S0-79", "S1-37", "S1-38")
@pytest.mark.standard("3.5.1-2")
async def test_a_write_by_cookie_needs_a_token_of_its_own_session() -> None:
    async with (
        telling(app=writing(), csrf={"ttl": "10m"}) as story,
        browser(story.app) as ada,
        browser(story.app) as eve,
    ):
        await story.register()
        await story.register(EVE)
        right = await cookie_session(story, ada)
        wrong = await cookie_session(story, eve, email=EVE)
        session = await session_of(story)
        good = right["X-CSRF-Token"]
        nonce, made, mac = good.split(".")
        forged = {
            "none": {},
            "empty": {"X-CSRF-Token": ""},
            "another user's": wrong,
            "unsigned": {"X-CSRF-Token": "x" * 64},
            "a shorter MAC": {"X-CSRF-Token": f"{nonce}.{made}.{mac[:22]}"},
            "no MAC": {"X-CSRF-Token": f"{nonce}.{made}."},
            "another nonce": {"X-CSRF-Token": f"{nonce[::-1]}.{made}.{mac}"},
            "another time": {"X-CSRF-Token": f"{nonce}.{int(made) + 1}.{mac}"},
            "another secret": {"X-CSRF-Token": token_of(story, session, secret=generate_secret())},
            "another purpose": {"X-CSRF-Token": token_of(story, session, purpose="app:csrf")},
            "another session": {"X-CSRF-Token": token_of(story, session[::-1])},
            "the session's id": {"X-CSRF-Token": session},
            "with a newline": {"X-CSRF-Token": good + " x"},
            "very long": {"X-CSRF-Token": good * 300},
        }
        for name, headers in forged.items():
            for method in ("POST", "PUT", "PATCH", "DELETE"):
                answer = await ada.request(method, "/write", headers=headers)
                assert problem(answer, 403, "csrf_refused"), name
        # A forged pair: the attacker's own token in both, header and cookie.
        pair = {**wrong, "Cookie": f"session={ada.cookies['session']}; csrf={good}"}
        problem(await browser(story.app).post("/write", headers=pair), 403, "csrf_refused")
        twice = [("X-CSRF-Token", good), ("X-CSRF-Token", good)]
        problem(await ada.post("/write", headers=twice), 403, "csrf_refused")
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            assert (await ada.request(method, "/write", headers=right)).json() == ADA
        story.move(minutes=10)
        problem(await ada.post("/write", headers=right), 403, "csrf_refused")


async def session_of(story: Story, email: str = ADA) -> str:
    """The id of somebody's newest session."""
    user = await story.auth.users.find(email)
    newest = Paging(order=("started_at", "id"), descending=True, limit=1)
    return (await story.auth.store.find(Session, newest, user_id=user.id)).items[0].id


@pytest.mark.invariant("I-21")
@pytest.mark.capability("DEF-06")
async def test_what_is_cross_site_is_refused_whatever_the_token() -> None:
    for settings in ({}, {"enabled": False}, {"exempt": ["/write"]}):
        async with telling(app=writing(), csrf=settings) as story, browser(story.app) as ada:
            await story.register()
            right = await cookie_session(story, ada)
            for headers in (
                {"Sec-Fetch-Site": "cross-site"},
                {"Sec-Fetch-Site": "same-site"},
                {"Sec-Fetch-Site": "none"},
                {"Sec-Fetch-Site": ""},
                {"Sec-Fetch-Site": "cross-site", "Origin": ORIGIN},
                {"Origin": "null"},
                {"Origin": "https://evil.example"},
                {"Origin": "http://sub.localhost:8000"},
                {"Origin": "https://localhost:8000"},
                {"Origin": "http://localhost"},
                {"Origin": "HTTP://LOCALHOST:8000"},
                {"Origin": ""},
            ):
                for path in ("/write", "/auth/logout"):
                    answer = await ada.post(path, headers={**right, **headers})
                    problem(answer, 403, "csrf_refused")
            both = [*right.items(), ("Origin", ORIGIN), ("Origin", "https://evil.example")]
            problem(await ada.post("/write", headers=both), 403, "csrf_refused")
            for headers in ({"Sec-Fetch-Site": "same-origin"}, {"Origin": ORIGIN}, {}):
                answer = await ada.post("/write", headers={**right, **headers})
                assert answer.json() == ADA
            without = await ada.post("/write", headers={"Origin": ORIGIN})
            assert (without.status_code == 200) == bool(settings)


@pytest.mark.invariant("I-21")
@pytest.mark.capability("DEF-06", "S1-37")
@pytest.mark.standard("3.5.1-2", "CVE row 51")
async def test_signing_in_and_out_is_covered() -> None:
    async with telling() as story, browser(story.app) as ada, browser(story.app) as eve:
        await story.register()
        await story.register(EVE)
        right = await cookie_session(story, ada)
        problem(await ada.post("/auth/logout"), 403, "csrf_refused")
        assert (await ada.get("/auth/me")).status_code == 200
        # Another site's form would sign the victim in as the attacker.
        form = {"username": EVE, "password": PASSWORD}
        for headers in ({}, {"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            problem(await eve.post("/auth/login", data=form, headers=headers), 403, "csrf_refused")
        plain = {"Content-Type": "text/plain"}
        body = f'{{"email": "{EVE}", "password": "{PASSWORD}"}}'
        answer = await eve.post("/auth/login", content=body, headers=plain)
        problem(answer, 415, "unsupported_media_type")
        assert not eve.cookies
        assert (await ada.post("/auth/logout", headers=right)).status_code == 204
        problem(await ada.get("/auth/me"), 401, "not_authenticated")


@pytest.mark.capability("DEF-06", "S0-79", "S0-80")
async def test_a_form_brings_its_token_in_a_field() -> None:
    async with (
        telling(app=writing()) as story,
        browser(story.app) as ada,
        browser(story.app) as eve,
    ):
        await story.register()
        await story.register(EVE)
        good = (await cookie_session(story, ada))["X-CSRF-Token"]
        other = (await cookie_session(story, eve, email=EVE))["X-CSRF-Token"]
        assert (await ada.post("/write", data={"csrf_token": good})).json() == ADA
        for data in ({"csrf_token": other}, {"csrf_token": ""}, {"token": good}, {}):
            answer = await ada.post("/write", data={"x": "y", **data})
            problem(answer, 403, "csrf_refused")
        twice = f"csrf_token={good}&csrf_token={good}"
        answer = await ada.post("/write", content=twice, headers={"Content-Type": FORM})
        assert answer.status_code in (403, 422)
        answer = await ada.post("/write", json={"csrf_token": good})
        problem(answer, 403, "csrf_refused")
        answer = await ada.post("/write", files={"csrf_token": (None, good)})
        problem(answer, 403, "csrf_refused")
        # A header that came decides: a wrong one is not made good by a field.
        answer = await ada.post(
            "/write", data={"csrf_token": good}, headers={"X-CSRF-Token": other}
        )
        problem(answer, 403, "csrf_refused")


@pytest.mark.invariant("I-21")
async def test_a_bearer_token_needs_no_csrf_token_and_gets_none() -> None:
    async with telling(app=writing()) as story:
        await story.register()
        auth = bearer((await story.log_in())["access_token"])
        crossing = {**auth, "Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
        assert (await story.client.post("/write", headers=crossing)).json() == ADA
        for headers in (auth, {}):
            answer = await story.client.get("/read", headers=headers)
            assert "set-cookie" not in answer.headers


def set_by(answer: httpx.Response) -> dict[str, str]:
    """The cookies that an answer sets, by name."""
    found = [text.partition("=") for text in answer.headers.get_list("set-cookie")]
    return {name: rest for name, _, rest in found}


@pytest.mark.capability("S0-77", "S0-80")
async def test_a_page_that_is_read_renews_the_token_in_time() -> None:
    async with telling(app=writing(), csrf={"ttl": "10m"}) as story, browser(story.app) as ada:
        await story.register()
        first = await cookie_session(story, ada)
        for _ in range(3):
            assert set_by(await ada.get("/read")) == {}
        story.move(minutes=6)
        renewed = set_by(await ada.get("/read"))
        assert list(renewed) == ["csrf"]
        assert renewed["csrf"].split("; ")[1:] == ["Max-Age=2592000", "Path=/", "SameSite=lax"]
        second = {"X-CSRF-Token": ada.cookies["csrf"]}
        for headers in (first, second):  # both fit until they are too old
            assert (await ada.post("/write", headers=headers)).json() == ADA
        story.move(minutes=5)
        problem(await ada.post("/write", headers=first), 403, "csrf_refused")
        assert (await ada.post("/write", headers=second)).json() == ADA
        story.move(minutes=20)
        # Nothing was read for long: our own page gets one with the refusal, and tries again.
        answer = await ada.post("/write", headers={**second, "Origin": ORIGIN})
        problem(answer, 403, "csrf_refused")
        again = {"X-CSRF-Token": ada.cookies["csrf"], "Origin": ORIGIN}
        assert (await ada.post("/write", headers=again)).json() == ADA
        for headers in ({}, {"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "same-site"}):
            assert set_by(await ada.post("/write", headers=headers)) == {}


@pytest.mark.capability("DEF-06", "S0-77")
@pytest.mark.parametrize("planted", ["", "x", "{other}", "twice"])
async def test_a_token_that_does_not_fit_is_replaced_when_a_page_is_read(planted: str) -> None:
    async with telling(app=writing()) as story, browser(story.app) as ada:
        await story.register()
        await cookie_session(story, ada)
        other = token_of(story, "of another session")
        value = planted.format(other=other)
        cookie = f"session={ada.cookies['session']}; csrf={value}"
        if planted == "twice":
            good = ada.cookies["csrf"]
            cookie = f"session={ada.cookies['session']}; csrf={good}; csrf={good}"
        for _ in range(2):  # a miss of the gate's cache, and a hit
            answer = await browser(story.app).get("/read", headers={"Cookie": cookie})
            token = set_by(answer)["csrf"].partition(";")[0]
            headers = {"Cookie": f"session={ada.cookies['session']}", "X-CSRF-Token": token}
            answer = await browser(story.app).post("/write", headers=headers)
            assert answer.json() == ADA


@pytest.mark.capability("S0-77")
async def test_a_token_that_was_used_is_renewed_where_that_is_asked() -> None:
    async with telling(app=writing(), csrf={"rotate": True}) as story, browser(story.app) as ada:
        await story.register()
        first = await cookie_session(story, ada)
        assert set_by(await ada.get("/read")) == {}
        answer = await ada.post("/write", headers=first)
        assert ada.cookies["csrf"] != first["X-CSRF-Token"]
        assert list(set_by(answer)) == ["csrf"]
        answer = await ada.post("/write", data={"csrf_token": ada.cookies["csrf"]})
        assert (answer.json(), list(set_by(answer))) == (ADA, ["csrf"])
        assert set_by(await ada.post("/write", headers={"X-CSRF-Token": "x"})) == {}


def answers() -> FastAPI:
    """Answers of every kind that a cookie must or must not travel with."""
    app = FastAPI()

    def said(path: str, *, status: int = 200, **headers: str) -> None:
        @app.get(path)
        async def answer() -> Response:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return Response("x", status_code=status, headers=named)

    said("/plain")
    said("/private", cache_control="private, max-age=60")
    said("/kept-by-nobody", cache_control="no-store")
    said("/asked-about", cache_control="no-cache", etag='"x"')
    said("/error", status=500)
    said("/missing", status=404)
    said("/public", cache_control="public, max-age=60")
    said("/shared", cache_control="s-maxage=60")
    said("/shared-and-asked-about", cache_control="public, no-cache", etag='"x"')
    said("/partly", cache_control='private="x-user", max-age=60')
    said("/unknown", cache_control="x-private=1, max-age=60")
    said("/aged", cache_control="max-age=60")
    said("/file", etag='"x"', last_modified="Mon, 01 Jan 2024 00:00:00 GMT")
    said("/expires", expires="Mon, 01 Jan 2035 00:00:00 GMT")
    said("/unchanged", status=304, cache_control="private")

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def parts() -> AsyncGenerator[bytes]:
            yield b"x"
            yield b"y"

        return StreamingResponse(parts())

    @app.get("/own")
    async def own(response: Response) -> str:
        response.set_cookie("theirs", "1")
        response.set_cookie("csrf", "their own")
        return "x"

    return app


@pytest.mark.capability("S0-77", "S0-83")
async def test_cookies_travel_with_one_browsers_answers_only() -> None:
    async with telling(app=answers()) as story:
        await story.register()
        ada = browser(story.app)
        await story.log_in(transport="cookie", client=ada)
        living = {"Cookie": f"session={ada.cookies['session']}"}  # its CSRF token is lost
        dead = {"Cookie": "session=wwc_" + "x" * 43}
        for path in (
            *("/plain", "/private", "/kept-by-nobody", "/asked-about", "/error", "/missing"),
            "/stream",
        ):
            for headers, name in ((living, "csrf"), (dead, "session")):
                answer = await browser(story.app).get(path, headers=headers)
                assert list(set_by(answer)) == [name], path
                said = answer.headers["cache-control"].split(", ")
                assert {"private", "no-store"} & set(said), path
                assert answer.text in ("x", "xy")
        for path in (
            *("/public", "/shared", "/aged", "/file", "/expires", "/unchanged"),
            *("/shared-and-asked-about", "/partly", "/unknown"),
        ):
            for headers in (living, dead):
                answer = await browser(story.app).get(path, headers=headers)
                assert set_by(answer) == {}, path
        answer = await browser(story.app).get("/own", headers=living)
        assert set_by(answer) == {
            "theirs": "1; Path=/; SameSite=lax",
            "csrf": '"their own"; Path=/; SameSite=lax',
        }
        taken = set_by(await browser(story.app).get("/own", headers=dead))
        assert sorted(taken) == ["csrf", "session", "theirs"]


@pytest.mark.capability("S0-77", "DEF-26")
@pytest.mark.parametrize(
    ("pattern", "fits", "fits_not"),
    [
        (
            "/hooks/*",
            ["/hooks/a"],
            [
                *("/hooks", "/hooks/", "/hooks/a/b", "/hooks-admin", "/hooksadmin/a", "/Hooks/a"),
                *("//hooks/a", "/hooks//a", "/x/hooks/a", "/hooks/..", "/hooks/.", "/./hooks/a"),
                *("/hooks/%2e%2e", "/hooks/a%2fb", "/hooks\\a", "/hooks/..\\a", "/hooks/a;x"),
                *("/hooks/a\x00", "/hooks/a\n", "hooks", ""),
            ],
        ),
        (
            "/hooks/**",
            ["/hooks", "/hooks/a", "/hooks/a/b/c"],
            ["/hooks/../a", "/hooks/a/../../b", "/hooks//a", "/hooks/", "/hook", "/hooks/a/."],
        ),
        ("/a/**/z", ["/a/z", "/a/b/z", "/a/b/c/z"], ["/a", "/a/b", "/a/../z", "/az"]),
        ("/", ["/"], ["//", "/a", "/."]),
        ("/a/b", ["/a/b"], ["/a/b/", "/a", "/a/b/c", "/a/B"]),
    ],
)
def test_a_pattern_fits_whole_segments(pattern: str, fits: list[str], fits_not: list[str]) -> None:
    assert [path for path in fits if not matches(pattern, path)] == []
    assert [path for path in fits_not if matches(pattern, path)] == []
    assert not matches(pattern, "/hooks" + "/a" * 10_000)


@pytest.mark.capability("S0-77", "DEF-26")
async def test_exempt_paths_are_these_and_no_others() -> None:
    app = FastAPI()
    inner = APIRouter()

    @inner.post("/hooks/{name:path}")
    @inner.post("/hooks-admin/{name:path}")
    @inner.post("/deep/hooks/{name:path}")
    async def hook(name: str, user: CurrentUser) -> str:
        return user.email

    app.include_router(inner)
    settings = {"exempt": ["/hooks/*"]}
    async with telling(app=app, csrf=settings) as story, browser(story.app) as ada:
        await story.register()
        await cookie_session(story, ada)
        assert (await ada.post("/hooks/a")).json() == ADA
        for path in (
            *("/hooks/a/b", "/hooks-admin/a", "/deep/hooks/a", "/hooks/a%2fb", "/hooks/%2e%2e"),
            *("/hooks/%2e", "/hooks/..%2fa", "/hooks/%252e", "/hooks/a%5cb", "/hooks//a"),
        ):
            answer = await ada.post(path)
            assert answer.status_code in (403, 404), path
            assert answer.text != f'"{ADA}"'
        # Mounted below a path: patterns are of the app's own paths (I-26).
        outer = Starlette(routes=[Mount("/mounted", app=app)])
        cookies = {"Cookie": f"session={ada.cookies['session']}"}
        outside = browser(outer)
        assert (await outside.post("/mounted/hooks/a", headers=cookies)).json() == ADA
        problem(await outside.post("/mounted/deep/hooks/a", headers=cookies), 403, "csrf_refused")


async def test_without_csrf_no_token_comes_and_production_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "watchword")
    off: Mapping[str, Any] = {"csrf": {"enabled": False}}
    async with telling(app=writing(), **PRODUCTION, **off):
        assert "csrf.enabled is off" in caplog.text
    caplog.clear()
    async with telling(app=writing(), **off) as story, browser(story.app) as ada:
        assert "csrf.enabled" not in caplog.text
        await story.register()
        await story.log_in(transport="cookie", client=ada)
        assert (await ada.post("/write")).json() == ADA
        assert set_by(await ada.get("/read")) == {}


def test_what_is_remembered_of_tokens_is_bounded_and_of_one_session() -> None:
    moving = MovableClock(datetime(2030, 1, 1, tzinfo=UTC))
    csrf = Csrf(
        signer=Signer(RootSecrets(generate_secret()), "csrf"),
        origin=ORIGIN,
        settings=CsrfSettings(),
        clock=moving,
    )
    token = b""
    for number in range(5000):
        token = csrf.token_for(f"session {number}").encode()
        assert not csrf.is_due(f"session {number}", [token])
        assert len(csrf._young) <= 4096
    assert csrf.is_due("session 1", [token])
    assert not csrf.is_due("session 4999", [token])
    moving.advance(timedelta(minutes=30))
    assert csrf.is_due("session 4999", [token])
