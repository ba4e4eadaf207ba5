"""Keys that were made elsewhere: taken in once, compared, and refused with the remedy."""

import asyncio
import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests.told import PRODUCTION, Story, Watchword, neighbour, telling
from watchword import ConfigurationError
from watchword.crypto.keys import generate_secret
from watchword.features.keys import StoredKey, keys
from watchword.kernel.secrets import Secret, new_secret
from watchword.storage.store import Paging
from watchword.testing.story import without_limits

RIPE = timedelta(minutes=5, seconds=12)
RSA = rsa.generate_private_key(65537, 2048)
P256 = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
OLDER = PrivateFormat.TraditionalOpenSSL
PARAMETERS = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"


def pem(key: Any, form: PrivateFormat = PrivateFormat.PKCS8) -> str:
    text: bytes = key.private_bytes(Encoding.PEM, form, NoEncryption())
    return text.decode()


def public(key: Any) -> str:
    text: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return text.decode()


def jwk(key: Any, algorithm: str) -> dict[str, Any]:
    made: Any = jwt.get_algorithm_by_name(algorithm)
    found: dict[str, Any] = json.loads(made.to_jwk(key))
    return found


def made_with(**options: Any) -> list[Any]:
    return [keys(**options), *(each for each in without_limits() if each.name != "keys")]


def refused(**options: Any) -> str:
    """What the start says in production."""
    with pytest.raises(ConfigurationError) as error:
        Watchword(
            "sqlite://",
            features=made_with(**options),
            secret=generate_secret(),
            environ={},
            **PRODUCTION,
        )
    return str(error.value)


async def signed(story: Story) -> str:
    token: str = (await story.log_in())["access_token"]
    return token


