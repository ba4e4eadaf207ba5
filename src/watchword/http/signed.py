"""Cookies of the application's own, signed: readable by the browser, altered by nobody."""

import logging
from dataclasses import dataclass, field
from datetime import timedelta

from starlette.requests import HTTPConnection
from starlette.responses import Response

from watchword.crypto.signing import SignatureRefused, Signer
from watchword.http.cookies import Cookie, read_cookie
from watchword.kernel.clock import Clock

_log = logging.getLogger("watchword.http")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedCookie:
    """One cookie by name and path, and for how long what is in it counts.

    The value is signed, not hidden: keep nothing in it that its holder must not read. Whoever
    copied it can send it until it expires, and nothing but a new name or secret ends it sooner.
    """

    cookie: Cookie
    lives: timedelta
    signer: Signer = field(repr=False)  # of a purpose that this name alone has
    clock: Clock = field(repr=False)

    def set(self, response: Response, value: str) -> None:
        """Give it to the browser.

        Raises:
            ValueError: larger, with name and signature, than browsers keep (4096 bytes).
        """
        signed = self.signer.sign(
            value, expires_at=self.clock.now() + self.lives, context=self._context
        )
        self.cookie.set(response, signed, lives=self.lives)

    def read(self, request: HTTPConnection) -> str | None:
        """What was put in, unaltered and in time, else None; why, the debug log says."""
        values = read_cookie(request.scope["headers"], self.cookie.name.encode())
        if len(values) != 1:
            if values:
                _log.debug("signed cookie %s: given twice", self.cookie.name)
            return None
        try:
            return self.signer.check(
                values[0].decode("latin-1"), now=self.clock.now(), context=self._context
            )
        except SignatureRefused as refused:
            _log.debug("signed cookie %s: %s", self.cookie.name, refused.note)
            return None

    def clear(self, response: Response) -> None:
        """Take it back."""
        self.cookie.clear(response)

    @property
    def _context(self) -> str:
        return f"{self.cookie.name}\n{self.cookie.path}"
