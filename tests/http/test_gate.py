"""The gate: hosts, odd paths, sockets, and a store that is away."""

import logging
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest
from fastapi import APIRouter, FastAPI, WebSocket

from tests.servers import Postgres, in_thread
from tests.told import ADA, ANOTHER, PASSWORD, SITE, browser, problem, telling
from watchword import CurrentUser, OptionalUser, requires
from watchword.crypto.keys import generate_secret
from watchword.kernel.events import Event
from watchword.storage.record import schema_of
from watchword.storage.store import Paging
from watchword.testing.story import bearer


@pytest.mark.invariant("I-22")
async def test_development_answers_to_loopback_names_only() -> None:
    async with telling(dev_hosts=("box.test",)) as story:
        for host in ("localhost", "127.0.0.1:8000", "[::1]:8000", "a.localhost", "LOCALHOST:1"):
            answer = await story.client.get("/auth/me", headers={"Host": host})
            problem(answer, 401, "not_authenticated")
        named = await story.client.get("/auth/me", headers={"Host": "box.test:99"})
        problem(named, 401, "not_authenticated")
        for host in (
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evillocalhost",
            "192.168.1.1",
            "[::2]",
        ):
            for path in ("/auth/me", "/docs", "/nowhere"):
                answer = await story.client.get(path, headers={"Host": host})
                problem(answer, 421, "host_not_allowed")


@pytest.mark.invariant("I-26")
@pytest.mark.standard("CVE row 24")
async def test_an_odd_path_or_host_can_only_be_refused() -> None:
    app = FastAPI()
    router = APIRouter(prefix="/admin", dependencies=[requires(role="admin")])

    @router.get("/boats")
    async def boats() -> str:
        return "secret boats"

    app.include_router(router)
    async with telling(app=app, environment="production", public_url=SITE) as story:
        await story.join()
        auth = bearer((await story.log_in())["access_token"])
        for path in (
            "/admin/boats",
            "//admin/boats",
            "/ADMIN/boats",
            "/admin/boats/",
            "/admin//boats",
            "/admin/boats;x",
            "/admin;x/boats",
            "/admin%2fboats",
            "/public/../admin/boats",
            "/./admin/boats",
            "/admin/boats%00",
            "/admin/%62oats",
            "/admin/boats?x=/public",
        ):
            for host in ("accounts.example.com", "a/public?", "a/public#", "x@y"):
                is_host = host == "accounts.example.com"
                for headers in ({}, auth):
                    answer = await story.client.get(path, headers={**headers, "Host": host})
                    refused = (401, 403, 404, 307) if is_host else (400,)
                    assert answer.status_code in refused, (path, host)
                    assert "secret" not in answer.text
        for path in ("//auth/me", "/AUTH/me", "/auth/me;x", "/auth%2fme", "/auth//me"):
            assert (await story.client.get(path)).status_code in (401, 404), path


async def knock(app: Any, path: str, headers: dict[str, str]) -> list[dict[str, Any]]:
    """Open a socket, as a server would tell the app; what the app says."""
    said: list[dict[str, Any]] = []
    scope = {
        "type": "websocket",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "scheme": "ws",
        "query_string": b"",
        "subprotocols": [],
        "client": ("127.0.0.1", 1),
        "server": ("localhost", 8000),
        "headers": [
            (b"host", b"localhost:8000"),
            *((name.lower().encode(), value.encode()) for name, value in headers.items()),
        ],
    }

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.disconnect" if said else "websocket.connect", "code": 1000}

    async def send(message: dict[str, Any]) -> None:
        said.append(message)

    await app(scope, receive, send)
    return said


@pytest.mark.invariant("I-26")
async def test_a_socket_has_no_identity_and_a_guard_closes_it() -> None:
    async with telling() as story, browser(story.app) as client:
        seen: list[Any] = []

        @story.app.websocket("/open")
        async def anybody(socket: WebSocket) -> None:
            seen.append(socket.scope.get("watchword.identity"))
            await socket.accept()

        @story.app.websocket("/user")
        async def user(socket: WebSocket, user: CurrentUser) -> None:
            await socket.accept()

        @story.app.websocket("/perhaps")
        async def perhaps(socket: WebSocket, user: OptionalUser) -> None:
            await socket.accept()

        @story.app.websocket("/role", dependencies=[requires(role="admin")])
        async def role(socket: WebSocket) -> None:
            await socket.accept()

        await story.register()
        token = (await story.log_in())["access_token"]
        await story.log_in(transport="cookie", client=client)
        cookie = {"Cookie": f"session={client.cookies['session']}"}
        for headers in ({}, bearer(token), cookie):
            (opened,) = await knock(story.app, "/open", headers)
            assert opened["type"] == "websocket.accept"
            for path in ("/user", "/perhaps", "/role"):
                (closed,) = await knock(story.app, path, headers)
                assert (closed["type"], closed["code"]) == ("websocket.close", 1008)
        assert seen == [None] * 3


