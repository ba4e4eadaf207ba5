"""Which routes of an app are guarded, and by what."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from fastapi.dependencies.models import Dependant
from starlette.routing import BaseRoute, Host, Mount, Route, WebSocketRoute

from watchword.http.depends import IdentityGuard, OptionalUserGuard, Requirement
from watchword.kernel.settings import format_duration

_OURS = "watchword."


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """A route, and what stands before it."""

    path: str
    methods: tuple[str, ...]  # WEBSOCKET of a socket; `*` of what answers them all
    guards: tuple[str, ...]  # of ours, as they are written; empty: anybody comes in
    others: tuple[str, ...]  # dependencies of the app's own, which may refuse too
    is_ours: bool  # one of Watchword's own, which guard themselves
    note: str = ""

    @property
    def is_guarded(self) -> bool:
        """Does it refuse whoever brings nothing?"""
        return bool(self.guards)


def guarded_routes(app: Any) -> list[Guarded]:
    """Every route of an app: of its routers, of what is mounted, and its sockets.

    What cannot be looked into counts as not guarded.
    """
    return list(_of_app(app, ""))


def _of_app(app: Any, prefix: str) -> Iterator[Guarded]:
    router = getattr(app, "router", app)
    late = getattr(router, "_low_priority_routes", ())
    for route in (*getattr(router, "routes", ()), *late):
        yield from _of_route(route, prefix)


def _of_route(route: Any, prefix: str) -> Iterator[Guarded]:
    if hasattr(route, "effective_candidates"):  # a router that was included
        candidates: list[Any] = list(route.effective_candidates())
        if hasattr(route, "effective_low_priority_routes"):
            candidates += route.effective_low_priority_routes()
        for candidate in candidates:
            yield from _of_route(candidate, prefix)
        return
    # FastAPI's form of a route in an included router; without a dependant it wraps another.
    original = getattr(route, "original_route", None)
    if original is not None and getattr(route, "dependant", None) is None:
        yield from _of_route(getattr(route, "starlette_route", None) or original, prefix)
        return
    if isinstance(route, Mount | Host):
        yield from _of_mount(route, prefix)
        return
    yield _described(route, original or route, prefix)


def _of_mount(route: Mount | Host, prefix: str) -> Iterator[Guarded]:
    inner = prefix + (route.path if isinstance(route, Mount) else "")
    if getattr(route.app, "routes", None) is not None:
        yield from _of_app(route.app, inner)
        return
    yield Guarded(
        path=f"{inner}/*",
        methods=("*",),
        guards=(),
        others=(),
        is_ours=_is_ours(route.app),
        note=f"mounted {type(route.app).__name__}: what it asks is not seen",
    )


def _described(route: Any, original: BaseRoute, prefix: str) -> Guarded:
    endpoint = getattr(original, "endpoint", None)
    methods: tuple[str, ...] = ("*",)
    if isinstance(original, WebSocketRoute):
        methods = ("WEBSOCKET",)
    elif isinstance(original, Route):
        methods = tuple(sorted(route.methods or ("*",)))
    dependant: Dependant | None = getattr(route, "dependant", None)
    guards: dict[str, None] = {}
    others: dict[str, None] = {}
    note = "anybody comes in; who is signed in is known" if _is_optional(dependant) else ""
    for call in () if dependant is None else _calls(dependant):
        if isinstance(call, OptionalUserGuard):
            continue
        if isinstance(call, IdentityGuard):
            guards[_written(call)] = None
        else:
            others[getattr(call, "__name__", type(call).__name__)] = None
    return Guarded(
        path=prefix + str(getattr(route, "path", "?")),
        methods=methods,
        guards=tuple(guards),
        others=tuple(others),
        is_ours=_is_ours(endpoint),
        note=note,
    )


def _calls(dependant: Dependant) -> Iterator[Any]:
    """Every dependency, however deep."""
    for each in dependant.dependencies:
        yield each.call
        yield from _calls(each)


def _is_optional(dependant: Dependant | None) -> bool:
    return dependant is not None and any(
        isinstance(call, OptionalUserGuard) for call in _calls(dependant)
    )


def _is_ours(endpoint: Any) -> bool:
    module = getattr(endpoint, "__module__", None) or type(endpoint).__module__
    return str(module).startswith(_OURS)


def _written(guard: IdentityGuard) -> str:
    """A guard as it stands in code: `requires(role='admin')`, `CurrentUser`."""
    if isinstance(guard, Requirement):
        asked = [
            f"{name}={_said(value)}" for name, value in guard.asks.items() if value is not None
        ]
        return f"requires({', '.join(asked)})"
    name = type(guard).__name__.removesuffix("Guard")
    known = {"Identity", "Principal", "Claims", "User"}
    return f"Current{name}" if type(guard).__module__.startswith(_OURS) and name in known else name


def _said(value: Any) -> str:
    if isinstance(value, timedelta):
        return format_duration(value)
    return getattr(value, "__name__", repr(value)) if callable(value) else repr(value)