@pytest.mark.capability("S0-39", "S0-40")
@pytest.mark.parametrize(
    ("key", "text", "algorithm"),
    [
        (RSA, pem(RSA, OLDER), "RS256"),
        (RSA, json.dumps(jwk(RSA, "RS256")), "RS256"),
        (P256, pem(P256), "ES256"),
        (P256, PARAMETERS + pem(P256, OLDER), "ES256"),  # as `openssl ecparam -genkey` writes it
        (P256, pem(P256).replace("\n", "\\n"), "ES256"),  # one line, as in many .env files
        (P256, json.dumps({**jwk(P256, "ES256"), "kid": "theirs", "use": "sig"}), "ES256"),
        (ED, pem(ED), "EdDSA"),
        (ED, json.dumps(jwk(ED, "EdDSA")), "EdDSA"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 6 else "",
)
async def test_a_key_of_ones_own_signs_and_its_public_half_is_all_that_others_need(
    key: Any, text: str, algorithm: str
) -> None:
    features = made_with(private_key=text, public_key=public(key))
    async with telling(features=features) as story:
        await story.join()
        token = await signed(story)
        head = jwt.get_unverified_header(token)
        assert head["alg"] == algorithm
        audience = story.auth.public_url
        claims = jwt.decode(token, public(key), algorithms=[algorithm], audience=audience)
        assert claims["iss"] == audience
        (shown,) = (await story.client.get("/.well-known/jwks.json")).json()["keys"]
        assert shown["kid"] == head["kid"]
        assert {"d", "p", "q", "dp", "dq", "qi"}.isdisjoint(shown)
        assert (await story.me(token)).status_code == 200
        page = await story.auth.store.find(StoredKey, Paging(order=("kid",)))
        assert "PRIVATE" not in str(page.items)


@pytest.mark.capability("S1-30")
async def test_a_key_comes_from_a_file_or_the_secrets_directory(tmp_path: Path) -> None:
    file, folder = tmp_path / "jwt.pem", tmp_path / "secrets"
    file.write_text(pem(ED))
    folder.mkdir()
    (folder / "keys__private_key").write_text(pem(ED))
    found = set[str]()
    for environ in (
        {"WATCHWORD_KEYS__PRIVATE_KEY_FILE": str(file)},
        {"WATCHWORD_SECRETS_DIR": str(folder)},
        {"WATCHWORD_KEYS__PRIVATE_KEY": pem(ED)},
    ):
        async with telling(environ=environ) as story:
            found.add(story.auth.keys.active().kid)
    assert len(found) == 1


@pytest.mark.capability("S1-30")
@pytest.mark.parametrize("kind", ["plain", "coroutine"])
async def test_a_provider_fetches_the_key_from_where_it_is_kept(kind: str) -> None:
    asked = list[str]()

    def plain() -> str:
        asked.append(kind)
        return pem(P256)

    async def coroutine() -> Secret:
        return Secret(plain())

    provider: Any = plain if kind == "plain" else coroutine
    async with telling(features=made_with(provider=provider)) as story:
        await story.join()
        token = await signed(story)
        assert jwt.decode(token, public(P256), ["ES256"], audience=story.auth.public_url)
    assert asked == [kind]


@pytest.mark.parametrize("given", [None, "", "nonsense-that-nobody-should-see", RuntimeError])
async def test_a_provider_that_fails_stops_the_start_and_its_words_stay_unsaid(given: Any) -> None:
    def provider() -> Any:
        if given is RuntimeError:
            raise RuntimeError("nonsense-that-nobody-should-see")
        return given

    with pytest.raises(ConfigurationError, match="provider") as error:
        async with telling(features=made_with(provider=provider)):
            pass
    assert "nonsense" not in str(error.value)


@pytest.mark.capability("S1-31", "S3-10")
@pytest.mark.invariant("I-16")
@pytest.mark.parametrize("how", ["private_key", "secret"])
async def test_another_given_key_takes_over_and_what_the_former_signed_is_believed(
    database_url: str, how: str
) -> None:
    root = generate_secret()
    texts = {
        "private_key": [pem(P256), pem(ec.generate_private_key(ec.SECP256R1()))],
        "secret": [new_secret().reveal(), new_secret().reveal()],
    }[how]
    one, two = (made_with(**{how: text}) for text in texts)
    async with telling(database_url, secret=root, features=one) as story:
        await story.join()
        old = await signed(story)
        others = [neighbour(story, database_url, features=one) for _ in range(3)]
        await asyncio.gather(*(other.__aenter__() for other in others))
        assert await story.auth.store.count(StoredKey) == 1  # all workers take it in once
        for other in others:
            await other.__aexit__(None, None, None)
    async with telling(database_url, secret=root, features=two) as story:
        story.move(seconds=1)
        assert jwt.get_unverified_header(await signed(story)) == jwt.get_unverified_header(old)
        story.clock.advance(RIPE)  # whoever keeps the JWKS knows the new one by now
        await story.auth.keys.tend()
        new = await signed(story)
        assert jwt.get_unverified_header(new)["kid"] != jwt.get_unverified_header(old)["kid"]
        for token in (old, new):
            assert (await story.me(token)).status_code == 200
        story.move(days=400)
        await story.auth.keys.tend()
        assert [row.state for row in await story.auth.keys.ring()] == ["active"]  # never by age


@pytest.mark.capability("S3-10")
@pytest.mark.invariant("I-16")
async def test_a_token_by_a_listed_old_secret_is_believed_and_by_any_other_is_not(
    database_url: str,
) -> None:
    root, (old, new, stranger) = generate_secret(), (new_secret() for _ in range(3))
    async with telling(database_url, secret=root, features=made_with(secret=old)) as story:
        await story.join()
        token = await signed(story)
        kid = jwt.get_unverified_header(token)["kid"]
    options: dict[str, Any] = {"secret": new, "old_secrets": (old,)}
    async with telling(database_url, secret=root, features=made_with(**options)) as story:
        story.move(seconds=1)
        assert (await story.me(token)).status_code == 200
        claims = jwt.decode(token, options={"verify_signature": False})
        for secret, status in ((old, 200), (stranger, 401)):
            head = {"kid": kid, "typ": "at+jwt"}
            made = jwt.encode(claims, secret.reveal(), "HS256", headers=head)
            assert (await story.me(made)).status_code == status


async def test_old_secrets_are_believed_from_when_they_are_listed(database_url: str) -> None:
    root, old, new = generate_secret(), new_secret(), new_secret()
    options: dict[str, Any] = {"secret": new, "old_secrets": (old,)}
    async with telling(database_url, secret=root, features=made_with(**options)) as story:
        assert [row.state for row in await story.auth.keys.ring()] == ["active", "retired"]
        await story.auth.keys.open()  # a restart adds nothing
        assert await story.auth.store.count(StoredKey) == 2
        answer = await story.client.get("/.well-known/jwks.json")
        assert answer.json() == {"keys": []}  # of a secret nothing is public


@pytest.mark.capability("S0-35", "S0-21")
def test_arguments_stand_before_the_environment() -> None:
    environ = {"WATCHWORD_KEYS__ALGORITHM": "RS256", "WATCHWORD_KEYS__ROTATE_EVERY": "7d"}
    features = made_with(algorithm="EdDSA")
    auth = Watchword(features=features, secret=generate_secret(), environ=environ, **PRODUCTION)
    settings: Any = auth.settings_of("keys")
    assert settings.algorithm == "EdDSA"
    assert settings.rotate_every == timedelta(days=7)


ENCRYPTED = RSA.private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"hunter2")
).decode()
WEAK: dict[str, tuple[str, str]] = {
    "short RSA": (pem(rsa.generate_private_key(65537, 1024)), "2048"),
    "another curve": (pem(ec.generate_private_key(ec.SECP384R1())), "P-256"),
    "P-521 JWK": (json.dumps(jwk(ec.generate_private_key(ec.SECP521R1()), "ES512")), "P-256"),
    "secp256k1": (pem(ec.generate_private_key(ec.SECP256K1())), "P-256"),
    "X25519": (pem(x25519.X25519PrivateKey.generate()), "Ed25519"),
    "public PEM": (public(RSA), "private one"),
    "public JWK": (json.dumps(jwk(RSA.public_key(), "RS256")), "private one"),
    "encrypted": (ENCRYPTED, "without a passphrase"),
    "text": ("not-a-key-" + "x" * 40, "PEM"),
    "half a PEM": (pem(RSA)[:300], "PEM"),
    "bad JSON": ("{", "JSON"),
    "JWKS": (json.dumps({"keys": [jwk(RSA, "RS256")]}), "one of them"),
    "oct JWK": (json.dumps({"kty": "oct", "k": "A" * 43}), "secret"),
    "for encryption": (json.dumps({**jwk(RSA, "RS256"), "use": "enc"}), "use"),
    "torn JWK": (json.dumps({**jwk(P256, "ES256"), "x": "AAAA"}), "JWK"),
    "two halves": (
        json.dumps(
            {**jwk(ED, "EdDSA"), "x": jwk(ed25519.Ed25519PrivateKey.generate(), "EdDSA")["x"]}
        ),
        "public half",
    ),
}


