"""`watchword tokens`."""

import asyncio

import typer
from rich.console import Console

from watchword.cli.options import DATA, AppName, Data, Database, choose, records

tokens = typer.Typer(no_args_is_help=True, help="Tokens and sessions.", rich_markup_mode=None)


@tokens.callback()
def tokens_command() -> None:
    """Tokens, and the sessions that they point at."""


@tokens.command()
def purge(data: Data = DATA, database: Database = None, app: AppName = None) -> None:
    """Delete what is past its time: sessions, refresh tokens, open resets, changes, mails.

    Running servers and `watchword worker` do this by themselves, a batch a minute. What is still
    valid is never touched, and what is past its time was refused already.
    """
    chosen = choose(data=data, database=database, app=app)

    async def run() -> dict[str, int]:
        async with records(chosen) as auth:
            with Console(stderr=True).status("Deleting what is past its time"):
                return await auth.purge()

    deleted = asyncio.run(run())
    for name, count in sorted(deleted.items()):
        typer.echo(f"{count:>9,}  {name}")
    typer.echo(f"{sum(deleted.values()):>9,}  deleted in all")
