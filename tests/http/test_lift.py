"""Lifted guards answer as plain ones do: same status, headers, body, and OpenAPI."""

import functools
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Body, Depends, FastAPI, Form, Request
from pydantic import BaseModel
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse

from watchword import CurrentPrincipal, CurrentUser, OptionalUser, User, current_user, requires
from watchword.http.depends import UserGuard
from watchword.http.lift import lift
from watchword.http.problems import Refused
from watchword.kernel.errors import Forbidden
from watchword.testing import Story, telling
from watchword.testing.story import bearer, client_of


class Note(BaseModel):
    """A body."""

    text: str


async def _tenant(request: Request) -> str:
    return request.headers.get("x-tenant", "none")


async def _named(user: CurrentUser) -> str:
    return user.email


def example() -> FastAPI:
    """Routes of every shape that a guard may stand on."""
    app = FastAPI()
    inner = APIRouter(prefix="/inner", dependencies=[requires(role="admin")])
    outer = APIRouter(prefix="/outer")

    @app.get("/user")
    async def user(user: CurrentUser) -> str:
        return user.email

    @app.get("/sync")
    def sync(user: CurrentUser) -> str:
        return user.email

    @app.get("/principal/{number}")
    async def principal(number: int, principal: CurrentPrincipal, q: str = "none") -> Any:
        return [number, principal.kind, q]

    @app.get("/optional")
    async def optional(user: OptionalUser) -> bool:
        return user is not None

    @app.get("/both")
    async def both(
        request: Request,
        user: CurrentUser,
        principal: CurrentPrincipal,
        tenant: str = Depends(_tenant),
    ) -> Any:
        return [request.url.path, user.email, principal.id == user.id, tenant]

    @app.get("/nested")
    async def nested(name: Annotated[str, Depends(_named)], user: CurrentUser) -> Any:
        return [name, user.email]

    @app.post("/note")
    async def note(user: CurrentUser, note: Annotated[Note, Body()]) -> Any:
        return [user.email, note.text]

    @app.post("/form")
    async def form(user: CurrentUser, text: Annotated[str, Form()]) -> Any:
        return [user.email, text]

    @app.get("/guarded", dependencies=[requires(verified=True)])
    async def guarded() -> str:
        return "in"

    @app.get("/fresh", dependencies=[requires(fresh=timedelta(minutes=5))])
    async def fresh() -> str:
        return "in"

    @app.get("/stream")
    async def stream(user: CurrentUser) -> AsyncGenerator[str, None]:
        yield user.email

    @inner.get("/admin")
    async def admin(user: CurrentUser) -> str:
        return user.email

    outer.include_router(inner)
    app.include_router(outer)
    return app


ASKED: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/user", {}),
    ("HEAD", "/user", {}),
    ("GET", "/sync", {}),
    ("GET", "/principal/7?q=x", {}),
    ("GET", "/principal/seven", {}),
    ("GET", "/optional", {}),
    ("GET", "/both", {"headers": {"x-tenant": "acme"}}),
    ("GET", "/nested", {}),
    ("POST", "/note", {"json": {"text": "hello"}}),
    ("POST", "/note", {"json": {"text": 7}}),
    ("POST", "/note", {"content": b"{", "headers": {"content-type": "application/json"}}),
    ("POST", "/note", {}),
    ("POST", "/form", {"data": {"text": "hello"}}),
    ("POST", "/form", {"data": {}}),
    ("GET", "/guarded", {}),
    ("GET", "/fresh", {}),
    ("GET", "/stream", {}),
    ("GET", "/outer/inner/admin", {}),
    ("GET", "/auth/me", {}),
    ("PATCH", "/auth/me", {"json": {"username": "Ada"}}),
    ("PATCH", "/auth/me", {"json": {"roles": ["admin"]}}),
]


def _comparable(answer: httpx.Response) -> tuple[int, dict[str, str], Any]:
    apart = ("content-length", "x-request-id")
    headers = {name: text for name, text in answer.headers.items() if name not in apart}
    if "set-cookie" in headers:  # a token of its own in each answer
        headers["set-cookie"] = re.sub(r"csrf=[^;]{70,}", "csrf=token", headers["set-cookie"])
    try:
        body = answer.json()
    except ValueError:
        return answer.status_code, headers, answer.text
    if isinstance(body, dict):
        body.pop("request_id", None)
        body.pop("updated_at", None)
    return answer.status_code, headers, body


