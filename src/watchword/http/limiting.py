"""Limits on routes of the app's own: as a dependency, as a decorator, as middleware on paths.

What is counted is the route, however its path was written: a dependency and a decorator count by
the handler's name, the middleware by the pattern that a path fits.
"""

import functools
import inspect
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache, partial
from typing import Any, Final, Literal, ParamSpec, TypeVar, cast

import anyio.from_thread
from fastapi import Response
from fastapi.params import Depends
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from watchword.http.client import Clients
from watchword.http.gate import GATE, IDENTITY, FormPending, Gate, path_of
from watchword.http.problems import Refused, problem
from watchword.kernel.errors import (
    ConfigurationError,
    FeatureNotInstalled,
    NotInstalled,
    WatchwordError,
)
from watchword.kernel.occasion import HAPPENING
from watchword.kernel.ports import Limiter
from watchword.kernel.principal import Identity
from watchword.kernel.quotas import (
    OWN,
    Quota,
    Standing,
    in_order,
    network_of,
    parse_quotas,
    rate_headers,
)

P = ParamSpec("P")
R = TypeVar("R")

By = Literal["address", "user", "global"] | Callable[[HTTPConnection], Any]
"""What is counted by: the client's address, the user (else the address), all together, or what a
function of yours says of the request: a text, or None for the address."""

_OF_PATHS: Final = ("address", "user", "global")
_PATTERN = re.compile(r"(/(\*\*?|[A-Za-z0-9._~!$&'()+,=:@-]+))+|/")


class Limited(Depends):
    """What `limited` makes: a dependency, and a decorator."""

    def __call__(self, handler: Callable[P, R]) -> Callable[P, R]:
        """The handler, counted before it runs.

        It is counted where FastAPI would call it: after the other dependencies, and not where
        one of those refused. Called outside a request it raises NotInstalled.
        """
        rule = cast("_Rule", self.dependency)
        name = _name_of(handler)

        if inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
            raise TypeError("limited() cannot stand on a generator: use it in dependencies=[…]")
        if inspect.iscoroutinefunction(handler):

            @functools.wraps(handler)
            async def counted(*args: P.args, **kwargs: P.kwargs) -> Any:
                await rule.count(_happening(), name)
                return await handler(*args, **kwargs)

            return cast("Callable[P, R]", counted)

        @functools.wraps(handler)
        def counted_in_a_thread(*args: P.args, **kwargs: P.kwargs) -> R:
            anyio.from_thread.run(rule.count, _happening(), name)
            return handler(*args, **kwargs)

        return counted_in_a_thread


@dataclass(frozen=True, slots=True, eq=False)
class _Rule:
    """One limit on routes."""

    quota: Quota
    by: Callable[[HTTPConnection], Any] | None
    name: str | None

    async def __call__(self, connection: HTTPConnection, response: Response) -> None:
        """As a dependency: count this request at its route, and say so in the answer."""
        standings = await self.count(connection, _name_of(connection.scope.get("endpoint")))
        if standings:
            response.headers.update(rate_headers(standings))

    async def count(self, connection: HTTPConnection, name: str) -> Sequence[Standing]:
        """Count one request.

        Raises:
            Refused: one too many, or it cannot be counted.
        """
        gate = connection.scope.get(GATE)
        if gate is None:
            raise Refused(NotInstalled())
        limiter = limiter_of(gate)
        value = None if self.by is None else self.by(connection)
        if inspect.isawaitable(value):
            value = await value
        given = given_by(connection.scope, gate.clients, (self.quota.by,))
        if value is not None:
            given[OWN] = f"own:{value}"
        elif self.by is not None:
            given[OWN] = f"address:{given['address']}"
        try:
            return await limiter.admit(f"route {self.name or name}", (self.quota,), given)
        except WatchwordError as error:
            raise Refused(error) from None


def limited(tries: int, *, per: timedelta, by: By = "address", name: str | None = None) -> Limited:
    """Limit a route: `dependencies=[limited(5, per=timedelta(minutes=5))]`, or `@limited(…)`.

    As a decorator it stands below the one that makes the route. The one too many is answered 429
    with Retry-After; with the store away, 503.

    Args:
        tries: requests in a window that slides.
        per: its length, whole seconds up to 31 days.
        by: whose requests: `"address"`, `"user"` (by address where nobody is signed in),
            `"global"`, or a function of the request, async or not, that gives a text.
        name: shared by all routes that are to count as one; else each handler counts apart.

    Raises:
        TypeError: at import, for what cannot be.
    """
    own = by if callable(by) else None
    if own is None and by not in _OF_PATHS:
        raise TypeError(f"limited(by=…) takes {', '.join(_OF_PATHS)} or a function")
    try:
        quota = Quota(tries, per, OWN if own is not None else cast("str", by))
    except ValueError as error:
        raise TypeError(f"limited() {error}") from None
    return Limited(_Rule(quota, own, name))


