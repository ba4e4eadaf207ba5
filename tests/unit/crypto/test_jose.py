import hashlib
import hmac
import json
import pickle
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

from watchword.crypto import jose
from watchword.crypto.base64url import decoded
from watchword.crypto.jose import Algorithm, UnknownKid
from watchword.crypto.signatures import SigningKey
from watchword.kernel.errors import ExpiredToken, InvalidToken
from watchword.kernel.secrets import unpadded

ALGORITHMS: tuple[Algorithm, ...] = ("ES256", "RS256", "EdDSA", "HS256")
KEYS = {algorithm: SigningKey.generate(algorithm) for algorithm in ALGORITHMS}
MISSING = object()
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SECOND = int(NOW.timestamp())
CLAIMS: dict[str, object] = {
    "iss": "https://auth.example.com",
    "aud": "https://auth.example.com",
    "sub": "user",
    "client_id": "watchword",
    "sid": "session",
    "jti": "token",
    "iat": SECOND,
    "exp": SECOND + 900,
}


def ring(*keys: SigningKey) -> Callable[[str], SigningKey | None]:
    return {key.kid: key for key in keys}.get


def read(token: Any, *keys: SigningKey, typ: str = "at+jwt") -> dict[str, object]:
    return jose.verify(token, keys=ring(*(keys or KEYS.values())), typ=typ)


def forged(
    header: object, payload: object = CLAIMS, *, by: SigningKey | Callable[[bytes], bytes]
) -> str:
    """A token with any header at all, truly signed, so that nothing else is wrong with it."""
    texts = [part if isinstance(part, str) else json.dumps(part) for part in (header, payload)]
    message = ".".join(unpadded(text.encode()) for text in texts)
    sign = by.signature if isinstance(by, SigningKey) else by
    return f"{message}.{unpadded(sign(message.encode()))}"


def header_of(key: SigningKey, **more: object) -> dict[str, object]:
    return {"alg": key.algorithm, "kid": key.kid, "typ": "at+jwt", **more}


def public_forms(key: SigningKey) -> list[bytes]:
    """A public key in every form it travels in."""
    native: Any = load_der_private_key(key.private_bytes(), password=None)
    public = native.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    forms = [
        pem,
        pem.strip(),
        b"".join(pem.splitlines()[1:-1]),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        json.dumps(key.public_jwk()).encode(),
        json.dumps({"keys": [key.public_jwk()]}).encode(),
    ]
    if key.algorithm == "RS256":
        forms.append(public.public_bytes(Encoding.PEM, PublicFormat.PKCS1))
        forms.append(public.public_bytes(Encoding.DER, PublicFormat.PKCS1))
    return forms


@pytest.mark.capability("S2-17")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_token_names_its_algorithm_and_reads_back(algorithm: Algorithm) -> None:
    key = KEYS[algorithm]
    token = jose.sign(CLAIMS, key=key, typ="at+jwt")
    assert jwt.get_unverified_header(token) == header_of(key)
    assert jose.peek_kid(token) == key.kid
    assert read(token) == CLAIMS
    assert read(token, typ="application/AT+JWT") == CLAIMS


@pytest.mark.capability("S2-17")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_another_library_reads_our_tokens_with_the_published_key(algorithm: Algorithm) -> None:
    key = KEYS[algorithm]
    token = jose.sign({"sub": "user"}, key=key, typ="at+jwt")
    jwk = key.public_jwk()
    public: Any = key.private_bytes() if jwk is None else jwt.PyJWK.from_dict(jwk).key
    assert jwt.decode(token, public, algorithms=[algorithm]) == {"sub": "user"}


