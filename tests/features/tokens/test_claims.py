"""Claims: what every access token says, what an app adds, and who may read it how."""

import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import jwt
import pytest
from fastapi import Depends, FastAPI

from tests.told import ADA, SITE, Story, browser, csrf_of, neighbour, problem, telling
from watchword import CurrentClaims, User, requires
from watchword.crypto.jose import sign
from watchword.features.keys import keys
from watchword.features.sessions import Session
from watchword.features.tokens import ClaimsHook, tokens
from watchword.kernel.errors import ExpiredToken, InvalidToken
from watchword.storage.store import Paging, where
from watchword.testing.story import bearer, without_limits

OWN = {"iss", "aud", "sub", "client_id", "sid", "jti", "iat", "exp", "scope"}


@asynccontextmanager
async def told(
    *, app: FastAPI | None = None, claims: ClaimsHook | None = None, **named: Any
) -> AsyncGenerator[Story]:
    core = {name: named.pop(name) for name in ("public_url", "audience") if name in named}
    own = [tokens(claims=claims, **named)]
    features = [*own, *(f for f in without_limits() if f.name != "tokens")]
    async with telling(features=features, app=app, **core) as story:
        await story.register()
        yield story


def read(token: str) -> dict[str, Any]:
    return jwt.decode(token, options={"verify_signature": False})


async def refreshed(story: Story, token: str) -> dict[str, Any]:
    answer = await story.client.post("/auth/refresh", json={"refresh_token": token})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def only_session(story: Story) -> Session:
    page = await story.auth.store.find(Session, Paging(order=("started_at", "id")))
    return page.items[-1]


@pytest.mark.capability("S1-03", "S1-18", "S2-17", "S0-41")
@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "HS256", "RS256"])
async def test_every_algorithm_goes_the_whole_way(algorithm: Any) -> None:
    features = [keys(algorithm=algorithm), *(f for f in without_limits() if f.name != "keys")]
    async with telling(features=features) as story, browser(story.app) as client:
        await story.register()
        pair = await story.log_in()
        header = jwt.get_unverified_header(pair["access_token"])
        assert (header["alg"], header["typ"]) == (algorithm, "at+jwt")
        assert (await story.me(pair["access_token"])).status_code == 200
        pair = await refreshed(story, pair["refresh_token"])
        assert (await story.me(pair["access_token"])).status_code == 200
        await story.log_in(transport="hybrid", client=client)
        answer = await client.post("/auth/refresh", headers=csrf_of(client))
        assert (await story.me(answer.json()["access_token"])).status_code == 200
        message, _, signature = pair["access_token"].rpartition(".")
        bent = ("B" if signature[0] != "B" else "C") + signature[1:]
        problem(await story.me(f"{message}.{bent}"), 401, "invalid_token")


@pytest.mark.capability("S0-23", "S0-47", "S1-19", "S4-02", "DEF-30")
async def test_claims_are_the_same_before_and_after_a_refresh() -> None:
    def hook(user: User, session: Session) -> dict[str, object]:
        return {"email": user.email, "org": {"id": 7, "plan": "gold"}, "amr_was": [*session.amr]}

    app = FastAPI()

    @app.get("/claims")
    async def claims(found: CurrentClaims) -> Mapping[str, Any]:
        return found

    async with told(app=app, claims=hook) as story:
        pair = await story.log_in()
        first = read(pair["access_token"])
        assert set(first) == OWN | {"email", "org", "amr_was"}
        assert first["sub"] == pair["user"]["id"]
        assert (first["email"], first["org"]["plan"]) == (ADA, "gold")
        seen = await story.client.get("/claims", headers=bearer(pair["access_token"]))
        assert seen.json() == first
        story.move(minutes=10)
        after = await refreshed(story, pair["refresh_token"])
        second = read(after["access_token"])
        differing = {name for name in first if first[name] != second[name]}
        assert differing == {"jti", "iat", "exp"}
        again = await refreshed(story, pair["refresh_token"])  # within the grace
        assert read(again["access_token"])["org"] == first["org"]


@pytest.mark.capability("DEF-30")
async def test_a_hook_is_asked_anew_at_every_refresh() -> None:
    async with told() as story:
        plan = "free"

        @story.auth.tokens.claims
        async def hook(user: User, session: Session) -> dict[str, object]:
            found = await story.auth.users.get(user.id)  # no transaction of ours is open
            assert found is not None
            assert session.user_id == user.id
            return {"plan": plan}

        pair = await story.log_in()
        assert read(pair["access_token"])["plan"] == "free"
        plan = "gold"
        assert read((await refreshed(story, pair["refresh_token"]))["access_token"])["plan"] == plan


def giving(answer: Any) -> ClaimsHook:
    return lambda user, session: answer


def _raises(*_: object) -> dict[str, object]:
    raise LookupError("the directory is away")


