"""Words that the stories of services share: two apps of one pool, `billing` and `reports`."""

import base64
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from fastapi import FastAPI

from tests.told import Story, neighbour, telling
from watchword import CurrentPrincipal, CurrentUser, requires
from watchword.testing.story import bearer

SCOPE = "figures:read"


@dataclass
class Pair:
    """Who calls, and who is called."""

    billing: Story
    reports: Story

    async def token(self, *, scopes: tuple[str, ...] = (SCOPE,)) -> str:
        """A token of `billing` for `reports`, granted just now."""
        await self.billing.auth.services.grant("billing", audience="reports", scopes=scopes)
        return await self.billing.auth.services.token("billing", audience="reports")

    async def call(self, token: str, path: str = "/figures", **headers: str) -> httpx.Response:
        """`billing` calls `reports`."""
        return await self.reports.client.get(path, headers={**bearer(token), **headers})


def reporting() -> FastAPI:
    """What is called: a route for services, one for both, one for users only."""
    app = FastAPI()

    @app.get("/figures", dependencies=[requires(accepts=("service",), scope=SCOPE)])
    async def figures(principal: CurrentPrincipal) -> dict[str, Any]:
        return {"kind": principal.kind, "id": principal.id, "scopes": sorted(principal.scopes)}

    @app.get("/both", dependencies=[requires(accepts=("session", "service"))])
    async def both(principal: CurrentPrincipal) -> str:
        return principal.id

    @app.get("/accepted", dependencies=[requires(accepts=("session", "service"))])
    async def accepted(user: CurrentUser) -> str:
        return user.id

    @app.get("/mine")
    async def mine(user: CurrentUser) -> str:
        return user.id

    @app.get("/anybody")
    async def anybody(principal: CurrentPrincipal) -> str:
        return principal.id

    @app.get("/admin", dependencies=[requires(role="admin", accepts=("session", "service"))])
    async def admin() -> str:
        return "admin"

    return app


@asynccontextmanager
async def pair(database: str, **options: Any) -> AsyncGenerator[Pair, None]:
    """Start both over one database."""
    async with (
        telling(database, app=reporting(), client_id="billing", audience="billing") as billing,
        neighbour(
            billing, database, app=reporting(), client_id="reports", audience="reports", **options
        ) as reports,
    ):
        yield Pair(billing=billing, reports=reports)


def claims_of(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of a service token."""
    parts = token.removeprefix("wwx_").split(".")[:2]
    header, claims = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in parts)
    return header, claims
