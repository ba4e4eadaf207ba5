"""Looking at a token: what it says of itself, and why it is taken or refused.

For people who look for a fault. What a token says is no authentication, whoever reads it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal, cast

from watchword.crypto import jose
from watchword.features.tokens.claims import REQUIRED, is_too_deep
from watchword.kernel.errors import InvalidToken, WatchwordError
from watchword.storage.record import freeze

if TYPE_CHECKING:
    from watchword.features.tokens.service import Tokens

ACCESS_TYPE: Final = "at+jwt"  # RFC 9068 §2.1

_NO_ACCESS_TOKENS: Final[Mapping[str, str]] = {
    "wwr_": "a refresh token: it goes to /auth/refresh and nowhere else",
    "wwm_": "a refresh token: it goes to /auth/refresh and nowhere else",
    "wwc_": "a session cookie: it counts in the Cookie header alone",
}
_SHOWN: Final = 200  # characters of a value


@dataclass(frozen=True, slots=True, kw_only=True)
class Peeked:
    """What a token says of itself. Nobody checked it: never an authentication result."""

    alg: str
    kid: str
    typ: str
    claims: Mapping[str, object]
    seen_at: datetime  # when it was looked at

    @property
    def issued_at(self) -> datetime | None:
        """When it was made, if it says so."""
        return _instant(self.claims.get("iat"))

    @property
    def expires_at(self) -> datetime | None:
        """When it ends, if it says so."""
        return _instant(self.claims.get("exp"))

    @property
    def age(self) -> timedelta | None:
        """How long ago it was made."""
        return None if self.issued_at is None else self.seen_at - self.issued_at

    @property
    def time_left(self) -> timedelta | None:
        """How long it goes on; negative once it is over."""
        return None if self.expires_at is None else self.expires_at - self.seen_at

    @property
    def should_refresh(self) -> bool:
        """Is less than a fifth of its life left? True if it does not say."""
        if self.time_left is None or self.issued_at is None or self.expires_at is None:
            return True
        return self.time_left < (self.expires_at - self.issued_at) / 5

    def is_expiring_soon(self, within: timedelta = timedelta(minutes=5)) -> bool:
        """Does it end within this time, or has it ended? True if it does not say."""
        return self.time_left is None or self.time_left < within


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold of a token."""

    name: str  # `form`, `typ`, `kid`, `alg`, `signature`, a claim, or `session`
    verdict: Literal["passed", "failed", "skipped"]
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """Every check of a token, in the order in which they are made."""

    checks: tuple[Check, ...]

    @property
    def failing(self) -> Check | None:
        """The first that fails; None if the token is taken."""
        return next((each for each in self.checks if each.verdict == "failed"), None)


def bare(text: str) -> str:
    """A token without what it was copied with: space around it, `Bearer` before it."""
    text = text.strip()
    return text[7:].strip() if text[:7].lower() == "bearer " else text


def peeked(text: str, now: datetime) -> Peeked:
    """Read a token without asking who made it.

    Raises:
        InvalidToken: it is no token as we write them.
    """
    found = jose.peek(text)
    if is_too_deep(found.claims):
        raise InvalidToken(note="nested too deeply")
    return Peeked(
        alg=found.alg, kid=found.kid, typ=found.typ, claims=freeze(found.claims), seen_at=now
    )


async def inspected(tokens: "Tokens", text: str, *, issuer: str | None) -> Inspection:
    """Make every check of an access token and keep what each says."""
    text = bare(text)
    try:
        said = peeked(text, tokens.clock.now())
    except InvalidToken as error:
        why = next(
            (what for lead, what in _NO_ACCESS_TOKENS.items() if text.startswith(lead)),
            error.note or error.title,
        )
        return Inspection(checks=(Check("form", "failed", why),))
    checks = [Check("form", "passed", "three segments, a header of alg, typ and kid")]
    checks += await _of_header(tokens, text, said)
    is_signed = all(each.verdict == "passed" for each in checks)
    checks += _of_claims(tokens, said, issuer)
    checks.append(await _of_session(tokens, said, is_signed=is_signed))
    return Inspection(checks=tuple(checks))