BROKEN: dict[str, ClaimsHook] = {
    "raises": _raises,
    "sets sub": giving({"sub": "somebody"}),
    "sets exp": giving({"exp": 2**40}),
    "sets cnf": giving({"cnf": {}}),
    "too much": giving({"x": "y" * 2000}),
    "no JSON": giving({"x": object()}),
    "no number": giving({"x": float("nan")}),
    "no name": giving({1: 1}),
    "nothing": giving(None),
    "a list": giving(["x"]),
}


@pytest.mark.capability("S0-24")
@pytest.mark.parametrize("how", BROKEN)
async def test_no_token_is_made_without_the_claims_it_should_have(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "watchword.tokens")
    async with told() as story, browser(story.app) as client:
        pair = await story.log_in()
        before = await only_session(story)
        story.auth.tokens.claims(BROKEN[how])
        for transport in ("bearer", "hybrid"):
            body = {"email": ADA, "password": "correct horse battery staple"}
            answer = await client.post("/auth/login", json={**body, "transport": transport})
            problem(answer, 503, "claims_unavailable")
            assert "refresh" not in client.cookies
        page = await story.auth.store.find(Session, Paging(order=("started_at", "id")))
        ended = [each.ended_why for each in page.items if each.id != before.id]
        assert ended == ["claims_unavailable"] * 2  # nobody holds a token of them
        assert "its claims cannot be had" in caplog.text
        # A hook that fails for long signs nobody out: the token given is as good as before.
        body = {"refresh_token": pair["refresh_token"]}
        for _ in range(2):
            answer = await client.post("/auth/refresh", json=body)
            problem(answer, 503, "claims_unavailable")
            story.move(minutes=1)
        assert await story.auth.sessions.get(before.id) == before
        story.auth.tokens.hooks.clear()
        assert (await client.post("/auth/refresh", json=body)).status_code == 200


async def test_two_hooks_do_not_set_one_claim() -> None:
    async with told(claims=giving({"org": 1})) as story:
        story.auth.tokens.claims(giving({"plan": 2}))
        claims = read((await story.log_in())["access_token"])
        assert (claims["org"], claims["plan"]) == (1, 2)
        story.auth.tokens.claims(giving({"org": 3}))
        body = {"email": ADA, "password": "correct horse battery staple"}
        problem(await story.client.post("/auth/login", json=body), 503, "claims_unavailable")


@pytest.mark.capability("S4-04", "S1-18")
async def test_a_claim_that_is_required_is_required_of_every_token() -> None:
    async with told(required_claims=["org"]) as story:
        body = {"email": ADA, "password": "correct horse battery staple"}
        problem(await story.client.post("/auth/login", json=body), 503, "claims_unavailable")
        story.auth.tokens.claims(giving({"org": "acme"}))
        token = (await story.log_in())["access_token"]
        assert (await story.me(token)).status_code == 200
        claims = read(token)
        for name in (*OWN, "org"):
            less = {key: value for key, value in claims.items() if key != name}
            bent = sign(less, key=story.auth.keys.active(), typ="at+jwt")
            problem(await story.me(bent), 401, "invalid_token")


@pytest.mark.capability("S1-03", "S1-17")
@pytest.mark.standard("8: 9.2.3-4")
async def test_audiences_of_one_trust_domain_stand_in_one_list() -> None:
    other, third = "https://billing.example.com", "https://third.example.com"
    async with told(public_url=SITE, audiences=[other]) as story:
        token = (await story.log_in())["access_token"]
        claims = read(token)
        assert claims["aud"] == [SITE, other]
        assert (await story.me(token)).status_code == 200
        key = story.auth.keys.active()
        good = (SITE, [SITE], [other, SITE])
        bad = (other, [other], [SITE, third], [SITE, other, third], [], [SITE, SITE], [[SITE]])
        worse = ([SITE, None], {SITE: 1}, None, 1, f"{SITE} {other}", [SITE, [other]])
        for aud in (*good, *bad, *worse):
            status = (
                await story.me(sign({**claims, "aud": aud}, key=key, typ="at+jwt"))
            ).status_code
            assert status == (200 if aud in good else 401), aud


@pytest.mark.capability("S1-17")
async def test_a_token_for_another_service_is_refused_here_and_taken_there(sqlite_url: str) -> None:
    billing = "https://billing.example.com"
    async with (
        telling(sqlite_url, public_url=SITE) as story,
        neighbour(story, sqlite_url, public_url=SITE, audience=billing) as other,
    ):
        await story.join()
        own = (await story.log_in())["access_token"]
        user = await story.auth.users.find(ADA)
        session = await only_session(story)
        theirs = await story.auth.tokens.access_token(session, user, audience=billing)
        assert read(theirs)["aud"] == billing
        problem(await story.me(theirs), 401, "invalid_token")
        assert (await story.me(own)).status_code == 200
        assert (await other.me(theirs)).status_code == 200
        problem(await other.me(own), 401, "invalid_token")