@pytest.mark.capability("S2-17")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_key_survives_being_stored(algorithm: Algorithm) -> None:
    key = KEYS[algorithm]
    again = SigningKey.from_private_bytes(key.kid, algorithm, key.private_bytes())
    assert read(jose.sign(CLAIMS, key=key, typ="at+jwt"), again) == CLAIMS
    assert read(jose.sign(CLAIMS, key=again, typ="at+jwt"), key) == CLAIMS
    assert again.public_jwk() == key.public_jwk()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_nothing_private_is_published_shown_pickled_or_changed(algorithm: Algorithm) -> None:
    key = KEYS[algorithm]
    jwk = key.public_jwk()
    if algorithm == "HS256":
        assert jwk is None
    else:
        assert jwk is not None
        assert {"kid": key.kid, "alg": algorithm, "use": "sig"}.items() <= jwk.items()
        assert jwk.keys().isdisjoint({"d", "p", "q", "dp", "dq", "qi", "k", "oth"})
    assert repr(key) == f"SigningKey(kid={key.kid!r}, algorithm={algorithm!r})"
    with pytest.raises(TypeError):
        pickle.dumps(key)
    with pytest.raises(AttributeError):
        key.algorithm = "HS256"  # pyright: ignore[reportAttributeAccessIssue]


def test_a_kid_is_the_thumbprint_of_its_rfc_and_random_for_hs256() -> None:
    # RFC 8037 appendix A.1, A.3
    seed = decoded("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")
    private = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
    der = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    key = SigningKey.from_private_bytes("any", "EdDSA", der)
    assert key._key.thumbprint() == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    for algorithm in ("ES256", "RS256", "EdDSA"):
        assert KEYS[algorithm].kid == KEYS[algorithm]._key.thumbprint()
    secret = KEYS["HS256"].private_bytes()
    again = SigningKey.from_private_bytes("any", "HS256", secret)
    assert KEYS["HS256"].kid != again._key.thumbprint()


@pytest.mark.standard("RFC 7515")
def test_signatures_are_those_of_the_rfcs() -> None:
    # RFC 7515 appendix A.1
    joe = (
        "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0"
        "cnVlfQ"
    )
    octets = decoded(
        "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"
    )
    hs256 = SigningKey.from_private_bytes("any", "HS256", octets)
    message = f"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{joe}".encode()
    assert unpadded(hs256.signature(message)) == "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    # RFC 7515 appendix A.3
    number = int.from_bytes(decoded("jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"), "big")
    private = ec.derive_private_key(number, ec.SECP256R1())
    der = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    es256 = SigningKey.from_private_bytes("any", "ES256", der)
    signature = (
        "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
    )
    assert es256.signed(f"eyJhbGciOiJFUzI1NiJ9.{joe}".encode(), decoded(signature))
    assert not es256.signed(f"eyJhbGciOiJFUzI1NiJ9.{joe}x".encode(), decoded(signature))
    # RFC 8037 appendix A.4
    seed = decoded("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")
    der = ed25519.Ed25519PrivateKey.from_private_bytes(seed).private_bytes(
        Encoding.DER, PrivateFormat.PKCS8, NoEncryption()
    )
    eddsa = SigningKey.from_private_bytes("any", "EdDSA", der)
    message = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"
    assert unpadded(eddsa.signature(message)) == (
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    )


@pytest.mark.standard("RFC 8725 3.1", "ASVS 9.1.2")
@pytest.mark.parametrize("alg", ["none", "None", "nOnE", "NONE", "", "es256", "HS256", "PS256"])
def test_the_algorithm_is_the_rings_to_say(alg: str) -> None:
    key = KEYS["ES256"]
    signs: list[Callable[[bytes], bytes]] = [
        key.signature,
        lambda _: b"",
        lambda _: b"\x00" * 64,
    ]
    for sign in signs:
        with pytest.raises(InvalidToken):
            read(forged(header_of(key, alg=alg), by=sign))
    message = forged(header_of(key, alg=alg), by=key).rpartition(".")[0]
    for token in (message, message + "."):
        with pytest.raises(InvalidToken):
            read(token)


@pytest.mark.standard("RFC 8725 3.1")
def test_a_key_of_one_algorithm_verifies_no_other() -> None:
    rs256 = KEYS["RS256"]
    for alg in ("PS256", "RS384", "RS512", "HS256", "ES256"):
        with pytest.raises(InvalidToken, match=r".*") as refused:
            read(forged(header_of(rs256, alg=alg), by=rs256))
        assert refused.value.note == "not the algorithm of its key"


