"""Alive and ready: what a supervisor asks."""

import hmac
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Request
from starlette.datastructures import Headers
from starlette.responses import JSONResponse

from watchword.http.client import speaks_for_others
from watchword.kernel.errors import StoreUnavailable, WatchwordError
from watchword.kernel.secrets import Secret
from watchword.presets import Watchword
from watchword.server.serving import is_loopback

_NO_STORE = {"Cache-Control": "no-store"}


def probes(auth: Watchword) -> APIRouter:
    """The routes `/healthz` and `/readyz`."""
    router = APIRouter(tags=["server"])

    @router.head("/healthz", include_in_schema=False)
    @router.get("/healthz")
    async def healthz() -> JSONResponse:
        """Alive: the process answers. A lost database is no reason to restart it."""
        return JSONResponse({"status": "ok"}, headers=_NO_STORE)

    @router.head("/readyz", include_in_schema=False)
    @router.get("/readyz", responses={503: {"description": "Not ready"}})
    async def readyz(request: Request) -> JSONResponse:
        """Ready: every store answers, and the change feed is read in time.

        Why not, only to this machine or to who has the token.
        """
        store = "ok"
        try:
            for driver in auth.drivers:
                await driver.ping()
        except StoreUnavailable:
            store = "unavailable"
        following = auth.following
        feed = "ok" if following is None or following.status.is_fresh else "stale"
        ready = store == feed == "ok"
        body: dict[str, Any] = {"status": "ok" if ready else "unavailable"}
        if may_know(request, auth.core.probe_token):
            body["reasons"] = {"store": store, "feed": feed, **_further(auth)}
        return JSONResponse(body, status_code=200 if ready else 503, headers=_NO_STORE)

    return router


def _further(auth: Watchword) -> dict[str, str]:
    """What an operator would look at next. None of it makes a worker unready."""
    further: dict[str, str] = {}
    if auth.has("keys"):
        try:
            auth.keys.active()
            further["keys"] = "ok"
        except WatchwordError:
            further["keys"] = "none that signs"
    if auth.has("mail"):
        further["mail"] = "ok" if auth.mail.sender is not None else "not set"
    background = auth.background
    if background is None:
        further["background"] = "elsewhere"
    else:
        failing = ", ".join(sorted(background.failing))
        further["background"] = f"failing: {failing}" if failing else "ok"
    return further


def may_know(request: Request, token: Secret | None) -> bool:
    """Does this request come from this very machine, or with the probe token (I-22)?"""
    given = request.headers.get("authorization", "")
    if token is not None and given[:7].lower() == "bearer ":
        return hmac.compare_digest(given[7:].encode(), token.reveal().encode())
    return (
        request.client is not None
        and is_loopback(request.client.host)
        and not _is_forwarded(request.headers)
    )


def _is_forwarded(headers: Headers) -> bool:
    """Does a proxy on this machine speak for others? Some say nothing but whom they were asked."""
    if speaks_for_others(headers.raw):
        return True
    try:
        host = urlsplit(f"//{headers.get('host', '')}").hostname
    except ValueError:
        host = None
    return host is None or not is_loopback(host)
