"""Scripts of other origins read nothing, unless their origin is named, exactly."""

from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Response
from starlette.middleware.cors import CORSMiddleware

from tests.told import PASSWORD, SITE, browser, csrf_of, problem, telling
from watchword import CurrentUser, Watchword
from watchword.crypto.keys import generate_secret
from watchword.kernel.errors import ConfigurationError
from watchword.testing.story import ORIGIN, bearer

SPA = "https://app.example.com"
ALLOWED: dict[str, Any] = {"enabled": True, "allow_origins": (SPA,)}
ASKING = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
FOREIGN = (
    "https://evil.example",
    "null",
    "https://sub.app.example.com",
    "https://app.example.com.evil",
    "https://evilapp.example.com",
    "https://app.example.com:8443",
    "http://app.example.com",
    "https://APP.example.com",
    "https://app.example.com/",
    "https://app.example.com, https://evil.example",
    "https://user@app.example.com",
    "https://app.example.com%60.evil.example",
    "*",
    "",
)


def said(answer: httpx.Response) -> dict[str, str]:
    return {
        name: value for name, value in answer.headers.items() if name.startswith("access-control-")
    }


def host_app() -> FastAPI:
    app = FastAPI()

    @app.get("/data")
    @app.post("/data")
    async def data() -> dict[str, str]:
        return {}

    @app.get("/varying")
    async def varying() -> Response:
        return Response(headers={"Vary": "Accept-Encoding, origin"})

    @app.get("/who")
    @app.post("/who")
    async def who(user: CurrentUser) -> str:
        return user.email

    return app


@pytest.mark.capability("S3-12")
@pytest.mark.standard("ASVS 3.4.2")
async def test_nobody_is_allowed_unless_it_is_said() -> None:
    named = {"enabled": False, "allow_origins": (SPA,)}
    for cors in ({}, named):
        async with telling(app=host_app(), cors=cors) as story:
            for origin in (SPA, *FOREIGN, SITE):
                for method, path in (
                    ("GET", "/auth/me"),
                    ("GET", "/data"),
                    ("POST", "/auth/login"),
                ):
                    headers = {"Origin": origin}
                    answer = await story.client.request(method, path, headers=headers)
                    asked = await story.client.options(path, headers=headers | ASKING)
                    assert said(answer) == said(asked) == {}
                    assert asked.status_code == 405


@pytest.mark.capability("S3-12", "S0-84")
@pytest.mark.standard("ASVS 3.4.2")
@pytest.mark.parametrize("credentials", [False, True])
async def test_exactly_the_named_origin_may_read(credentials: bool) -> None:
    cors = ALLOWED | {"allow_credentials": credentials}
    async with telling(app=host_app(), cors=cors) as story:
        for path in ("/auth/me", "/auth/nowhere", "/.well-known/jwks.json"):
            answer = await story.client.get(path, headers={"Origin": SPA})
            assert answer.headers["access-control-allow-origin"] == SPA
            exposed = answer.headers["access-control-expose-headers"].split(", ")
            assert "X-Request-ID" in exposed
            assert ("access-control-allow-credentials" in answer.headers) is credentials
            assert "Origin" in answer.headers["vary"]
            for origin in FOREIGN:
                answer = await story.client.get(path, headers={"Origin": origin})
                assert said(answer) == {}, origin
                assert "Origin" in answer.headers["vary"]
            twice = [("Origin", SPA), ("Origin", "https://evil.example")]
            assert said(await story.client.get(path, headers=twice)) == {}
            plain = await story.client.get(path)
            assert said(plain) == {}
            assert "Origin" in plain.headers["vary"]


@pytest.mark.capability("S3-12", "S0-84")
@pytest.mark.standard("ASVS 3.4.2")
async def test_a_browser_that_asks_first_is_answered_before_anything_is_looked_at() -> None:
    async with telling(app=host_app(), cors=ALLOWED) as story:
        answer = await story.client.options("/auth/login", headers={"Origin": SPA} | ASKING)
        assert answer.status_code == 204
        assert answer.headers["access-control-allow-origin"] == SPA
        assert "POST" in answer.headers["access-control-allow-methods"]
        assert "Authorization" in answer.headers["access-control-allow-headers"]
        assert answer.headers["access-control-max-age"] == "3600"
        assert answer.headers["x-content-type-options"] == "nosniff"
        for origin in FOREIGN:
            refused = await story.client.options("/auth/login", headers={"Origin": origin} | ASKING)
            problem(refused, 403, "origin_not_allowed")
            assert said(refused) == {}
        for wrong in (
            {"Access-Control-Request-Method": "TRACE"},
            {"Access-Control-Request-Method": "post"},
            {"Access-Control-Request-Headers": "content-type, x-of-mine"},
            {"Access-Control-Request-Headers": ",".join(["a"] * 5000)},
        ):
            headers = {"Origin": SPA} | ASKING | wrong
            answer = await story.client.options("/auth/login", headers=headers)
            problem(answer, 403, "origin_not_allowed")
        assert (await story.client.options("/auth/login")).status_code == 405


