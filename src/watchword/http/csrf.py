"""Whose page sent this: the token bound to a session, and what browsers say of the origin."""

import secrets
from dataclasses import dataclass
from urllib.parse import urlsplit

from watchword.crypto.signing import Signer
from watchword.kernel.secrets import unpadded


@dataclass(frozen=True, slots=True, kw_only=True)
class Csrf:
    """Makes and checks CSRF tokens: a nonce and its MAC under the session's id (DEF-06)."""

    signer: Signer
    origin: str

    def token_for(self, session_id: str) -> str:
        """A token that only fits this session. The browser's scripts may read it."""
        nonce = unpadded(secrets.token_bytes(16))
        return f"{nonce}.{self.signer.mac(self._message(session_id, nonce))}"

    def fits(self, session_id: str, token: str) -> bool:
        """Was this token made for this session?"""
        nonce, dot, mac = token.partition(".")
        if len(token) > 128 or not token.isascii() or not dot or len(nonce) != 22:
            return False
        return self.signer.mac_ok(self._message(session_id, nonce), mac)

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
    def _message(session_id: str, nonce: str) -> bytes:
        return f"{len(session_id)}:{session_id}{nonce}".encode()


def origin_of(url: str) -> str:
    """The origin of a URL as browsers write it (RFC 6454 §6.2): default ports dropped."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    default = {"http": 80, "https": 443}.get(parts.scheme)
    port = "" if parts.port in (None, default) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"
