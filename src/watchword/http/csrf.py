"""Whose page sent this: the token bound to a session, and what browsers say of the origin."""

import re
import secrets
from dataclasses import dataclass
from urllib.parse import urlsplit

from watchword.crypto.signing import Signer
from watchword.http.cookies import read_cookie
from watchword.kernel.clock import Clock
from watchword.kernel.secrets import unpadded
from watchword.kernel.settings import CsrfSettings

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_FORM = re.compile(
    r"(?P<nonce>[\w-]{22})\.(?P<made>[1-9][0-9]{0,11})\.(?P<mac>[\w-]{43})", re.ASCII
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Csrf:
    """Makes and checks CSRF tokens: a nonce and its MAC under the session's id (DEF-06)."""

    signer: Signer
    origin: str
    settings: CsrfSettings
    clock: Clock

    def token_for(self, session_id: str) -> str:
        """A token that only fits this session, for a while. The browser's scripts may read it."""
        nonce = unpadded(secrets.token_bytes(16))
        made = str(int(self.clock.now().timestamp()))
        return f"{nonce}.{made}.{self.signer.mac(self._message(session_id, nonce, made))}"

    def fits(self, session_id: str, token: str) -> bool:
        """Was this token made for this session, and not too long ago?"""
        found = _FORM.fullmatch(token)
        if found is None:
            return False
        message = self._message(session_id, found["nonce"], found["made"])
        return self.signer.mac_ok(message, found["mac"]) and self._age(found["made"]) < (
            self.settings.ttl.total_seconds()
        )

    def _age(self, made: str) -> float:
        return abs(self.clock.now().timestamp() - int(made))

    def is_exempt(self, path: str) -> bool:
        """Does this path need no token? What is cross-site is refused all the same."""
        return not self.settings.enabled or any(
            matches(pattern, path) for pattern in self.settings.exempt
        )

    def is_due(self, method: str, headers: list[tuple[bytes, bytes]], name: bytes) -> bool:
        """Should the answer bring a new token: is there none, is it old, or was it used?"""
        if not self.settings.enabled:
            return False
        if method not in _SAFE:
            return self.settings.rotate
        values = read_cookie(headers, name)
        found = _FORM.fullmatch(values[0].decode("latin-1")) if len(values) == 1 else None
        return found is None or self._age(found["made"]) > self.settings.ttl.total_seconds() / 2

    def is_cross_site(self, headers: list[tuple[bytes, bytes]]) -> bool | None:
        """True: another site sent it. False: ours did. None: the browser did not say (I-21)."""
        fetch_site = origin = None
        for name, value in headers:
            if name == b"sec-fetch-site":
                fetch_site = value
            elif name == b"origin":
                origin = value
        if fetch_site is not None:
            return fetch_site != b"same-origin"
        if origin is not None:
            return origin.decode("latin-1") != self.origin
        return None

    @staticmethod
    def _message(session_id: str, nonce: str, made: str) -> bytes:
        return f"{len(session_id)}:{session_id}{nonce}.{made}".encode()


def matches(pattern: str, path: str) -> bool:
    """Does a path fit a pattern, segment by segment? `*` is one segment, `**` any number.

    `/api/*` fits `/api/x` and neither `/api-admin` nor `/api/x/y` (DEF-26).
    """
    return _fits(pattern.strip("/").split("/"), path.removeprefix("/").split("/"))


def _fits(wanted: list[str], given: list[str]) -> bool:
    if not wanted:
        return not given
    if wanted[0] == "**":
        return any(_fits(wanted[1:], given[skipped:]) for skipped in range(len(given) + 1))
    if not given or given[0] in ("", ".", ".."):
        return False
    return wanted[0] in ("*", given[0]) and _fits(wanted[1:], given[1:])


def origin_of(url: str) -> str:
    """The origin of a URL as browsers write it (RFC 6454 §6.2): default ports dropped."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    default = {"http": 80, "https": 443}.get(parts.scheme)
    port = "" if parts.port in (None, default) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"
