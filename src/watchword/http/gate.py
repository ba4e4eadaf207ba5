"""The gate: pure ASGI, tells who a request is before anything else sees it.

It refuses nothing by itself (but a foreign Host in development): it leaves in the scope either
an `Identity`, or a `Refusal` with its reason, or None, and the guards decide.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from hashlib import sha256
from typing import Any, Literal

from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from watchword.http.cache import IdentityCache
from watchword.http.client import Clients
from watchword.http.cookies import Cookie, Cookies, read_cookie
from watchword.http.csrf import Csrf
from watchword.http.problems import problem
from watchword.kernel.clock import Clock
from watchword.kernel.errors import (
    ConflictingCredentials,
    CsrfRefused,
    InvalidToken,
    SessionBoundElsewhere,
    WatchwordError,
)
from watchword.kernel.ports import Authenticator
from watchword.kernel.principal import Client, Identity

IDENTITY = "watchword.identity"
GATE = "watchword.gate"
CLIENT = "watchword.client"
PRESENTED = "watchword.presented"

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
MAX_CREDENTIAL = 8192  # bytes; nothing we issue comes near it

Carriage = Literal["bearer", "cookie"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A credential that came and proves nothing."""

    error: WatchwordError
    carriage: Carriage
    identity: Identity | None = None
    """Who it is all the same, where only the session's binding does not fit: they may prove a
    factor again, and nothing else."""


@dataclass(frozen=True, slots=True)
class FormPending:
    """A cookie came with a form whose CSRF field has not been read yet."""

    identity: Identity
    csrf: Csrf


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSettings:
    """What one App's gate goes by."""

    app: str  # the accepting app: part of every cache key (I-10)
    cookies: Cookies
    check: Literal["cached", "stateful", "stateless"]
    takes_access_cookie: bool  # only where the transport that sets it is on (I-03)
    max_body: int
    dev_hosts: frozenset[str] | None  # None in production, where any Host may come


@dataclass(slots=True)
class _Presented:
    """One credential of a request, and how it is looked up."""

    carriage: Carriage
    key: bytes
    value: bytes
    is_access_cookie: bool = False


