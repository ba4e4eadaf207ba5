"""Several credentials of one request, and what each `token_check` promises."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from datetime import timedelta
from hashlib import sha256
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Request

from tests.told import (
    ADA,
    EVE,
    PASSWORD,
    PRODUCTION,
    SITE,
    Work,
    browser,
    cookie_session,
    problem,
    telling,
)
from watchword import CurrentPrincipal, CurrentUser, OptionalUser, requires
from watchword.features.sessions import Session
from watchword.features.tokens import tokens
from watchword.http.depends import CurrentClaims, CurrentIdentity, session_replaced
from watchword.http.gate import MAX_CREDENTIAL, Gate, GateSettings
from watchword.kernel.errors import StoreUnavailable
from watchword.kernel.ports import Authenticator
from watchword.storage.store import Paging
from watchword.testing import Story
from watchword.testing.story import bearer, without_limits

READS = ("get", "find", "count")


def guarded() -> FastAPI:
    """A route for each guard."""
    app = FastAPI()

    @app.get("/principal")
    async def principal(principal: CurrentPrincipal) -> str:
        return principal.id

    @app.get("/claims")
    async def claims(claims: CurrentClaims) -> Any:
        return claims["sub"]

    @app.get("/bare", dependencies=[requires()])
    async def bare() -> str:
        return "in"

    @app.get("/fitting", dependencies=[requires(claims=lambda claims: claims["sub"] != "")])
    async def fitting() -> str:
        return "in"

    @app.get("/services", dependencies=[requires(accepts=("session", "service"))])
    async def services(principal: CurrentPrincipal) -> str:
        return principal.id

    @app.get("/user")
    @app.post("/user")
    async def user(user: CurrentUser) -> str:
        return user.email

    @app.get("/identity")
    async def identity(identity: CurrentIdentity) -> bool:
        return identity.is_checked

    @app.get("/both")
    async def both(claims: CurrentClaims, user: CurrentUser, principal: CurrentPrincipal) -> Any:
        return [claims["sub"] == user.id == principal.id, sorted(principal.amr)]

    @app.get("/optional")
    async def optional(user: OptionalUser) -> str:
        return user.email if user else "nobody"

    @app.get("/role", dependencies=[requires(role="admin")])
    @app.get("/verified", dependencies=[requires(verified=True)])
    async def inside() -> str:
        return "in"

    @app.post("/replaces")
    async def replaces(request: Request) -> str | None:
        return session_replaced(request)

    return app


SIGNED_IS_ENOUGH = ("/principal", "/claims", "/bare", "/fitting", "/services")
ROW = ("/user", "/identity", "/both", "/optional", "/verified", "/auth/me")


def reads(counter: Counter[str]) -> int:
    """How many queries the store was asked."""
    return sum(count for name, count in counter.items() if name.split()[0] in READS)


async def costs_nothing(work: Work, client: httpx.AsyncClient, *paths: str, **sent: Any) -> None:
    """Show that reading these asks the store nothing, once what came before was heard of."""
    for _ in range(20):
        with work.watched() as done:
            for path in paths:
                answer = await client.get(path, **sent)
                assert answer.status_code == 200, (path, answer.text)
        if not reads(done):
            return
        await asyncio.sleep(0.05)  # word of our own changes comes through the feed
    pytest.fail("the store was asked each time")


def session_reads(counter: Counter[str]) -> int:
    """How often a session's row was read."""
    return counter["get Session"]


@pytest.fixture(params=["lifted", "plain"])
def lifted(request: pytest.FixtureRequest) -> bool:
    return request.param == "lifted"


@pytest.mark.capability("S1-27", "S1-01")
async def test_a_hit_costs_no_query_and_a_change_is_heard_of(work: Work, lifted: bool) -> None:
    async with telling(app=guarded(), lift_guards=lifted) as story:
        await story.join()
        auth = bearer((await story.log_in())["access_token"])
        await costs_nothing(work, story.client, *SIGNED_IS_ENOUGH, *ROW, headers=auth)
        await end(story)
        for path in (*SIGNED_IS_ENOUGH, *ROW):
            problem(await story.client.get(path, headers=auth), 401, "revoked_token")


async def end(story: Story) -> None:
    """End every session."""
    page = await story.auth.store.find(Session, Paging(order=("started_at", "id"), limit=50))
    for session in page.items:
        await story.auth.sessions.end(session.id, why="test")


