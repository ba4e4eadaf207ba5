"""What a hostile reader found in keys, API keys, services and resealing, and how it was mended."""

import asyncio
import base64
import re
import sqlite3
import traceback
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.features.api_keys.owner import get, listed, made, reporting, signed_in
from tests.told import PRODUCTION, Watchword, problem, telling
from watchword import ConfigurationError
from watchword.crypto.jose import peek, sign
from watchword.crypto.keys import RootSecrets, generate_secret
from watchword.crypto.sealing import Sealer
from watchword.features.api_keys import api_keys
from watchword.features.keys import StoredKey, keys
from watchword.kernel.errors import StoreUnavailable
from watchword.resealing import Resealing, reseal
from watchword.storage.store import Paging, where
from watchword.testing.story import without_limits

PAGE = Path(__file__).parents[2] / "docs" / "features" / "keys.md"


def made_with(**options: Any) -> list[Any]:
    return [keys(**options), *(each for each in without_limits() if each.name != "keys")]


async def test_what_a_provider_says_is_in_no_log_of_a_start_that_failed() -> None:
    """A server logs the whole chain of what stopped it."""

    def provider() -> str:
        raise RuntimeError("nonsense-that-nobody-should-see")

    with pytest.raises(ConfigurationError) as error:
        async with telling(features=made_with(provider=provider)):
            pass
    logged = "".join(traceback.format_exception(error.value))
    assert "RuntimeError" in logged  # of what kind it was
    assert "nonsense" not in logged


@pytest.mark.capability("DEF-12")
@pytest.mark.parametrize("which", ["current", "former"])
async def test_a_provider_cannot_make_the_root_secret_the_one_that_is_shared(which: str) -> None:
    current, former = generate_secret(), generate_secret()
    given = current if which == "current" else former
    features = made_with(provider=lambda: given, algorithm="HS256")
    with pytest.raises(ConfigurationError, match="root secret") as error:
        async with telling(features=features, secret=current, old_secrets=(former,)):
            pass
    assert given.reveal() not in str(error.value)


def spelled(der: bytes) -> dict[str, str]:
    """A public key in the forms in which it is passed on, on one line."""
    plain, url = base64.b64encode(der).decode(), base64.urlsafe_b64encode(der).decode()
    return {
        "base64": plain,
        "base64 without padding": plain.rstrip("="),
        "base64url": url,
        "base64url without padding": url.rstrip("="),
        "hex": der.hex(),
    }


@pytest.mark.standard("CVE row 1")
def test_a_public_key_is_no_shared_secret_however_it_is_spelled() -> None:
    def refused(text: str) -> bool:
        try:
            Watchword(
                "sqlite://",
                features=made_with(secret=text),
                secret=generate_secret(),
                environ={},
                **PRODUCTION,
            )
        except ConfigurationError as error:
            return "keys.secret" in str(error)
        return False

    taken: list[str] = []
    for key in (
        ec.generate_private_key(ec.SECP256R1()),
        rsa.generate_private_key(65537, 2048),
        ed25519.Ed25519PrivateKey.generate(),
    ):
        der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        taken += [f"{key} {form}" for form, text in spelled(der).items() if not refused(text)]
    assert not taken


@pytest.mark.parametrize("kty", ["{}", "[]", '["EC"]'])
def test_a_jwk_of_an_odd_kind_stops_the_start_with_the_remedy(kty: str) -> None:
    with pytest.raises(ConfigurationError, match=r"keys\.private_key"):
        Watchword(
            "sqlite://",
            features=made_with(private_key=f'{{"kty": {kty}, "d": "AAAA"}}'),
            secret=generate_secret(),
            environ={},
            **PRODUCTION,
        )


@pytest.mark.standard("RFC 8725 §3.11", "RFC 9068 §4")
@pytest.mark.capability("DEF-12")
async def test_who_verifies_as_the_docs_say_takes_no_services_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (sample,) = re.findall(r"```python\n([^`]*PyJWKClient[^`]*)```", PAGE.read_text("utf-8"))
    async with telling() as story:
        await story.join()
        site = story.auth.public_url
        user = (await story.log_in())["access_token"]
        await story.auth.services.grant("billing", audience=site)
        service = await story.auth.services.token("billing", audience=site)
        jwks = (await story.client.get("/.well-known/jwks.json")).json()

    def fetch_data(_: object) -> Any:
        return jwks

    monkeypatch.setattr(jwt.PyJWKClient, "fetch_data", fetch_data)
    # Their clock is not ours.
    ahead = sample.replace("token, key.key,", 'token, key.key, options={"verify_exp": False},')
    code = compile(ahead.replace("https://accounts.example.com", site), str(PAGE), "exec")
    found: dict[str, Any] = {"jwt": jwt, "token": user}
    exec(code, found)
    assert found["claims"]["sub"]
    with pytest.raises(jwt.InvalidTokenError):
        exec(code, {"jwt": jwt, "token": service.removeprefix("wwx_")})