async def _of_header(tokens: "Tokens", text: str, said: Peeked) -> list[Check]:
    if not jose.is_of_type(said.typ, ACCESS_TYPE):
        typ = Check("typ", "failed", f"{_shown(said.typ)} is another kind: not {ACCESS_TYPE}")
    else:
        typ = Check("typ", "passed", said.typ)
    await tokens.keys.refresh()
    key = tokens.keys.verifying(said.kid)
    if key is None:
        await tokens.keys.refresh(for_unknown=True)
        key = tokens.keys.verifying(said.kid)
    if key is None:
        return [
            typ,
            Check(
                "kid", "failed", f"{_shown(said.kid)} is no key of this system, or no longer one"
            ),
            Check("alg", "skipped", f"{_shown(said.alg)}, but of which key?"),
            Check("signature", "skipped", "there is no key to check it with"),
        ]
    kid = Check("kid", "passed", said.kid)
    if said.alg != key.algorithm:
        alg = Check("alg", "failed", f"{_shown(said.alg)}, but its key is for {key.algorithm}")
        return [typ, kid, alg, Check("signature", "skipped", "of another algorithm")]
    alg = Check("alg", "passed", said.alg)
    try:
        jose.verify(text, keys=tokens.keys.verifying, typ=said.typ)
    except InvalidToken as error:
        return [typ, kid, alg, Check("signature", "failed", error.note or error.title)]
    return [typ, kid, alg, Check("signature", "passed", "made with that key")]


def _of_claims(tokens: "Tokens", said: Peeked, issuer: str | None) -> Iterator[Check]:
    # Where nobody said how this system is called, its audience is not known either.
    is_own = issuer is None or tokens.audience != tokens.issuer
    expected = {
        "iss": issuer or tokens.issuer,
        "aud": tokens.audience if is_own else issuer or tokens.audience,
    }
    claims = cast("Mapping[str, object]", _thawed(said.claims))
    for name, refusal in jose.judged(
        claims,
        issuer=expected["iss"],
        audience=expected["aud"],
        now=said.seen_at,
        leeway=tokens.settings.leeway,
        required=tokens.required,
        others=tokens.settings.audiences,
    ):
        if refusal is None:
            yield Check(name, "passed", _fits(name, said))
        else:
            why = _explained(name, refusal, said, expected, tokens.settings.leeway)
            yield Check(name, "failed", why)


def _fits(name: str, said: Peeked) -> str:
    if name in ("exp", "iat", "nbf"):
        return str(_instant(said.claims[name]))
    if name not in REQUIRED:
        return "it is there"  # what it says is the app's own affair
    return _shown(said.claims[name])


def _explained(
    name: str, refusal: InvalidToken, said: Peeked, expected: Mapping[str, str], leeway: timedelta
) -> str:
    note = refusal.note or refusal.title
    if note.endswith(("is missing", "has the wrong type")):
        return note
    if name in expected:
        return f"{_shown(said.claims[name])}, but here it must be {_shown(expected[name])}"
    at = _instant(said.claims.get(name))
    if at is None:
        return note
    seconds = int(abs((said.seen_at - at).total_seconds()))
    if name == "exp":
        return f"it ended {seconds} s ago, at {at}; leeway is {int(leeway.total_seconds())} s"
    return (
        f"it lies {seconds} s in the future, at {at}: is a clock wrong? leeway is "
        f"{int(leeway.total_seconds())} s"
    )


async def _of_session(tokens: "Tokens", said: Peeked, *, is_signed: bool) -> Check:
    if not is_signed:
        return Check("session", "skipped", "whoever made the token could name any")
    session_id, user_id = said.claims.get("sid"), said.claims.get("sub")
    if not (jose.is_text(session_id) and jose.is_text(user_id)):
        return Check("session", "skipped", "none is named")
    session = await tokens.sessions.get(str(session_id))
    if session is None or session.user_id != user_id:
        return Check("session", "failed", "there is no such session of this user, or no longer")
    if session.app != said.claims.get("client_id"):
        return Check("session", "failed", f"it is one of the app {_shown(session.app)}")
    try:
        tokens.sessions.check(session, await tokens.users.get(session.user_id))
    except WatchwordError as error:
        return Check("session", "failed", f"{error.title}: {error.note}")
    return Check("session", "passed", f"alive, since {session.started_at}")


def _instant(value: object) -> datetime | None:
    return datetime.fromtimestamp(cast("int", value), tz=UTC) if jose.is_instant(value) else None


def _shown(value: object) -> str:
    """A value of a stranger's, so that it fits one line and changes no terminal."""
    text = ascii(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _thawed(value: object) -> object:
    """JSON's own lists again, in place of what cannot be changed."""
    if isinstance(value, Mapping):
        mapping = cast("Mapping[str, object]", value)
        return {name: _thawed(each) for name, each in mapping.items()}
    if isinstance(value, tuple):
        return [_thawed(each) for each in cast("tuple[object, ...]", value)]
    return value