@pytest.mark.capability("S1-27", "S1-01")
async def test_stateful_reads_the_row_at_each_request(work: Work, lifted: bool) -> None:
    options: dict[str, Any] = {"token_check": "stateful", "lift_guards": lifted}
    async with telling(app=guarded(), **options) as story, browser(story.app) as ada:
        await story.join()
        auth = bearer((await story.log_in())["access_token"])
        await cookie_session(story, ada)
        await ada.get("/user")
        for path in (*SIGNED_IS_ENOUGH, *ROW):
            with work.watched() as done:
                answer = await story.client.get(path, headers=auth)
            assert answer.status_code == 200, (path, answer.text)
            assert session_reads(done) == 1, path
        await costs_nothing(work, ada, "/user")  # the mode is for bearer tokens
        assert len(story.auth.cache) == 1
        # A row changed behind everybody's back counts at the next request.
        page = await story.auth.store.find(Session, Paging(order=("started_at", "id"), limit=50))
        for session in page.items:
            await story.auth.store.erase(Session, id=session.id)
        problem(await story.client.get("/bare", headers=auth), 401, "revoked_token")


@pytest.mark.invariant("I-25", "I-02")
@pytest.mark.capability("S1-27")
async def test_stateless_believes_a_signature_only_where_no_row_is_needed(
    work: Work,
    lifted: bool,
) -> None:
    options: dict[str, Any] = {"token_check": "stateless", "lift_guards": lifted}
    async with telling(app=guarded(), **options) as story, browser(story.app) as ada:
        await story.join()
        auth = bearer((await story.log_in())["access_token"])
        await cookie_session(story, ada)
        await ada.get("/user")
        await costs_nothing(work, story.client, *SIGNED_IS_ENOUGH, headers=auth)
        problem(await story.client.get("/claims", headers=bearer("x")), 401, "invalid_token")
        for path in ROW:
            with work.watched() as done:
                answer = await story.client.get(path, headers=auth)
            assert answer.status_code == 200, (path, answer.text)
            assert session_reads(done) == 1, path
        assert (await story.client.get("/identity", headers=auth)).json() is True
        assert (await story.client.get("/both", headers=auth)).json() == [True, ["pwd"]]
        problem(await story.client.get("/role", headers=auth), 403, "forbidden")
        await costs_nothing(work, ada, "/user")
        await end(story)
        for path in SIGNED_IS_ENOUGH:
            assert (await story.client.get(path, headers=auth)).status_code == 200, path
        for path in (*ROW, "/role"):
            problem(await story.client.get(path, headers=auth), 401, "revoked_token")
        problem(await ada.get("/bare"), 401, "revoked_token")
        story.move(hours=1)
        for path in (*SIGNED_IS_ENOUGH, *ROW):
            problem(await story.client.get(path, headers=auth), 401, "expired_token")


@pytest.mark.invariant("I-25")
@pytest.mark.capability("S1-27", "S1-01")
async def test_every_route_of_ours_reads_the_row_even_where_tokens_are_believed() -> None:
    async with telling(token_check="stateless") as story:
        await story.join()
        auth = bearer((await story.log_in())["access_token"])
        await end(story)
        schema = (await story.client.get("/openapi.json")).json()
        guarded_routes: list[str] = []
        for path, item in schema["paths"].items():
            if path == "/auth/refresh":
                continue  # asks for another token, and reads its row whatever the mode
            url = path.replace("{", "").replace("}", "")
            for method in item:
                extra: dict[str, Any] = {"json": {}} if method not in ("get", "delete") else {}
                nobody = await story.client.request(method.upper(), url, **extra)
                if nobody.status_code != 401 or nobody.json()["code"] != "not_authenticated":
                    continue
                guarded_routes.append(f"{method} {path}")
                answer = await story.client.request(method.upper(), url, headers=auth, **extra)
                problem(answer, 401, "revoked_token")
        assert len(guarded_routes) > 5, guarded_routes


@pytest.fixture
async def story() -> AsyncGenerator[Story, None]:
    async with telling(app=guarded()) as told:
        await told.join()
        await told.join(EVE)
        yield told


