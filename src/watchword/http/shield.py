"""What stands around an app: its Host, https, other origins, and the headers of every answer.

It is around all of it, the answer to an unexpected fault included, and so not a middleware like
others: those stand within the one that answers faults.
"""

import asyncio
import logging
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from watchword.http.client import Clients, speaks_for_others
from watchword.http.cors import Cors
from watchword.http.gate import GATE, REQUEST_ID, SAFE_METHODS, path_of
from watchword.http.headers import HeaderSets
from watchword.http.hosts import Hosts
from watchword.http.problems import problem
from watchword.kernel.errors import (
    BodyTooSlow,
    HostNotAllowed,
    HttpsRequired,
    WatchwordError,
)
from watchword.kernel.occasion import HAPPENING

_log = logging.getLogger("watchword.http")

SHIELD: Final = "watchword.shield"
_NO_PROXY: Final = (
    "Come by https. It looks as if a proxy had taken this request by https: name its network in "
    "trusted_proxies (WATCHWORD_TRUSTED_PROXIES)."
)
_NO_SCHEME: Final = (
    "Come by https. The proxy in front does not say how this request came: have it set "
    "X-Forwarded-Proto (or Forwarded, as the setting `forwarded` has it)."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShieldSettings:
    """What one App's shield goes by."""

    prefix: str
    origin: str  # of public_url: where plain http is sent on to
    hosts: Hosts
    hosts_remedy: str  # said to whoever comes under another name
    require_https: bool
    probe_paths: frozenset[str]  # of which neither Host nor https is asked
    body_timeout: timedelta


class Shield:
    """Around one app: refuses what should not get in, and dresses what comes out."""

    def __init__(
        self, settings: ShieldSettings, *, clients: Clients, headers: HeaderSets, cors: Cors | None
    ) -> None:
        self._settings = settings
        self._clients = clients
        self._headers = headers
        self._cors = cors
        self._below = f"{settings.prefix}/"
        self._known = settings.hosts.known
        self._trusts = clients.trusts_somebody

    def around(self, app: Starlette) -> None:
        """Stand around all that this app is made of, however often it is put together."""
        build = app.build_middleware_stack

        def build_middleware_stack() -> ASGIApp:
            return _Shielded(build(), self)

        setattr(app, "build_middleware_stack", build_middleware_stack)  # noqa: B010  a method

    def through(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Let a request through to `app`, or answer it."""
        if HAPPENING.get() is not None:
            return self._apart(app, scope, receive, send)
        return self._through(app, scope, receive, send)

    async def _apart(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Where this task has another request in mind: neither may be taken for the other.

        It is that of the app that this one is mounted in; of one that asks this one in its own
        task; or an earlier one of the connection, since a server that begins a request, or reads
        on, in the task of the one before hands its context on (python/cpython#140947).
        """
        happening = None
        if SHIELD in scope:
            happening = HAPPENING.get()
            gate = scope.get(GATE)
            if gate is not None:
                gate.request_id_of(scope)  # both know it by the same id
            scope = {
                name: value
                for name, value in scope.items()
                if name == REQUEST_ID or not name.startswith("watchword.")
            }
        before = HAPPENING.set(happening)
        try:
            await self._through(app, scope, receive, send)
        finally:
            HAPPENING.reset(before)

    def _through(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        kind = scope["type"]
        if kind == "http":
            return self._http(app, scope, receive, send)
        if kind == "websocket":
            hosts = [value for name, value in scope["headers"] if name == b"host"]
            is_https = self._clients.is_https(scope)
            if self._fault(scope, hosts, is_https=is_https, is_probe=False) is not None:
                return _close(send)
            scope[SHIELD] = self
            if self._trusts:
                scope["scheme"] = "wss" if is_https else "ws"
        return app(scope, receive, send)

    def _http(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        # Every request comes here: what is usual is asked first, and in few steps.
        scope[SHIELD] = self
        path: str = path_of(scope) if scope.get("root_path") else scope["path"]
        is_ours = path.startswith(self._below)
        is_https = scope.get("scheme") == "https"
        if self._trusts:
            # Else the app's own links and redirects would lead from https to plain http.
            is_https = self._clients.is_https(scope)
            scope["scheme"] = "https" if is_https else "http"
        raw: list[tuple[bytes, bytes]] = scope["headers"]
        named = dict(raw)
        host, origin = named.get(b"host"), named.get(b"origin")
        if len(named) < len(raw) and origin is not None and _count(raw, b"origin") > 1:
            origin = b""  # two are nobody's
        cors = self._cors
        if cors is not None and not (
            is_ours or cors.covers_all or path.startswith("/.well-known/")
        ):
            cors = None
        dress = self._headers.added

        def sending(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                headers = dress(message.get("headers", ()), is_ours, is_https)
                if cors is not None:
                    headers = cors.added(headers, origin)
                if is_ours or REQUEST_ID in scope:
                    _name(headers, scope)
                message["headers"] = headers
            return send(message)

        if (
            host not in self._known
            or (not is_https and self._settings.require_https)
            or (len(named) < len(raw) and _count(raw, b"host") > 1)
        ):
            hosts = [value for name, value in raw if name == b"host"]
            is_probe = path in self._settings.probe_paths and scope["method"] in ("GET", "HEAD")
            fault = self._fault(scope, hosts, is_https=is_https, is_probe=is_probe)
            if fault is not None:
                return fault(scope, receive, sending)
        if cors is not None and scope["method"] == "OPTIONS":
            asked = self._asked(cors, scope, origin)
            if asked is not None:
                return asked(scope, receive, sending)
        if is_ours and scope["method"] not in SAFE_METHODS:
            return self._in_time(app, scope, receive, sending)
        return app(scope, receive, sending)

    def _fault(
        self, scope: Scope, hosts: list[bytes], *, is_https: bool, is_probe: bool
    ) -> Response | None:
        """The answer to a request that comes under a wrong name or by plain http."""
        settings = self._settings
        error = settings.hosts.fault(hosts, is_http11=scope.get("http_version") == "1.1")
        if isinstance(error, HostNotAllowed):
            if not is_probe:
                return problem(HostNotAllowed(settings.hosts_remedy, note=error.note))
        elif error is not None:
            return problem(error)
        if settings.require_https and not is_https and not is_probe:
            return self._not_https(scope)
        return None

    def _not_https(self, scope: Scope) -> Response:
        """Send a reader on to https; refuse what brings something, since it was read on the way.

        A proxy that is not trusted, or that says nothing of the scheme, would send the reader
        here again and again: then say what is to be set.
        """
        if self._clients.trusts(scope):
            detail = _NO_SCHEME if not self._clients.said_scheme(scope) else None
        else:
            detail = _NO_PROXY if speaks_for_others(scope["headers"]) else None
        if detail is not None:
            _log.warning("a request by plain http is refused: %s", detail)
            return problem(HttpsRequired(detail))
        if scope.get("method") not in ("GET", "HEAD"):
            return problem(HttpsRequired())
        raw: bytes = scope.get("raw_path") or scope["path"].encode("utf-8", "replace")
        path = quote(raw.partition(b"?")[0], safe=_SAFE)
        # Some servers pass on a target without a slash: `.evil.example/` would lengthen our host.
        location = self._settings.origin + (path if path.startswith("/") else "/")
        if scope.get("query_string"):
            location += "?" + quote(scope["query_string"], safe=_SAFE + "?")
        headers = {"Location": location, "Cache-Control": "no-store"}
        return Response(status_code=301, headers=headers)

    @staticmethod
    def _asked(cors: Cors, scope: Scope, origin: bytes | None) -> Response | None:
        try:
            return cors.preflight(scope["headers"], origin)
        except WatchwordError as error:
            return problem(error)

    async def _in_time(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """A body that trickles in holds a connection, and a route, for ever: bound the whole.

        The answer is ours, and to the app the client has gone: an error would have to pass through
        middlewares of others, which make a fault of it.
        """
        seconds = self._settings.body_timeout.total_seconds()
        until: float | None = None
        is_whole = is_over = is_answered = is_begun = False

        async def receiving() -> Message:
            nonlocal until, is_whole, is_over, is_answered
            if is_over:
                return {"type": "http.disconnect"}
            if is_whole:
                return await receive()  # nothing more comes but the end of the connection
            if until is None:
                until = asyncio.get_running_loop().time() + seconds
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError:
                is_over = True
                if not is_begun:
                    is_answered = True
                    closing = {"Connection": "close"} if scope.get("http_version") == "1.1" else {}
                    await problem(BodyTooSlow(headers=closing))(scope, receive, send)
                return {"type": "http.disconnect"}
            is_whole = message["type"] != "http.request" or not message.get("more_body", False)
            return message

        async def sending(message: Message) -> None:
            nonlocal is_begun
            if is_answered:
                return
            is_begun = True
            await send(message)

        try:
            await app(scope, receiving, sending)
        except ClientDisconnect:
            if not is_answered:
                raise


_SAFE = "/%:@!$&'()*+,;=~-._"  # RFC 3986 §3.3


class _Shielded(ServerErrorMiddleware):
    """An app's outermost layer with the shield around it.

    It stays what instruments (OpenTelemetry's) look for. Some of them take its `app` out and put
    another layer around that: so the shield stands within too, and there lets through whatever
    has passed it.
    """

    def __init__(self, stack: ASGIApp, shield: Shield) -> None:
        if isinstance(stack, ServerErrorMiddleware):
            super().__init__(_Within(stack.app, shield), stack.handler, stack.debug)
        else:
            super().__init__(_Within(stack, shield))
        self._shield = shield
        self._answering = super().__call__

    # No coroutine of its own: every request would pay for it.
    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, scope: Scope, receive: Receive, send: Send
    ) -> Awaitable[None]:
        return self._shield.through(self._answering, scope, receive, send)


@dataclass(frozen=True, slots=True)
class _Within:
    app: ASGIApp
    shield: Shield

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope.get(SHIELD) is self.shield:
            return self.app(scope, receive, send)
        return self.shield.through(self.app, scope, receive, send)


def _count(headers: list[tuple[bytes, bytes]], wanted: bytes) -> int:
    return sum(name == wanted for name, _ in headers)


async def _close(send: Send) -> None:
    await send({"type": "websocket.close", "code": 1008})


def _name(headers: list[tuple[bytes, bytes]], scope: Scope) -> None:
    """Say the id that logs and the audit know this request by."""
    if any(name.lower() == b"x-request-id" for name, _ in headers):
        return
    gate = scope.get(GATE)
    request_id = scope.get(REQUEST_ID) or (None if gate is None else gate.request_id_of(scope))
    if request_id is not None:
        headers.append((b"x-request-id", request_id.encode("ascii")))