class RateLimits:
    """ASGI middleware that limits paths."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        limiter: Limiter,
        clients: Clients,
        rules: Mapping[str, Sequence[Quota]],
    ) -> None:
        self.app = app
        self._limiter = limiter
        self._clients = clients
        self._rules = [
            (f"path {pattern}", _segments(pattern), tuple(quotas))
            for pattern, quotas in rules.items()
        ]
        self._kinds = frozenset(quota.by for quotas in rules.values() for quota in quotas)
        # What a path fits is found once; strangers may make up paths, but not fill our memory.
        self._fitting = lru_cache(maxsize=2048)(self._find)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count the request at every pattern that its path fits, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        found = self._fitting(path_of(scope)) if len(scope["path"]) <= _LONGEST else self._rules
        if not found:
            await self.app(scope, receive, send)
            return
        gate: Gate | None = scope.get(GATE)
        given = given_by(scope, self._clients, self._kinds)
        standings: list[Standing] = []
        try:
            for action, _, quotas in found:
                standings += await self._limiter.admit(action, quotas, given)
        except WatchwordError as error:
            if gate is not None:
                await gate.note_refusal(error)
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            else:
                await problem(error)(scope, receive, send)
            return
        if not standings or scope["type"] == "websocket":
            await self.app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_encoded(standings)]
            await send(message)

        await self.app(scope, receive, sending)

    def _find(self, path: str) -> list[tuple[str, list[str], tuple[Quota, ...]]]:
        forms = (_segments(path), plain_segments(path))
        return [rule for rule in self._rules if any(_fits(rule[1], form) for form in forms)]


_LONGEST: Final = 2048  # characters of a path; a longer one counts at every pattern


def rate_limits(
    limiter: Limiter, rules: Mapping[str, str], *, clients: Clients
) -> Callable[[ASGIApp], RateLimits]:
    """Middleware of one App, for `add_middleware`.

    Raises:
        ConfigurationError: all that is wrong with the rules.
    """
    read: dict[str, tuple[Quota, ...]] = {}
    faults: list[str] = []
    for pattern, text in rules.items():
        if not _PATTERN.fullmatch(pattern) or pattern.split("/").count("**") > 1:
            faults.append(
                f"limits: {pattern!r} is no path: write /search, or /hooks/* with `*` for one "
                "segment and one `**` for any number"
            )
            continue
        try:
            read[pattern] = in_order(parse_quotas(text))
        except ValueError as error:
            faults.append(f"limits: {pattern}: {error}")
            continue
        if wrong := [quota.by for quota in read[pattern] if quota.by not in _OF_PATHS]:
            faults.append(f"limits: {pattern}: a path counts per {', '.join(_OF_PATHS)}: {wrong}")
    if faults:
        raise ConfigurationError(faults)
    return partial(RateLimits, limiter=limiter, clients=clients, rules=read)


def limiter_of(gate: Gate) -> Limiter:
    """What counts behind this gate.

    Raises:
        FeatureNotInstalled: a limit that nobody counts must not look like one.
    """
    for limiter in gate.limiters:
        return limiter
    raise FeatureNotInstalled("feature 'limits' is not installed: add limits() to features=[…]")


def _encoded(standings: Sequence[Standing]) -> list[tuple[bytes, bytes]]:
    headers = rate_headers(standings)
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


def given_by(scope: Scope, clients: Clients, kinds: Collection[str]) -> dict[str, str]:
    """By what a request counts, of these kinds: its address, its user if it has one, or all."""
    given = {"address": _network(scope, clients)}
    if "user" in kinds:
        given["user"] = _user(scope) or f"address:{given['address']}"
    if "global" in kinds:
        given["global"] = ""
    return given


def _network(scope: Scope, clients: Clients) -> str:
    peer = scope.get("client")
    if peer and not clients.trusts_somebody:  # the peer itself, read once
        return network_of(str(peer[0])[:64])
    return network_of(clients.address_of(scope) or "")


def _user(scope: Scope) -> str | None:
    found: Any = scope.get(IDENTITY)
    identity = found.identity if isinstance(found, FormPending) else found
    if not isinstance(identity, Identity):
        return None
    return f"{identity.principal.kind}:{identity.principal.id}"


def plain_segments(path: str) -> list[str]:
    """The path as a careless reader would take it: what is meant by `//Search/;x=1/.`.

    It may fit no route as it is written; then it counts as the one that it imitates.
    """
    plain: list[str] = []
    for segment in path.replace("\\", "/").split("/"):
        name = segment.partition(";")[0].strip().casefold()
        if name == "..":
            del plain[-1:]
        elif name not in {"", "."}:
            plain.append(name)
    return plain


def _segments(path: str) -> list[str]:
    return path.strip("/").casefold().split("/") if path.strip("/") else []


def _fits(wanted: Sequence[str], given: Sequence[str]) -> bool:
    if "**" in wanted:
        before, after = wanted[: wanted.index("**")], wanted[wanted.index("**") + 1 :]
        if len(given) < len(before) + len(after):
            return False
        tail = given[len(given) - len(after) :]
        return _fits(before, given[: len(before)]) and _fits(after, tail)
    return len(wanted) == len(given) and all(
        name in ("*", one) for name, one in zip(wanted, given, strict=True)
    )


def _happening() -> HTTPConnection:
    """The request that this task serves.

    Raises:
        Refused: it came through no gate.
    """
    now = HAPPENING.get()
    if now is None:
        raise Refused(NotInstalled())
    return HTTPConnection(cast("Scope", now[1]))


def _name_of(handler: Any) -> str:
    """The name of a handler, whatever paths lead to it."""
    named: Any = handler.func if isinstance(handler, partial) else handler  # pyright: ignore[reportUnknownMemberType]
    if not hasattr(named, "__qualname__"):
        named = named.__class__
    return f"{named.__module__}.{named.__qualname__}"


__all__ = ["By", "Limited", "RateLimits", "limited", "rate_limits"]
