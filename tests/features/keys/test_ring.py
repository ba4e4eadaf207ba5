"""The ring turns: a key is shown before it signs, and believed as long as what it signed."""

import asyncio
import time
from datetime import timedelta
from typing import Any, cast

import jwt
import pytest

from tests.told import Story, Watchword, neighbour, problem, telling
from watchword import ConfigurationError
from watchword.crypto.keys import generate_secret
from watchword.features.keys import KeyPublished, KeyRevoked, KeyRotated, StoredKey, keys
from watchword.features.tokens import tokens
from watchword.kernel.errors import KeyInUse, KeyNotFound
from watchword.kernel.events import Event
from watchword.storage.store import Paging, where
from watchword.testing.story import without_limits

RIPE = timedelta(minutes=5, seconds=12)  # max-age of the JWKS, bound of the feed, leeway
OVER = timedelta(minutes=15, seconds=40)  # an access token, leeway, and whoever hears last


def kid_of(token: str) -> str:
    kid: str = jwt.get_unverified_header(token)["kid"]
    return kid


async def token_of(story: Story) -> str:
    token: str = (await story.log_in())["access_token"]
    return token


async def states(auth: Watchword) -> dict[str, str]:
    return {row.kid: row.state for row in await auth.keys.ring()}


async def shown(story: Story) -> set[str]:
    answer = await story.client.get("/.well-known/jwks.json")
    return {key["kid"] for key in answer.json()["keys"]}


def without(*names: str) -> list[Any]:
    return [each for each in without_limits() if each.name not in names]


def level(story: Story, other: Story) -> None:
    """Let neither clock be behind."""
    behind = story.clock.now() - other.clock.now()
    (other if behind > timedelta(0) else story).clock.advance(abs(behind))


@pytest.mark.capability("S1-31", "S2-27")
@pytest.mark.invariant("I-16")
async def test_a_key_is_shown_before_it_signs_and_verifies_what_it_signed(
    database_url: str,
) -> None:
    features = without("services")  # whose tokens live for a day
    async with telling(database_url, features=features) as story:
        await story.join()
        ring = story.auth.keys
        old = await token_of(story)

        first = await ring.rotate()
        assert (first.is_done, first.kid) == (False, kid_of(old))
        assert first.next_kid is not None
        assert first.ripe_at == story.clock.now() + RIPE
        assert await shown(story) == {first.kid, first.next_kid}
        assert kid_of(await token_of(story)) == first.kid

        story.clock.advance(RIPE - timedelta(seconds=1))
        again = await ring.rotate()
        assert (again.is_done, again.next_kid) == (False, first.next_kid)

        story.move(seconds=1)
        done = await ring.rotate()
        assert (done.is_done, done.kid) == (True, first.next_kid)
        new = await token_of(story)
        assert kid_of(new) == first.next_kid
        for token in (old, new):
            assert (await story.me(token)).status_code == 200
        assert await shown(story) == {first.kid, first.next_kid}
        assert await states(story.auth) == {first.kid: "retired", first.next_kid: "active"}

        story.clock.advance(OVER - timedelta(seconds=1))
        assert await shown(story) == {first.kid, first.next_kid}
        story.move(seconds=1)
        assert await shown(story) == {first.next_kid}
        problem(await story.me(old), 401, "invalid_token")
        await ring.tend()
        assert await states(story.auth) == {first.next_kid: "active"}


@pytest.mark.capability("S1-31")
@pytest.mark.invariant("I-16", "I-24")
async def test_a_key_of_thirty_days_is_replaced_by_itself(database_url: str) -> None:
    async with telling(database_url) as story:
        ring = story.auth.keys
        first = ring.active().kid
        story.move(days=28.9)
        await ring.tend()
        assert await states(story.auth) == {first: "active"}
        story.move(hours=5)  # a day before it is due, the next one is shown
        await asyncio.gather(ring.tend(), ring.tend())
        assert sorted((await states(story.auth)).values()) == ["active", "next"]
        await ring.tend()
        assert (await ring.signing()).kid == first
        story.move(days=1)
        await asyncio.gather(ring.tend(), ring.tend(), return_exceptions=True)
        assert sorted((await states(story.auth)).values()) == ["active", "retired"]
        assert (await ring.signing()).kid != first


@pytest.mark.capability("S1-31")
@pytest.mark.invariant("I-16")
async def test_an_operator_may_rotate_by_hand_only(database_url: str) -> None:
    features = [keys(rotate_every="0s"), *without("keys")]
    async with telling(database_url, features=features) as story:
        story.move(days=1000)
        await story.auth.keys.tend()
        assert list((await states(story.auth)).values()) == ["active"]