@pytest.mark.standard("CVE-2022-29217", "CVE-2024-33663", "CVE-2024-37568")
@pytest.mark.parametrize("algorithm", ["ES256", "RS256", "EdDSA"])
def test_a_public_key_is_no_hmac_secret_in_any_form(algorithm: Algorithm) -> None:
    key = KEYS[algorithm]
    for secret in public_forms(key):
        for alg in ("HS256", algorithm):
            token = forged(
                header_of(key, alg=alg),
                by=lambda message, s=secret: hmac.new(s, message, hashlib.sha256).digest(),
            )
            with pytest.raises(InvalidToken):
                read(token)
        with pytest.raises(ValueError, match="HS256"):
            SigningKey.from_private_bytes("any", "HS256", secret)


@pytest.mark.standard("RFC 8725 3.5", "RFC 7518 3.2")
@pytest.mark.parametrize(
    "secret", [b"", b"x" * 31, b"x" * 64, b"correct horse battery staple and more", b"ab" * 40]
)
def test_a_short_or_guessable_hmac_secret_is_refused(secret: bytes) -> None:
    with pytest.raises(ValueError, match="HS256"):
        SigningKey.from_private_bytes("any", "HS256", secret)


@pytest.mark.standard("ASVS 11.2.3")
def test_a_key_that_is_short_or_of_another_kind_is_refused() -> None:
    def der(key: Any) -> bytes:
        return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

    small = der(rsa.generate_private_key(65537, 1024))
    p384 = der(ec.generate_private_key(ec.SECP384R1()))
    wrong: list[tuple[Algorithm, bytes]] = [
        ("RS256", small),
        ("ES256", p384),
        ("ES256", KEYS["EdDSA"].private_bytes()),
        ("EdDSA", KEYS["ES256"].private_bytes()),
        ("RS256", KEYS["ES256"].private_bytes()),
        ("ES256", KEYS["HS256"].private_bytes()),
        ("ES256", b""),
        ("ES256", public_forms(KEYS["ES256"])[3]),
    ]
    for algorithm, data in wrong:
        with pytest.raises(ValueError, match=r"."):
            SigningKey.from_private_bytes("any", algorithm, data)
    for kid in ("", "x" * 129, "ü", "a\nb"):
        with pytest.raises(ValueError, match="kid"):
            SigningKey.from_private_bytes(kid, "ES256", KEYS["ES256"].private_bytes())
    made: Any = load_der_private_key(KEYS["RS256"].private_bytes(), None)
    assert made.key_size == 3072


@pytest.mark.invariant("I-16")
@pytest.mark.parametrize("kid", ["unknown", "../../etc/passwd", "' OR 1=1 --", "x" * 128])
def test_an_unknown_kid_says_so_and_no_other_key_is_tried(kid: str) -> None:
    key = KEYS["ES256"]
    with pytest.raises(UnknownKid) as refused:
        read(forged(header_of(key, kid=kid), by=key))
    assert refused.value.code == "invalid_token"


@pytest.mark.invariant("I-16")
def test_a_token_of_a_key_that_left_the_ring_is_refused() -> None:
    old, new = SigningKey.generate("ES256"), SigningKey.generate("ES256")
    with pytest.raises(UnknownKid):
        read(jose.sign(CLAIMS, key=old, typ="at+jwt"), new)
    swapped = forged(header_of(new), by=old)
    with pytest.raises(InvalidToken) as refused:
        read(swapped, new, old)
    assert refused.value.note == "wrong signature"


MORE: list[dict[str, object]] = [
    {"jku": "https://evil.example/jwks"},
    {"jwk": KEYS["ES256"].public_jwk()},
    {"x5u": "https://evil.example/cert"},
    {"x5c": ["MIIB"]},
    {"x5t": "abc"},
    {"crit": ["x"]},
    {"crit": []},
    {"crit": ["b64"], "b64": False},
    {"b64": False},
    {"b64": True},
    {"zip": "DEF"},
    {"cty": "JWT"},
    {"enc": "A256GCM"},
    {"p2c": 2**31 - 1},
    {"": ""},
    {"kid": None},
    {"kid": 1},
    {"kid": ["a"]},
    {"kid": ""},
    {"kid": "x" * 129},
    {"kid": "a\x00b"},
    {"kid": "a\nb"},
    {"kid": "\ud800"},
    {"alg": None},
    {"alg": ["ES256"]},
    {"typ": None},
    {"typ": 1},
]


