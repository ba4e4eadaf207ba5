"""The gate: pure ASGI, tells who a request is before anything else sees it.

It refuses nothing by itself: it leaves in the scope either an `Identity`, or a `Refusal` with its
reason, or None, and the guards decide.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from hashlib import sha256
from typing import Any, Literal, cast

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from watchword.http.cache import IdentityCache
from watchword.http.client import Clients
from watchword.http.cookies import MAX_COOKIES, Cookie, Cookies, Jar, jar_of, joined
from watchword.http.csrf import COOKIE_LIVES, Csrf
from watchword.http.problems import problem
from watchword.kernel.clock import Clock
from watchword.kernel.errors import (
    ConflictingCredentials,
    CsrfRefused,
    InvalidToken,
    WatchwordError,
)
from watchword.kernel.events import Events, RequestRefused
from watchword.kernel.ids import new_id
from watchword.kernel.occasion import HAPPENING, Occasion
from watchword.kernel.ports import Authenticator, Limiter
from watchword.kernel.principal import Client, Identity
from watchword.kernel.tracing import OFF, Tracing

IDENTITY = "watchword.identity"
GATE = "watchword.gate"
CLIENT = "watchword.client"
REQUEST_ID = "watchword.request_id"
PRESENTED = "watchword.presented"
COOKIE_SESSION = "watchword.cookie_session"

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_NOTED = frozenset({403, 429})
MAX_CREDENTIAL = 8192  # bytes; nothing we issue comes near it

Carriage = Literal["bearer", "cookie"]

_SEVERAL = b"bearer"  # what two Authorization headers are taken for: one without a token
_TOO_LARGE: Jar = {}  # told apart by identity


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
    realm: str
    client_id: str
    max_body: int


@dataclass(slots=True)
class _Presented:
    """One credential of a request, and how it is looked up."""

    carriage: Carriage
    key: bytes
    value: bytes
    lead: Literal["bearer", "cookie", "access"]

    @property
    def is_token(self) -> bool:
        """A bearer token, wherever it stood."""
        return self.lead != "cookie"


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
        events: Events,
        ready: Callable[[], Awaitable[None] | None],
        limiters: Sequence[Limiter] = (),
        tracing: Tracing = OFF,
    ) -> None:
        self.app = app
        self.clock = clock
        self.events = events
        self.max_body = settings.max_body
        self._settings = settings
        # The longest prefix first, so that the empty one takes what no other takes.
        self._authenticators = sorted(authenticators, key=lambda each: -len(each.prefix))
        self._cache = cache
        self._csrf = csrf
        self._clients = clients
        self._ready = ready
        self.limiters = limiters  # of the app's own routes
        self._tracing = tracing
        self._session = settings.cookies.session.name.encode()
        self._access = settings.cookies.access.name.encode()
        self._csrf_name = settings.cookies.csrf.name.encode()
        self._proving = (
            (self._session, self._access) if settings.takes_access_cookie else (self._session,)
        )
        self._read = frozenset({*self._proving, self._csrf_name})
        self._is_cached = settings.check == "cached"
        # Length-prefixed, so that no app's name and token can be read as another's.
        self._leads = {
            carriage: _lead(settings.app, carriage) for carriage in ("bearer", "cookie", "access")
        }
        self._bearer_lead = self._leads["bearer"]
        self._cookie_lead = self._leads["cookie"]

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Not a coroutine itself: a hit adds no frame to the request's way."""
        if scope["type"] != "http":
            return self._other(scope, receive, send)
        HAPPENING.set((self, scope))  # of this task; read only where somebody asks
        bearer: bytes | None = None
        cookies: bytes | None = None
        for header, value in scope["headers"]:
            if header == b"authorization":
                bearer = value if bearer is None else _SEVERAL
            elif header == b"cookie":
                cookies = value if cookies is None else joined(cookies, value)
        pending = self._ready()
        if pending is not None:
            return self._starting(scope, receive, send, bearer, cookies, pending)
        return self._identify(scope, receive, send, bearer, cookies)

    def client_of(self, scope: Scope) -> Client:
        """Who sends this request; read once."""
        client: Client | None = scope.get(CLIENT)
        if client is None:
            client = scope[CLIENT] = self._clients.of(scope)
        return client

    @property
    def clients(self) -> Clients:
        """Who reads clients from requests."""
        return self._clients

    def request_id_of(self, scope: Scope) -> str:
        """The id of this request: a trusted proxy's, else one of ours."""
        request_id: str | None = scope.get(REQUEST_ID)
        if request_id is None:
            given = self._clients.request_id_of(scope)
            request_id = scope[REQUEST_ID] = given or new_id(self.clock.now())
        return request_id

    def occasion_of(self, scope: Mapping[str, Any]) -> Occasion:
        """What limits, audit and logs say of this request."""
        found = scope.get(IDENTITY)
        identity = found.identity if isinstance(found, Refusal | FormPending) else found
        return Occasion(
            kind="request",
            request_id=self.request_id_of(cast("Scope", scope)),
            app=self._settings.client_id,
            client=self.client_of(cast("Scope", scope)),
            principal=None if identity is None else identity.principal,
            method=scope.get("method", ""),  # a socket has none
            path=scope["path"][:256],
        )

    async def note_refusal(self, error: WatchwordError) -> None:
        """Announce a request that should not have come (16.3.2): kept by whoever listens."""
        if error.status not in _NOTED:
            return
        event = RequestRefused(
            realm=self._settings.realm,
            at=self.clock.now(),
            code=error.code,
            status=error.status,
            note=error.note,
        )
        await self.events.committed(event)

    def _identify(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        bearer: bytes | None,
        cookies: bytes | None,
    ) -> Awaitable[None]:
        scope[GATE] = self
        if bearer is not None and bearer[:6].lower() != b"bearer":
            bearer = None  # another scheme is none of ours
        jar = None if cookies is None else self._ours(cookies)
        if jar is None:
            if bearer is None:
                scope[IDENTITY] = None
                return self.app(scope, receive, send)
            # The length first: no work grows with what a stranger sends.
            if self._is_cached and bearer[6:7] == b" " and len(bearer) <= MAX_CREDENTIAL:
                identity = self._cache.hit(sha256(self._bearer_lead + bearer[7:]).digest())
                if identity is not None and identity.binding is None:
                    scope[IDENTITY] = identity
                    return self.app(scope, receive, send)
        elif bearer is None and scope["method"] in SAFE_METHODS:
            identity = self._hit_by_cookie(jar)
            if identity is not None:
                scope[IDENTITY] = identity
                return self.app(scope, receive, send)
        return self._look(scope, receive, send, bearer, jar)

    def _ours(self, cookies: bytes) -> Jar | None:
        """Our cookies, if one that could prove something is among them."""
        if len(cookies) > MAX_COOKIES:
            return _TOO_LARGE
        for name in self._proving:
            if name in cookies:
                break
        else:
            return None
        jar = jar_of(cookies, self._read)
        return jar if any(name in jar for name in self._proving) else None

    def _hit_by_cookie(self, jar: Jar) -> Identity | None:
        """Who reads with this session cookie, if nothing is left to do but to say so."""
        values = jar.get(self._session)
        if values is None or len(values) != 1 or len(values[0]) > MAX_CREDENTIAL:
            return None
        if self._access in jar:
            return None
        identity = self._cache.hit(sha256(self._cookie_lead + values[0]).digest())
        if identity is None or identity.binding is not None:
            return None
        session = identity.principal.session_id
        if session is None or self._csrf.is_due(session, jar.get(self._csrf_name, [])):
            return None
        return identity

    async def _starting(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        bearer: bytes | None,
        cookies: bytes | None,
        pending: Awaitable[None],
    ) -> None:
        """The way in before the App is started."""
        try:
            await pending
        except WatchwordError as error:  # the store is away at the first request
            await problem(error)(scope, receive, send)
            return
        await self._identify(scope, receive, send, bearer, cookies)

    async def _look(
        self, scope: Scope, receive: Receive, send: Send, bearer: bytes | None, jar: Jar | None
    ) -> None:
        """Every way but the shortest: misses, writes by cookie, several credentials at once."""
        dead: list[Cookie] = []
        jar = {} if jar is None else jar
        try:
            presented = self._presented(bearer, jar)
        except _Refused as refused:
            result: Identity | Refusal | FormPending = Refusal(refused.error, refused.carriage)
        else:
            found = [await self._found(scope, each) for each in presented]
            self._note_cookie(scope, presented, found)
            result = self._agreed(presented, found, dead)
            if len(presented) == 1 and _is_background(scope["headers"]):
                # It may have set out before the cookie was replaced: to take it back by its name
                # would take the new one.
                dead.clear()
            if isinstance(result, Identity):
                if not result.is_checked:
                    scope[PRESENTED] = presented[0].value.decode("ascii")
                if result.carriage == "cookie":
                    result = self._with_cookie(scope, result)
                else:
                    result = self._bound(scope, result)
        scope[IDENTITY] = result
        send = self._answering(scope, send, result, dead, jar.get(self._csrf_name, []))
        await self.app(scope, receive, send)

    def _presented(self, bearer: bytes | None, jar: Jar) -> list[_Presented]:
        """Every credential of ours that came, the one that would count first.

        Raises:
            _Refused: one stands twice, or is none, or is larger than any of ours (I-21).
        """
        presented: list[_Presented] = []
        if bearer is not None:
            if bearer[6:7] != b" ":
                raise _Refused(InvalidToken(note="no or several tokens"), "bearer")
            presented.append(self._keyed("bearer", bearer[7:]))
        if jar is _TOO_LARGE:
            raise _Refused(InvalidToken(note="oversize Cookie header"), "cookie")
        for name in self._proving:
            values = jar.get(name, [])
            if len(values) > 1:
                raise _Refused(InvalidToken(note="cookie given twice"), "cookie")
            lead = "access" if name == self._access else "cookie"
            presented.extend(self._keyed(lead, value) for value in values)
        return presented

    def _keyed(self, lead: Literal["bearer", "cookie", "access"], value: bytes) -> _Presented:
        carriage: Carriage = "bearer" if lead == "bearer" else "cookie"
        if len(value) > MAX_CREDENTIAL or not value.isascii():
            return _Presented(carriage, b"", b"", lead)  # nothing that anybody takes
        return _Presented(carriage, sha256(self._leads[lead] + value).digest(), value, lead)

    async def _found(self, scope: Scope, presented: _Presented) -> Identity | WatchwordError:
        """Who this credential stands for, from the cache or by asking; or why for nobody."""
        text = presented.value.decode("ascii")
        try:
            authenticator = self._authenticator(text, is_token=presented.is_token)
            check = self._settings.check if presented.is_token else "cached"
            if check == "stateless" and authenticator.prefix:
                check = "cached"  # keys and services' tokens say nothing by themselves
            if check == "cached":
                identity = self._cache.hit(presented.key)
                if identity is not None:
                    return identity
            if check == "stateless":
                believed = await authenticator.believe(text)
                if believed is not None:
                    return _carried(believed, presented)

            async def read() -> Identity:
                client = self.client_of(scope)
                with self._tracing.span("gate.miss", carriage=presented.carriage):
                    return _carried(await authenticator.authenticate(text, client), presented)

            if check != "cached":
                return await read()
            return await self._cache.miss(presented.key, read)
        except WatchwordError as error:
            return error

    def _authenticator(self, text: str, *, is_token: bool) -> Authenticator:
        carriage = "bearer" if is_token else "cookie"
        for each in self._authenticators:
            if each.carriage == carriage and text and text.startswith(each.prefix):
                return each
        raise InvalidToken(note=f"no feature takes a {carriage} credential like this")

    def _agreed(
        self,
        presented: list[_Presented],
        found: list[Identity | WatchwordError],
        dead: list[Cookie],
    ) -> Identity | Refusal:
        """The first, if all of them live and stand for the same user."""
        first = found[0]
        cookies = self._settings.cookies
        errors: list[Refusal] = []
        for each, result in zip(presented, found, strict=True):
            if isinstance(result, Identity):
                continue
            errors.append(Refusal(result, each.carriage))
            if result.status == 401 and each.carriage == "cookie":
                dead.append(cookies.access if each.lead == "access" else cookies.session)
        for refusal in errors:
            if refusal.error.status != 401:
                return refusal  # the store is away: nobody knows whether they agree
        if len(errors) == len(found):
            return errors[0]
        if not errors and isinstance(first, Identity):
            who = _who(first)
            if all(isinstance(other, Identity) and _who(other) == who for other in found):
                return first
        return Refusal(ConflictingCredentials(), presented[0].carriage)

    def _note_cookie(
        self,
        scope: Scope,
        presented: list[_Presented],
        found: list[Identity | WatchwordError],
    ) -> None:
        """Leave word of the session that this browser has, for the sign-in that replaces it.

        Said of requests that could not be another site's only.
        """
        if scope["method"] in SAFE_METHODS or self._csrf.is_cross_site(scope["headers"]):
            return
        for each, result in zip(presented, found, strict=True):
            if each.carriage == "cookie" and isinstance(result, Identity):
                scope[COOKIE_SESSION] = result.principal.session_id
                return

    async def confirm(self, scope: Scope, identity: Identity) -> Identity | Refusal:
        """Read the row of a token that was believed so far (I-25); the scope knows it too."""
        text: str = scope[PRESENTED]
        result: Identity | Refusal
        try:
            authenticator = self._authenticator(text, is_token=True)
            checked = await authenticator.authenticate(text, self.client_of(scope))
        except WatchwordError as error:
            result = Refusal(error, identity.carriage)
        else:
            result = self._bound(scope, replace(checked, carriage=identity.carriage))
        scope[IDENTITY] = result
        return result

    def _bound(self, scope: Scope, identity: Identity) -> Identity | Refusal:
        """Does the request look as the session wants it?"""
        wanted = identity.binding
        if wanted is None:
            return identity
        refused = self._clients.refusal(wanted, self.client_of(scope))
        return identity if refused is None else Refusal(refused, identity.carriage, identity)

    def _with_cookie(self, scope: Scope, identity: Identity) -> Identity | Refusal | FormPending:
        """Browsers send cookies unasked: what changes state must prove where it comes from."""
        bound = self._bound(scope, identity)
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
                # Nothing of theirs is read, and so the token is not either: no identity with it.
                return Refusal(bound.error, "cookie")
            return FormPending(identity, self._csrf)
        return Refusal(CsrfRefused(note="no token"), "cookie")

    def _answering(
        self,
        scope: Scope,
        send: Send,
        result: Identity | Refusal | FormPending,
        dead: list[Cookie],
        tokens: list[bytes],
    ) -> Send:
        """Cookies that go with the answer: dead ones are taken back, an old CSRF token renewed."""
        session = self._wants_token(scope, result, tokens)
        if session is None and not dead:
            return send

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                given: list[tuple[Cookie, str, timedelta]] = []
                if session is not None:
                    csrf = self._settings.cookies.csrf
                    given.append((csrf, self._csrf.token_for(session), COOKIE_LIVES))
                _add_cookies(message, given, dead)
            await send(message)

        return sending

    def _wants_token(
        self, scope: Scope, result: Identity | Refusal | FormPending, tokens: list[bytes]
    ) -> str | None:
        """The session that a fresh CSRF token goes to, if one is due."""
        csrf = self._csrf
        if not csrf.settings.enabled:
            return None
        if isinstance(result, Refusal):
            # The token was old, or lost: a page of ours may try again with a new one.
            again = isinstance(result.error, CsrfRefused) and (
                csrf.is_cross_site(scope["headers"]) is False
            )
            return scope.get(COOKIE_SESSION) if again else None
        identity = result.identity if isinstance(result, FormPending) else result
        session = identity.principal.session_id
        if identity.carriage != "cookie" or session is None:
            return None
        if scope["method"] in SAFE_METHODS:
            return session if csrf.is_due(session, tokens) else None
        return session if csrf.settings.rotate else None

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Sockets carry no identity until they are built (I-26): neither cookie nor token is read.
        if scope["type"] == "websocket":
            HAPPENING.set((self, scope))
            scope[GATE] = self
            scope[IDENTITY] = None
        await self.app(scope, receive, send)


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
    if presented.lead == "access" and identity.credential != "session":
        # In Authorization they would be taken; a browser never was given one (I-03).
        raise InvalidToken(note="only a session's access token may come in a cookie")
    if identity.carriage == presented.carriage:
        return identity
    return replace(identity, carriage=presented.carriage)


