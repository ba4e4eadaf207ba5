"""`watchword routes`: which routes of one's app anybody comes in at."""

import asyncio
import json
import sys
from typing import Any

import pytest

from tests.cli.command import Done, Folder
from watchword.http.guarded import guarded_routes

HEAD = """
from datetime import timedelta
from typing import Annotated
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from starlette.staticfiles import StaticFiles
from watchword import CurrentUser, OptionalUser, Watchword, requires
auth = Watchword("sqlite://", environment="development")
"""

SHOP = (
    HEAD
    + """
app = FastAPI(openapi_url=None)
admin = APIRouter(prefix="/admin", dependencies=[requires(role="admin")])
orders = APIRouter(prefix="/orders")
back = FastAPI(openapi_url=None, dependencies=[requires(fresh=timedelta(minutes=5))])
open_back = FastAPI(openapi_url=None)

def buyer(user: CurrentUser) -> str:
    return user.email

def audited() -> None: ...

@app.get("/")
async def home() -> None: ...

@app.get("/me")
async def me(user: CurrentUser) -> None: ...

@app.get("/maybe")
async def maybe(user: OptionalUser) -> None: ...

@app.post("/basket")
async def basket(by: Annotated[str, Depends(buyer)]) -> None: ...

@app.get("/looked-at", dependencies=[Depends(audited)])
async def looked_at() -> None: ...

@app.websocket("/news")
async def news(socket: WebSocket) -> None: ...

@app.websocket("/talk", dependencies=[requires(verified=True)])
async def talk(socket: WebSocket) -> None: ...

@admin.get("/users")
async def listed() -> None: ...

@admin.websocket("/live")
async def live(socket: WebSocket) -> None: ...

@orders.get("/{number}", dependencies=[requires(scope="orders:read", accepts=["api_key"])])
async def one(number: int) -> None: ...

@orders.get("/")
async def every() -> None: ...

@back.get("/figures")
async def figures() -> None: ...

@open_back.get("/help")
async def help() -> None: ...

admin.include_router(orders)
app.include_router(admin)
app.include_router(orders, prefix="/v2")
app.mount("/back", back)
app.mount("/open", open_back)
app.mount("/static", StaticFiles(directory="."))
auth.install(app)
"""
)

OPEN = {
    "/",
    "/maybe",
    "/looked-at",
    "/news",
    "/v2/orders/",
    "/open/help",
    "/static/*",
}


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Folder, list[dict[str, Any]]]:
    folder = Folder(path=tmp_path_factory.mktemp("shop"))
    (folder.path / "shop_of_routes.py").write_text(SHOP)
    done = asked(folder, "--json")
    return folder, json.loads(done.stdout)


def asked(folder: Folder, *arguments: str) -> Done:
    done = folder.run("routes", "--app", "shop_of_routes:app", *arguments)
    assert done.stderr == ""
    return done


Listed = tuple[Folder, list[dict[str, Any]]]


def test_what_is_open_is_told_from_what_is_guarded(listed: Listed) -> None:
    _, rows = listed
    assert {row["path"] for row in rows if row["open"]} == OPEN
    guarded = {row["path"]: row["guards"] for row in rows if not row["open"]}
    assert guarded == {
        "/me": ["CurrentUser"],
        "/basket": ["CurrentUser"],
        "/talk": ["requires(verified=True)"],
        "/admin/users": ["requires(role='admin')"],
        "/admin/live": ["requires(role='admin')"],
        "/admin/orders/{number}": [
            "requires(role='admin')",
            "requires(scope='orders:read', accepts='api_key')",
        ],
        "/admin/orders/": ["requires(role='admin')"],
        "/v2/orders/{number}": ["requires(scope='orders:read', accepts='api_key')"],
        "/back/figures": ["requires(fresh=5m)"],
    }


def test_a_dependency_of_ones_own_is_named_and_is_no_guard(listed: Listed) -> None:
    _, rows = listed
    row = next(row for row in rows if row["path"] == "/looked-at")
    assert (row["others"], row["guards"], row["open"]) == (["audited"], [], True)


def test_sockets_are_among_them(listed: Listed) -> None:
    _, rows = listed
    sockets = {row["path"] for row in rows if row["methods"] == ["WEBSOCKET"]}
    assert sockets == {"/news", "/talk", "/admin/live"}


def test_check_fails_until_every_open_one_is_meant(listed: Listed) -> None:
    folder, _ = listed
    assert asked(folder, "--check").returncode == 1
    every = [word for path in OPEN - {"/news"} for word in ("--public", path)]
    done = asked(folder, "--check", *every)
    assert done.returncode == 1
    assert "1 open to anybody" in done.stdout
    assert asked(folder, "--check", *every, "--public", "/new*").returncode == 0
    assert asked(folder).returncode == 0


def test_unguarded_shows_only_those(listed: Listed) -> None:
    folder, _ = listed
    shown = json.loads(asked(folder, "--unguarded", "--json").stdout)
    assert {row["path"] for row in shown} == OPEN


def test_watchwords_own_are_left_out_unless_asked_for(listed: Listed) -> None:
    folder, rows = listed
    assert not any(row["is_ours"] for row in rows)
    every = json.loads(asked(folder, "--all", "--json").stdout)
    assert {"/auth/login", "/auth/me"} <= {row["path"] for row in every if row["is_ours"]}
    assert not any(row["open"] for row in every if row["is_ours"])


def test_a_started_app_is_listed_alike(listed: Listed) -> None:
    """Lifted guards are guards still."""
    app = sys.modules["shop_of_routes"].app
    before = guarded_routes(app)

    async def run() -> None:
        async with app.router.lifespan_context(app):
            assert guarded_routes(app) == before

    asyncio.run(run())


def test_what_is_no_app_is_said(folder: Folder) -> None:
    (folder.path / "shop_of_nothing.py").write_text("app = 7\n")
    done = folder.run("routes", "--app", "shop_of_nothing:app")
    assert done.returncode == 2
    assert "no app with routes" in done.stderr