@pytest.mark.standard("RFC 8725 3.10", "RFC 7515 4.1.11", "CVE-2026-32597", "CVE-2026-27962")
@pytest.mark.parametrize("more", MORE, ids=lambda more: "-".join(more) or "empty")
def test_a_header_with_anything_but_alg_typ_and_kid_is_refused(more: dict[str, object]) -> None:
    key = KEYS["ES256"]
    token = forged(header_of(key, **more), by=key)
    for look in (read, jose.peek_kid):
        with pytest.raises(InvalidToken) as refused:
            look(token)
        assert refused.value.note in {"a header other than alg, typ, kid", "not a kid"}


@pytest.mark.parametrize("missing", ["alg", "typ", "kid"])
def test_a_header_without_one_of_the_three_is_refused(missing: str) -> None:
    key = KEYS["ES256"]
    header = {name: value for name, value in header_of(key).items() if name != missing}
    with pytest.raises(InvalidToken):
        read(forged(header, by=key))


@pytest.mark.standard("RFC 8725 3.11", "ASVS 9.2.2")
@pytest.mark.parametrize("typ", ["JWT", "jwt", "logout+jwt", "at", "x/at+jwt", "", "at+jwt "])
def test_a_token_of_another_kind_is_refused(typ: str) -> None:
    key = KEYS["ES256"]
    with pytest.raises(InvalidToken) as refused:
        read(forged(header_of(key, typ=typ), by=key))
    assert refused.value.note == "another kind of token"


@pytest.mark.standard("CVE-2022-39227")
@pytest.mark.parametrize(
    "header",
    [
        '{"alg":"none","alg":"ES256","kid":"K","typ":"at+jwt"}',
        '{"alg":"ES256","kid":"other","kid":"K","typ":"at+jwt"}',
        '["alg","kid","typ"]',
        '"alg"',
        "null",
        "",
        "{",
        '{"alg":"ES256","kid":"K","typ":"at+jwt"}{}',
        '{"alg":"ES256","kid":"K","typ":NaN}',
        "[" * 2000,
        '{"a":' * 500,
        '\ufeff{"alg":"ES256","kid":"K","typ":"at+jwt"}',
    ],
)
def test_a_header_that_two_readers_could_read_differently_is_refused(header: str) -> None:
    key = KEYS["ES256"]
    with pytest.raises(InvalidToken):
        read(forged(header.replace("K", key.kid), by=key))


@pytest.mark.standard("ASVS 9.2.1")
@pytest.mark.parametrize(
    "payload",
    [
        '{"sub":"a","sub":"b"}',
        '{"a":{"sub":"a","sub":"b"}}',
        '{"exp":NaN}',
        '{"exp":Infinity}',
        '{"exp":-Infinity}',
        '{"exp":1e999}',
        '{"exp":' + "9" * 2500,
        "[]",
        "null",
        '"text"',
        "1",
        "{} {}",
        "",
        "[" * 2000,
    ],
)
def test_a_payload_that_is_no_plain_json_object_is_refused_even_if_signed(payload: str) -> None:
    key = KEYS["HS256"]
    with pytest.raises(InvalidToken) as refused:
        read(forged(header_of(key), payload, by=key))
    assert refused.value.note in {"not JSON", "not a JSON object", "not three segments"}


def test_a_payload_of_bytes_that_are_no_text_is_refused() -> None:
    key = KEYS["HS256"]
    message = f"{unpadded(json.dumps(header_of(key)).encode())}.{unpadded(bytes([0xFF, 0xFE]))}"
    with pytest.raises(InvalidToken):
        read(f"{message}.{unpadded(key.signature(message.encode()))}")


