"""Whose page sent this: the token bound to a session, and what browsers say of the origin."""

import re
import secrets
from dataclasses import dataclass, field
from datetime import timedelta
from urllib.parse import urlsplit

from watchword.crypto.signing import Signer
from watchword.kernel.clock import Clock
from watchword.kernel.secrets import unpadded
from watchword.kernel.settings import CsrfSettings

_LONGEST = 128  # characters of a token
_MOST_YOUNG = 4096
_MOST_SEGMENTS = 32  # of a path that a pattern is held against
_FORM = re.compile(
    r"(?P<nonce>[\w-]{22})\.(?P<made>[1-9][0-9]{0,11})\.(?P<mac>[\w-]{43})", re.ASCII
)


COOKIE_LIVES = timedelta(days=30)
"""As long as a session may: it is the token in it that grows old."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Csrf:
    """Makes and checks CSRF tokens: a nonce and its MAC under the session's id (DEF-06)."""

    signer: Signer
    origin: str
    settings: CsrfSettings
    clock: Clock
    _young: dict[bytes, tuple[str, float]] = field(
        default_factory=dict[bytes, tuple[str, float]], repr=False
    )
    """Tokens that fitted, whose, and until when: a page that is read checks no MAC twice."""

    def token_for(self, session_id: str) -> str:
        """A token that only fits this session, for a while. The browser's scripts may read it."""
        nonce = unpadded(secrets.token_bytes(16))
        made = str(int(self.clock.now().timestamp()))
        return f"{nonce}.{made}.{self.signer.mac(self._message(session_id, nonce, made))}"

    def fits(self, session_id: str, token: str, *, ttl: timedelta | None = None) -> bool:
        """Was this token made for this session, and not too long ago?

        Args:
            session_id: whose it must be.
            token: as it came.
            ttl: longer than the setting's, where the token is all that a browser has in hand when
                it comes back after a week: with a refresh token's cookie.
        """
        found = _FORM.fullmatch(token) if len(token) <= _LONGEST else None
        if found is None:
            return False
        message = self._message(session_id, found["nonce"], found["made"])
        longest = max(self.settings.ttl, ttl or self.settings.ttl)
        is_young = self._age(found["made"]) < longest.total_seconds()
        return self.signer.mac_ok(message, found["mac"]) and is_young

    def _age(self, made: str) -> float:
        return abs(self.clock.now().timestamp() - int(made))

    def is_exempt(self, path: str) -> bool:
        """Does this path need no token? What is cross-site is refused before anybody asks."""
        return not self.settings.enabled or any(
            matches(pattern, path) for pattern in self.settings.exempt
        )

    def is_due(self, session_id: str, tokens: list[bytes]) -> bool:
        """Should a page that is read bring a new token: is there none that fits for a while?"""
        if not self.settings.enabled:
            return False
        if len(tokens) != 1 or len(tokens[0]) > _LONGEST:
            return True
        (token,) = tokens
        now = self.clock.now().timestamp()
        known = self._young.get(token)
        if known is not None and known[0] == session_id and now < known[1]:
            return False
        text = token.decode("latin-1")
        found = _FORM.fullmatch(text)
        until = int(found["made"]) + self.settings.ttl.total_seconds() / 2 if found else 0
        if now >= until or not self.fits(session_id, text):
            return True
        if len(self._young) >= _MOST_YOUNG:
            self._young.clear()
        self._young[token] = (session_id, until)
        return False

    def is_cross_site(self, headers: list[tuple[bytes, bytes]]) -> bool | None:
        """True: another site sent it. False: ours did. None: the browser did not say (I-21)."""
        sites = [value for name, value in headers if name == b"sec-fetch-site"]
        if sites:
            return any(value != b"same-origin" for value in sites)
        origins = [value for name, value in headers if name == b"origin"]
        if origins:
            return any(value.decode("latin-1") != self.origin for value in origins)
        return None

    @staticmethod
    def _message(session_id: str, nonce: str, made: str) -> bytes:
        return f"{len(session_id)}:{session_id}{nonce}.{made}".encode()


def matches(pattern: str, path: str) -> bool:
    """Does a path fit a pattern, segment by segment? `*` is one segment, `**` any number.

    `/api/*` fits `/api/x` and neither `/api-admin` nor `/api/x/y` (DEF-26). A path that somebody
    further on may read in another way (empty and dot segments, what is still encoded) fits none.
    """
    given = path.removeprefix("/").split("/")
    if given == [""]:
        given = []
    if len(given) > _MOST_SEGMENTS or any(_is_odd(each) for each in given):
        return False
    return _fits([each for each in pattern.split("/") if each], given)


def _is_odd(segment: str) -> bool:
    return (
        segment in ("", ".", "..")
        or not segment.isprintable()
        or any(letter in segment for letter in "%\\;")
    )


def _fits(wanted: list[str], given: list[str]) -> bool:
    if not wanted:
        return not given
    if wanted[0] == "**":
        return any(_fits(wanted[1:], given[skipped:]) for skipped in range(len(given) + 1))
    return bool(given) and wanted[0] in ("*", given[0]) and _fits(wanted[1:], given[1:])


def origin_of(url: str) -> str:
    """The origin of a URL as browsers write it (RFC 6454 §6.2): default ports dropped."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    default = {"http": 80, "https": 443}.get(parts.scheme)
    port = "" if parts.port in (None, default) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"
