"""Tokens under attack: forged, bent, out of place, too many bytes."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc.jwk import ECKey

from tests.told import ADA, PASSWORD, Story, browser, problem, telling
from watchword.crypto.jose import sign
from watchword.crypto.signatures import SigningKey
from watchword.testing.story import bearer

REQUIRED = ("iss", "aud", "sub", "client_id", "sid", "jti", "iat", "exp", "scope")


@pytest.fixture
async def story() -> AsyncGenerator[Story, None]:
    async with telling() as told:
        await told.join()
        yield told


def b64(data: bytes | dict[str, Any]) -> str:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unb64(text: str) -> Any:
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


async def real(story: Story) -> tuple[str, dict[str, Any], dict[str, Any]]:
    token = (await story.log_in())["access_token"]
    header, claims, _ = token.split(".")
    return token, unb64(header), unb64(claims)


async def refused(story: Story, token: str, code: str = "invalid_token") -> None:
    body = problem(await story.me(token), 401, code)
    assert token[:40] not in json.dumps(body)


def own(story: Story, claims: dict[str, Any], *, typ: str = "at+jwt") -> str:
    return sign(claims, key=story.auth.keys.active(), typ=typ)


def mac(secret: bytes, header: dict[str, Any], claims: dict[str, Any]) -> str:
    message = f"{b64(header)}.{b64(claims)}"
    return f"{message}.{b64(hmac.new(secret, message.encode(), hashlib.sha256).digest())}"


@pytest.mark.standard("8: 9.1.2", "RFC 8725 §3.1")
async def test_no_algorithm_is_no_signature(story: Story) -> None:
    _, header, claims = await real(story)
    for name in ("none", "None", "nOnE", "NONE", "", "none ", None, 0, ["none"], True):
        for signature in ("", b64(b"x" * 64)):
            bent = f"{b64({**header, 'alg': name})}.{b64(claims)}.{signature}"
            await refused(story, bent)


@pytest.mark.standard("8: 9.1.2", "CVE row 1")
async def test_our_public_key_in_no_form_is_a_secret(story: Story) -> None:
    _, header, claims = await real(story)
    jwk = (await story.client.get("/.well-known/jwks.json")).json()["keys"][0]
    key: Any = story.auth.keys.active()._key
    public = key.public_key
    forms: list[bytes] = [
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).strip(),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint),
        public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        json.dumps(jwk).encode(),
        json.dumps(jwk, separators=(",", ":")).encode(),
        jwk["x"].encode(),
        base64.urlsafe_b64decode(jwk["x"] + "="),
        jwk["kid"].encode(),
        b"",
    ]
    for form in forms:
        for algorithm in ("HS256", "hs256", "HS384", "HS512"):
            await refused(story, mac(form, {**header, "alg": algorithm}, claims))


@pytest.mark.standard("8: 9.1.3", "CVE row 4")
async def test_the_token_chooses_neither_its_key_nor_where_to_find_one(story: Story) -> None:
    _, header, claims = await real(story)
    stranger = SigningKey.generate("ES256")
    theirs = sign(claims, key=stranger, typ="at+jwt")
    await refused(story, theirs)  # foreign kid
    message, _, _ = theirs.partition(".")
    hostile = ("../../etc/passwd", "' OR 1=1 --", "", "x" * 5000, "\x00", stranger.kid, None, 1)
    for kid in hostile:
        bent = {**unb64(message), "kid": kid}
        signed = f"{b64(bent)}.{b64(claims)}"
        await refused(story, f"{signed}.{b64(stranger.signature(signed.encode()))}")
    jwk = stranger.public_jwk()
    for extra in (
        {"jwk": jwk},
        {"jku": "https://evil.example/jwks.json"},
        {"x5u": "https://evil.example/x5u"},
        {"x5c": ["MIIB"]},
        {"crit": ["x"], "x": 1},
        {"crit": []},
        {"crit": ["b64"], "b64": False},
        {"zip": "DEF"},
        {"cty": "JWT"},
    ):
        for signer in (stranger, story.auth.keys.active()):
            signed = f"{b64({**header, **extra})}.{b64(claims)}"
            await refused(story, f"{signed}.{b64(signer.signature(signed.encode()))}")


@pytest.mark.standard("8: 9.1.1")
async def test_a_flipped_bit_anywhere_is_refused(story: Story) -> None:
    token, header, _ = await real(story)
    for place in range(0, len(token), 7):
        letter = token[place]
        other = "B" if letter != "B" else "C"
        if letter == "." or place == len(token) - 1:
            continue
        await refused(story, token[:place] + other + token[place + 1 :])
    for bent in (
        token + "=",
        token + "A",
        token[:-1],
        token + ".",
        "." + token,
        token.replace(".", ".."),
        token.rpartition(".")[0],
        token.rpartition(".")[0] + ".",
        token.replace("-", "+").replace("_", "/") + "==",
        "{" + token + "}",
        json.dumps({"payload": token.split(".")[1], "signature": token.split(".")[2]}),
        b64({**header, "alg": "ES384"}) + token[token.index(".") :],
    ):
        await refused(story, bent)


@pytest.mark.standard("8: 9.2.1", "8: 9.2.3-4", "CVE row 2")
async def test_every_claim_counts_and_has_its_type(story: Story) -> None:
    _, _, claims = await real(story)
    now = int(story.clock.now().timestamp())
    assert (await story.me(own(story, claims))).status_code == 200
    for name in REQUIRED:
        await refused(story, own(story, {k: v for k, v in claims.items() if k != name}))
    issuer: str = claims["iss"]
    wrong: list[dict[str, Any]] = [
        {"iss": issuer[:-1]},
        {"iss": issuer + "/"},
        {"iss": issuer.upper()},
        {"iss": [issuer]},
        {"iss": None},
        {"aud": issuer[:-1]},
        {"aud": issuer + "x"},
        {"aud": []},
        {"aud": [issuer, "https://other.example"]},
        {"aud": None},
        {"iat": now + 60},
        {"nbf": now + 60},
        {"nbf": "1"},
        {"exp": str(now + 60)},
        {"exp": now + 60.5},
        {"exp": None},
        {"exp": True},
        {"exp": 10**30},
        {"iat": "now"},
        {"sub": ""},
        {"sub": 1},
        {"sid": ""},
        {"sid": None},
        {"sid": ["a"]},
        {"client_id": ""},
        {"client_id": "another"},
        {"jti": 1},
    ]
    for change in wrong:
        await refused(story, own(story, {**claims, **change}))
    await refused(story, own(story, {**claims, "exp": now}), "expired_token")
    await refused(story, own(story, {**claims, "exp": now - 3600}), "expired_token")
    assert (await story.me(own(story, {**claims, "aud": [issuer]}))).status_code == 200


@pytest.mark.standard("8: 9.2.2")
async def test_a_token_of_another_kind_is_not_an_access_token(story: Story) -> None:
    _, _, claims = await real(story)
    for typ in ("JWT", "jwt", "id+jwt", "logout+jwt", "dpop+jwt", "at", "at+jwtx", "", "at+JWT "):
        await refused(story, own(story, claims, typ=typ))
    signed = f"{b64({'alg': 'ES256', 'kid': story.auth.keys.active().kid})}.{b64(claims)}"
    signature = story.auth.keys.active().signature(signed.encode())
    await refused(story, f"{signed}.{b64(signature)}")  # no type at all


@pytest.mark.standard("8: size")
async def test_ten_megabytes_of_token_cost_nothing(story: Story) -> None:
    began = time.perf_counter()
    for token in ("x" * 10_000_000, "a." * 5_000_000, f"{'A' * 9000}.{'B' * 9000}.C"):
        await refused(story, token)
    assert time.perf_counter() - began < 3
    answer = await story.client.post("/auth/refresh", json={"refresh_token": "x" * 1_000_000})
    problem(answer, 422, "validation_failed")
    async with browser(story.app, Cookie="session=" + "x" * 1_000_000) as client:
        problem(await client.get("/auth/me"), 401, "invalid_token")


@pytest.mark.standard("RFC 6750 §2.3", "RFC 6750 §3")
async def test_a_token_counts_in_the_authorization_header_alone(story: Story) -> None:
    token, _, _ = await real(story)
    for path in (f"/auth/me?access_token={token}", f"/auth/me?token={token}"):
        problem(await story.client.get(path), 401, "not_authenticated")
    form = await story.client.post("/auth/logout", data={"access_token": token})
    assert form.status_code in (401, 415)
    for scheme in ("Basic", "Token", "JWT", "Digest", "DPoP", ""):
        answer = await story.client.get(
            "/auth/me", headers={"Authorization": f"{scheme} {token}".strip()}
        )
        problem(answer, 401, "not_authenticated")
    glued = {"Authorization": f"Bearerx {token}"}
    problem(await story.client.get("/auth/me", headers=glued), 401, "invalid_token")
    for scheme in ("Bearer", "bearer", "BEARER"):
        answer = await story.client.get("/auth/me", headers={"Authorization": f"{scheme} {token}"})
        assert answer.status_code == 200
    twice = [("Authorization", f"Bearer {token}"), ("Authorization", f"Bearer {token}")]
    problem(await story.client.get("/auth/me", headers=twice), 401, "invalid_token")
    for tail in (" ", ",", f", Bearer {token}", f" {token}"):
        answer = await story.client.get(
            "/auth/me", headers={"Authorization": f"Bearer {token}{tail}"}
        )
        assert answer.status_code in (200, 401)
        assert answer.status_code == 401 or tail == " "


@pytest.mark.standard("RFC 6750 §3")
@pytest.mark.capability("S1-25", "S1-24")
async def test_the_challenge_names_an_error_only_where_a_token_came(story: Story) -> None:
    nobody = await story.client.get("/auth/me")
    assert nobody.headers["www-authenticate"] == "Bearer"
    wrong = await story.me("x")
    assert wrong.headers["www-authenticate"].startswith('Bearer error="invalid_token"')


async def kinds(story: Story) -> dict[str, str]:
    """One good specimen of everything that we hand out."""
    pair = await story.log_in()
    async with browser(story.app) as client:
        await story.log_in(transport="cookie", client=client)
        cookie, csrf = client.cookies["session"], client.cookies["csrf"]
    await story.register("bob@example.com")
    for path in ("password-reset-request", "verify-email-request"):
        for email in (ADA, "bob@example.com"):
            await story.client.post(f"/auth/{path}", json={"email": email})
    change = {"new_email": "new@example.com", "current_password": PASSWORD}
    await story.client.post("/auth/email/change", json=change, headers=bearer(pair["access_token"]))
    await story.mails()
    return {
        "access": pair["access_token"],
        "refresh": pair["refresh_token"],
        "cookie": cookie,
        "csrf": csrf,
        "reset": story.outbox.token(ADA, "wwp"),
        "verify": story.outbox.token("bob@example.com", "wwv"),
        "confirm": story.outbox.token("new@example.com", "wwe"),
        "hash": "x",
    }


@pytest.mark.capability("S2-14", "DEF-12", "S4-40", "S1-26")
@pytest.mark.invariant("I-02", "I-03")
@pytest.mark.standard("8: 9.2.2", "CVE row 32", "CVE row 36")
async def test_every_kind_of_token_opens_its_own_door_only(story: Story) -> None:
    held = await kinds(story)
    other = "another fine horse battery"

    def by_json(path: str, field: str, **more: str) -> Callable[[str], Any]:
        return lambda token: story.client.post(f"/auth/{path}", json={field: token, **more})

    async def by_cookie(token: str) -> Any:
        async with browser(story.app, Cookie=f"session={token}") as client:
            return await client.get("/auth/me")

    doors: dict[str, Callable[[str], Any]] = {
        "access": story.me,
        "cookie": by_cookie,
        "refresh": by_json("refresh", "refresh_token"),
        "logout": by_json("logout", "refresh_token"),
        "reset": by_json("password-reset", "token", new_password=other),
        "verify": by_json("verify-email", "token", password=PASSWORD),
        "confirm": by_json("email/confirm", "token", password=PASSWORD),
        "undo": by_json("email/undo", "token"),
    }
    for door, knock in doors.items():
        for kind, token in held.items():
            if kind == door or (kind, door) == ("refresh", "logout"):
                continue
            answer = await knock(token)
            assert answer.status_code in (401, 422), (kind, door, answer.text)
            if answer.status_code == 422:  # longer than any token of that door
                assert kind == "access"
            else:
                problem(answer, 401, "invalid_token")
    # None of them was spent by knocking at the wrong door.
    for kind in ("access", "cookie", "verify", "confirm"):
        answer = await doors[kind](held[kind])
        assert answer.status_code in (200, 204), (kind, answer.text)


async def test_another_curve_with_our_kid_is_refused(story: Story) -> None:
    _, header, claims = await real(story)
    stranger = ec.generate_private_key(ec.SECP256R1())
    theirs = SigningKey(header["kid"], "ES256", ECKey.import_key(stranger))
    await refused(story, sign(claims, key=theirs, typ="at+jwt"))


async def test_a_stranger_reads_the_ring_once_in_five_seconds(story: Story, work: Any) -> None:
    _, _, claims = await real(story)
    story.move(seconds=6)
    with work.watched() as done:
        for _ in range(30):
            await refused(story, sign(claims, key=SigningKey.generate("ES256"), typ="at+jwt"))
    assert done["find StoredKey"] == 1