@pytest.mark.capability("DEF-22", "S1-25")
async def test_connections_that_were_cut_are_made_anew(postgres_url: str) -> None:
    async with telling(postgres_url) as story:
        await story.register()
        pair = await story.log_in()
        for _ in range(3):
            admin = await asyncpg.connect(postgres_url)
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            await admin.close()
            story.move(seconds=3)
            answers = [(await story.me(pair["access_token"])) for _ in range(3)]
            assert answers[-1].status_code == 200
            for answer in answers:
                if answer.status_code != 200:
                    problem(answer, 503, "store_unavailable")


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    server = Postgres.start(shared=False)
    yield server
    server.stop()


@pytest.mark.slow
@pytest.mark.capability("DEF-22")
@pytest.mark.invariant("I-06")
async def test_while_the_store_is_away_the_answer_is_503_never_yes(
    own_postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    url = await own_postgres.make_database()
    async with telling(url) as story, browser(story.app) as client:
        await story.register()
        pair = await story.log_in()
        await story.log_in(transport="cookie", client=client)
        assert (await story.me(pair["access_token"])).status_code == 200
        await in_thread(own_postgres.halt)
        story.move(seconds=2)
        login = {"email": ADA, "password": PASSWORD}
        for answer in (
            await story.me(pair["access_token"]),
            await client.get("/auth/me"),
            await story.client.post("/auth/login", json=login),
            await story.client.post("/auth/register", json={**login, "email": "x@example.com"}),
            await story.client.post("/auth/refresh", json={"refresh_token": pair["refresh_token"]}),
            await story.client.post("/auth/password-reset-request", json={"email": ADA}),
        ):
            body = problem(answer, 503, "store_unavailable")
            assert answer.headers["retry-after"] == "1"
            assert "postgres" not in str(body).lower()
        problem(await story.client.get("/auth/me"), 401, "not_authenticated")
        await in_thread(own_postgres.resume)
        assert (await story.me(pair["access_token"])).status_code == 200
        assert (await client.get("/auth/me")).status_code == 200
        await story.log_in()


@pytest.fixture
def everything_logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    return caplog


@pytest.mark.standard("16.2.5")
@pytest.mark.capability("S2-13")
async def test_no_log_repr_or_row_shows_a_secret(
    database_url: str, everything_logged: pytest.LogCaptureFixture
) -> None:
    secret = generate_secret()
    async with telling(database_url, secret=secret) as story, browser(story.app) as client:
        shown: list[str] = []

        @story.auth.on(Event)
        async def hear(event: Event) -> None:
            shown.append(repr(event))

        await story.join()
        pair = await story.log_in()
        await story.log_in(transport="cookie", client=client)
        body = {"refresh_token": pair["refresh_token"]}
        renewed = (await story.client.post("/auth/refresh", json=body)).json()
        await story.client.post("/auth/login", json={"email": ADA, "password": "a wrong guess"})
        await story.client.post("/auth/password-reset-request", json={"email": ADA})
        await story.mails()
        token = story.outbox.token(ADA, "wwp")
        body = {"token": token, "new_password": ANOTHER}
        assert (await story.client.post("/auth/password-reset", json=body)).status_code == 204
        await story.me("eyJ" + "x" * 60)
        secrets = [
            PASSWORD,
            ANOTHER,
            "a wrong guess",
            token,
            story.outbox.token(ADA, "wwv"),
            pair["access_token"],
            pair["refresh_token"],
            renewed["refresh_token"],
            client.cookies["session"],
            secret.reveal(),
        ]
        rows: list[str] = []
        for kind in story.auth.records:
            key = schema_of(kind).key[1:]
            page = await story.auth.store.find(kind, Paging(order=key, limit=500))
            rows.extend(
                f"{getattr(row, name)!s}" for row in page.items for name in schema_of(kind).columns
            )
            shown.extend(map(repr, page.items))
        shown += [repr(story.auth.settings), repr(story.auth.core), repr(story.auth)]
        shown += [everything_logged.text, *rows]
        for text in shown:
            for each in secrets:
                assert each not in text
                assert each[-20:] not in text
