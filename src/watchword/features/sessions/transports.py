"""How a session is handed to whoever signed in."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from starlette.responses import Response

from watchword.features.sessions.records import Session
from watchword.features.users import User
from watchword.http.cookies import Cookies
from watchword.http.csrf import Csrf
from watchword.kernel.secrets import Digest, Secret, digest_of, new_secret

COOKIE_PREFIX = "wwc_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a transport puts into the session's row, and how it answers once the row stands."""

    fields: Mapping[str, Any]
    idle_expires_at: datetime
    expires_at: datetime
    deliver: Callable[[Session, User, Response], Awaitable[Mapping[str, Any]]]
    """Sets cookies on the answer; the fields of its JSON body."""


class Transport(Protocol):
    """A way to carry a session: bearer tokens, or a cookie."""

    name: str

    def prepare(self, now: datetime, *, remember: bool) -> Prepared:
        """Make the secrets of a session that is about to start."""
        ...


def cookie_digest(cookie: Secret | str) -> Digest:
    """The stored form of a session cookie's value."""
    return digest_of(cookie, purpose="session-cookie")


@dataclass(frozen=True, slots=True, kw_only=True)
class CookieTransport:
    """The session cookie: 256 random bits that die with the session (I-03)."""

    cookies: Cookies
    csrf: Csrf
    idle_timeout: timedelta
    absolute_timeout: timedelta
    name: str = "cookie"

    def prepare(self, now: datetime, *, remember: bool) -> Prepared:  # noqa: ARG002
        """A fresh cookie."""
        cookie = new_secret(COOKIE_PREFIX)

        async def deliver(session: Session, _: User, response: Response) -> Mapping[str, Any]:
            self.give(response, cookie, session_id=session.id)
            return {}

        return Prepared(
            fields={"cookie_digest": cookie_digest(cookie)},
            idle_expires_at=now + self.idle_timeout,
            expires_at=now + self.absolute_timeout,
            deliver=deliver,
        )

    def give(self, response: Response, cookie: Secret, *, session_id: str) -> None:
        """Set the session's cookie and the CSRF token that fits it.

        Both go with the absolute end; the row says whether the session lives until then.
        """
        self.cookies.session.set(response, cookie.reveal(), lives=self.absolute_timeout)
        self.cookies.csrf.set(
            response, self.csrf.token_for(session_id), lives=self.absolute_timeout
        )

    def clear(self, response: Response) -> None:
        """Take both back."""
        self.cookies.session.clear(response)
        self.cookies.csrf.clear(response)