@pytest.mark.standard("RFC 8725 3.14", "ASVS 9.1.1")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_any_other_spelling_of_a_token_is_refused(algorithm: Algorithm) -> None:
    key = KEYS[algorithm]
    token = jose.sign(CLAIMS, key=key, typ="at+jwt")
    head, body, tail = token.split(".")
    padded = ".".join(
        urlsafe_b64encode(decoded(segment)).decode() for segment in (head, body, tail)
    )
    flattened = json.dumps({"protected": head, "payload": body, "signature": tail})
    unused = tail[:-1] + chr(ord(tail[-1]) + 1)  # the same bytes to a lenient reader
    spellings = [
        padded if padded != token else token + "=",
        *(token + tail for tail in ("=", "==", "\n", " ", ".", ".e30", "\x00", "é")),
        *(head + "." for head in (token, " " + token, "\t" + token)),
        "Bearer " + token,
        f"{head}. {body}.{tail}",
        f"{head}\n.{body}.{tail}",
        f"{head}..{tail}",
        f"{head}.{body}.",
        f".{body}.{tail}",
        f"{head}.{body}.{unused}",
        f"{head}.{body}.{tail[:-1]}+",
        f"{head}.{body}.{tail[:-1]}/",
        f"{head}.{body}.{tail}A",
        f"{head}.{body}.{tail[:-1]}",
        f"{{{token}}}",
        flattened,
        json.dumps({"payload": body, "signatures": [{"protected": head, "signature": tail}]}),
        token.replace(".", "\uff0e"),
        "",
        ".",
        "..",
    ]
    for spelling in spellings:
        with pytest.raises(InvalidToken):
            read(spelling)
    for other in (None, 1, token.encode(), [token]):
        with pytest.raises(InvalidToken):
            read(other)


@pytest.mark.standard("ASVS 9.1.1")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_signature_of_the_wrong_length_or_value_is_refused(algorithm: Algorithm) -> None:
    key = KEYS[algorithm]
    head, body, tail = jose.sign(CLAIMS, key=key, typ="at+jwt").split(".")
    good = decoded(tail)
    flipped = bytes([good[0] ^ 1]) + good[1:]
    for bad in (flipped, good[:-1], good + b"\x00", b"\x00" * len(good), b"\xff" * len(good), b"x"):
        with pytest.raises(InvalidToken):
            read(f"{head}.{body}.{unpadded(bad)}")
    other = unpadded(json.dumps({**CLAIMS, "sub": "admin"}).encode())
    with pytest.raises(InvalidToken):
        read(f"{head}.{other}.{tail}")


@pytest.mark.standard("CVE-2025-61920")
def test_a_huge_token_is_refused_before_anything_is_split_decoded_or_looked_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worked: list[object] = []
    monkeypatch.setattr(jose, "decoded", worked.append)

    class Watched(str):
        __slots__ = ()

        def split(self, *args: Any, **more: Any) -> list[str]:
            worked.append("split")
            return super().split(*args, **more)

    for text in ("a" * 10_000_000, "." * 10_000_000, "a.b." + "c" * 4093, "é" * 4097):
        with pytest.raises(InvalidToken):
            jose.verify(Watched(text), keys=worked.append, typ="at+jwt")
        with pytest.raises(InvalidToken):
            jose.peek_kid(Watched(text))
    assert worked == []


def test_what_could_not_be_read_is_not_signed() -> None:
    key = KEYS["ES256"]
    with pytest.raises(ValueError, match="4096"):
        jose.sign({"scope": "x" * 4096}, key=key, typ="at+jwt")
    for number in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON"):
            jose.sign({"exp": number}, key=key, typ="at+jwt")
    longest = jose.sign({"scope": "x" * 2500}, key=KEYS["RS256"], typ="at+jwt")
    assert read(longest) == {"scope": "x" * 2500}


def judge(
    changes: Mapping[str, object] | None = None, *, now: datetime = NOW, leeway: int = 0
) -> None:
    claims = {**CLAIMS, **(changes or {})}
    claims = {name: value for name, value in claims.items() if value is not MISSING}
    jose.check_claims(
        claims,
        issuer="https://auth.example.com",
        audience="https://auth.example.com",
        now=now,
        leeway=timedelta(seconds=leeway),
    )


def test_true_claims_pass() -> None:
    judge()
    judge({"aud": ["https://auth.example.com"]})
    judge({"nbf": SECOND})
    judge({"scope": "a b", "extra": {"anything": [1]}})