@pytest.mark.invariant("I-16")
async def test_those_who_wait_for_a_ring_that_cannot_be_read_do_not_wait_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A store that is away may take long to say so; strangers' tokens are many."""
    async with telling() as story:
        ring, rows = story.auth.keys, type(story.auth.keys)._rows
        reads, away = list[int](), asyncio.Event()

        async def slow(*_: Any) -> Any:
            reads.append(1)
            await away.wait()
            raise StoreUnavailable

        monkeypatch.setattr(type(ring), "_rows", slow)
        story.move(seconds=31)
        asking = [asyncio.create_task(ring.refresh()) for _ in range(20)]
        for _ in range(5):
            await asyncio.sleep(0)  # all stand in line
        away.set()
        answers = await asyncio.gather(*asking, return_exceptions=True)
        assert all(isinstance(answer, StoreUnavailable) for answer in answers)
        assert len(reads) == 1
        with pytest.raises(StoreUnavailable):
            await ring.refresh()  # who comes later asks anew
        assert len(reads) == 2
        monkeypatch.setattr(type(ring), "_rows", rows)
        await ring.refresh()
        await ring.signing()


@pytest.mark.invariant("I-17")
async def test_resealing_names_what_no_secret_opens_though_the_secret_in_force_sealed_it() -> None:
    secret = generate_secret()
    async with telling(secret=secret) as story:
        store = story.auth.store
        (row,) = (await store.find(StoredKey, Paging(order=("kid",)))).items
        # Sealed by the same secret, for another place: as after a botched copy of a row.
        place = {"realm": "main", "record": "signing_key", "key": "another", "field": "sealed"}
        strange = Sealer(RootSecrets(secret)).seal(b"another", **place)
        await store.update(StoredKey, where(kid=row.kid), sealed=strange)
        progress = Resealing()
        async for _ in reseal(store, (StoredKey,), Sealer(RootSecrets(secret)), progress):
            pass
        assert progress.current == 0
        (named,) = progress.unreadable
        assert row.kid in named


async def test_a_request_does_not_wait_while_another_process_writes(tmp_path: Path) -> None:
    """When a key was used last is written by the way; SQLite waits 30 s for its turn."""
    file = tmp_path / "app.db"
    async with telling(f"sqlite:///{file}", app=reporting()) as story:
        await story.register()
        headers = await signed_in(story)
        key = (await made(story, headers))["key"]
        with closing(sqlite3.connect(file)) as writer:
            writer.execute("BEGIN IMMEDIATE")
            for _ in range(2):
                answer = await asyncio.wait_for(get(story, key), 15)
                assert answer.status_code == 200
                story.auth.cache.empty()
            writer.rollback()
        for _ in range(1000):  # it is written once it can be
            (item,) = await listed(story, headers)
            if item["last_used_at"] is not None:
                return
            await asyncio.sleep(0.01)
        pytest.fail("its use was never noted")


@pytest.mark.invariant("I-18")
async def test_keys_in_their_overlap_are_not_heaped_up_by_ending_their_successors(
    database_url: str,
) -> None:
    features = [
        api_keys(max_keys=2),
        *(each for each in without_limits() if each.name != "api_keys"),
    ]
    async with telling(database_url, features=features, app=reporting()) as story:
        await story.register()
        headers = await signed_in(story)
        working: list[str] = []
        for _ in range(6):
            answer = await story.client.post(
                "/auth/api-keys", json={"name": "x", "scopes": ["reports:read"]}, headers=headers
            )
            if answer.status_code != 201:
                problem(answer, 409, "api_keys_limited")
                break
            working.append(answer.json()["key"])
            path = f"/auth/api-keys/{answer.json()['id']}/rotate"
            rotated = await story.client.post(path, json={"overlap": "7d"}, headers=headers)
            ended = f"/auth/api-keys/{rotated.json()['id']}"
            assert (await story.client.delete(ended, headers=headers)).status_code == 204
        assert [(await get(story, key)).status_code for key in working] == [200] * 4
        for item in await listed(story, headers):  # and so there is room again
            await story.client.delete(f"/auth/api-keys/{item['id']}", headers=headers)
        assert (await made(story, headers))["key"]


@pytest.mark.invariant("I-16")
async def test_a_key_that_leaked_and_was_then_retired_is_believed_no_more_either(
    database_url: str,
) -> None:
    """It may have been replaced by age before anybody knew; forged tokens name living sessions."""
    async with telling(database_url) as story:
        await story.join()
        ring = story.auth.keys
        leaked = ring.active()
        await ring.rotate()
        story.clock.advance(timedelta(minutes=5, seconds=12))
        assert (await ring.rotate()).is_done
        claims = peek((await story.log_in())["access_token"]).claims
        forged = sign({**claims, "jti": "x" * 26}, key=leaked, typ="at+jwt")
        assert (await story.me(forged)).status_code == 200
        await ring.rotate(compromised=True)
        problem(await story.me(forged), 401, "invalid_token")
        assert {row.state for row in await ring.ring()} == {"active", "revoked"}
