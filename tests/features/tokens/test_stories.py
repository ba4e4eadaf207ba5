"""Tokens over HTTP: the pair, its renewal, and what ends it."""

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import jwt
import pytest

from tests.told import ADA, EVE, PASSWORD, SITE, Story, browser, neighbour, problem, telling
from watchword.features.keys import keys
from watchword.features.sessions import RefreshTokenReplayed, Session, SessionEnded
from watchword.features.tokens import refresh as form
from watchword.features.tokens import tokens
from watchword.kernel.errors import RevokedToken
from watchword.storage.record import schema_of
from watchword.storage.store import Paging
from watchword.testing.story import bearer, without_limits


async def refresh(
    story: Story, token: str, *, client: httpx.AsyncClient | None = None, **headers: str
) -> httpx.Response:
    body = {"refresh_token": token}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await (client or story.client).post("/auth/refresh", json=body, headers=named)


async def only_session(story: Story) -> Session:
    page = await story.auth.store.find(Session, Paging(order=("started_at", "id")))
    assert len(page.items) == 1
    return page.items[0]


@pytest.mark.capability("S1-06", "S2-04", "S2-12", "S2-17")
@pytest.mark.standard("RFC 9068 §2", "RFC 6749 §5.1")
async def test_a_sign_in_gives_a_pair_that_others_can_verify(database_url: str) -> None:
    async with telling(database_url, public_url=SITE) as story:
        await story.register()
        answer = await story.client.post("/auth/login", json={"email": ADA, "password": PASSWORD})
        assert answer.headers["cache-control"] == "no-store"
        pair = answer.json()
        assert set(pair) == {"access_token", "token_type", "expires_in", "refresh_token", "user"}
        assert (pair["token_type"], pair["expires_in"]) == ("Bearer", 900)
        jwks = (await story.client.get("/.well-known/jwks.json")).json()
        header = jwt.get_unverified_header(pair["access_token"])
        assert header == {"alg": "ES256", "typ": "at+jwt", "kid": jwks["keys"][0]["kid"]}
        key = jwt.PyJWK(jwks["keys"][0])
        claims = jwt.decode(pair["access_token"], key, ["ES256"], audience=SITE, issuer=SITE)
        names = {"iss", "aud", "sub", "client_id", "sid", "jti", "iat", "exp", "scope"}
        assert set(claims) == names
        assert claims["exp"] - claims["iat"] == 900
        assert claims["sub"] == pair["user"]["id"]
        assert claims["client_id"] == "watchword"
        assert "roles" not in claims


@pytest.mark.capability("S2-17")
@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "HS256", "RS256"])
async def test_the_header_follows_the_setting(algorithm: Any) -> None:
    features = [keys(algorithm=algorithm), *(f for f in without_limits() if f.name != "keys")]
    async with telling(features=features) as story:
        await story.register()
        token = (await story.log_in())["access_token"]
        assert jwt.get_unverified_header(token)["alg"] == algorithm
        assert (await story.me(token)).status_code == 200
        published = (await story.client.get("/.well-known/jwks.json")).json()["keys"]
        assert [key["alg"] for key in published] == ([] if algorithm == "HS256" else [algorithm])
        assert not any({"d", "k", "p", "q"} & set(key) for key in published)


@pytest.mark.capability("S2-12")
async def test_an_access_token_ends_when_it_says(database_url: str) -> None:
    features = [tokens(access_ttl="30m"), *(f for f in without_limits() if f.name != "tokens")]
    async with telling(database_url, features=features) as story:
        await story.register()
        pair = await story.log_in()
        assert pair["expires_in"] == 1800
        story.move(minutes=29, seconds=58)
        assert (await story.me(pair["access_token"])).status_code == 200
        story.move(seconds=2)
        problem(await story.me(pair["access_token"]), 401, "expired_token")


