"""JSON Web Tokens, read so strictly that little is left to attack; the library does signatures.

Nothing here trusts a token: which key and which algorithm count is the ring's to say, never the
token's (RFC 8725 §3.1).
"""

import json
import math
import secrets
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal, NoReturn, Self, cast, final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_der_public_key,
)
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from watchword.crypto.base64url import decoded
from watchword.kernel.errors import ExpiredToken, InvalidToken
from watchword.kernel.secrets import unpadded

Algorithm = Literal["ES256", "RS256", "EdDSA", "HS256"]

_LONGEST: Final = 4096  # characters of a token: longer is refused before anything is decoded
_LONGEST_KID: Final = 128
_HEADER: Final = frozenset({"alg", "typ", "kid"})
_RSA_MADE: Final = 3072  # bits
_RSA_LEAST: Final = 2048  # bits
_HMAC_LEAST: Final = 32  # bytes
_LAST_SECOND: Final = 253402300800  # the year 10000, which no datetime reaches

# Of the library only its signatures. Ed25519 is what EdDSA means here (RFC 9864 §2.2): the header
# says EdDSA, which readers know, and no key of another curve gets in.
_REGISTRY = JWSRegistry(algorithms=["ES256", "RS256", "Ed25519", "HS256"])
_MODELS: Final = {
    "ES256": _REGISTRY.get_alg("ES256"),
    "RS256": _REGISTRY.get_alg("RS256"),
    "EdDSA": _REGISTRY.get_alg("Ed25519"),
    "HS256": _REGISTRY.get_alg("HS256"),
}

USER_TOKEN: Final = ("iss", "aud", "sub", "client_id", "sid", "jti", "iat", "exp")
"""What an access token of a user carries. Source: RFC 9068 §2.2, and `sid` (I-02)."""


class UnknownKid(InvalidToken):
    """No key of the ring has this name: perhaps it is newer than our copy of the ring."""


@final
@dataclass(frozen=True, slots=True, repr=False, eq=False)
class SigningKey:
    """A key that signs and verifies with one algorithm, parsed once."""

    kid: str
    algorithm: Algorithm
    _key: ECKey | RSAKey | OKPKey | OctKey

    def __repr__(self) -> str:
        return f"SigningKey(kid={self.kid!r}, algorithm={self.algorithm!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SigningKey is not pickled")

    @classmethod
    def generate(cls, algorithm: Algorithm) -> Self:
        """A fresh key. `kid` is its thumbprint; random for HS256. RS256 takes up to a second.

        Source: RFC 7638 §3. An HS256 thumbprint would be a digest of the secret itself.
        """
        match algorithm:
            case "ES256":
                key = ECKey.import_key(ec.generate_private_key(ec.SECP256R1()))
            case "RS256":
                key = RSAKey.import_key(rsa.generate_private_key(65537, _RSA_MADE))
            case "EdDSA":
                key = OKPKey.import_key(ed25519.Ed25519PrivateKey.generate())
            case "HS256":
                return cls(secrets.token_hex(16), algorithm, _octets(secrets.token_bytes(32)))
        return cls(key.thumbprint(), algorithm, key)

    @classmethod
    def from_private_bytes(cls, kid: str, algorithm: Algorithm, data: bytes) -> Self:
        """Read what `private_bytes` wrote. RS256 takes 0.1 s: keep the key, do not read it again.

        Raises:
            ValueError: another kind of key, one that is too short, or for HS256 one that others
                know: text short enough to be a password, or a public key in any of its forms.
        """
        if not _is_kid(kid):
            raise ValueError("a kid has 1 to 128 printable ASCII characters")
        return cls(kid, algorithm, _key_from(algorithm, data))

    def private_bytes(self) -> bytes:
        """The key itself: PKCS #8 in DER, or the octets of HS256. To be sealed at once."""
        if isinstance(self._key, OctKey):
            return self._key.raw_value
        private = self._key.private_key
        assert private is not None  # whichever way the key was made
        return private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

    def public_jwk(self) -> dict[str, object] | None:
        """What the JWKS publishes; None for HS256, of which nothing is public."""
        if isinstance(self._key, OctKey):
            return None
        jwk = self._key.as_dict(private=False)
        return {**jwk, "kid": self.kid, "alg": self.algorithm, "use": "sig"}

    def signature(self, message: bytes) -> bytes:
        """Sign, in the form that RFC 7515 puts into a token."""
        return _MODELS[self.algorithm].sign(message, self._key)

    def signed(self, message: bytes, signature: bytes) -> bool:
        """Did this key sign the message?"""
        try:
            return _MODELS[self.algorithm].verify(message, signature, self._key)
        except (JoseError, ValueError):
            return False


