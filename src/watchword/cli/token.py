"""`watchword token`."""

import asyncio
import json
import sys
from typing import Annotated

import typer

from watchword.cli.configuration import print_table, printable
from watchword.cli.failures import FAILED, Usage
from watchword.cli.options import DATA, AppName, Data, Database, Json, choose, records
from watchword.features.tokens import Inspection, bare
from watchword.kernel.errors import InvalidToken
from watchword.presets import Watchword, standard
from watchword.sources import load

token = typer.Typer(no_args_is_help=True, help="One token.", rich_markup_mode=None)

_LONGEST = 100_000  # characters that are read; no token of ours comes near it

Text = Annotated[
    str,
    typer.Argument(
        metavar="[TOKEN]",
        help="The token; `-`, and by default, what comes on the standard input: what stands on "
        "a command line stays in the shell's history.",
    ),
]


@token.callback()
def token_command() -> None:
    """One token: what it says, and why it is refused."""


@token.command()
def inspect(
    text: Text = "-",
    as_json: Json = False,
    data: Data = DATA,
    database: Database = None,
    app: AppName = None,
) -> None:
    """Say why an access token is taken or refused: every check, and the first that fails.

    Reads the keys and the token's session from the database. Prints no part of the token but its
    header and its standard claims. Exit code 1 if it is refused.
    """
    if text == "-":
        if sys.stdin.isatty():
            typer.echo("Paste the token, then Enter.", err=True)
        text = sys.stdin.readline(_LONGEST)
    if not text.strip():
        raise Usage("no token came: give it on the standard input")
    chosen = choose(data=data, database=database, app=app, seals=True)
    is_named = app is not None or load({}, standard()).core.public_url is not None

    async def run() -> Inspection:
        async with records(chosen) as auth:
            # Who serves without a public URL is called by where they listen: nobody knows it here.
            issuer = None if is_named else _issuer_in(auth, text)
            return await auth.tokens.inspect(text, issuer=issuer)

    found = asyncio.run(run())
    _print(found, as_json=as_json, is_named=is_named)
    if found.failing is not None:
        raise typer.Exit(FAILED)


def _issuer_in(auth: Watchword, text: str) -> str | None:
    try:
        said = auth.tokens.peek(bare(text)).claims.get("iss")
    except InvalidToken:
        return None  # and that is what the inspection will say
    return said if isinstance(said, str) else None


def _print(found: Inspection, *, as_json: bool, is_named: bool) -> None:
    failing = found.failing
    if as_json:
        checks = [
            {"name": each.name, "verdict": each.verdict, "why": each.why} for each in found.checks
        ]
        told = {
            "accepted": failing is None,
            "failing": None if failing is None else failing.name,
            "issuer_compared": is_named,
            "checks": checks,
        }
        typer.echo(json.dumps(told, indent=2))
        return
    print_table(
        ("check", "verdict", ""),
        ((each.name, each.verdict, printable(each.why)) for each in found.checks),
    )
    if not is_named:
        typer.echo("iss was compared with nothing: no public_url is set here.")
    if failing is None:
        typer.echo("It is taken.")
    else:
        typer.echo(f"It is refused: {failing.name}: {printable(failing.why)}.")
