"""Limits on routes of the app's own: dependency, decorator, middleware."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request, WebSocket
from starlette.requests import HTTPConnection

from tests.features.limits.conftest import at, limited_features
from tests.servers import Redis, in_thread
from tests.told import ADA, EVE, PASSWORD, Story, browser, problem, telling
from watchword import CurrentUser, Watchword, limited
from watchword.features.limits import limits
from watchword.kernel.errors import ConfigurationError, FeatureNotInstalled
from watchword.presets import standard
from watchword.testing.story import bearer

MINUTE = timedelta(minutes=1)
SHARED = limited(3, per=MINUTE, name="votes")


async def tenant(connection: HTTPConnection) -> str | None:
    """A function of somebody's own."""
    return connection.headers.get("x-tenant")


def example() -> FastAPI:
    """Routes of every kind that a limit may stand on."""
    app = FastAPI(redirect_slashes=True)
    router = APIRouter(prefix="/inner", dependencies=[limited(2, per=MINUTE)])
    mounted = FastAPI()

    @app.get("/dependency/{number}", dependencies=[limited(3, per=MINUTE)])
    @app.get("/alias/{number}", dependencies=[limited(3, per=MINUTE)])
    async def dependency(number: int) -> int:
        return number

    @app.get("/decorated")
    @limited(3, per=MINUTE)
    async def decorated(q: str = "none") -> str:
        return q

    @app.get("/sync/{number}")
    @limited(3, per=MINUTE)
    def sync(number: int, q: str = "none") -> list[Any]:
        return [number, q]

    @app.get("/user", dependencies=[limited(2, per=MINUTE, by="user")])
    async def user(user: CurrentUser) -> str:
        return user.email

    @app.get("/someone")
    @limited(2, per=MINUTE, by="user")
    async def someone() -> str:
        return "anybody"

    @app.get("/tenant", dependencies=[limited(2, per=MINUTE, by=tenant)])
    async def by_tenant() -> str:
        return "ok"

    @app.get("/plainly")
    @limited(2, per=MINUTE, by=lambda connection: connection.headers.get("x-tenant", "none"))
    def plainly(request: Request) -> str:
        return request.url.path

    @app.get("/all", dependencies=[limited(2, per=MINUTE, by="global")])
    async def together() -> str:
        return "ok"

    @app.get("/up", dependencies=[SHARED])
    async def up() -> str:
        return "up"

    @app.get("/down")
    @SHARED
    async def down() -> str:
        return "down"

    @router.get("/one")
    async def one() -> str:
        return "one"

    @router.get("/two")
    async def two() -> str:
        return "two"

    @mounted.get("/deep", dependencies=[limited(1, per=MINUTE)])
    async def deep() -> str:
        return "deep"

    app.include_router(router)
    app.mount("/mounted", mounted)
    app.mount("/again", mounted)
    return app


@asynccontextmanager
async def served(url: str, app: FastAPI | None = None) -> AsyncGenerator[Story, None]:
    features = limited_features(store="memory:")
    async with telling(url, features=features, app=app or example(), background=False) as story:
        yield story


async def statuses(client: httpx.AsyncClient, *paths: str, **more: Any) -> list[int]:
    return [(await client.get(path, **more)).status_code for path in paths]


@pytest.mark.capability("S0-86", "DEF-09")
@pytest.mark.standard("15", "CVE row 23")
async def test_a_dependency_counts_by_handler_whatever_path_leads_there(sqlite_url: str) -> None:
    async with served(sqlite_url) as story:
        first = await story.client.get("/dependency/1")
        assert first.headers["ratelimit-policy"].endswith(' per address";q=3;w=60')
        assert first.headers["ratelimit"].endswith(";r=2;t=60")
        paths = ("/dependency/2", "/dependency/3/", "/alias/4", "/dependency/4?x=1")
        found = [await story.client.get(path, follow_redirects=True) for path in paths]
        assert [answer.status_code for answer in found] == [200, 200, 429, 429]
        body = problem(found[-1], 429, "too_many_attempts")
        assert body["retry_after"] == 60
        assert found[-1].headers["retry-after"] == "60"
        assert found[-1].headers["ratelimit"].endswith(";r=0;t=60")
        assert (await at(story, "192.0.2.1").get("/dependency/1")).status_code == 200
        story.move(seconds=60)
        assert (await story.client.get("/alias/1")).status_code == 200


@pytest.mark.capability("S0-87")
async def test_a_decorator_counts_on_async_and_on_sync_handlers(sqlite_url: str) -> None:
    async with served(sqlite_url) as story:
        client = story.client
        assert (await client.get("/decorated?q=x")).json() == "x"
        assert (await client.get("/sync/7?q=y")).json() == [7, "y"]
        assert await statuses(client, *["/decorated"] * 3) == [200, 200, 429]
        assert await statuses(client, *["/sync/1"] * 3) == [200, 200, 429]
        problem(await client.get("/sync/1"), 429, "too_many_attempts")
        # What is refused before the handler is none of its tries.
        assert await statuses(at(story, "192.0.2.1"), *["/sync/x"] * 5) == [422] * 5
        schema = (await client.get("/openapi.json")).json()["paths"]
        assert [each["name"] for each in schema["/sync/{number}"]["get"]["parameters"]] == [
            "number",
            "q",
        ]