@pytest.mark.invariant("I-21", "I-10")
async def test_two_credentials_pass_only_where_they_agree(story: Story) -> None:
    async with browser(story.app) as ada, browser(story.app) as eve:
        token = bearer((await story.log_in())["access_token"])
        await cookie_session(story, ada)
        await cookie_session(story, eve, email=EVE)
        for _ in range(2):  # misses, then hits
            # The token authenticates, so nothing need be shown for the cookie.
            for method in ("GET", "POST"):
                answer = await ada.request(method, "/user", headers=token)
                assert answer.json() == ADA
                assert "set-cookie" not in answer.headers
                crossing = {**token, "Sec-Fetch-Site": "cross-site"}
                assert (await ada.request(method, "/user", headers=crossing)).json() == ADA
                answer = await eve.request(method, "/user", headers=token)
                problem(answer, 401, "conflicting_credentials")
                assert "set-cookie" not in answer.headers
            answer = await eve.get("/optional", headers=token)
            problem(answer, 401, "conflicting_credentials")
        assert (await eve.get("/user")).json() == EVE
        # Other schemes are none of ours: the cookie counts.
        assert (await ada.get("/user", headers={"Authorization": "Basic eDp5"})).json() == ADA


@pytest.mark.invariant("I-21")
@pytest.mark.capability("S0-83")
async def test_a_dead_cookie_beside_a_token_is_refused_and_taken_back(story: Story) -> None:
    token = bearer((await story.log_in())["access_token"])
    for value in (
        "wwc_" + "x" * 43,
        "x",
        "",
        '"quoted"',
        "e" * 9000,
        "é",
        token["Authorization"][7:],
    ):
        ada = browser(story.app)
        cookie = [(b"cookie", b"session=" + value.encode("latin-1"))]
        sent = [*cookie, (b"authorization", token["Authorization"].encode())]
        answer = await ada.get("/user", headers=sent)
        problem(answer, 401, "conflicting_credentials")
        taken = answer.headers["set-cookie"]
        assert taken == 'session=""; HttpOnly; Max-Age=0; Path=/; SameSite=lax'
        answer = await ada.get("/optional", headers=cookie)
        assert answer.json() == "nobody"
        assert answer.headers["set-cookie"] == taken
    # Whichever is dead, or both: nothing passes.
    async with browser(story.app) as ada:
        await cookie_session(story, ada)
        problem(await ada.get("/user", headers=bearer("x")), 401, "conflicting_credentials")
        await end(story)
        answer = await ada.get("/user", headers=bearer("x"))
        problem(answer, 401, "invalid_token")
        assert answer.headers["set-cookie"].startswith('session=""')


@pytest.mark.capability("S0-83")
async def test_what_a_script_sent_with_an_old_cookie_takes_no_new_one(story: Story) -> None:
    """Sent before the cookie was replaced, answered after: its name is the new one's too."""
    async with browser(story.app) as ada:
        right = await cookie_session(story, ada)
        old = {"Cookie": f"session={ada.cookies['session']}"}
        proof = {"method": "password", "password": PASSWORD}
        answer = await ada.post("/auth/reauthenticate", json=proof, headers=right)
        assert answer.status_code == 204
        assert ada.cookies["session"] not in old["Cookie"]
        for mode in ("cors", "same-origin", "no-cors"):
            sent = {**old, "Sec-Fetch-Mode": mode}
            answer = await browser(story.app).get("/user", headers=sent)
            problem(answer, 401, "invalid_token")
            assert "set-cookie" not in answer.headers
        for sent in ({**old, "Sec-Fetch-Mode": "navigate"}, old):
            answer = await browser(story.app).get("/user", headers=sent)
            assert answer.headers["set-cookie"].startswith('session=""')
        # Beside a token it is in the way of every request: then it goes.
        token = (await story.log_in())["access_token"]
        sent = {**old, **bearer(token), "Sec-Fetch-Mode": "cors"}
        answer = await browser(story.app).get("/user", headers=sent)
        problem(answer, 401, "conflicting_credentials")
        assert answer.headers["set-cookie"].startswith('session=""')