@pytest.mark.capability("S3-12")
async def test_the_hosts_routes_are_the_hosts_unless_it_says_otherwise() -> None:
    async with telling(app=host_app(), cors=ALLOWED) as story:
        answer = await story.client.get("/data", headers={"Origin": SPA})
        assert said(answer) == {}
        assert "vary" not in answer.headers
    async with telling(app=host_app(), cors=ALLOWED | {"host_routes": True}) as story:
        answer = await story.client.get("/data", headers={"Origin": SPA})
        assert answer.headers["access-control-allow-origin"] == SPA
        asked = await story.client.options("/data", headers={"Origin": SPA} | ASKING)
        assert asked.status_code == 204
        varying = await story.client.get("/varying", headers={"Origin": SPA})
        assert varying.headers.get_list("vary") == ["Accept-Encoding, origin"]
    app = host_app()
    app.add_middleware(CORSMiddleware, allow_origins=["https://other.example"])
    async with telling(app=app, cors=ALLOWED) as story:
        answer = await story.client.get("/data", headers={"Origin": "https://other.example"})
        assert answer.headers.get_list("access-control-allow-origin") == ["https://other.example"]


@pytest.mark.capability("S0-84")
async def test_any_origin_may_read_what_it_could_fetch_itself() -> None:
    async with telling(cors={"enabled": True, "allow_origins": ("*",)}) as story:
        for origin in ("https://evil.example", "null"):
            answer = await story.client.get("/auth/me", headers={"Origin": origin})
            assert answer.headers["access-control-allow-origin"] == "*"
            assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.invariant("I-21")
@pytest.mark.capability("S3-12")
@pytest.mark.standard("ASVS 3.5.1", "ASVS 3.5.2")
async def test_an_origin_that_may_read_is_still_another_site() -> None:
    """With a cookie it reads; what changes something takes a token in Authorization."""
    cors = ALLOWED | {"allow_credentials": True, "host_routes": True}
    async with telling(app=host_app(), cors=cors) as story, browser(story.app) as ada:
        await story.join()
        held = await story.log_in()
        await story.log_in(transport="cookie", client=ada)
        assert (await ada.get("/who", headers={"Origin": SPA})).status_code == 200
        for more in ({}, csrf_of(ada), {"Sec-Fetch-Site": "same-site"} | csrf_of(ada)):
            answer = await ada.post("/who", headers={"Origin": SPA} | more)
            problem(answer, 403, "csrf_refused")
            assert answer.headers["access-control-allow-origin"] == SPA  # it may know why
        answer = await ada.post("/who", headers={"Origin": ORIGIN} | csrf_of(ada))
        assert answer.status_code == 200
        headers = {"Origin": SPA, "Sec-Fetch-Site": "cross-site"} | bearer(held["access_token"])
        assert (await story.client.post("/who", headers=headers)).status_code == 200
        form = {"username": "ada@example.com", "password": PASSWORD}
        answer = await story.client.post("/auth/login", data=form, headers={"Origin": SPA})
        assert answer.status_code == 403


@pytest.mark.capability("S0-84", "DEF-21")
@pytest.mark.parametrize(
    "wrong",
    [
        {"enabled": True, "allow_origins": ("*",), "allow_credentials": True},
        {"allow_origins": ("*",), "allow_credentials": True},
        {"allow_origins": ("*", SPA)},
        {"enabled": True},
        *(
            {"allow_origins": (each,)}
            for each in (
                *(
                    "null",
                    "",
                    "app.example.com",
                    "https://app.example.com/",
                    "https://*.example.com",
                ),
                *(
                    "https://app.example.com:443",
                    "http://app.example.com:80",
                    "https://App.example.com",
                ),
                *("https://b\u00fccher.example", "https://user@app.example.com", ".*", "https://"),
            )
        ),
        {"allow_methods": ("*",)},
        {"allow_headers": ("*",)},
        {"expose_headers": ("a\r\nb",)},
        {"allow_origin": (SPA,)},
    ],
    ids=repr,
)
def test_what_would_let_in_too_many_stops_the_start(wrong: dict[str, Any]) -> None:
    options: Any = {"cors": wrong, "environment": "development", "secret": generate_secret()}
    with pytest.raises(ConfigurationError, match="cors"):
        Watchword("sqlite://", environ={}, **options)


@pytest.mark.capability("S0-84", "DEF-21")
def test_the_environment_cannot_let_everybody_in_either() -> None:
    environ = {
        "WATCHWORD_CORS__ENABLED": "true",
        "WATCHWORD_CORS__ALLOW_ORIGINS": "*",
        "WATCHWORD_CORS__ALLOW_CREDENTIALS": "true",
    }
    with pytest.raises(ConfigurationError, match="name the origins"):
        Watchword("sqlite://", environ=environ, environment="development", secret=generate_secret())
