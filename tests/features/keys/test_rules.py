"""Keys: one ring for all workers, sealed at rest, published without what signs."""

import asyncio

import jwt
import pytest

from tests.told import neighbour, problem, telling
from watchword import ConfigurationError
from watchword.crypto.keys import generate_secret
from watchword.features.keys.records import StoredKey
from watchword.storage.store import Paging, where


@pytest.mark.capability("S2-17")
@pytest.mark.standard("RFC 7517 §5")
async def test_the_jwks_is_public_and_may_be_kept_for_five_minutes(database_url: str) -> None:
    async with telling(database_url) as story:
        answer = await story.client.get("/.well-known/jwks.json")
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "public, max-age=300, must-revalidate"
        (key,) = answer.json()["keys"]
        assert set(key) == {"kty", "crv", "x", "y", "kid", "alg", "use"}
        assert (key["alg"], key["use"], key["kty"]) == ("ES256", "sig", "EC")


@pytest.mark.capability("S2-27")
async def test_workers_share_one_key(database_url: str) -> None:
    async with telling(database_url) as story, neighbour(story, database_url) as other:
        page = await story.auth.store.find(StoredKey, Paging(order=("purpose", "kid")))
        assert len(page.items) == 1
        await story.register()
        token = (await story.log_in())["access_token"]
        other.move(seconds=1)
        assert (await other.me(token)).status_code == 200


@pytest.mark.invariant("I-16", "I-24")
async def test_workers_that_start_at_once_make_one_key(database_url: str) -> None:
    secret = generate_secret()
    async with telling(database_url, secret=secret) as story:
        await story.auth.store.erase(StoredKey)
        others = [neighbour(story, database_url) for _ in range(4)]
        started = await asyncio.gather(*(other.__aenter__() for other in others))
        page = await story.auth.store.find(StoredKey, Paging(order=("purpose", "kid")))
        assert len(page.items) == 1
        kids = {other.auth.keys.active().kid for other in started}
        assert kids == {page.items[0].kid}
        for other in others:
            await other.__aexit__(None, None, None)


@pytest.mark.invariant("I-17")
async def test_the_private_key_is_sealed_and_another_secret_starts_nothing(
    database_url: str,
) -> None:
    old = generate_secret()
    async with telling(database_url, secret=old) as story:
        stored = (await story.auth.store.find(StoredKey, Paging(order=("purpose", "kid")))).items[0]
        raw = story.auth.keys.active().private_bytes()
        assert raw.hex() not in stored.sealed
        await story.register()
        token = (await story.log_in())["access_token"]
    with pytest.raises(ConfigurationError, match="WATCHWORD_OLD_SECRETS") as refused:
        async with telling(database_url, secret=generate_secret()):
            pass
    assert old.reveal() not in str(refused.value)
    async with telling(database_url, secret=generate_secret(), old_secrets=(old,)) as story:
        story.move(seconds=1)
        assert (await story.me(token)).status_code == 200


@pytest.mark.invariant("I-16")
async def test_a_key_that_was_revoked_verifies_nothing(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.register()
        token = (await story.log_in())["access_token"]
        kid = jwt.get_unverified_header(token)["kid"]
        await story.auth.store.update(StoredKey, where(kid=kid), state="revoked", active_for=None)
        story.move(seconds=31)
        problem(await story.me(token), 401, "invalid_token")
        assert (await story.client.get("/.well-known/jwks.json")).json()["keys"] == []