class Gate:
    """ASGI middleware of one App."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: GateSettings,
        authenticators: Sequence[Authenticator],
        cache: IdentityCache,
        csrf: Csrf,
        clients: Clients,
        clock: Clock,
        ready: Callable[[], Awaitable[None] | None],
    ) -> None:
        self.app = app
        self.clock = clock
        self.max_body = settings.max_body
        self._settings = settings
        # The longest prefix first, so that the empty one takes what no other takes.
        self._authenticators = sorted(authenticators, key=lambda each: -len(each.prefix))
        self._cache = cache
        self._csrf = csrf
        self._clients = clients
        self._ready = ready
        self._session = settings.cookies.session.name.encode()
        self._access = settings.cookies.access.name.encode()
        self._is_cached = settings.check == "cached"
        # Length-prefixed, so that no app's name and token can be read as another's.
        self._leads = {
            carriage: _lead(settings.app, carriage) for carriage in ("bearer", "cookie", "access")
        }
        self._bearer_lead = self._leads["bearer"]

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Not a coroutine itself: a hit adds no frame to the request's way."""
        if scope["type"] != "http":
            return self._other(scope, receive, send)
        bearer: bytes | None = None
        cookie = False
        for header, value in scope["headers"]:
            if header == b"authorization":
                bearer = value if bearer is None else b"bearer"  # two of them prove nothing
            elif header == b"cookie" and (
                self._session in value
                or (self._settings.takes_access_cookie and self._access in value)
            ):
                cookie = True
        pending = self._ready()
        if pending is not None or self._settings.dev_hosts is not None:
            return self._careful(scope, receive, send, bearer, cookie=cookie, pending=pending)
        return self._identify(scope, receive, send, bearer, cookie=cookie)

    def client_of(self, scope: Scope) -> Client:
        """Who sends this request; read once."""
        client: Client | None = scope.get(CLIENT)
        if client is None:
            client = scope[CLIENT] = self._clients.of(scope)
        return client

    def _identify(
        self, scope: Scope, receive: Receive, send: Send, bearer: bytes | None, *, cookie: bool
    ) -> Awaitable[None]:
        scope[GATE] = self
        if not cookie:
            if bearer is None or bearer[:6].lower() != b"bearer":
                scope[IDENTITY] = None
                return self.app(scope, receive, send)
            if bearer[6:7] == b" " and self._is_cached:
                key = sha256(self._bearer_lead + bearer[7:]).digest()
                identity = self._cache.hit(key)
                if identity is not None and identity.binding is None:
                    scope[IDENTITY] = identity
                    return self.app(scope, receive, send)
        return self._look(scope, receive, send, bearer)

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

    async def _look(self, scope: Scope, receive: Receive, send: Send, bearer: bytes | None) -> None:
        """Every way but the shortest: misses, cookies, and several credentials at once."""
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        presented: list[_Presented] = []
        dead: list[Cookie] = []
        try:
            presented = self._presented(headers, bearer)
            found = [await self._found(scope, each, dead) for each in presented]
            result = self._agreed(presented, found)
        except _Refused as refused:
            result = Refusal(refused.error, refused.carriage)
            if len(presented) > 1 and refused.error.status == 401:
                # One that proves nothing does not agree with the other.
                result = Refusal(ConflictingCredentials(), presented[0].carriage)
        if isinstance(result, Identity):
            chosen = presented[0]
            if chosen.carriage == "cookie":
                result = self._with_cookie(scope, result)
            else:
                result = self._bound(scope, result, "bearer")
        scope[IDENTITY] = result
        send = self._answering(scope, send, result, dead)
        await self.app(scope, receive, send)

    def _presented(
        self, headers: list[tuple[bytes, bytes]], bearer: bytes | None
    ) -> list[_Presented]:
        """Every credential of ours that came, the one that would count first.

        Raises:
            _Refused: one stands twice, or is none (I-21).
        """
        presented: list[_Presented] = []
        if bearer is not None and bearer[:6].lower() == b"bearer":
            if bearer[6:7] != b" ":
                raise _Refused(InvalidToken(note="no or several tokens"), "bearer")
            presented.append(self._keyed("bearer", "bearer", bearer[7:]))
        cookies = [(self._session, "cookie")]
        if self._settings.takes_access_cookie:
            cookies.append((self._access, "access"))
        for name, lead in cookies:
            values = read_cookie(headers, name)
            if len(values) > 1:
                raise _Refused(InvalidToken(note="cookie given twice"), "cookie")
            presented.extend(self._keyed("cookie", lead, value) for value in values)
        return presented

    def _keyed(self, carriage: Carriage, lead: str, value: bytes) -> _Presented:
        key = sha256(self._leads[lead] + value).digest()
        return _Presented(carriage, key, value, is_access_cookie=lead == "access")

    async def _found(self, scope: Scope, presented: _Presented, dead: list[Cookie]) -> Identity:
        """Who this credential stands for: from the cache, or by asking.

        Raises:
            _Refused
        """
        is_token = presented.carriage == "bearer" or presented.is_access_cookie
        if self._is_cached or not is_token:
            identity = self._cache.hit(presented.key)
            if identity is not None:
                return identity
        try:
            if len(presented.value) > MAX_CREDENTIAL or not presented.value.isascii():
                raise InvalidToken(note="oversize or not ASCII")
            text = presented.value.decode("ascii")
            authenticator = self._authenticator(text, is_token=is_token)
            if is_token and self._settings.check == "stateless":
                believed = await authenticator.believe(text)
                if believed is not None:
                    scope[PRESENTED] = text
                    return _carried(believed, presented)

            async def read() -> Identity:
                client = self.client_of(scope)
                return _carried(await authenticator.authenticate(text, client), presented)

            if is_token and self._settings.check == "stateful":
                return await read()
            return await self._cache.miss(presented.key, read)
        except WatchwordError as error:
            if presented.carriage == "cookie" and error.status == 401:
                cookies = self._settings.cookies
                dead.append(cookies.access if presented.is_access_cookie else cookies.session)
            raise _Refused(error, presented.carriage) from None

    def _authenticator(self, text: str, *, is_token: bool) -> Authenticator:
        carriage = "bearer" if is_token else "cookie"
        for each in self._authenticators:
            if each.carriage == carriage and text.startswith(each.prefix):
                return each
        raise InvalidToken(note=f"no feature takes a {carriage} credential like this")

    def _agreed(self, presented: list[_Presented], found: list[Identity]) -> Identity | None:
        """The first, if all of them stand for the same user.

        Raises:
            _Refused
        """
        if not found:
            return None
        first = found[0]
        for other in found[1:]:
            same = (other.principal.kind, other.principal.id, other.principal.realm) == (
                first.principal.kind,
                first.principal.id,
                first.principal.realm,
            )
            if not same:
                raise _Refused(ConflictingCredentials(), presented[0].carriage)
        return first

    async def confirm(self, scope: Scope, identity: Identity) -> Identity:
        """Read the row of a token that was believed so far (I-25).

        Raises:
            WatchwordError: it proves nothing any more.
        """
        text: str = scope[PRESENTED]
        authenticator = self._authenticator(text, is_token=True)
        checked = await authenticator.authenticate(text, self.client_of(scope))
        checked = replace(checked, carriage=identity.carriage)
        bound = self._bound(scope, checked, identity.carriage)
        if isinstance(bound, Refusal):
            raise bound.error
        scope[IDENTITY] = bound
        return bound

    def _bound(self, scope: Scope, identity: Identity, carriage: Carriage) -> Identity | Refusal:
        """Does the request look as the session wants it?"""
        wanted = identity.binding
        if wanted is None:
            return identity
        shown = self._clients.binding_of(self.client_of(scope))
        if wanted.address in (None, shown.address) and wanted.fingerprint in (
            None,
            shown.fingerprint,
        ):
            return identity
        return Refusal(SessionBoundElsewhere(note="binding"), carriage, identity)

    def _with_cookie(self, scope: Scope, identity: Identity) -> Identity | Refusal | FormPending:
        """Browsers send cookies unasked: what changes state must prove where it comes from."""
        bound = self._bound(scope, identity, "cookie")
        if scope["method"] in SAFE_METHODS:
            return bound
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        if self._csrf.is_cross_site(headers):
            return Refusal(CsrfRefused(note="cross-site"), "cookie")
        if self._csrf.is_exempt(path_of(scope)):
            return bound
        token = [value for name, value in headers if name == b"x-csrf-token"]
        if token:
            session = identity.principal.session_id or ""
            if len(token) == 1 and self._csrf.fits(session, token[0].decode("latin-1")):
                return bound
            return Refusal(CsrfRefused(note="token of no or another session"), "cookie")
        kind = next((value for name, value in headers if name == b"content-type"), b"")
        if kind.partition(b";")[0].strip().lower() == b"application/x-www-form-urlencoded":
            if isinstance(bound, Refusal):
                return Refusal(bound.error, "cookie")
            return FormPending(identity, self._csrf)
        return Refusal(CsrfRefused(note="no token"), "cookie")

    def _answering(
        self,
        scope: Scope,
        send: Send,
        result: Identity | Refusal | FormPending | None,
        dead: list[Cookie],
    ) -> Send:
        """Cookies that go with the answer: dead ones are taken back, an old CSRF token renewed."""
        given: list[tuple[Cookie, str, timedelta]] = []
        if isinstance(result, Identity) and result.carriage == "cookie":
            session = result.principal.session_id
            if session is not None and self._csrf.is_due(
                scope["method"], scope["headers"], self._settings.cookies.csrf.name.encode()
            ):
                lives = max(result.valid_until - self.clock.now(), self._csrf.settings.ttl)
                given.append((self._settings.cookies.csrf, self._csrf.token_for(session), lives))
        if not given and not dead:
            return send

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                _add_cookies(message, given, dead)
            await send(message)

        return sending

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