@pytest.mark.capability("S0-87", "DEF-09")
async def test_of_thirty_at_once_three_pass(sqlite_url: str) -> None:
    async with served(sqlite_url) as story:
        for path in ("/decorated", "/sync/1", "/dependency/1"):
            found = await asyncio.gather(*(story.client.get(path) for _ in range(30)))
            assert Counter(answer.status_code for answer in found) == {200: 3, 429: 27}


async def test_it_counts_by_user_by_function_and_by_all_together(sqlite_url: str) -> None:
    async with served(sqlite_url) as story:
        await story.join()
        ada = bearer((await story.log_in())["access_token"])
        await story.register(EVE)
        await story.verify(EVE)
        eve = bearer((await story.log_in(EVE))["access_token"])
        client, far = story.client, at(story, "192.0.2.1")
        client.cookies.clear()
        assert await statuses(client, "/user", "/someone", headers=ada) == [200, 200]
        assert await statuses(far, "/user", "/user", "/someone", headers=ada) == [200, 429, 200]
        assert await statuses(client, "/user", "/someone", headers=eve) == [200, 200]
        assert await statuses(client, "/someone", headers=ada) == [429]
        # Nobody is signed in: then by address, and no address is a user's name.
        assert await statuses(client, *["/someone"] * 3) == [200, 200, 429]
        assert await statuses(far, "/someone") == [200]
        for path in ("/tenant", "/plainly"):
            acme, other = {"x-tenant": "acme"}, {"x-tenant": "address:127.0.0.1"}
            assert await statuses(client, path, path, path, headers=acme) == [200, 200, 429]
            assert await statuses(far, path, headers=acme) == [429]
            assert await statuses(client, path, path, path, headers=other) == [200, 200, 429]
        assert await statuses(client, "/tenant") == [200]  # without one by address
        assert await statuses(client, "/all") == [200]
        assert await statuses(far, "/all", "/all") == [200, 429]


async def test_routes_may_share_a_name_and_those_of_a_router_count_apart(sqlite_url: str) -> None:
    async with served(sqlite_url) as story:
        client = story.client
        assert (
            await statuses(client, "/up", "/down", "/up", "/down", "/up") == [200] * 3 + [429] * 2
        )
        paths = ("/inner/one", "/inner/two", "/inner/one", "/inner/two", "/inner/one")
        assert await statuses(client, *paths) == [200] * 4 + [429]
        assert await statuses(client, "/mounted/deep", "/again/deep") == [200, 429]
        assert (await client.get("/mounted/deep")).headers["retry-after"] == "60"


@pytest.mark.capability("S0-86", "DEF-09")
@pytest.mark.standard("15", "CVE row 23")
async def test_middleware_counts_a_pattern_however_its_path_is_written(sqlite_url: str) -> None:
    features = limited_features(store="memory:")
    app, mounted, router = FastAPI(), FastAPI(), APIRouter()

    @router.get("/search")
    async def search() -> str:
        return "found"

    app.include_router(router)
    app.include_router(router, prefix="/v1")
    mounted.include_router(router)
    app.mount("/mounted", mounted)
    rules = {"/**/search": "4/1m per address", "/v1/*": "2/1m per address"}
    async with telling(sqlite_url, features=features, app=app, background=False) as story:
        auth = story.auth
        # As somebody writes it: before `install`, so that the gate stands in front of it.
        limited_app = auth.limits.middleware(rules)(app)
        outer = FastAPI()
        outer.mount("/outer", limited_app)

        def client(address: str) -> httpx.AsyncClient:
            return at(story, address, as_written(limited_app))

        one = client("192.0.2.1")
        first = await one.get("/search")
        assert first.status_code == 200
        assert first.headers["ratelimit"] == '"path /**/search per address";r=3;t=60'
        assert first.headers["ratelimit-policy"] == '"path /**/search per address";q=4;w=60'
        assert await statuses(one, "/mounted/search", "/v1/search", "/search", "/search") == [
            *(200, 200, 200),
            429,
        ]
        refused = await one.get("/mounted/search")
        assert problem(refused, 429, "too_many_attempts")["retry_after"] == 60
        odd = (
            *("//search", "/search/", "/SEARCH", "/search;x=1", "/./search", "/x/../search"),
            *("/Search;jsessionid=1/", "\\search", "/\\search", "/v9//search", "/search/."),
        )
        for number, path in enumerate(odd):
            each = client(f"198.51.100.{number}")
            told = {"headers": {"x-path": path}}
            assert 429 not in await statuses(each, *["/"] * 4, **told), path
            assert await statuses(each, "/", **told) == [429], path
            assert await statuses(each, "/search") == [429], path
        # What reaches a route by an odd parameter is counted as it is written, too.
        both = client("192.0.2.2")
        for path in ("/v1/..", "/v1/;x"):
            assert await statuses(both, "/", headers={"x-path": path}) == [404]
        assert await statuses(both, "/v1/x") == [429]
        below = at(story, "192.0.2.3", outer)
        assert await statuses(below, *["/outer/search"] * 5) == [200] * 4 + [429]
        assert await statuses(client("192.0.2.4"), *["/searching", "/sea/rch"] * 5) == [404] * 10