@pytest.mark.parametrize("name", CLAIMS)
def test_a_missing_claim_is_refused(name: str) -> None:
    with pytest.raises(InvalidToken) as refused:
        judge({name: MISSING})
    assert refused.value.note == f"{name} is missing"


def test_issuer_audience_and_expiry_are_asked_for_whatever_is_required() -> None:
    for name in ("iss", "aud", "exp"):
        claims = {key: value for key, value in CLAIMS.items() if key != name}
        with pytest.raises(InvalidToken):
            jose.check_claims(
                claims,
                issuer="https://auth.example.com",
                audience="https://auth.example.com",
                now=NOW,
                required=(),
            )


@pytest.mark.standard("ASVS 9.2.1")
@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
@pytest.mark.parametrize(
    "value",
    [
        str(SECOND + 900),
        float(SECOND + 900),
        SECOND + 0.5,
        float("nan"),
        float("inf"),
        True,
        None,
        [SECOND],
        {},
        0,
        -1,
        10**30,
        "",
    ],
)
def test_an_instant_that_is_no_whole_number_is_refused(name: str, value: object) -> None:
    with pytest.raises(InvalidToken) as refused:
        judge({name: value})
    assert type(refused.value) is InvalidToken


@pytest.mark.parametrize("name", ["sub", "jti", "sid", "client_id"])
@pytest.mark.parametrize("value", ["", None, 1, True, ["user"], {}])
def test_a_name_that_is_no_text_is_refused(name: str, value: object) -> None:
    with pytest.raises(InvalidToken):
        judge({name: value})


@pytest.mark.standard("CVE-2024-53861", "RFC 8725 3.8", "ASVS 9.2.3")
@pytest.mark.parametrize("name", ["iss", "aud"])
@pytest.mark.parametrize(
    "value",
    [
        "",
        "https://auth.example.co",
        "https://auth.example.com/",
        "https://auth.example.com.evil.example",
        "HTTPS://auth.example.com",
        "auth.example.com",
        None,
        True,
        {},
        [],
        ["https://evil.example"],
        ["https://auth.example.com", "https://evil.example"],
        ["https://auth.example.com", "https://auth.example.com"],
        [["https://auth.example.com"]],
        {"https://auth.example.com": 1},
    ],
)
def test_issuer_and_audience_are_matched_exactly(name: str, value: object) -> None:
    with pytest.raises(InvalidToken):
        judge({name: value})


def test_an_issuer_is_no_list() -> None:
    with pytest.raises(InvalidToken):
        judge({"iss": ["https://auth.example.com"]})


@pytest.mark.standard("ASVS 9.2.1")
def test_a_token_is_valid_until_the_second_of_its_expiry_and_no_longer() -> None:
    judge(now=NOW + timedelta(seconds=899, milliseconds=999))
    for seconds in (900, 901, 10**6):
        with pytest.raises(ExpiredToken):
            judge(now=NOW + timedelta(seconds=seconds))
    judge(now=NOW + timedelta(seconds=909), leeway=10)
    with pytest.raises(ExpiredToken):
        judge(now=NOW + timedelta(seconds=910), leeway=10)


@pytest.mark.standard("ASVS 9.2.1")
def test_a_token_of_the_future_is_refused() -> None:
    for name in ("iat", "nbf"):
        with pytest.raises(InvalidToken):
            judge({name: SECOND + 1})
        judge({name: SECOND + 10}, leeway=10)
        with pytest.raises(InvalidToken):
            judge({name: SECOND + 11}, leeway=10)


def test_an_expired_token_of_another_issuer_is_not_called_expired() -> None:
    with pytest.raises(InvalidToken) as refused:
        judge({"iss": "https://evil.example"}, now=NOW + timedelta(days=1))
    assert not isinstance(refused.value, ExpiredToken)


def test_a_random_hmac_key_is_a_key_whatever_byte_it_begins_with() -> None:
    """One in 256 of our own keys began with a brace, was taken for a JWK, and could not be read."""
    for first in range(256):
        data = bytes([first]) + bytes(range(100, 100 + 31 * 5, 5))
        assert SigningKey.from_private_bytes("k", "HS256", data).private_bytes() == data
