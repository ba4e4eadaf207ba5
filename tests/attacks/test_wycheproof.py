"""Project Wycheproof's vectors: what others' libraries got wrong, offered to our reader."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import OctKey

from tests.attacks.forge import answered, unb64
from tests.told import problem, telling
from watchword.crypto import jose
from watchword.crypto.signatures import SigningKey
from watchword.kernel.errors import InvalidToken

VECTORS = Path(__file__).parents[1] / "vectors" / "wycheproof"
KINDS = {"signature": 401, "key": 26, "crypto": 83, "encryption": 139}

# A text that may be guessed, so our ring would not hold it; its vectors are about base64.
GUESSABLE = "hs256-key"
# Ambiguous by Wycheproof's own words: a ring of two algorithms, each bound to its key by us.
MIXED_RING = {("key", 1), ("crypto", 47)}


@dataclass(frozen=True)
class Vector:
    """One token, and what Wycheproof thinks of it."""

    kind: str
    number: int
    comment: str
    is_valid: bool
    token: str
    jwks: tuple[dict[str, Any], ...]

    @property
    def name(self) -> str:
        return f"{self.kind} {self.number} {self.comment}"


@cache
def vectors(kind: str) -> tuple[Vector, ...]:
    """All of one file."""
    return tuple(_read(kind))


def _read(kind: str) -> Iterator[Vector]:
    content = json.loads((VECTORS / f"json_web_{kind}_test.json").read_text("utf-8"))
    for group in content["testGroups"]:
        jwks = tuple(group["private"].get("keys", [group["private"]]))
        for test in group["tests"]:
            token = test["jws"] if "jws" in test else test["jwe"]
            yield Vector(
                kind=kind,
                number=test["tcId"],
                comment=test["comment"],
                is_valid=test["result"] == "valid",
                token=token if isinstance(token, str) else json.dumps(token),
                jwks=jwks,
            )


def key_of(jwk: dict[str, Any]) -> SigningKey | None:
    """The key as an operator would give it to us; None if we would not take it."""
    if jwk["kid"] == GUESSABLE:
        return SigningKey(GUESSABLE, "HS256", OctKey.import_key(unb64(jwk["k"])))
    try:
        if jwk["kty"] == "oct":
            # A secret is given as text or octets, never as a JWK: nothing else of it counts.
            if (jwk["alg"], jwk.get("use", "sig")) != ("HS256", "sig"):
                return None
            return SigningKey.from_private_bytes(jwk["kid"], "HS256", unb64(jwk["k"]))
        given = SigningKey.given(json.dumps(jwk))
    except ValueError:
        return None
    return SigningKey(jwk["kid"], given.algorithm, given._key)


@cache
def _ring(text: str) -> dict[str, SigningKey]:
    jwks = json.loads(text)
    if len({jwk["kid"] for jwk in jwks}) < len(jwks):
        return {}  # a ring has one key of a name
    keys = [key_of(jwk) for jwk in jwks]
    return {key.kid: key for key in keys if key is not None}


def ring(vector: Vector) -> dict[str, SigningKey]:
    """The vector's keys, those that we would take."""
    return _ring(json.dumps(vector.jwks))


def is_read(vector: Vector) -> bool:
    """Does our reader take it, as it is?"""
    try:
        jose.verify(vector.token, keys=ring(vector).get, typ="JWT")
    except InvalidToken:
        return False
    return True


def is_signed(vector: Vector) -> bool:
    """Would it take it, if it did not ask for a type and for claims in JSON?

    All else is as in `verify`: three segments, strict base64url, strict JSON, the key named by
    its kid alone, no parameter that we do not know.
    """
    try:
        head, body, tail = jose._segments(vector.token)
        jose._octets_of(body)
        header = jose._object(head)
        octets = jose._octets_of(tail)
    except InvalidToken:
        return False
    named = ring(vector)
    # Many vectors name no key at all: then the only one is meant.
    kid = header.get("kid", next(iter(named), None))
    key = named.get(kid) if isinstance(kid, str) else None
    if key is None or header.get("alg") != key.algorithm or header.keys() - {"alg", "typ", "kid"}:
        return False
    return key.signed(f"{head}.{body}".encode(), octets)


@pytest.mark.standard("8: wycheproof")
@pytest.mark.parametrize("kind", KINDS)
def test_no_vector_is_read_as_a_token_of_ours(kind: str, say: Callable[[str], None]) -> None:
    told = Counter("valid" if each.is_valid else "invalid" for each in vectors(kind))
    read = [each for each in vectors(kind) if is_read(each)]
    say(
        f"wycheproof {kind}: {told['invalid']} invalid refused, "
        f"{told['valid'] - len(read)} of {told['valid']} valid ones refused for being less "
        f"strict than we are"
    )
    assert sum(told.values()) == KINDS[kind]
    assert not [each.name for each in read if not each.is_valid]
    # None has the type that we ask for: `verify` demands alg, typ and kid and nothing else.
    assert [each.name for each in read] == []


@pytest.mark.standard("8: wycheproof", "8: §3.4", "8: 9.1.2", "RFC 8725 §3.5")
@pytest.mark.parametrize(("kind", "taken"), [("signature", 18), ("key", 3), ("crypto", 4)])
def test_of_signatures_alone_the_valid_ones_of_our_algorithms_are_taken(
    kind: str, taken: int, say: Callable[[str], None]
) -> None:
    signed = [each for each in vectors(kind) if is_signed(each)]
    ambiguous = [each for each in signed if (each.kind, each.number) in MIXED_RING]
    # Signature 349 is called valid, but its key says `key_ops: ["sign, verify"]`, which is neither.
    # Two that are called invalid are, letter by letter and with the same key, a valid one.
    valid = {(each.token, str(each.jwks)) for each in vectors(kind) if each.is_valid}
    odd = [each for each in signed if (each.token, str(each.jwks)) not in valid]
    wrong = [each.name for each in odd if each not in ambiguous]
    refused = [each for each in vectors(kind) if each.is_valid and each not in signed]
    ours = [each for each in refused if ring(each)]
    say(
        f"wycheproof {kind}, signatures alone: {len(signed)} taken, "
        f"{len(refused)} valid ones refused, {len(refused) - len(ours)} of them because of "
        f"their algorithm or key"
    )
    assert not wrong
    assert len(signed) - len(ambiguous) == taken
    # Ours, and refused: an empty payload is no token; two have a `?` in their base64url.
    assert {each.number for each in ours} == ({259, 372, 373} if kind == "signature" else set())


@pytest.mark.standard("8: wycheproof", "RFC 8725 §3.6")
async def test_no_vector_is_a_bearer_token() -> None:
    async with telling() as story:
        for kind in KINDS:
            for each in vectors(kind):
                answer = await answered(story, each.token)
                if each.token.strip():
                    problem(answer, 401, "invalid_token")
                else:
                    assert answer.status_code == 401