def _is_background(headers: list[tuple[bytes, bytes]]) -> bool:
    """Does a browser say that a script sent it, and that no page is being opened?"""
    return any(name == b"sec-fetch-mode" and value != b"navigate" for name, value in headers)


def _who(identity: Identity) -> tuple[str, str, str]:
    principal = identity.principal
    return principal.realm, principal.kind, principal.id


def _add_cookies(
    message: Message, given: Sequence[tuple[Cookie, str, timedelta]], dead: Sequence[Cookie]
) -> None:
    """Append, and never over what the answer itself sets; nothing to what others may keep."""
    headers: list[tuple[bytes, bytes]] = list(message.get("headers", ()))
    named = {name.lower() for name, _ in headers}
    kept_by = b",".join(value for name, value in headers if name.lower() == b"cache-control")
    said = frozenset(each.strip() for each in kept_by.lower().split(b",")) - {b""}
    if _may_be_shared(message["status"], said, named):
        return
    set_already = {
        value.partition(b"=")[0] for name, value in headers if name.lower() == b"set-cookie"
    }
    made = Response()
    for cookie, value, lives in given:
        if cookie.name.encode() not in set_already:
            cookie.set(made, value, lives=lives)
    for cookie in dead:
        if cookie.name.encode() not in set_already:
            cookie.clear(made)
    added = [pair for pair in made.raw_headers if pair[0] == b"set-cookie"]
    if added and not said & _KEPT_APART:
        added.append((b"cache-control", b"private"))  # it is one browser's from now on
    message["headers"] = headers + added


_KEPT_APART = frozenset({b"private", b"no-store"})  # alone: `private="x-user"` is of one field


def _may_be_shared(status: int, said: frozenset[bytes], named: set[bytes]) -> bool:
    """Is a cache in between to keep this answer, or is it part of one that it kept?

    Source: RFC 9111 §3 and §4.2.2: what says nothing may be kept by a guess of its age. One
    browser's cookie in it would be everybody's; one that is taken back would sign out all.
    §5.2.2.4: `no-cache` may be kept too, and is given out again once our server said 304; nobody
    means it to be shared, so it may become private.
    """
    if status == 304:
        return True
    if said & _KEPT_APART:
        return False
    if b"no-cache" in said and not any(word.startswith((b"public", b"s-maxage")) for word in said):
        return False
    if said:
        return True
    return bool(named & {b"expires", b"last-modified", b"etag"})
