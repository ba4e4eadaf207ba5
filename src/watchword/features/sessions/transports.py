"""How a session is handed to whoever signed in."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from starlette.responses import Response

from watchword.features.sessions.records import Session
from watchword.features.users import User
from watchword.http.client import device_digest
from watchword.http.cookies import Cookies
from watchword.http.csrf import Csrf
from watchword.kernel.secrets import Digest, Secret, digest_of, new_secret

COOKIE_PREFIX = "wwc_"
DEVICE_LIVES = timedelta(days=365)  # since the last sign-in

__all__ = [
    "COOKIE_PREFIX",
    "DEVICE_LIVES",
    "CookieTransport",
    "Prepared",
    "Transport",
    "cookie_digest",
    "device_digest",
]


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
    remember_idle: timedelta
    remember_absolute: timedelta
    name: str = "cookie"

    def prepare(self, now: datetime, *, remember: bool) -> Prepared:
        """A fresh cookie."""
        cookie = new_secret(COOKIE_PREFIX)
        idle = self.remember_idle if remember else self.idle_timeout
        absolute = self.remember_absolute if remember else self.absolute_timeout

        async def deliver(session: Session, _: User, response: Response) -> Mapping[str, Any]:
            self.give(response, cookie, session_id=session.id, lives=absolute)
            # Whoever had tokens in cookies here before would share the browser with this session.
            self.cookies.refresh.clear(response)
            self.cookies.access.clear(response)
            return {}

        return Prepared(
            fields={"cookie_digest": cookie_digest(cookie)},
            idle_expires_at=now + idle,
            expires_at=now + absolute,
            deliver=deliver,
        )

    def give(
        self,
        response: Response,
        cookie: Secret,
        *,
        session_id: str,
        lives: timedelta | None = None,
    ) -> None:
        """Set the session's cookie and the CSRF token that fits it.

        Both go with the absolute end; the row says whether the session lives until then.

        Args:
            response: what carries them.
            cookie: the value.
            session_id: of the session that it stands for.
            lives: what is left of the session; that of one that is not remembered, if unset.
        """
        lives = self.absolute_timeout if lives is None else lives
        self.cookies.session.set(response, cookie.reveal(), lives=lives)
        self.cookies.csrf.set(response, self.csrf.token_for(session_id), lives=lives)

    def with_device(self, prepared: Prepared, device: Secret) -> Prepared:
        """The same answer, and the device cookie for another year."""

        async def deliver(session: Session, user: User, response: Response) -> Mapping[str, Any]:
            given = await prepared.deliver(session, user, response)
            self.cookies.device.set(response, device.reveal(), lives=DEVICE_LIVES)
            return given

        return replace(prepared, deliver=deliver)

    def clear(self, response: Response) -> None:
        """Take back all that a sign-in gives."""
        self.cookies.clear(response)
