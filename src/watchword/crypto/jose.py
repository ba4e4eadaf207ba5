"""JSON Web Tokens, read so strictly that little is left to attack; the library does signatures.

Nothing here trusts a token: which key and which algorithm count is the ring's to say, never the
token's (RFC 8725 §3.1).
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, cast

from watchword.crypto.base64url import decoded
from watchword.kernel.errors import ExpiredToken, InvalidToken
from watchword.kernel.secrets import unpadded

if TYPE_CHECKING:
    from watchword.crypto.signatures import SigningKey

Algorithm = Literal["ES256", "RS256", "EdDSA", "HS256"]

_LONGEST: Final = 4096  # characters of a token: longer is refused before anything is decoded
_LONGEST_KID: Final = 128
_HEADER: Final = frozenset({"alg", "typ", "kid"})
_LAST_SECOND: Final = 253402300800  # the year 10000, which no datetime reaches

USER_TOKEN: Final = ("iss", "aud", "sub", "client_id", "sid", "jti", "iat", "exp")
"""What an access token of a user carries. Source: RFC 9068 §2.2, and `sid` (I-02)."""


class UnknownKid(InvalidToken):
    """No key of the ring has this name: perhaps it is newer than our copy of the ring."""


def sign(claims: Mapping[str, object], *, key: "SigningKey", typ: str) -> str:
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


def verify(
    token: str, *, keys: Callable[[str], "SigningKey | None"], typ: str
) -> dict[str, object]:
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
    if not is_kid(cast("str", header["kid"])):
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


def is_kid(value: str) -> bool:
    """Can this name a key?"""
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
