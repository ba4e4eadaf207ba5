"""`watchword api-keys`."""

import asyncio
import json
from typing import Annotated, Any

import typer

from watchword.cli.configuration import print_table, printable
from watchword.cli.failures import Usage
from watchword.cli.options import DATA, AppName, Data, Database, Json, choose, records
from watchword.features.api_keys import ApiKey, ApiKeys
from watchword.features.users import User
from watchword.kernel.errors import FeatureNotInstalled
from watchword.presets import Watchword
from watchword.storage.store import Page

api_keys = typer.Typer(no_args_is_help=True, help="API keys of users.", rich_markup_mode=None)


@api_keys.callback()
def api_keys_command() -> None:
    """API keys of users. Nobody can show a key again: only its owner saw it, once."""


@api_keys.command("list")
def list_keys(
    name: Annotated[str, typer.Argument(metavar="USER", help="An e-mail address or an id.")],
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 100,
    after: Annotated[str | None, typer.Option(help="Go on where a list ended.")] = None,
    as_json: Json = False,
    data: Data = DATA,
    database: Database = None,
    app: AppName = None,
) -> None:
    """List the keys of a user that live, the newest first."""
    chosen = choose(data=data, database=database, app=app)

    async def page() -> Page[ApiKey]:
        async with records(chosen) as auth:
            keys = _installed(auth)
            user: User = await auth.users.find(name)
            return await keys.page(user, limit=limit, after=after)

    found = asyncio.run(page())
    if as_json:
        items = [_json(key) for key in found.items]
        typer.echo(json.dumps({"items": items, "next": found.next}, indent=2, ensure_ascii=False))
        return
    print_table(
        ("id", "name", "begins", "scopes", "created", "expires", "last used"),
        (_row(key) for key in found.items),
    )
    if found.next is not None:
        typer.echo(f"There are more: --after {found.next}", err=True)


@api_keys.command()
def end(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.")],
    data: Data = DATA,
    database: Database = None,
    app: AppName = None,
) -> None:
    """End a key; running servers refuse it within 2 seconds."""
    chosen = choose(data=data, database=database, app=app)

    async def run() -> None:
        async with records(chosen) as auth:
            await _installed(auth).end(key_id, why="by_operator")

    asyncio.run(run())
    typer.echo(f"Ended {printable(key_id)}")


def _installed(auth: Watchword) -> ApiKeys:
    try:
        return auth.api_keys
    except FeatureNotInstalled as error:
        raise Usage("this app has no API keys: add api_keys() to its features") from error


def _json(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "user_id": key.user_id,
        "name": key.name,
        "hint": key.hint,
        "scopes": list(key.scopes),
        "created_at": key.created_at.isoformat(),
        "expires_at": key.expires_at.isoformat(),
        "last_used_at": None if key.last_used_at is None else key.last_used_at.isoformat(),
        "successor_id": key.successor_id,
    }


def _row(key: ApiKey) -> tuple[str, ...]:
    return (
        key.id,
        key.name,
        f"wwk_{key.hint}…",
        ", ".join(key.scopes),
        f"{key.created_at:%Y-%m-%d %H:%M}",
        f"{key.expires_at:%Y-%m-%d %H:%M}",
        "never" if key.last_used_at is None else f"{key.last_used_at:%Y-%m-%d %H:%M}",
    )