@pytest.fixture
async def pair(sqlite_url: str) -> AsyncGenerator[tuple[Story, Story], None]:
    """The same example twice on one database: plain and lifted."""
    async with AsyncExitStack() as stack:
        secret = "a-secret-of-more-than-thirty-letters-0123456789"
        plain = await stack.enter_async_context(
            telling(sqlite_url, app=example(), secret=secret, lift_guards=False)
        )
        lifted = await stack.enter_async_context(telling(sqlite_url, app=example(), secret=secret))
        assert lift(lifted.app) > len(ASKED) // 2
        yield plain, lifted


async def test_every_answer_is_the_same_whoever_asks(pair: tuple[Story, Story]) -> None:
    """Anonymous, bearer, cookie with and without CSRF, a bad token, a stale sign-in, an admin."""
    plain, lifted = pair
    await plain.join()
    token = (await plain.log_in())["access_token"]
    browser = plain.another_client()
    await plain.log_in(transport="cookie", client=browser)
    cookie = {"Cookie": f"session={browser.cookies['session']}"}
    callers: dict[str, dict[str, str]] = {
        "nobody": {},
        "bearer": bearer(token),
        "garbage": bearer("garbage"),
        "cookie": cookie,
        "cookie with csrf": {**cookie, "X-CSRF-Token": browser.cookies["csrf"]},
        "cookie from elsewhere": {**cookie, "Sec-Fetch-Site": "cross-site"},
    }
    compared = 0
    for _ in range(3):
        for headers in callers.values():
            for method, path, extra in ASKED:
                sent: dict[str, Any] = {**extra, "headers": {**headers, **extra.get("headers", {})}}
                answers = [
                    _comparable(await client_of(story.app).request(method, path, **sent))
                    for story in pair
                ]
                assert answers[0] == answers[1], (headers, method, path)
                compared += 1
        for story in pair:
            story.move(minutes=6)  # second round: no longer fresh, and nothing cached
    user = await plain.auth.users.find("ada@example.com")
    await plain.auth.users.change(user.id, roles=("admin",))
    token = (await lifted.log_in())["access_token"]
    admin = await client_of(lifted.app).get("/outer/inner/admin", headers=bearer(token))
    assert (admin.status_code, admin.json()) == (200, "ada@example.com")
    assert compared == 3 * len(callers) * len(ASKED)


async def test_openapi_is_the_same(pair: tuple[Story, Story]) -> None:
    """What is documented does not depend on the optimisation."""
    plain, lifted = pair
    assert plain.app.openapi() == lifted.app.openapi()


async def test_overridden_dependencies_are_honoured(pair: tuple[Story, Story]) -> None:
    """`dependency_overrides` works on a lifted route as on any other."""
    _, lifted = pair

    class Somebody:
        email = "override@example.com"

    lifted.app.dependency_overrides[current_user] = Somebody
    answer = await lifted.client.get("/user")
    assert (answer.status_code, answer.json()) == (200, "override@example.com")
    lifted.app.dependency_overrides.clear()
    assert (await lifted.client.get("/user")).status_code == 401


async def test_lifting_twice_changes_nothing(pair: tuple[Story, Story]) -> None:
    """A second start of the same app lifts no route again."""
    _, lifted = pair
    assert lift(lifted.app) == 0


async def test_what_is_not_all_ours_is_never_lifted(sqlite_url: str) -> None:
    """A subclassed guard, a wrapped route and a wrapped handler keep all that they check."""
    app = FastAPI()

    class Nobody(UserGuard):
        async def __call__(self, connection: HTTPConnection) -> Any:
            await super().__call__(connection)
            raise Refused(Forbidden())

    def wrapped(handler: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(handler)
        def outer(*args: Any, **kwargs: Any) -> Any:
            return handler(*args, **kwargs)

        return outer

    @app.get("/own-guard")
    async def own_guard(user: Annotated[User, Depends(Nobody())]) -> str:
        return user.email

    @app.get("/walled")
    async def walled(user: CurrentUser) -> str:
        return user.email

    @app.get("/wrapped")
    @wrapped
    async def inside(user: CurrentUser) -> str:
        return user.email

    async def wall(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("no", status_code=403)(scope, receive, send)

    next(route for route in app.routes if getattr(route, "path", "") == "/walled").app = wall  # type: ignore[attr-defined]
    async with telling(sqlite_url, app=app) as story:
        lift(app)
        await story.join()
        token = bearer((await story.log_in())["access_token"])
        answers = {
            path: (await story.client.get(path, headers=token)).status_code
            for path in ("/own-guard", "/walled", "/wrapped")
        }
    assert answers == {"/own-guard": 403, "/walled": 403, "/wrapped": 200}
