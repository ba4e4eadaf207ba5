"""Our guards, lifted out of FastAPI's dependency solver: an optimisation with the same answers.

The solver spends some 10 µs on a dependency that only looks into the scope. So each route that
names guards of ours gets a second, guard-free form. A request takes it only if the gate found
an identity and every guard lets it pass; in every other case (nobody, a refusal, a CSRF field
still to be read, `dependency_overrides` in use) the route as FastAPI made it runs, so what is
refused is refused exactly as before.

This rests on private names of FastAPI. Where they are not what we know, nothing is lifted.
"""

import copy
import inspect
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any

from fastapi import FastAPI, routing
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from watchword.http.body import AuthRoute
from watchword.http.depends import (
    ClaimsGuard,
    IdentityGuard,
    PrincipalGuard,
    Requirement,
    UserGuard,
)
from watchword.http.gate import IDENTITY
from watchword.kernel.principal import Identity

_log = logging.getLogger("watchword.http")

_REQUEST = "watchword_lifted_request"


def lift(app: FastAPI) -> int:
    """Lift the guards of every route that `app` has by now; how many routes were changed."""
    try:
        return sum(_lift(place, app) for place in _places(app.routes))
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        _log.warning("guards are not lifted: FastAPI is not as we know it (%s)", error)
        return 0


def _places(routes: Any) -> Iterator[Any]:
    """Whatever holds an `app` and a `dependant`: a route, or its form in an included router."""
    for route in routes:
        if isinstance(route, APIRoute):
            yield route
        elif hasattr(route, "effective_candidates"):
            yield from _included(route)


def _included(router: Any) -> Iterator[Any]:
    for candidate in router.effective_candidates():
        if hasattr(candidate, "effective_candidates"):
            yield from _included(candidate)
        elif isinstance(candidate.original_route, APIRoute):
            yield candidate


def _lift(place: Any, app: FastAPI) -> bool:
    dependant: Dependant | None = place.dependant
    if dependant is None or place.app is None or hasattr(place.app, "__watchword_plain__"):
        return False
    call = dependant.call
    if type(getattr(place, "original_route", place)) not in (APIRoute, AuthRoute):
        return False
    if not inspect.isfunction(call) or inspect.unwrap(call) is not call:
        return False
    guards = [
        (each.name, each.call)
        for each in dependant.dependencies
        if isinstance(each.call, IdentityGuard) and _is_ours(each)
    ]
    if not guards or inspect.isgeneratorfunction(call) or inspect.isasyncgenfunction(call):
        return False
    if _admits_late(dependant.dependencies):
        return False
    if not _is_untouched(place.app, _built(place, dependant)):
        return False
    handed = [(name, guard) for name, guard in guards if name is not None]
    lifted = replace(
        dependant,
        dependencies=[each for each in dependant.dependencies if not _is_ours(each)],
        call=_handing(call, handed, keep=dependant.request_param_name),
        request_param_name=dependant.request_param_name or _REQUEST,
    )
    place.app = _either(place.app, _built(place, lifted), tuple(guard for _, guard in guards), app)
    return True


def _admits_late(dependencies: list[Dependant]) -> bool:
    """Does a guard admit keys after a dependency that may hold a guard, which refuses them?

    Lifted it would come first, and admit them there too.
    """
    waiting = itertools.dropwhile(_is_ours, dependencies)
    return any(isinstance(each.call, Requirement) and each.call.admits for each in waiting)


def _is_ours(dependant: Dependant) -> bool:
    # A subclass of somebody's own may ask more than its `refusal` says.
    return type(dependant.call) in (
        IdentityGuard,
        PrincipalGuard,
        ClaimsGuard,
        UserGuard,
        Requirement,
    )


def _is_untouched(app: Any, fresh: Any) -> bool:
    """Is this what FastAPI builds for the route, and not something that was put around it?"""
    if inspect.isfunction(app) and inspect.isfunction(fresh):
        return app.__code__ is fresh.__code__
    return type(app) is type(fresh) and not inspect.isfunction(app)


def _handing(
    call: Callable[..., Any], handed: list[tuple[str, Any]], *, keep: str | None
) -> Callable[..., Any]:
    """The handler, given what the guards would have given it."""
    name = keep or _REQUEST

    def complete(values: dict[str, Any]) -> dict[str, Any]:
        request = values[name] if keep else values.pop(name)
        identity: Identity = request.scope[IDENTITY]
        for parameter, guard in handed:
            values[parameter] = guard.value(identity)
        return values

    if inspect.iscoroutinefunction(call):

        async def handler(**values: Any) -> Any:
            return await call(**complete(values))

        return handler

    def sync_handler(**values: Any) -> Any:
        return call(**complete(values))

    return sync_handler


def _built(place: Any, dependant: Dependant) -> ASGIApp:
    """The route's application, made by FastAPI itself from another dependant."""
    # A private name: where it is gone, only the lift is gone with it.
    from fastapi._body_limit import wrap_app_with_body_limit  # noqa: PLC0415

    if isinstance(place, APIRoute):
        twin = copy.copy(place)
        twin.dependant = dependant
        handler = twin.get_route_handler()
    else:
        context: Any = routing._effective_route_context_var  # type: ignore[attr-defined]  # noqa: SLF001
        kept = place.dependant
        token = context.set(place)
        try:
            place.dependant = dependant
            handler = place.original_route.get_route_handler()
        finally:
            place.dependant = kept
            context.reset(token)
    return wrap_app_with_body_limit(routing.request_response(handler), place.max_body_size)


def _either(
    plain: ASGIApp, lifted: ASGIApp, guards: tuple[IdentityGuard, ...], app: FastAPI
) -> ASGIApp:
    def choose(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        found = scope.get(IDENTITY)
        if type(found) is not Identity or not found.is_checked or app.dependency_overrides:
            return plain(scope, receive, send)
        for guard in guards:
            if guard.refusal(found, scope) is not None:
                return plain(scope, receive, send)
        return lifted(scope, receive, send)

    choose.__watchword_plain__ = plain  # type: ignore[attr-defined]
    return choose