def sign(claims: Mapping[str, object], *, key: SigningKey, typ: str) -> str:
    """A token in compact form. `typ` says what it is for, for example `at+jwt`.

    Source: RFC 8725 §3.11, explicit typing.

    Raises:
        ValueError: claims that are no JSON, or more of them than `verify` accepts.
    """
    header = {"alg": key.algorithm, "kid": key.kid, "typ": typ}
    message = f"{unpadded(_json(header))}.{unpadded(_json(claims))}"
    token = f"{message}.{unpadded(key.signature(message.encode('ascii')))}"
    if len(token) > _LONGEST:
        raise ValueError(f"a token has at most {_LONGEST} characters")
    return token


def peek_kid(token: str) -> str:
    """The key that a token names, before anything about it is known to be true.

    Raises:
        InvalidToken: it is no token as we write them.
    """
    return _header(_segments(token)[0])["kid"]


def verify(token: str, *, keys: Callable[[str], SigningKey | None], typ: str) -> dict[str, object]:
    """The claims of a token that a key of the ring signed. `check_claims` judges them.

    Source: RFC 7515 §5.2, compact form only; RFC 8725 §3.1, §3.2, §3.11.

    Raises:
        UnknownKid: the ring may be read again, once.
        InvalidToken: whatever else is wrong with it; the note says what.
    """
    segments = _segments(token)
    header = _header(segments[0])
    if _media_type(header["typ"]) != _media_type(typ):
        raise InvalidToken(note="another kind of token")
    key = keys(header["kid"])
    if key is None:
        raise UnknownKid(note="unknown kid")
    if header["alg"] != key.algorithm:
        raise InvalidToken(note="not the algorithm of its key")
    message = token[: token.rindex(".")].encode("ascii")
    if not key.signed(message, _octets_of(segments[2])):
        raise InvalidToken(note="wrong signature")
    return _object(segments[1])


def check_claims(
    claims: Mapping[str, object],
    *,
    issuer: str,
    audience: str,
    now: datetime,
    leeway: timedelta = timedelta(0),
    required: Sequence[str] = USER_TOKEN,
) -> None:
    """Judge verified claims: made by this issuer, for exactly this audience, valid now.

    `aud` may be a list of one; a token for us and others could be replayed by each of them.
    `required` widens what must be there; `iss`, `aud` and `exp` always must.

    Source: RFC 7519 §4.1; RFC 9068 §4; RFC 8725 §3.8, §3.9.

    Raises:
        ExpiredToken: right in everything, but over.
        InvalidToken: anything else; the note says what.
    """
    for name in (*required, "iss", "aud", "exp"):
        if name not in claims:
            raise InvalidToken(note=f"{name} is missing")
    for name, is_right in _TYPES.items():
        if name in claims and not is_right(claims[name]):
            raise InvalidToken(note=f"{name} has the wrong type")
    if claims["iss"] != issuer:
        raise InvalidToken(note="another issuer")
    if claims["aud"] not in (audience, [audience]):
        raise InvalidToken(note="another audience")
    seconds, grace = now.timestamp(), leeway.total_seconds()
    for name in ("iat", "nbf"):
        if name in claims and cast("int", claims[name]) > seconds + grace:
            raise InvalidToken(note=f"{name} lies in the future")
    if cast("int", claims["exp"]) + grace <= seconds:
        raise ExpiredToken(note="expired")


def _segments(token: object) -> list[str]:
    """Split a token. Whatever its length, this takes no longer than for the longest allowed."""
    if not isinstance(token, str) or len(token) > _LONGEST or not token.isascii():
        raise InvalidToken(note="not a text of at most 4096 ASCII characters")
    segments = token.split(".")
    if len(segments) != 3 or not all(segments):
        raise InvalidToken(note="not three segments")
    return segments


