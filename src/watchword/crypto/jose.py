"""JSON Web Tokens, read so strictly that little is left to attack; the library does signatures.

Nothing here trusts a token: which key and which algorithm count is the ring's to say, never the
token's (RFC 8725 §3.1).
"""

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Unverified:
    """What a token says of itself. Nothing of it is known to be true."""

    alg: str
    kid: str
    typ: str
    claims: Mapping[str, object]


def peek(token: str) -> Unverified:
    """Read a token without asking who made it: for people who look for a fault.

    Raises:
        InvalidToken: it is no token as we write them.
    """
    segments = _segments(token)
    header = _header(segments[0])
    return Unverified(
        alg=header["alg"], kid=header["kid"], typ=header["typ"], claims=_object(segments[1])
    )


def is_of_type(found: str, typ: str) -> bool:
    """Do two `typ` mean the same kind of token?"""
    return _media_type(found) == _media_type(typ)


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
    if not is_of_type(header["typ"], typ):
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
    others: Collection[str] = (),
) -> None:
    """Judge verified claims: made by this issuer, for exactly this audience, valid now.

    `aud` may be a list that holds ours and nothing but ours and `others`, the audiences of the
    same trust domain: a token for us and a stranger could be replayed by either. `required`
    widens what must be there; `iss`, `aud` and `exp` always must.

    Source: RFC 7519 §4.1; RFC 9068 §4; RFC 8725 §3.8, §3.9.

    Raises:
        ExpiredToken: right in everything, but over.
        InvalidToken: anything else; the note says what.
    """
    for _, refusal in judged(
        claims,
        issuer=issuer,
        audience=audience,
        now=now,
        leeway=leeway,
        required=required,
        others=others,
    ):
        if refusal is not None:
            raise refusal


def judged(
    claims: Mapping[str, object],
    *,
    issuer: str,
    audience: str,
    now: datetime,
    leeway: timedelta = timedelta(0),
    required: Sequence[str] = USER_TOKEN,
    others: Collection[str] = (),
) -> Iterator[tuple[str, InvalidToken | None]]:
    """Each claim that counts, in the order in which `check_claims` asks, and what is wrong with it.

    `exp` comes last, so that only a token that is right in everything else is called expired.
    """
    seconds, grace = now.timestamp(), leeway.total_seconds()
    present = [name for name in _TYPES if name in claims]
    for name in dict.fromkeys((*required, "iss", "aud", *present)):
        if name != "exp":
            yield (
                name,
                _refusal(name, claims)
                or _judged(name, claims[name], issuer, audience, others, seconds + grace),
            )
    refusal = _refusal("exp", claims)
    if refusal is None and cast("int", claims["exp"]) + grace <= seconds:
        refusal = ExpiredToken(note="expired")
    yield "exp", refusal


def _refusal(name: str, claims: Mapping[str, object]) -> InvalidToken | None:
    if name not in claims:
        return InvalidToken(note=f"{name} is missing")
    if name in _TYPES and not _TYPES[name](claims[name]):
        return InvalidToken(note=f"{name} has the wrong type")
    return None


def _judged(
    name: str, value: object, issuer: str, audience: str, others: Collection[str], latest: float
) -> InvalidToken | None:
    if name == "iss" and value != issuer:
        return InvalidToken(note="another issuer")
    if name == "aud" and not _is_for(value, audience, others):
        return InvalidToken(note="another audience")
    if name in ("iat", "nbf") and cast("int", value) > latest:
        return InvalidToken(note=f"{name} lies in the future")
    return None


def _is_for(aud: object, audience: str, others: Collection[str]) -> bool:
    if not isinstance(aud, list):
        return aud == audience
    all_of = cast("list[object]", aud)
    named = [each for each in all_of if isinstance(each, str)]
    known = {audience, *others}
    # As many as there are of them, so each is a text, and none comes twice.
    return audience in named and known.issuperset(named) and len(set(named)) == len(all_of)


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


def is_text(value: object) -> bool:
    """Can this name something? No control characters and no half of a surrogate pair."""
    return isinstance(value, str) and value != "" and value.isprintable()


def is_instant(value: object) -> bool:
    """Whole seconds; True, 1.5 and "1" are not, though Python would compare them gladly."""
    return type(value) is int and 0 < value < _LAST_SECOND


_TYPES: Final[Mapping[str, Callable[[object], bool]]] = {
    **dict.fromkeys(("sub", "jti", "sid", "client_id"), is_text),
    **dict.fromkeys(("exp", "iat", "nbf"), is_instant),
}