@pytest.mark.capability("S2-06", "S1-11", "S0-28", "DEF-07")
async def test_a_refresh_gives_the_next_pair_again_and_again(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.register()
        pair = await story.log_in()
        seen = {pair["refresh_token"]}
        for _ in range(5):
            story.move(minutes=16)
            answer = await refresh(story, pair["refresh_token"])
            assert answer.status_code == 200
            assert answer.headers["cache-control"] == "no-store"
            pair = answer.json()
            assert set(pair) == {"access_token", "token_type", "expires_in", "refresh_token"}
            assert pair["refresh_token"] not in seen
            seen.add(pair["refresh_token"])
            assert (await story.me(pair["access_token"])).status_code == 200
        assert len({token[: 4 + 22] for token in seen}) == 1  # one family
        assert await story.auth.store.count(Session) == 1  # rotated in place


@pytest.mark.capability("S2-06", "S3-08", "DEF-07")
@pytest.mark.invariant("I-04", "I-14")
async def test_a_token_that_comes_twice_ends_the_session_and_that_stays(database_url: str) -> None:
    async with telling(database_url) as story:
        heard: list[str] = []

        @story.auth.on(RefreshTokenReplayed)
        async def hear(event: RefreshTokenReplayed) -> None:
            heard.append(event.session_id)

        @story.auth.on(SessionEnded)
        async def ended(event: SessionEnded) -> None:
            heard.append(event.why)

        await story.register()
        first = await story.log_in()
        other = await story.log_in()
        second = (await refresh(story, first["refresh_token"])).json()
        story.move(seconds=10)
        problem(await refresh(story, first["refresh_token"]), 401, "refresh_token_reused")
        assert "refresh_token_reused" in heard
        assert len(heard) == 2
        problem(await story.me(second["access_token"]), 401, "revoked_token")
        problem(await refresh(story, second["refresh_token"]), 401, "revoked_token")
        assert (await story.me(other["access_token"])).status_code == 200


@pytest.mark.capability("DEF-07")
@pytest.mark.invariant("I-14")
async def test_an_old_generation_ends_the_session_however_old(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.register()
        chain = [(await story.log_in())["refresh_token"]]
        for _ in range(4):
            story.move(hours=1)
            chain.append((await refresh(story, chain[-1])).json()["refresh_token"])
        problem(await refresh(story, chain[0]), 401, "refresh_token_reused")
        problem(await refresh(story, chain[-1]), 401, "revoked_token")


@pytest.mark.capability("S2-06")
async def test_a_refresh_token_ends_unused_after_a_week_and_for_good_after_a_month(
    database_url: str,
) -> None:
    async with telling(database_url) as story:
        await story.register()
        pair = await story.log_in()
        unused = await story.log_in()
        for _ in range(4):
            story.move(days=6, hours=23)
            pair = (await refresh(story, pair["refresh_token"])).json()
        problem(await refresh(story, unused["refresh_token"]), 401, "expired_token")
        story.move(days=2, hours=3, minutes=50)
        last = await refresh(story, pair["refresh_token"])
        assert last.status_code == 200
        story.move(minutes=10)
        problem(await refresh(story, last.json()["refresh_token"]), 401, "expired_token")
        problem(await story.me(last.json()["access_token"]), 401, "expired_token")


@pytest.mark.invariant("I-14")
@pytest.mark.capability("DEF-07")
@pytest.mark.standard("CVE row 34")
async def test_fifty_refreshes_at_once_get_one_successor(database_url: str) -> None:
    # They queue for five connections: on a busy machine longer than a request would wait.
    if database_url.startswith("postgresql"):
        database_url += f"{'&' if '?' in database_url else '?'}pool_timeout=60"
    async with telling(database_url) as story:
        await story.register()
        token = (await story.log_in())["refresh_token"]
        answers = await asyncio.gather(*(refresh(story, token) for _ in range(50)))
        assert [answer.status_code for answer in answers] == [200] * 50
        successors = {answer.json()["refresh_token"] for answer in answers}
        assert len(successors) == 1
        assert (await story.me(answers[0].json()["access_token"])).status_code == 200
        assert (await refresh(story, successors.copy().pop())).status_code == 200  # it lives
        story.move(seconds=10)
        problem(await refresh(story, token), 401, "refresh_token_reused")
        problem(await refresh(story, successors.pop()), 401, "refresh_token_reused")
        problem(await story.me(answers[0].json()["access_token"]), 401, "revoked_token")


@pytest.mark.invariant("I-14")
async def test_a_lost_answer_is_given_again_within_the_grace(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.register()
        token = (await story.log_in())["refresh_token"]
        lost = (await refresh(story, token)).json()
        story.move(seconds=9)
        again = (await refresh(story, token)).json()
        assert again["refresh_token"] == lost["refresh_token"]
        story.move(seconds=1)  # ten since the *first* rotation: not extended
        problem(await refresh(story, token), 401, "refresh_token_reused")


@pytest.mark.invariant("I-14")
async def test_grace_is_for_the_client_that_rotated(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.register()
        token = (await story.log_in())["refresh_token"]
        await refresh(story, token, User_Agent="Ada's browser")
        same = await refresh(story, token, User_Agent="Ada's browser")
        assert same.status_code == 200
        other = await refresh(story, token, User_Agent="Eve's script")
        problem(other, 401, "refresh_token_reused")
        problem(await refresh(story, same.json()["refresh_token"]), 401, "revoked_token")


@pytest.mark.invariant("I-14")
async def test_grace_is_over_once_the_successor_was_presented(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.register()
        first = (await story.log_in())["refresh_token"]
        second = (await refresh(story, first)).json()["refresh_token"]
        assert (await refresh(story, second)).status_code == 200
        problem(await refresh(story, first), 401, "refresh_token_reused")


@pytest.mark.invariant("I-14")
@pytest.mark.parametrize("how", ["logout", "disable", "end_all"])
async def test_grace_asks_session_user_and_epoch_as_always(database_url: str, how: str) -> None:
    async with telling(database_url) as story:
        await story.register()
        pair = await story.log_in()
        await refresh(story, pair["refresh_token"])
        user = await story.auth.users.find(ADA)
        if how == "logout":
            await story.client.post("/auth/logout", headers=bearer(pair["access_token"]))
        elif how == "disable":
            await story.auth.users.disable(user.id)
        else:
            await story.auth.users.end_all(user.id, why="test")
        answer = await refresh(story, pair["refresh_token"])
        assert answer.status_code == 401
        assert answer.json()["code"] in ("revoked_token", "refresh_token_reused")


@pytest.mark.invariant("I-14")
async def test_the_successor_is_sealed_and_soon_erased(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.register()
        first = (await story.log_in())["refresh_token"]
        assert (await only_session(story)).refresh_successor is None
        second = (await refresh(story, first)).json()["refresh_token"]
        held = await only_session(story)
        assert held.refresh_successor is not None
        assert second[-43:] not in held.refresh_successor
        story.move(seconds=3)
        await refresh(story, second)
        after = await only_session(story)
        assert after.refresh_successor not in (None, held.refresh_successor)
        await story.auth.tokens.forget_successors()
        assert (await only_session(story)).refresh_successor is not None  # not over yet
        story.move(seconds=11)
        await story.auth.tokens.forget_successors()
        tidied = await only_session(story)
        assert (tidied.refresh_successor, tidied.refresh_grace_until) == (None, None)


@pytest.mark.invariant("I-14", "I-17")
async def test_the_successor_opens_with_the_token_before_it_alone(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.register()
        first = (await story.log_in())["refresh_token"]
        second = (await refresh(story, first)).json()["refresh_token"]
        session = await only_session(story)
        sealed = session.refresh_successor or ""
        service = story.auth.tokens
        opened = service._opened(form.read(first), sealed)
        assert opened.text.reveal() == second
        for wrong in (form.read(second), form.new_family(), form.read(first).successor()):
            with pytest.raises(RevokedToken):
                service._opened(wrong, sealed)


@pytest.mark.capability("S2-13")
@pytest.mark.standard("3: 6.4.3")
async def test_the_database_holds_no_token_as_it_is(database_url: str) -> None:
    async with telling(database_url) as story, browser(story.app) as client:
        await story.register()
        pair = await story.log_in()
        pairs = [pair, (await refresh(story, pair["refresh_token"])).json()]
        await story.log_in(transport="cookie", client=client)
        page = await story.auth.store.find(Session, Paging(order=("started_at", "id")))
        rows = "".join(
            str(getattr(session, name))
            for session in page.items
            for name in schema_of(Session).columns
        )
        held = [client.cookies["session"], *(each["refresh_token"] for each in pairs)]
        for token in held:
            for part in (token, token[4:26], token[-43:]):
                assert part not in rows


@pytest.mark.invariant("I-02")
async def test_a_token_whose_row_is_gone_is_refused(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.register()
        pair = await story.log_in()
        session = await only_session(story)
        await story.auth.store.take(Session, id=session.id)
        problem(await story.me(pair["access_token"]), 401, "revoked_token")
        problem(await refresh(story, pair["refresh_token"]), 401, "invalid_token")


@pytest.mark.invariant("I-02")
async def test_a_token_names_its_own_session_user_and_app(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.register(ADA)
        await story.register(EVE)
        await story.log_in(ADA)
        ada = await only_session(story)
        service = story.auth.tokens
        user = await story.auth.users.find(ADA)
        eve = (await story.auth.users.find(EVE)).id
        for wrong in (replace(ada, user_id=eve), replace(ada, app="another"), replace(ada, id=eve)):
            answer = await story.me(await service.access_token(wrong, user))
            assert answer.json()["code"] in ("revoked_token", "invalid_token")
            assert answer.status_code == 401
        assert (await story.me(await service.access_token(ada, user))).status_code == 200


@pytest.mark.capability("S0-30", "DEF-27")
@pytest.mark.invariant("I-06", "I-09")
async def test_what_ends_here_is_over_here_at_once_and_elsewhere_in_two_seconds(
    database_url: str,
) -> None:
    async with telling(database_url) as story, neighbour(story, database_url) as other:
        other.move(seconds=1)
        await story.register()
        pair = await story.log_in()
        token = pair["access_token"]
        assert (await other.me(token)).status_code == 200
        assert (await story.me(token)).status_code == 200
        await story.client.post("/auth/logout", headers=bearer(token))
        problem(await story.me(token), 401, "revoked_token")
        other.move(seconds=2)
        problem(await other.me(token), 401, "revoked_token")


async def test_the_access_token_dies_with_the_family(database_url: str) -> None:
    features = [tokens(family_max_age="20m"), *(f for f in without_limits() if f.name != "tokens")]
    async with telling(database_url, features=features) as story:
        await story.register()
        pair = await story.log_in()
        story.move(minutes=14)
        pair = (await refresh(story, pair["refresh_token"])).json()
        claims = jwt.decode(pair["access_token"], options={"verify_signature": False})
        assert claims["exp"] - claims["iat"] <= 360
        story.move(minutes=6)
        problem(await story.me(pair["access_token"]), 401, "expired_token")


@pytest.mark.capability("S2-27")
async def test_a_refresh_goes_on_in_another_process(database_url: str) -> None:
    async with telling(database_url) as story, neighbour(story, database_url) as other:
        await story.register()
        pair = await story.log_in()
        other.move(seconds=5)
        answer = await refresh(other, pair["refresh_token"])
        assert answer.status_code == 200
        assert (await other.me(answer.json()["access_token"])).status_code == 200
