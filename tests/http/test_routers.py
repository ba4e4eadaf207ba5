"""Our routes are passed over quickly, and found wherever the app stands."""

from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.responses import PlainTextResponse
from starlette.routing import Match

from watchword import CurrentUser
from watchword.http.body import AuthRoute
from watchword.http.routers import OwnRouter
from watchword.testing import telling
from watchword.testing.story import client_of


async def _answer(*_: Any) -> PlainTextResponse:
    return PlainTextResponse("here")


async def _no_route(*_: Any) -> tuple[Match, dict[str, Any]]:
    raise AssertionError("a route was asked")


def test_it_knows_how_the_paths_of_its_routes_start() -> None:
    outer, under, beside = OwnRouter(), OwnRouter(prefix="/auth"), OwnRouter()
    under.get("/login")(_answer)
    under.get("/sessions/{number}")(_answer)
    beside.get("/.well-known/jwks.json")(_answer)
    outer.include_router(under)
    outer.include_router(beside)
    assert set(outer.starts()) == {"/auth", "/.well-known"}


def test_it_asks_its_routes_where_it_knows_nothing() -> None:
    first, second, third = OwnRouter(), OwnRouter(prefix="/auth"), OwnRouter(prefix="/auth")
    first.get("/{anything}")(_answer)
    second.mount("/elsewhere", FastAPI())
    third.include_router(FastAPI().router)
    assert first.starts() == ("",)
    assert "/auth" not in second.starts()
    assert third.starts() == ("",)


async def test_a_hosts_route_does_not_ask_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    app = FastAPI()
    async with telling(app=app) as story:

        @app.get("/hello")
        async def hello() -> str:
            return "hello"

        monkeypatch.setattr(AuthRoute, "matches", _no_route)
        assert (await story.client.get("/hello")).json() == "hello"


@pytest.mark.parametrize("place", ["", "/deep/er"])
async def test_ours_answer_wherever_the_app_stands(place: str) -> None:
    inner = FastAPI()

    @inner.get("/whoami")
    async def whoami(user: CurrentUser) -> str:
        return user.email

    async with telling(app=inner) as story:
        await story.join()
        token = (await story.log_in())["access_token"]
        outer = FastAPI()
        outer.mount(place or "/", inner)
        async with client_of(outer) as client:
            answers = [
                await client.get(f"{place}{path}", headers={"Authorization": f"Bearer {token}"})
                for path in ("/auth/me", "/whoami", "/.well-known/jwks.json")
            ]
            assert [answer.status_code for answer in answers] == [200, 200, 200]
            nowhere = await client.get(f"{place}/auth/nowhere")
            assert nowhere.status_code == 404
            wrong: httpx.Response = await client.get(f"{place}/auth/login")
            assert wrong.status_code == 405
            assert wrong.headers["allow"] == "POST"
            slash = await client.get(f"{place}/auth/me/")
            assert slash.status_code == 307
