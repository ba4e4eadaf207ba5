"""`watchword services`."""

import asyncio
import json
from datetime import timedelta
from typing import Annotated, Any

import typer

from watchword.cli.configuration import print_table, printable
from watchword.cli.failures import Usage
from watchword.cli.options import DATA, AppName, Data, Database, Json, choose, records
from watchword.features.services import ServiceGrant, Services
from watchword.kernel.errors import FeatureNotInstalled
from watchword.kernel.settings import parse_duration
from watchword.presets import Watchword, standard
from watchword.sources import load
from watchword.storage.store import Page

services = typer.Typer(
    no_args_is_help=True, help="Services that call one another.", rich_markup_mode=None
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Of the service that calls.")]


@services.callback()
def services_command() -> None:
    """Services that call one another, each with tokens for exactly one other."""


@services.command()
def add(
    name: Name,
    audience: Annotated[
        list[str],
        typer.Option(help="Whom it may call: the `audience` of that app; may be repeated."),
    ],
    scope: Annotated[
        list[str] | None, typer.Option(help="What it may there; may be repeated.")
    ] = None,
    data: Data = DATA,
    database: Database = None,
    app: AppName = None,
) -> None:
    """Let a service call others."""
    chosen = choose(data=data, database=database, app=app)

    async def run() -> ServiceGrant:
        async with records(chosen, may_create=True) as auth:
            return await _installed(auth).grant(name, audience=audience, scopes=scope or ())

    granted = asyncio.run(run())
    typer.echo(f"Added {granted.name}: may call {', '.join(granted.audiences)}")


@services.command("list")
def list_services(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 100,
    after: Annotated[str | None, typer.Option(help="Go on where a list ended.")] = None,
    as_json: Json = False,
    data: Data = DATA,
    database: Database = None,
    app: AppName = None,
) -> None:
    """List services, the oldest first, those that ended included."""
    chosen = choose(data=data, database=database, app=app)

    async def page() -> Page[ServiceGrant]:
        async with records(chosen) as auth:
            return await _installed(auth).page(limit=limit, after=after)

    found = asyncio.run(page())
    if as_json:
        items = [_json(granted) for granted in found.items]
        typer.echo(json.dumps({"items": items, "next": found.next}, indent=2, ensure_ascii=False))
        return
    print_table(
        ("name", "may call", "scopes", "created", "expires", "ended"),
        (_row(granted) for granted in found.items),
    )
    if found.next is not None:
        typer.echo(f"There are more: --after {found.next}", err=True)


@services.command()
def end(name: Name, data: Data = DATA, database: Database = None, app: AppName = None) -> None:
    """End a service; its tokens are refused within 2 seconds. The name may be added anew."""
    chosen = choose(data=data, database=database, app=app)

    async def run() -> None:
        async with records(chosen) as auth:
            await _installed(auth).end(name)

    asyncio.run(run())
    typer.echo(f"Ended {printable(name)}")


@services.command()
def token(
    name: Name,
    audience: Annotated[str, typer.Option(help="The one that is called, as it was added.")],
    ttl: Annotated[
        str | None, typer.Option(help="How long it lives, for example 15m; 24h at most.")
    ] = None,
    data: Data = DATA,
    database: Database = None,
    app: AppName = None,
) -> None:
    """Print a token of a service. Whoever has it is that service until it expires."""
    lives = _lives(ttl)
    if app is None and load({}, standard()).core.public_url is None:
        # The issuer: a token that names another one is nobody's.
        raise Usage("a token names its issuer: set WATCHWORD_PUBLIC_URL as for the servers")
    chosen = choose(data=data, database=database, app=app, seals=True)

    async def run() -> str:
        async with records(chosen) as auth:
            made = _installed(auth)
            await auth.keys.open()
            return await made.token(name, audience=audience, ttl=lives)

    typer.echo(asyncio.run(run()))


def _lives(ttl: str | None) -> timedelta | None:
    try:
        return None if ttl is None else parse_duration(ttl)
    except (ValueError, OverflowError) as error:
        raise Usage(f"--ttl {ttl}: write 90s, 15m or 8h") from error


def _installed(auth: Watchword) -> Services:
    try:
        return auth.services
    except FeatureNotInstalled as error:
        raise Usage("this app has no services: add services() to its features") from error


def _json(granted: ServiceGrant) -> dict[str, Any]:
    return {
        "id": granted.id,
        "name": granted.name,
        "audiences": list(granted.audiences),
        "scopes": list(granted.scopes),
        "created_at": granted.created_at.isoformat(),
        "expires_at": None if granted.expires_at is None else granted.expires_at.isoformat(),
        "ended_at": None if granted.ended_at is None else granted.ended_at.isoformat(),
    }


def _row(granted: ServiceGrant) -> tuple[str, ...]:
    return (
        granted.name,
        ", ".join(granted.audiences),
        ", ".join(granted.scopes),
        f"{granted.created_at:%Y-%m-%d %H:%M}",
        "" if granted.expires_at is None else f"{granted.expires_at:%Y-%m-%d %H:%M}",
        "" if granted.ended_at is None else f"{granted.ended_at:%Y-%m-%d %H:%M}",
    )