@pytest.mark.invariant("I-21")
async def test_a_credential_that_stands_twice_is_none(story: Story) -> None:
    token = bearer((await story.log_in())["access_token"])["Authorization"].encode()
    async with browser(story.app) as ada:
        await cookie_session(story, ada)
        cookie = b"session=" + ada.cookies["session"].encode()
    for headers in (
        [(b"authorization", token)] * 2,
        [(b"authorization", token)] * 3,
        [(b"authorization", token), (b"authorization", b"Basic eDp5")],
        [(b"authorization", b"Bearer")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", token.replace(b" ", b"  "))],
        [(b"authorization", token + b" ")],
        [(b"authorization", token.replace(b" ", b"\t"))],
        [(b"authorization", b"Bearer " + cookie[8:])],
        [(b"cookie", cookie + b"; " + cookie)],
        [(b"cookie", cookie)] * 2,
        [(b"cookie", cookie + b"; session=x")],
        [(b"cookie", b"session=x; " + cookie)],
        [(b"cookie", b"session=" + token[7:])],
    ):
        client = browser(story.app)
        for _ in range(2):
            problem(await client.get("/user", headers=headers), 401, "invalid_token")
    # HTTP/2 splits cookies over several headers: that is not twice.
    split = [(b"cookie", b"a=b"), (b"cookie", cookie), (b"cookie", b"c=d")]
    assert (await browser(story.app).get("/user", headers=split)).json() == ADA


@pytest.mark.invariant("I-06")
async def test_while_nobody_knows_of_the_second_credential_the_answer_is_503(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = bearer((await story.log_in())["access_token"])
    assert (await story.client.get("/user", headers=token)).json() == ADA  # kept from now on
    async with browser(story.app) as ada:
        await cookie_session(story, ada)

        async def away(*_: Any, **__: Any) -> None:
            raise StoreUnavailable

        with monkeypatch.context() as patched:
            patched.setattr(type(story.auth.store), "get", away)
            for headers in (token, {}):
                for path in ("/user", "/optional"):
                    answer = await ada.get(path, headers=headers)
                    problem(answer, 503, "store_unavailable")
                    assert "set-cookie" not in answer.headers
            assert (await story.client.get("/user", headers=token)).json() == ADA
        assert (await ada.get("/user", headers=token)).json() == ADA


@pytest.mark.standard("CVE row 8")
async def test_what_is_oversize_is_refused_before_it_is_hashed(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[int] = []

    def counted(data: bytes) -> Any:
        hashed.append(len(data))
        return sha256(data)

    monkeypatch.setattr("watchword.http.gate.sha256", counted)
    large = b"x" * 10_000_000
    for headers in (
        [(b"authorization", b"Bearer " + large)],
        [(b"cookie", b"session=" + large)],
        [(b"cookie", b"session=x"), (b"cookie", large)],
        [(b"cookie", b"session=x; " * 500_000)],
        [(b"cookie", b"x" * 100)] * 50_000,
        [(b"authorization", b"Bearer x"), (b"cookie", large)],
    ):
        answer = await browser(story.app).get("/user", headers=headers)
        problem(answer, 401, "invalid_token")
    assert max(hashed, default=0) <= MAX_CREDENTIAL + 100
    assert len(hashed) <= 1


@pytest.mark.standard("CVE row 43")
async def test_a_sign_in_knows_which_session_its_browser_had(story: Story) -> None:
    async with browser(story.app) as ada:
        right = await cookie_session(story, ada)
        session = (await sessions_of(story))[0]
        for headers in (right, {}, {"Origin": "http://localhost:8000"}):
            answer = await ada.post("/replaces", headers=headers)
            assert answer.json() == session
        answer = await ada.post("/replaces", headers=bearer("x"))
        assert answer.json() == session
        for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "same-site"}):
            assert (await ada.post("/replaces", headers={**right, **headers})).json() is None
        assert (await story.client.post("/replaces")).json() is None
        planted = {"Cookie": "session=wwc_" + "x" * 43}
        assert (await browser(story.app).post("/replaces", headers=planted)).json() is None
        await end(story)
        assert (await ada.post("/replaces", headers=right)).json() is None


async def sessions_of(story: Story) -> list[str]:
    newest = Paging(order=("started_at", "id"), descending=True, limit=50)
    return [each.id for each in (await story.auth.store.find(Session, newest)).items]


@pytest.mark.standard("CVE row 43", "7.2.4")
async def test_a_planted_cookie_becomes_nobodys_session(story: Story) -> None:
    """Fixation: the attacker's own session, or an invented one, before the victim signs in."""
    async with browser(story.app) as victim, browser(story.app) as attacker:
        await cookie_session(story, attacker, email=EVE)
        for planted in (attacker.cookies["session"], "wwc_" + "x" * 43):
            victim.cookies.clear()
            victim.cookies.set("session", planted, domain="localhost.local", path="/")
            login = {"email": ADA, "password": PASSWORD, "transport": "cookie"}
            answer = await victim.post("/auth/login", json=login)
            assert answer.status_code == 200
            given = answer.headers.get_list("set-cookie")
            value = next(text for text in given if text.startswith("session=")).split(";")[0][8:]
            assert value != planted
            fixed = browser(story.app)
            answer = await fixed.get("/optional", headers={"Cookie": f"session={planted}"})
            assert answer.json() in ("nobody", EVE)
            fresh = {"Cookie": f"session={value}"}
            assert (await browser(story.app).get("/user", headers=fresh)).json() == ADA


@pytest.mark.standard("CVE row 55", "CVE row 32")
async def test_no_answer_to_a_read_holds_a_token(story: Story) -> None:
    async with browser(story.app) as ada:
        pair = await story.log_in()
        csrf = await cookie_session(story, ada)
        secrets = [pair["access_token"], pair["refresh_token"], ada.cookies["session"]]
        secrets.append(csrf["X-CSRF-Token"])
        schema = (await story.client.get("/openapi.json")).json()
        for path, item in schema["paths"].items():
            for headers in (bearer(pair["access_token"]), {}):
                if "get" not in item:
                    continue
                answer = await ada.get(path.replace("{", "").replace("}", ""), headers=headers)
                assert not [each for each in secrets if each[-30:] in answer.text], path
                assert "wwc_" not in answer.text
                assert "wwr_" not in answer.text
        # And what we sign for another purpose is no session, nor a token.
        for value in (csrf["X-CSRF-Token"], story.auth.signer("mine").sign("x")):
            cookie = {"Cookie": f"session={value}"}
            problem(await browser(story.app).get("/user", headers=cookie), 401, "invalid_token")
            answer = await browser(story.app).get("/user", headers=bearer(value))
            problem(answer, 401, "invalid_token")
        for query in ("token", "access_token", "session", "bearer"):
            answer = await story.client.get(f"/user?{query}={pair['access_token']}")
            problem(answer, 401, "not_authenticated")


@pytest.mark.capability("S1-22", "S1-10")
async def test_claims_are_of_access_tokens_only_and_must_fit() -> None:
    app = FastAPI()
    mine = {"seen": 0}

    def fits(claims: Any) -> bool:
        mine["seen"] += 1
        return bool(claims.get("client_id") == "watchword")

    @app.get("/fits", dependencies=[requires(claims=fits)])
    @app.get("/fits-not", dependencies=[requires(claims=lambda claims: "tenant" in claims)])
    async def inside() -> str:
        return "in"

    @app.get("/claims")
    async def claims(claims: CurrentClaims) -> Any:
        with pytest.raises(TypeError):
            claims["sub"] = "x"  # type: ignore[index]
        return sorted(claims)

    async with telling(app=app) as story, browser(story.app) as ada:
        await story.join()
        pair = await story.log_in()
        await cookie_session(story, ada)
        auth = bearer(pair["access_token"])
        for _ in range(2):
            assert (await story.client.get("/fits", headers=auth)).json() == "in"
            problem(await story.client.get("/fits-not", headers=auth), 403, "forbidden")
            seen = (await story.client.get("/claims", headers=auth)).json()
            assert {"iss", "aud", "sub", "sid", "exp"} <= set(seen)
        assert mine["seen"] >= 2
        for path in ("/fits", "/fits-not"):
            problem(await ada.get(path), 403, "forbidden")  # a cookie has none
            problem(await story.client.get(path), 401, "not_authenticated")
        problem(await ada.get("/claims"), 401, "not_authenticated")
        answer = await story.client.get("/claims", headers=bearer(pair["refresh_token"]))
        problem(answer, 401, "invalid_token")


def test_a_guard_that_makes_no_sense_is_refused_at_import() -> None:
    for wrong in (
        {"role": ""},
        {"scope": ""},
        {"accepts": ()},
        {"accepts": "session"},
        {"accepts": ("sessions",)},
    ):
        with pytest.raises(TypeError):
            requires(**wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        requires("posts:delete")


@pytest.mark.capability("S1-27")
async def test_a_hit_is_answered_without_a_frame_of_the_gates() -> None:
    """What the gate returns is what the app returned: no coroutine of ours is around it."""
    async with telling(**PRODUCTION) as story, browser(story.app, SITE) as ada:
        await story.join()
        token = (await story.log_in())["access_token"]
        await story.log_in(transport="cookie", client=ada)
        for headers in (bearer(token), {}):
            assert (await ada.get("/auth/me", headers=headers)).status_code == 200
        auth, answered = story.auth, asyncio.get_running_loop().create_future()
        answered.set_result(None)
        found: list[Any] = []

        def app(scope: Any, *_: Any) -> Any:
            found.append(scope["watchword.identity"])
            return answered

        gate = Gate(
            app,
            settings=GateSettings(
                app=f"{auth.core.realm}/{auth.core.client_id}",
                cookies=auth.cookies,
                check="cached",
                takes_access_cookie=False,
                realm=auth.core.realm,
                client_id=auth.core.client_id,
                max_body=1,
            ),
            authenticators=auth.answering(Authenticator),
            cache=auth.cache,
            csrf=auth.csrf,
            clients=auth.clients,
            clock=auth.clock,
            events=auth.events,
            ready=lambda: None,
        )

        def asked(method: str, *headers: tuple[str, str]) -> Any:
            raw = [(name.encode(), value.encode()) for name, value in headers]
            scope = {"type": "http", "method": method, "path": "/", "headers": raw}
            return gate(scope, _nothing, _nothing)

        by_token = ("authorization", f"Bearer {token}")
        session = f"__Host-session={ada.cookies['__Host-session']}"
        both = ("cookie", f"a=b; {session}; __Host-csrf={ada.cookies['__Host-csrf']}")
        for method, headers in (
            ("GET", [by_token]),
            ("POST", [by_token, ("cookie", "theirs=x")]),
            ("GET", [both]),
            ("HEAD", [both]),
            ("GET", []),
        ):
            given = asked(method, *headers)
            for _ in range(50):  # word of our own sign-in may still be on its way
                if given is answered:
                    break
                await given
                await asyncio.sleep(0.02)
                given = asked(method, *headers)
            assert given is answered, (method, headers)
            assert (found[-1] is not None) == bool(headers)
        for method, headers in (
            ("POST", [both]),
            ("GET", [("cookie", session)]),  # it has no CSRF token yet
            ("GET", [by_token, both]),
        ):
            given = asked(method, *headers)
            assert given is not answered
            await given


async def _nothing(*_: Any) -> Any:
    return None


def opened_to_keys() -> FastAPI:
    """Routes that take keys, and routes beside them that do not."""
    app = FastAPI()
    keys = requires(accepts=("session", "api_key"))

    async def named(user: CurrentUser) -> str:
        return user.email

    first = APIRouter(prefix="/first", dependencies=[keys])
    late = APIRouter(prefix="/late", dependencies=[Depends(named)])

    @first.get("/user")
    @first.post("/user")
    async def user(user: CurrentUser) -> str:
        return user.email

    @first.get("/closed", dependencies=[requires()])
    async def closed() -> str:
        return "in"

    @first.get("/fresh", dependencies=[requires(fresh=timedelta(days=1))])
    async def fresh() -> str:
        return "in"

    @late.get("/user", dependencies=[keys])
    async def behind() -> str:
        return "in"

    app.include_router(first)
    app.include_router(late)
    return app


@pytest.mark.capability("S1-22")
@pytest.mark.invariant("I-10", "I-21")
async def test_a_key_passes_only_what_was_opened_to_keys_before() -> None:
    for lifted in (True, False):
        pair = [
            *(each for each in without_limits() if each.name != "tokens"),
            tokens(cookie_pair=True),
        ]
        app = opened_to_keys()
        async with telling(app=app, features=pair, lift_guards=lifted) as story:
            await story.join()
            await story.join(EVE)
            auth = bearer((await story.log_in())["access_token"])
            answer = await story.client.post("/auth/api-keys", json={"name": "x"}, headers=auth)
            value = answer.json()["key"]
            key = bearer(value)
            assert (await story.client.get("/first/user", headers=key)).json() == ADA
            for path in ("/first/closed", "/first/fresh", "/late/user", "/auth/me"):
                problem(await story.client.get(path, headers=key), 403, "forbidden")
                assert (await story.client.get(path, headers=auth)).status_code == 200
            async with browser(app) as ada, browser(app) as eve:
                await cookie_session(story, ada)
                await cookie_session(story, eve, email=EVE)
                assert (await ada.post("/first/user", headers=key)).json() == ADA
                problem(await ada.get("/first/closed", headers=key), 403, "forbidden")
                answer = await eve.get("/first/user", headers=key)
                problem(answer, 401, "conflicting_credentials")
            # A key is no cookie, wherever it is put (I-03).
            for name in ("session", "access"):
                for _ in range(2):
                    sent = {"Cookie": f"{name}={value}"}
                    answer = await browser(app).get("/first/user", headers=sent)
                    problem(answer, 401, "invalid_token")
                    assert f'{name}=""' in answer.headers["set-cookie"]