def _header(segment: str) -> dict[str, str]:
    """The header of a token: alg, typ and kid and nothing else.

    Every further parameter asks us to fetch, to trust or to skip something (jku, jwk, x5u, x5c,
    crit, zip, b64): there is none that we know.
    """
    header = _object(segment)
    if header.keys() != _HEADER or not all(isinstance(value, str) for value in header.values()):
        raise InvalidToken(note="a header other than alg, typ, kid")
    if not _is_kid(cast("str", header["kid"])):
        raise InvalidToken(note="not a kid")
    return cast("dict[str, str]", header)


def _object(segment: str) -> dict[str, object]:
    """Read a segment as a JSON object, each name once, each number a number."""
    try:
        value = _DECODER.decode(_octets_of(segment).decode())
    except (ValueError, RecursionError):
        raise InvalidToken(note="not JSON") from None
    if not isinstance(value, dict):
        raise InvalidToken(note="not a JSON object")
    return cast("dict[str, object]", value)


def _octets_of(segment: str) -> bytes:
    try:
        return decoded(segment)
    except ValueError:
        raise InvalidToken(note="not base64url") from None


def _json(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two readers must not see two different objects in one text (CVE row 11)."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name comes twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("not a number")
    return number


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_once, parse_float=_finite, parse_constant=_no_constant
)


def _media_type(typ: str) -> str:
    """Source: RFC 7515 §4.1.9, `application/` may be left out; RFC 2045 §5.1, any case."""
    return typ.lower().removeprefix("application/")


def _is_kid(value: str) -> bool:
    return 0 < len(value) <= _LONGEST_KID and value.isascii() and value.isprintable()


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_instant(value: object) -> bool:
    """Whole seconds; True, 1.5 and "1" are not, though Python would compare them gladly."""
    return type(value) is int and 0 < value < _LAST_SECOND


_TYPES: Final[Mapping[str, Callable[[object], bool]]] = {
    **dict.fromkeys(("sub", "jti", "sid", "client_id"), _is_text),
    **dict.fromkeys(("exp", "iat", "nbf"), _is_instant),
}


def _octets(data: bytes) -> OctKey:
    return OctKey.import_key(data)


def _key_from(algorithm: Algorithm, data: bytes) -> ECKey | RSAKey | OKPKey | OctKey:
    if algorithm == "HS256":
        if fault := _hmac_fault(data):
            raise ValueError(f"this is no HS256 secret: {fault}")
        return _octets(data)
    try:
        parsed = load_der_private_key(data, password=None)
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError("this is no private key in PKCS #8") from error
    match algorithm, parsed:
        case "ES256", ec.EllipticCurvePrivateKey() if isinstance(parsed.curve, ec.SECP256R1):
            return ECKey.import_key(parsed)
        case "RS256", rsa.RSAPrivateKey() if parsed.key_size >= _RSA_LEAST:
            return RSAKey.import_key(parsed)
        case "EdDSA", ed25519.Ed25519PrivateKey():
            return OKPKey.import_key(parsed)
        case _:
            raise ValueError(f"this is no key for {algorithm}, or one that is too short")


def _hmac_fault(data: bytes) -> str | None:
    """What makes octets unfit as a secret that only we know.

    Source: RFC 7518 §3.2, at least 256 bits; RFC 8725 §3.5, no passwords. Public keys are refused
    in each form they travel in: others hold them (CVE row 1).
    """
    if len(data) < _HMAC_LEAST:
        return "at least 32 bytes"
    if b"-----BEGIN" in data or data.lstrip().startswith((b"{", b"ssh-", b"ecdsa-", b"sk-")):
        return "it looks like a key that others may have"
    for form in (data, _from_base64(data)):
        with suppress(ValueError, UnsupportedAlgorithm):
            load_der_public_key(form)
            return "it is a public key"
    # 43 letters of base64url hold 256 bits; any text that is shorter may be a password.
    if len(set(data)) < 8 or (len(data) < 43 and all(32 <= byte < 127 for byte in data)):
        return "a text this short may be guessed"
    return None


def _from_base64(data: bytes) -> bytes:
    try:
        return b64decode(data)
    except ValueError:
        return b""