@pytest.mark.capability("S1-10", "S1-26")
async def test_claims_are_for_who_brings_an_access_token() -> None:
    app = FastAPI()

    @app.get("/claims")
    async def claims(found: CurrentClaims) -> Mapping[str, Any]:
        return found

    async with told(app=app) as story, browser(story.app) as client:
        pair = await story.log_in()
        found = (await story.client.get("/claims", headers=bearer(pair["access_token"]))).json()
        assert found == read(pair["access_token"])
        refresh = await story.client.get("/claims", headers=bearer(pair["refresh_token"]))
        problem(refresh, 401, "invalid_token")
        await story.log_in(transport="cookie", client=client)
        problem(await client.get("/claims"), 401, "not_authenticated")


@pytest.mark.capability("S1-22")
async def test_a_validator_of_ones_own_decides_by_the_claims() -> None:
    def may_write(claims: Mapping[str, Any]) -> bool:
        return "write:data" in claims.get("permissions", ())

    app = FastAPI()

    @app.get("/read", dependencies=[requires(claims=lambda claims: "permissions" in claims)])
    async def reads() -> str:
        return "read"

    @app.get("/write", dependencies=[requires(claims=may_write)])
    async def writes() -> str:
        return "written"

    @app.get("/later")
    async def later(found: CurrentClaims, _: None = Depends(lambda: None)) -> list[str]:
        return [*found["permissions"]]

    granted = ["read:data"]
    async with told(app=app, claims=giving({"permissions": granted})) as story:
        pair = await story.log_in()
        token = pair["access_token"]
        assert (await story.client.get("/read", headers=bearer(token))).status_code == 200
        problem(await story.client.get("/write", headers=bearer(token)), 403, "forbidden")
        problem(await story.client.get("/write"), 401, "not_authenticated")
        granted.append("write:data")
        token = (await refreshed(story, pair["refresh_token"]))["access_token"]
        assert (await story.client.get("/write", headers=bearer(token))).status_code == 200
        found = await story.client.get("/later", headers=bearer(token))
        assert found.json() == ["read:data", "write:data"]


@pytest.mark.capability("S1-27")
async def test_stateless_tokens_cost_no_query_where_the_route_asks_for_no_row(work: Any) -> None:
    app = FastAPI()

    @app.get("/claims")
    async def claims(found: CurrentClaims) -> str:
        return found["sub"]

    async with telling(app=app, token_check="stateless") as story:
        await story.register()
        pair = await story.log_in()
        with work.watched() as done:
            for _ in range(3):
                found = await story.client.get("/claims", headers=bearer(pair["access_token"]))
                assert found.json() == pair["user"]["id"]
        assert not done
        # The price of it: what ended goes on until the token does; /auth/me reads the row.
        await story.client.post("/auth/logout", headers=bearer(pair["access_token"]))
        found = await story.client.get("/claims", headers=bearer(pair["access_token"]))
        assert found.status_code == 200
        problem(await story.me(pair["access_token"]), 401, "revoked_token")
        story.move(minutes=15)
        late = await story.client.get("/claims", headers=bearer(pair["access_token"]))
        problem(late, 401, "expired_token")


async def test_claims_that_fit_no_token_are_said_so() -> None:
    far = tuple(f"https://{number}.{'a' * 190}.example.com" for number in range(10))
    async with told(audiences=far, claims=giving({"x": "y" * 1900})) as story:
        body = {"email": ADA, "password": "correct horse battery staple"}
        problem(await story.client.post("/auth/login", json=body), 503, "claims_unavailable")


@pytest.mark.capability("S0-25", "S0-32")
async def test_what_is_wrong_with_a_token_has_a_type() -> None:
    async with told() as story:
        token = (await story.log_in())["access_token"]
        verified = story.auth.tokens.verified
        assert await verified(token) == read(token)
        with pytest.raises(InvalidToken) as refused:
            await verified(token[:-4] + "AAAA")
        assert not isinstance(refused.value, ExpiredToken)
        user = await story.auth.users.find(ADA)
        await story.auth.users.end_all(user.id, why="password_change")
        problem(await story.me(token), 401, "revoked_token")
        story.move(seconds=1)
        fresh = (await story.log_in())["access_token"]
        assert (await story.me(fresh)).status_code == 200
        story.move(minutes=15)
        with pytest.raises(ExpiredToken):
            await verified(fresh)


@pytest.mark.capability("S0-28")
async def test_roles_are_read_anew_and_stand_in_no_token() -> None:
    app = FastAPI()

    @app.get("/boats", dependencies=[requires(role="captain")])
    async def boats() -> str:
        return "boats"

    async with told(app=app) as story:
        pair = await story.log_in()
        token = pair["access_token"]
        problem(await story.client.get("/boats", headers=bearer(token)), 403, "forbidden")
        user = await story.auth.users.find(ADA)
        await story.auth.store.update(User, where(id=user.id), roles=("captain",))
        story.auth.cache.empty()
        token = (await refreshed(story, pair["refresh_token"]))["access_token"]
        assert "roles" not in read(token)
        assert (await story.client.get("/boats", headers=bearer(token))).status_code == 200