@pytest.mark.invariant("I-16", "I-10")
async def test_a_compromised_key_verifies_nothing_here_at_once_and_elsewhere_in_the_bound(
    database_url: str,
) -> None:
    async with telling(database_url) as story, neighbour(story, database_url) as other:
        await story.join()
        tokens_before = await story.log_in()
        token = tokens_before["access_token"]
        published = await story.auth.keys.rotate()
        other.move(seconds=1)
        for each in (story, other):  # twice: the second answer comes from the cache
            for _ in range(2):
                assert (await each.me(token)).status_code == 200

        done = await story.auth.keys.rotate(compromised=True)
        assert done.is_done
        problem(await story.me(token), 401, "invalid_token")
        until = time.monotonic() + 10  # the feed, in real time; the clock stands still
        while (await other.me(token)).status_code != 401:
            assert time.monotonic() < until
            await asyncio.sleep(0.01)
        problem(await other.me(token), 401, "invalid_token")
        assert await shown(other) == {done.kid}
        assert published.next_kid is not None
        assert await states(story.auth) == {
            done.kid: "active",
            kid_of(token): "revoked",
            published.next_kid: "revoked",  # who read the one may have read the other
        }

        body = {"refresh_token": tokens_before["refresh_token"]}  # not signed: it lives
        answer = await other.client.post("/auth/refresh", json=body)
        assert answer.status_code == 200, answer.text
        assert kid_of(answer.json()["access_token"]) == done.kid


@pytest.mark.invariant("I-16")
async def test_two_who_find_a_key_compromised_at_once_revoke_it_once(database_url: str) -> None:
    async with telling(database_url) as story, neighbour(story, database_url) as other:
        before = story.auth.keys.active().kid
        done = await asyncio.gather(
            story.auth.keys.rotate(compromised=True), other.auth.keys.rotate(compromised=True)
        )
        found = await states(story.auth)
        assert found.pop(before) == "revoked"
        (fresh,) = (kid for kid, state in found.items() if state == "active")
        assert all(state in ("active", "revoked") for state in found.values())
        assert fresh in {each.kid for each in done}


