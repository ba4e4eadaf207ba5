"""install(): its place in somebody's application."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Request
from starlette.applications import Starlette
from starlette.routing import Mount

from tests.told import ADA, EVE, PASSWORD, browser, problem, telling
from watchword import ConfigurationError, CurrentUser, Watchword, current_user, requires
from watchword.crypto.keys import generate_secret
from watchword.testing import without_limits
from watchword.testing.story import bearer


def made(database: str = "sqlite://", **options: Any) -> Watchword:
    options.setdefault("environment", "development")
    return Watchword(database, environ={}, secret=generate_secret(), **options)


@asynccontextmanager
async def served(app: Any) -> AsyncGenerator[None]:
    async with app.router.lifespan_context(app):
        yield


@pytest.mark.capability("S1-05")
async def test_it_starts_inside_out_with_the_apps_own_lifespan() -> None:
    order: list[str] = []
    auth = made()

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncGenerator[dict[str, str]]:
        assert auth.is_started  # ours is up before theirs, and down after it
        await auth.users.create(email=ADA)
        order.append("up")
        yield {"boat": "Beagle"}
        assert auth.is_started
        order.append("down")

    app = FastAPI(lifespan=own)
    auth.install(app)
    assert not auth.is_started
    async with app.router.lifespan_context(app) as state:
        assert state == {"boat": "Beagle"}
        assert order == ["up"]
    assert order == ["up", "down"]
    assert not auth.is_started


@pytest.mark.capability("S1-05")
async def test_it_starts_once_more_after_it_was_stopped(database_url: str) -> None:
    auth = made(database_url)
    app = FastAPI()
    auth.install(app)
    for number in range(2):
        async with served(app), browser(app) as client:
            body = {"email": f"u{number}@example.com", "password": PASSWORD}
            assert (await client.post("/auth/register", json=body)).status_code == 201


async def test_a_wake_up_that_comes_with_the_stop_holds_nothing_up() -> None:
    for turns in range(8):
        async with asyncio.timeout(20):
            async with made().running() as auth:
                await asyncio.sleep(0.01)
                auth.mail.bell.ring()  # type: ignore[attr-defined]
                for _ in range(turns):
                    await asyncio.sleep(0)


def test_installing_twice_is_refused() -> None:
    app = FastAPI()
    made().install(app)
    with pytest.raises(ConfigurationError, match="install once"):
        made().install(app)


@pytest.mark.capability("S1-05")
async def test_a_guard_without_install_says_what_is_missing() -> None:
    app = FastAPI()

    @app.get("/")
    async def hello(user: CurrentUser) -> str:
        return user.email

    async with browser(app) as client:
        answer = await client.get("/", headers=bearer("x"))
    assert answer.status_code == 503
    assert "install" in answer.text


def test_a_permission_or_an_empty_role_raises_at_import() -> None:
    with pytest.raises(TypeError):
        requires("posts:delete")
    with pytest.raises(TypeError):
        requires(role="")


async def test_an_app_that_is_itself_mounted_starts_at_the_first_request(
    database_url: str,
) -> None:
    auth = made(database_url, features=without_limits())  # five register at one address
    inner = FastAPI()
    auth.install(inner)
    outer = Starlette(routes=[Mount("/api", inner)])
    async with browser(outer) as client:
        bodies = [{"email": f"u{n}@example.com", "password": PASSWORD} for n in range(5)]
        answers = await asyncio.gather(
            *(client.post("/api/auth/register", json=body) for body in bodies)
        )
        assert [answer.status_code for answer in answers] == [201] * 5
        answer = await client.post("/api/auth/login", json=bodies[0])
        token = answer.json()["access_token"]
        assert (await client.get("/api/auth/me", headers=bearer(token))).status_code == 200
    await auth.stop()


async def test_a_mounted_sub_application_knows_who_asks() -> None:
    app, sub = FastAPI(), FastAPI()

    @sub.get("/hello")
    async def hello(user: CurrentUser) -> str:
        return user.email

    @sub.get("/admin", dependencies=[requires(role="admin")])
    async def admin() -> str:
        return "in"

    app.mount("/sub", sub)
    async with telling(app=app) as story, served(app):
        problem(await story.client.get("/sub/hello"), 401, "not_authenticated")
        await story.register()
        auth = bearer((await story.log_in())["access_token"])
        assert (await story.client.get("/sub/hello", headers=auth)).json() == ADA
        problem(await story.client.get("/sub/admin", headers=auth), 403, "forbidden")


@pytest.mark.capability("S2-27", "DEF-22")
@pytest.mark.invariant("I-10")
async def test_two_in_one_process_do_not_meet(database_url: str) -> None:
    async with telling(database_url) as one, telling() as two:
        for story in (one, two):
            await story.register()
        tokens = [await one.log_in(), await two.log_in()]
        assert (await one.me(tokens[0]["access_token"])).status_code == 200
        assert (await two.me(tokens[1]["access_token"])).status_code == 200
        problem(await one.me(tokens[1]["access_token"]), 401, "invalid_token")
        problem(await two.me(tokens[0]["access_token"]), 401, "invalid_token")
        body = {"refresh_token": tokens[1]["refresh_token"]}
        problem(await one.client.post("/auth/refresh", json=body), 401, "invalid_token")


@pytest.mark.invariant("I-11")
async def test_two_realms_with_the_same_everything_never_meet(database_url: str) -> None:
    secret = generate_secret()
    async with (
        telling(database_url, realm="red", secret=secret) as red,
        telling(database_url, realm="blue", secret=secret) as blue,
    ):
        made_by = {}
        for story in (red, blue):
            user = await story.auth.users.create(email=ADA, id="the-same", is_verified=True)
            await story.auth.passwords.set(user.id, PASSWORD)
            async with browser(story.app) as client:
                pair = await story.log_in()
                await story.log_in(transport="cookie", client=client)
                made_by[story.auth.core.realm] = (pair, client.cookies["session"])
        for here, there in ((red, blue), (blue, red)):
            pair, cookie = made_by[there.auth.core.realm]
            assert (await there.me(pair["access_token"])).status_code == 200
            problem(await here.me(pair["access_token"]), 401, "invalid_token")
            body = {"refresh_token": pair["refresh_token"]}
            problem(await here.client.post("/auth/refresh", json=body), 401, "invalid_token")
            async with browser(here.app, Cookie=f"session={cookie}") as client:
                problem(await client.get("/auth/me"), 401, "invalid_token")
            await there.client.post("/auth/password-reset-request", json={"email": ADA})
            await there.mails()
            body = {"token": there.outbox.token(ADA, "wwp"), "new_password": PASSWORD + "!"}
            problem(await here.client.post("/auth/password-reset", json=body), 401, "invalid_token")
        await red.auth.users.delete("the-same")
        await blue.log_in()
        assert len((await blue.auth.users.page()).items) == 1


async def test_whole_routers_are_guarded_and_dependencies_can_be_overridden() -> None:
    app = FastAPI()
    router = APIRouter(prefix="/admin", dependencies=[requires(role="admin")])

    @router.get("/boats")
    async def boats() -> str:
        return "boats"

    @app.get("/whoami")
    async def whoami(user: CurrentUser) -> str:
        return user.email

    app.include_router(router)
    async with telling(app=app) as story:
        problem(await story.client.get("/admin/boats"), 401, "not_authenticated")
        await story.register()
        auth = bearer((await story.log_in())["access_token"])
        problem(await story.client.get("/admin/boats", headers=auth), 403, "forbidden")
        user = await story.auth.users.find(ADA)
        await story.auth.users.change(user.id, roles=("admin",))
        assert (await story.client.get("/admin/boats", headers=auth)).status_code == 200
        other = await story.auth.users.create(email=EVE)
        app.dependency_overrides[current_user] = lambda: other
        assert (await story.client.get("/whoami")).json() == EVE
        app.dependency_overrides.clear()
        problem(await story.client.get("/whoami"), 401, "not_authenticated")


@pytest.mark.capability("S1-06", "S2-26", "S2-31")
@pytest.mark.parametrize("prefix", ["/auth", "/api/accounts"])
async def test_the_documentation_lists_errors_and_where_to_authorize(prefix: str) -> None:
    async with telling(prefix=prefix) as story:

        @story.app.get("/hello")
        async def hello(user: CurrentUser) -> str:
            return user.email

        schema = (await story.client.get("/openapi.json")).json()
        scheme = schema["components"]["securitySchemes"]["Watchword"]
        assert scheme["flows"]["password"]["tokenUrl"] == f"{prefix[1:]}/login"
        assert schema["paths"]["/hello"]["get"]["security"] == [{"Watchword": []}]
        own = {path: item for path, item in schema["paths"].items() if path.startswith(prefix)}
        assert len(own) >= 12
        for path, item in own.items():
            for method, route in item.items():
                refusals = {code for code in route["responses"] if code[0] in "45"}
                assert "503" in refusals, (method, path)
                for code in refusals:
                    content = route["responses"][code].get("content", {})
                    assert "application/problem+json" in content, (method, path, code)
        login = own[f"{prefix}/login"]["post"]
        kinds = set(login["requestBody"]["content"])
        assert kinds == {"application/json", "application/x-www-form-urlencoded"}
        assert {"401", "403", "415", "422", "503"} <= set(login["responses"])
        await story.client.post(f"{prefix}/register", json={"email": ADA, "password": PASSWORD})


async def test_the_hosts_own_errors_stay_its_own() -> None:
    app = FastAPI()

    @app.get("/number/{n}")
    async def number(n: int) -> int:
        return n

    @app.get("/identity")
    async def identity(request: Request, user: object = Depends(current_user)) -> str:
        return "in"

    async with telling(app=app) as story:
        answer = await story.client.get("/number/x")
        assert answer.status_code == 422
        assert "detail" in answer.json()
        assert (await story.client.get("/nowhere")).json() == {"detail": "Not Found"}
        problem(await story.client.get("/identity"), 401, "not_authenticated")
