"""The gate: pure ASGI, tells who a request is before anything else sees it.

It refuses nothing by itself (but a foreign Host in development): it leaves in the scope either
an `Identity`, or a `Refusal` with its reason, or None, and the guards decide.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from watchword.http.cache import IdentityCache
from watchword.http.cookies import read_cookie
from watchword.http.csrf import Csrf
from watchword.http.problems import problem
from watchword.kernel.clock import Clock
from watchword.kernel.errors import (
    CsrfRefused,
    InvalidToken,
    WatchwordError,
)
from watchword.kernel.ports import Authenticator
from watchword.kernel.principal import Identity

IDENTITY = "watchword.identity"
GATE = "watchword.gate"

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
MAX_CREDENTIAL = 8192  # bytes; nothing we issue comes near it

Carriage = Literal["bearer", "cookie"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A credential that came and proves nothing."""

    error: WatchwordError
    carriage: Carriage


@dataclass(frozen=True, slots=True)
class FormPending:
    """A cookie came with a form whose CSRF field has not been read yet."""

    identity: Identity
    csrf: Csrf


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSettings:
    """What one App's gate goes by."""

    app: str  # the accepting app: part of every cache key (I-10)
    cookie_name: str
    max_body: int
    dev_hosts: frozenset[str] | None  # None in production, where any Host may come


class Gate:
    """ASGI middleware of one App."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: GateSettings,
        authenticators: Mapping[str, Authenticator],
        cache: IdentityCache,
        csrf: Csrf,
        clock: Clock,
        ready: Callable[[], Awaitable[None] | None],
    ) -> None:
        self.app = app
        self.clock = clock
        self.max_body = settings.max_body
        self._settings = settings
        self._authenticators = authenticators
        self._cache = cache
        self._csrf = csrf
        self._ready = ready
        self._cookie = settings.cookie_name.encode()
        # Length-prefixed, so that no app's name and token can be read as another's.
        self._leads: dict[Carriage, bytes] = {
            "bearer": _lead(settings.app, "bearer"),
            "cookie": _lead(settings.app, "cookie"),
        }

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Not a coroutine itself: a hit adds no frame to the request's way."""
        if scope["type"] != "http":
            return self._other(scope, receive, send)
        bearer: bytes | None = None
        cookie = False
        name = self._cookie
        for header, value in scope["headers"]:
            if header == b"authorization":
                bearer = value if bearer is None else b"bearer"  # two of them prove nothing
            elif header == b"cookie" and name in value:
                cookie = True
        pending = self._ready()
        if pending is not None or self._settings.dev_hosts is not None:
            return self._careful(scope, receive, send, bearer, cookie=cookie, pending=pending)
        return self._identify(scope, receive, send, bearer, cookie=cookie)

    def _identify(
        self, scope: Scope, receive: Receive, send: Send, bearer: bytes | None, *, cookie: bool
    ) -> Awaitable[None]:
        scope[GATE] = self
        if bearer is not None and bearer[:7].lower() == b"bearer ":
            key = sha256(self._leads["bearer"] + bearer[7:]).digest()
            identity = self._cache.hit(key)
            if identity is not None:
                scope[IDENTITY] = identity
                return self.app(scope, receive, send)
            return self._miss(scope, receive, send, "bearer", bearer[7:], key)
        if bearer is not None and bearer.lower() == b"bearer":
            scope[IDENTITY] = Refusal(InvalidToken(note="no or several tokens"), "bearer")
            return self.app(scope, receive, send)
        if cookie:
            values = read_cookie(scope["headers"], self._cookie)
            if len(values) == 1:
                key = sha256(self._leads["cookie"] + values[0]).digest()
                identity = self._cache.hit(key)
                if identity is not None:
                    scope[IDENTITY] = self._with_cookie(scope, identity)
                    return self.app(scope, receive, send)
                return self._miss(scope, receive, send, "cookie", values[0], key)
            if values:
                scope[IDENTITY] = Refusal(InvalidToken(note="cookie given twice"), "cookie")
                return self.app(scope, receive, send)
        scope[IDENTITY] = None
        return self.app(scope, receive, send)

    async def _careful(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        bearer: bytes | None,
        *,
        cookie: bool,
        pending: Awaitable[None] | None,
    ) -> None:
        """The slower way in: not started yet, or development with its check of the Host."""
        if not self._known_host(scope):
            answer = PlainTextResponse(
                "This development server answers to loopback names only; "
                "name others in WATCHWORD_DEV_HOSTS.\n",
                status_code=421,
            )
            await answer(scope, receive, send)
            return
        if pending is not None:
            try:
                await pending
            except WatchwordError as error:  # the store is away at the first request
                await problem(error)(scope, receive, send)
                return
        await self._identify(scope, receive, send, bearer, cookie=cookie)

    async def _miss(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        carriage: Carriage,
        presented: bytes,
        key: bytes,
    ) -> None:
        authenticator = self._authenticators.get(carriage)
        try:
            if authenticator is None:
                raise InvalidToken(note=f"no feature takes a {carriage} credential")
            if len(presented) > MAX_CREDENTIAL or not presented.isascii():
                raise InvalidToken(note="oversize or not ASCII")
            text = presented.decode("ascii")
            identity = await self._cache.miss(key, lambda: authenticator.authenticate(text))
        except WatchwordError as error:
            scope[IDENTITY] = Refusal(error, carriage)
        else:
            scope[IDENTITY] = (
                self._with_cookie(scope, identity) if carriage == "cookie" else identity
            )
        await self.app(scope, receive, send)

    def _with_cookie(self, scope: Scope, identity: Identity) -> Identity | Refusal | FormPending:
        """Browsers send cookies unasked: what changes state must prove where it comes from."""
        if scope["method"] in SAFE_METHODS:
            return identity
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        if self._csrf.is_cross_site(headers):
            return Refusal(CsrfRefused(note="cross-site"), "cookie")
        token = [value for name, value in headers if name == b"x-csrf-token"]
        if token:
            session = identity.principal.session_id or ""
            if len(token) == 1 and self._csrf.fits(session, token[0].decode("latin-1")):
                return identity
            return Refusal(CsrfRefused(note="token of no or another session"), "cookie")
        kind = next((value for name, value in headers if name == b"content-type"), b"")
        if kind.partition(b";")[0].strip().lower() == b"application/x-www-form-urlencoded":
            return FormPending(identity, self._csrf)
        return Refusal(CsrfRefused(note="no token"), "cookie")

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Sockets carry no identity until they are built (I-26): neither cookie nor token is read.
        if scope["type"] == "websocket":
            scope[GATE] = self
            scope[IDENTITY] = None
        await self.app(scope, receive, send)

    def _known_host(self, scope: Scope) -> bool:
        allowed = self._settings.dev_hosts
        if allowed is None:
            return True
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1:
            return not hosts
        host = hosts[0].decode("latin-1").lower()
        if host.startswith("["):
            host = host.partition("]")[0] + "]"
        else:
            host = host.partition(":")[0]
        return host in allowed or host.endswith(".localhost")


LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]", "testserver"})


def _lead(app: str, carriage: str) -> bytes:
    parts = (app.encode(), carriage.encode())
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def identity_in(scope: Mapping[str, Any]) -> Any:
    """What the gate left in a scope. Raises KeyError where there was no gate."""
    return scope[IDENTITY]