@pytest.mark.capability("S0-40")
@pytest.mark.standard("CVE row 1", "RFC 8725 §3.5")
@pytest.mark.parametrize("name", WEAK)
def test_a_key_that_will_not_do_stops_the_start_with_the_remedy(name: str) -> None:
    text, remedy = WEAK[name]
    said = refused(private_key=text)
    assert "keys.private_key" in said
    assert remedy in said
    body = re.sub(r"-----[^-]*-----|\s", "", text)
    assert not any(body[at : at + 16] in said for at in range(0, max(len(body) - 16, 0), 8))
    assert "hunter2" not in said


@pytest.mark.capability("S0-40")
@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"private_key": pem(RSA), "public_key": public(P256)}, "openssl pkey"),
        ({"private_key": pem(ED), "public_key": pem(ED)}, "give the public one"),
        ({"private_key": pem(ED), "public_key": "nothing"}, "no public key"),
        ({"public_key": public(ED)}, "keys.private_key"),
        ({"private_key": pem(ED), "algorithm": "RS256"}, "EdDSA"),
        ({"private_key": pem(ED), "secret": "q8" + new_secret().reveal()}, "one of them"),
        ({"secret": "q8" + new_secret().reveal(), "algorithm": "ES256"}, "HS256"),
        ({"private_key": pem(ED), "provider": str}, "keep one"),
        ({"rotate_every": "5m"}, "1h"),
    ],
)
def test_settings_that_do_not_fit_one_another_stop_the_start(
    options: dict[str, Any], remedy: str
) -> None:
    said = refused(**options)
    assert "keys" in said
    assert remedy in said
    assert "PRIVATE KEY" not in said


KNOWN = [
    "supersecret",
    "secret",
    "demo123",
    "your-256-bit-secret-your-256-bit-secret-your",
    "a-string-secret-at-least-256-bits-long-really",
    "dev-only-8fj3k2l1m9d8f7g6h5j4k3l2aaaaaaaaaaa",
    "change-me-change-me-change-me-change-me-change-me",
    "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",  # FastAPI's tutorial
    "correct horse battery staple correct horse battery staple",
    "x" * 64,
    "k7Jd93mcLq0pZx5vT2bNw8",
    public(P256),
    public(RSA),
    json.dumps(jwk(RSA.public_key(), "RS256")),
    "".join(public(P256).splitlines()[1:-1]),
    # One of ours that lost its last letter; the same in every process, so that ids are.
    "wws_58faaSdB76rILFnTSW2Nh8ScPp5Vn1kNpRquHPs4kUIlIAf",
]


@pytest.mark.capability("DEF-11", "S1-04", "S0-36")
@pytest.mark.standard("CVE row 1", "RFC 8725 §3.5")
@pytest.mark.parametrize(
    ("setting", "text"),
    [*(("secret", text) for text in KNOWN), *(("old_secrets", text) for text in KNOWN[:3])],
)
def test_a_shared_secret_that_others_know_or_guess_stops_the_start(setting: str, text: str) -> None:
    said = refused(**{setting: text if setting == "secret" else (text,)})
    assert f"keys.{setting}" in said
    assert len(text) < 8 or text not in said


@pytest.mark.capability("DEF-11", "S1-04", "S0-21", "S0-36", "S0-37")
@pytest.mark.parametrize("text", [None, *(each for each in KNOWN if "\n" not in each)])
def test_a_root_secret_that_is_missing_or_known_stops_the_start(text: str | None) -> None:
    with pytest.raises(ConfigurationError, match="watchword secret generate") as error:
        Watchword("sqlite://", secret=text, environ={}, **PRODUCTION)
    assert text is None or len(text) < 8 or text not in str(error.value)


@pytest.mark.capability("DEF-12")
def test_the_root_secret_signs_no_tokens() -> None:
    root = generate_secret()
    with pytest.raises(ConfigurationError, match="root secret"):
        Watchword(features=made_with(secret=root), secret=root, environ={"": ""}, **PRODUCTION)


@pytest.mark.invariant("I-16")
async def test_a_given_key_that_was_revoked_stops_the_next_start() -> None:
    async with telling(features=made_with(private_key=pem(ED))) as story:
        done = await story.auth.keys.rotate(compromised=True)
        assert story.auth.keys.active().kid == done.kid
        with pytest.raises(ConfigurationError, match="revoked: give another"):
            await story.auth.keys.open()