def path_of(scope: Mapping[str, Any]) -> str:
    """The path below whatever the app is mounted under (I-26)."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


class _Refused(Exception):
    """A credential proves nothing; which one."""

    def __init__(self, error: WatchwordError, carriage: Carriage) -> None:
        super().__init__(error.code)
        self.error = error
        self.carriage: Carriage = carriage


def _carried(identity: Identity, presented: _Presented) -> Identity:
    if identity.carriage == presented.carriage:
        return identity
    return replace(identity, carriage=presented.carriage)


def _add_cookies(
    message: Message, given: Sequence[tuple[Cookie, str, timedelta]], dead: Sequence[Cookie]
) -> None:
    """Append, and never over what the answer itself sets; nothing to what others may keep."""
    headers: list[tuple[bytes, bytes]] = list(message.get("headers", ()))
    names = {value.partition(b"=")[0] for name, value in headers if name.lower() == b"set-cookie"}
    for_all = any(
        name.lower() == b"cache-control" and b"public" in value.lower() for name, value in headers
    )
    made = Response()
    for cookie, value, lives in given:
        if cookie.name.encode() not in names and not for_all:
            cookie.set(made, value, lives=lives)
    for cookie in dead:
        if cookie.name.encode() not in names:
            cookie.clear(made)
    headers.extend(pair for pair in made.raw_headers if pair[0] == b"set-cookie")
    message["headers"] = headers