@pytest.mark.invariant("I-16")
async def test_retire_ends_what_signs_no_more_and_nothing_else(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.join()
        ring = story.auth.keys
        token = await token_of(story)
        with pytest.raises(KeyInUse):
            await ring.retire(kid_of(token))
        with pytest.raises(KeyNotFound):
            await ring.retire("nobody")
        coming = (await ring.rotate()).next_kid
        assert coming is not None
        assert (await ring.retire(coming)).state == "next"
        assert await states(story.auth) == {kid_of(token): "active"}

        await ring.rotate()
        story.clock.advance(RIPE)
        await ring.rotate()
        assert (await ring.retire(kid_of(token))).state == "retired"
        assert (await story.me(token)).status_code == 200
        assert (await ring.retire(kid_of(token), compromised=True)).state == "revoked"
        problem(await story.me(token), 401, "invalid_token")
        new = await token_of(story)
        assert (await ring.retire(kid_of(new), compromised=True)).state == "revoked"
        problem(await story.me(new), 401, "invalid_token")
        assert (await story.me(await token_of(story))).status_code == 200


@pytest.mark.invariant("I-16")
async def test_a_stop_between_the_writes_of_a_rotation_leaves_a_key_that_signs(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where writes commit one by one, the former key may be retired and the next not active."""
    async with telling(database_url) as story, neighbour(story, database_url) as other:
        await story.join()
        ring = story.auth.keys
        old = await token_of(story)
        coming = (await ring.rotate()).next_kid
        story.clock.advance(RIPE)
        level(story, other)

        class Killed(BaseException):
            pass

        async def killed(*_: object) -> bool:
            raise Killed

        with monkeypatch.context() as patched:
            patched.setattr(type(ring), "_activate_in", killed)
            with pytest.raises(Killed):
                await ring.rotate()
        for each in (story, other):
            each.auth.keys.notice((("key", ""),))  # they read again
            assert (await each.me(old)).status_code == 200
            new = await token_of(each)
            assert (await story.me(new)).status_code == 200
        if not story.auth.store.is_transactional:
            assert kid_of(new) == coming
            await other.auth.keys.tend()
        else:
            assert kid_of(new) == kid_of(old)
            await ring.rotate()
        assert (await states(story.auth))[str(coming)] == "active"
        assert (await story.me(old)).status_code == 200


@pytest.mark.invariant("I-16")
async def test_another_algorithm_signs_once_everybody_knows_its_key(database_url: str) -> None:
    secret = generate_secret()
    async with telling(database_url, secret=secret) as story:
        await story.join()
        old = await token_of(story)
    features = [keys(algorithm="EdDSA"), *without("keys")]
    async with telling(database_url, secret=secret, features=features) as story:
        story.move(seconds=1)
        assert kid_of(await token_of(story)) == kid_of(old)
        assert len(await shown(story)) == 2
        story.clock.advance(RIPE)
        await story.auth.keys.tend()
        new = await token_of(story)
        assert jwt.get_unverified_header(new)["alg"] == "EdDSA"
        assert (await story.me(old)).status_code == 200
        assert (await states(story.auth))[kid_of(old)] == "retired"
        await story.auth.keys.tend()
        assert await states(story.auth) == {kid_of(old): "retired", kid_of(new): "active"}


@pytest.mark.invariant("I-16")
async def test_a_retired_key_outlives_the_longest_token_of_any_worker(database_url: str) -> None:
    """One whose tokens live longer than those of whoever rotates."""
    secret = generate_secret()
    short = without("services")  # whose tokens live for a day
    long = [tokens(access_ttl="10h"), *without("services", "tokens")]
    async with telling(database_url, secret=secret, features=short) as story:
        await story.join()
        async with neighbour(story, database_url, features=long) as other:
            level(story, other)
            token = await token_of(other)
        await story.auth.keys.rotate()
        story.clock.advance(RIPE)
        assert (await story.auth.keys.rotate()).is_done
        story.move(hours=9.8)
        assert (await story.me(token)).status_code == 200


@pytest.mark.invariant("I-16")
@pytest.mark.standard("RFC 9110 §13.1.2")
async def test_the_jwks_is_fetched_again_only_when_it_changed(database_url: str) -> None:
    features = [keys(jwks_max_age="10m"), *without("keys")]
    async with telling(database_url, features=features) as story:
        get, path = story.client.get, "/.well-known/jwks.json"
        answer = await get(path)
        assert answer.headers["cache-control"] == "public, max-age=600, must-revalidate"
        tag = answer.headers["etag"]
        for known in (tag, f"W/{tag}", f'"x", {tag}', "*"):
            same = await get(path, headers={"If-None-Match": known})
            assert (same.status_code, same.content) == (304, b"")
            assert same.headers["etag"] == tag
        assert (await get(path, headers={"If-None-Match": '"x"'})).status_code == 200
        await story.auth.keys.rotate()
        changed = await get(path, headers={"If-None-Match": tag})
        assert changed.status_code == 200
        assert changed.headers["etag"] != tag
        assert (await story.client.post(path)).status_code == 405


@pytest.mark.invariant("I-16")
async def test_what_happens_to_keys_is_told() -> None:
    async with telling() as story:
        heard: list[Event] = []
        for kind in (KeyPublished, KeyRotated, KeyRevoked):

            async def hear(event: Event) -> None:
                heard.append(event)

            story.auth.events.on(kind, hear)
        ring = story.auth.keys
        before = ring.active().kid
        await ring.rotate()
        story.clock.advance(RIPE)
        await ring.rotate()
        await ring.rotate(compromised=True)
        kinds = [type(event).__name__ for event in heard]
        # Both that ever signed, and then the one that signs now.
        assert kinds == ["KeyPublished", "KeyRotated", "KeyRevoked", "KeyRevoked", "KeyRotated"]
        assert cast("KeyRotated", heard[1]).former == before
        assert all(event.evicts for event in heard)


@pytest.mark.capability("S4-41", "S0-39")
async def test_who_only_verifies_needs_the_jwks_and_no_secret() -> None:
    async with telling() as story:
        await story.join()
        read = dict[str, Any]()
        for _ in range(2):
            token = await token_of(story)
            jwks = (await story.client.get("/.well-known/jwks.json")).json()
            key = jwt.PyJWKSet.from_dict(jwks)[kid_of(token)]
            site = story.auth.public_url
            ahead = timedelta(hours=1)  # our clock moves, theirs does not
            claims = jwt.decode(token, key.key, ["ES256"], audience=site, issuer=site, leeway=ahead)
            read[kid_of(token)] = claims["sub"]
            await story.auth.keys.rotate()
            story.clock.advance(RIPE)
            await story.auth.keys.rotate()
        assert len(read) == 2
        assert len(set(read.values())) == 1


@pytest.mark.invariant("I-17")
async def test_a_revoked_key_under_a_lost_secret_stops_the_start_too() -> None:
    async with telling() as story:
        await story.auth.keys.rotate(compromised=True)
        page = await story.auth.store.find(
            StoredKey, Paging(order=("purpose", "kid")), state="revoked"
        )
        [row] = page.items
        lost = row.sealed.split(".")
        lost[1] = "00000000"
        await story.auth.store.update(StoredKey, where(kid=row.kid), sealed=".".join(lost))
        with pytest.raises(ConfigurationError, match="WATCHWORD_OLD_SECRETS"):
            await story.auth.keys.open()


@pytest.mark.invariant("I-16")
async def test_a_ring_with_no_key_at_all_signs_nothing_and_mends_itself(database_url: str) -> None:
    async with telling(database_url, background=False) as story:  # whose first turn would mend it
        await story.join()
        await story.auth.store.erase(StoredKey)
        story.move(seconds=31)
        body = {"email": "ada@example.com", "password": "correct horse battery staple"}
        answer = await story.client.post("/auth/login", json=body)
        problem(answer, 503, "keys_unavailable")
        assert int(answer.headers["retry-after"]) > 0
        await story.auth.keys.tend()
        assert (await story.me(await token_of(story))).status_code == 200
