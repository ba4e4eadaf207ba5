"""`watchword keys`."""

import asyncio
import json
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import Console

from watchword.cli.configuration import print_table, printable
from watchword.cli.options import DATA, AppName, Data, Database, Json, choose, records
from watchword.features.keys import Keys, Rotation, StoredKey

keys = typer.Typer(no_args_is_help=True, help="Signing keys.", rich_markup_mode=None)

Kid = Annotated[str, typer.Argument(metavar="KID", help="The id of a key, as `list` shows it.")]


@keys.callback()
def keys_command() -> None:
    """The keys that tokens are signed with; takes effect in running servers within 2 seconds.

    They need the settings that the servers have: the secret, and whatever is set of keys.
    """


@keys.command("list")
def list_keys(
    as_json: Json = False,
    data: Data = DATA,
    database: Database = None,
    app: AppName = None,
) -> None:
    """List the keys, the one that signs first."""
    chosen = choose(data=data, database=database, app=app)

    async def run() -> list[dict[str, Any]]:
        async with records(chosen) as auth:
            return [_told(auth.keys, row) for row in await auth.keys.ring()]

    found = asyncio.run(run())
    if as_json:
        typer.echo(json.dumps({"items": found}, indent=2))
        return
    print_table(
        ("kid", "algorithm", "state", "since", "verifies until", "next change"),
        (
            tuple(
                str(each[name] or "")
                for name in ("kid", "algorithm", "state", "since", "verifies_until", "changes_at")
            )
            for each in found
        ),
    )


@keys.command()
def rotate(
    compromised: Annotated[
        bool,
        typer.Option(
            "--compromised",
            help="A key is known to others: revoke all, and let a fresh one sign at once.",
        ),
    ] = False,
    data: Data = DATA,
    database: Database = None,
    app: AppName = None,
) -> None:
    """Let another key sign. Run it twice: it publishes the next key, and later lets it sign.

    A key signs no sooner than everybody who verifies knows it; until then this says when. What
    the former key signed is believed until it expires. With --compromised it is refused at once,
    and so everybody with a token gets a new one with their refresh token, or signs in again.
    """
    chosen = choose(data=data, database=database, app=app, seals=True)

    async def run() -> Rotation:
        async with records(chosen) as auth:
            with Console(stderr=True).status("Changing the key"):
                return await auth.keys.rotate(compromised=compromised)

    done = asyncio.run(run())
    if done.is_done:
        typer.echo(f"{printable(done.kid)} signs now in {chosen.database}")
    elif done.ripe_at is not None:
        typer.echo(f"{printable(done.kid)} still signs in {chosen.database}")
        typer.echo(
            f"{printable(done.next_kid or '')} is published; "
            f"it can sign from {_instant(done.ripe_at)} on: rotate again then"
        )


@keys.command()
def retire(
    kid: Kid,
    compromised: Annotated[
        bool,
        typer.Option("--compromised", help="Believe nothing that it signed, from now on."),
    ] = False,
    data: Data = DATA,
    database: Database = None,
    app: AppName = None,
) -> None:
    """Let one key sign no more; not the one that signs now, which `rotate` replaces.

    What it signed is believed until it expires, unless it is --compromised. A key that was to
    come next is forgotten.
    """
    chosen = choose(data=data, database=database, app=app, seals=compromised)

    async def run() -> StoredKey:
        async with records(chosen) as auth:
            return await auth.keys.retire(kid, compromised=compromised)

    row = asyncio.run(run())
    said = {
        "next": "is forgotten",
        "retired": f"verifies until {_instant(row.verifies_until)}",
        "revoked": "verifies nothing any more",
    }
    typer.echo(f"{printable(row.kid)} {said.get(row.state, row.state)}")


def _told(ring: Keys, row: StoredKey) -> dict[str, Any]:
    changes_at = ring.ripe_at(row) if row.state == "next" else ring.rotates_at(row)
    return {
        "kid": row.kid,
        "algorithm": row.algorithm,
        "state": row.state,
        "since": _instant(row.since or row.activated_at or row.created_at),
        "verifies_until": _instant(row.verifies_until) if row.state == "retired" else None,
        "changes_at": _instant(changes_at),  # of a next: it may sign; of the active: it is replaced
        "is_given": row.is_given,
    }


def _instant(at: datetime | None) -> str | None:
    return None if at is None else f"{at:%Y-%m-%dT%H:%M:%SZ}"