def as_written(app: Any) -> Any:
    """The app behind a server that gets the path of `x-path`, which no client would send so."""

    async def run(scope: Any, receive: Any, send: Any) -> None:
        for name, value in scope["headers"]:
            if name == b"x-path":
                scope = {**scope, "path": value.decode()}
        await app(scope, receive, send)

    return run


async def test_middleware_inside_the_gate_knows_who_is_signed_in(sqlite_url: str) -> None:
    features = limited_features(store="memory:")
    app, heard = FastAPI(), list[str]()

    @app.get("/mine")
    async def mine() -> str:
        return "mine"

    @app.websocket("/mine")
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        heard.append("accepted")
        await websocket.close()

    auth = Watchword(
        sqlite_url, features=features, environment="development", environ={}, background=False
    )
    app.add_middleware(auth.limits.middleware({"/mine": "1/1m per user, 3/1m per global"}))
    auth.install(app)
    async with auth.running(), browser(app) as client:
        await auth.passwords.register(email=ADA, password=PASSWORD)
        body = {"email": ADA, "password": PASSWORD}
        token = (await client.post("/auth/login", json=body)).json()["access_token"]
        client.cookies.clear()
        assert await statuses(client, "/mine", "/mine") == [200, 429]
        assert await statuses(client, "/mine", "/mine", headers=bearer(token)) == [200, 429]
        assert auth.limits.counts["path /mine", "refused"] == 2
        assert [await shake_hands(app, "/mine") for _ in range(3)] == [
            "websocket.accept",
            "websocket.close 1008",
            "websocket.close 1008",
        ]
    assert heard == ["accepted"]


async def shake_hands(app: FastAPI, path: str) -> str:
    """How the app answers to somebody who wants a socket."""
    said: list[Any] = []
    scope = {
        "type": "websocket",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
        "subprotocols": [],
        "client": ("192.0.2.1", 1),
        "scheme": "ws",
    }

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        said.append(message)

    await app(scope, receive, send)
    first = said[0]
    return " ".join([first["type"], *([str(first["code"])] if "code" in first else [])])


def test_what_cannot_be_limited_says_so_at_import() -> None:
    with pytest.raises(TypeError, match="tries"):
        limited(0, per=MINUTE)
    with pytest.raises(TypeError, match="whole seconds"):
        limited(1, per=timedelta(milliseconds=1500))
    with pytest.raises(TypeError, match="by="):
        limited(1, per=MINUTE, by="planet")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="generator"):

        @limited(1, per=MINUTE)
        async def lines() -> AsyncGenerator[str, None]:
            yield "line"


async def test_rules_of_paths_that_cannot_be_are_told_at_once(sqlite_url: str) -> None:
    async with served(sqlite_url) as story:
        rules = {
            "search": "5/1m per address",
            "/a/**/b/**": "5/1m per address",
            "/often": "often",
            "/account": "5/1m per account",
        }
        with pytest.raises(ConfigurationError) as caught:
            story.auth.limits.middleware(rules)
        assert len(caught.value.faults) == 4


async def test_a_limit_that_nobody_counts_lets_nobody_pass(sqlite_url: str) -> None:
    def made() -> FastAPI:
        app = FastAPI()

        @app.get("/limited", dependencies=[limited(5, per=MINUTE)])
        async def handler() -> str:
            return "ok"

        @app.get("/decorated")
        @limited(5, per=MINUTE)
        async def decorated(_: Annotated[str, "unused"] = "") -> str:
            return "ok"

        return app

    answers = [await browser(made()).get(path) for path in ("/limited", "/decorated")]
    assert [answer.status_code for answer in answers] == [503, 503]  # no gate
    features = [each for each in standard() if each.name != "limits"]
    async with telling(sqlite_url, features=features, app=made()) as story:
        for path in ("/limited", "/decorated"):
            with pytest.raises(FeatureNotInstalled):
                await story.client.get(path)


@pytest.mark.standard("16.5.2")
@pytest.mark.slow
async def test_with_the_store_away_limited_routes_answer_503(sqlite_url: str) -> None:
    server = Redis.start(shared=False)
    try:
        url = f"{server.url}?command_timeout=1&pool_timeout=1"
        features = [*limited_features()[:-2], limits(store=url)]
        told = telling(sqlite_url, features=features, app=example(), background=False)
        async with told as story:
            assert await statuses(story.client, "/decorated", "/up", "/sync/1") == [200] * 3
            await in_thread(server.halt)
            for path in ("/decorated", "/up", "/sync/1"):
                problem(await story.client.get(path), 503, "store_unavailable")
    finally:
        await in_thread(server.stop)
