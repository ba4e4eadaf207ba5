"""`watchword secret`."""

import asyncio

import typer
from rich.console import Console

from watchword.cli.configuration import printable
from watchword.cli.failures import FAILED
from watchword.cli.options import DATA, AppName, Data, Database, choose, records
from watchword.crypto.keys import generate_secret
from watchword.crypto.sealing import Sealer
from watchword.resealing import Resealing
from watchword.resealing import reseal as resealing

secret = typer.Typer(no_args_is_help=True, help="The root secret.", rich_markup_mode=None)

_NAMED = 20  # values that cannot be opened and are named


@secret.callback()
def secret_command() -> None:
    """The root secret."""


@secret.command()
def generate() -> None:
    """Print a new root secret, for WATCHWORD_SECRET or the file of WATCHWORD_SECRET_FILE.

    It is printed once and kept nowhere. All workers of one app share one secret.
    """
    typer.echo(generate_secret().reveal())


@secret.command()
def reseal(data: Data = DATA, database: Database = None, app: AppName = None) -> None:
    """Seal anew, under the secret in force, all that former secrets sealed.

    Needs the secret of the servers as WATCHWORD_SECRET and the former one among
    WATCHWORD_OLD_SECRETS. Servers may run meanwhile. Stopped anywhere, it goes on when it is run
    again. Answers with 1 while a value is left that no secret opens.
    """
    chosen = choose(data=data, database=database, app=app, seals=True)
    progress = Resealing()

    async def run() -> None:
        with Console(stderr=True).status("Sealing anew") as status:
            async with records(chosen) as auth:
                sealer = Sealer(auth.secrets)
                async for so_far in resealing(auth.store, auth.records, sealer, progress):
                    status.update(f"Sealing anew: {so_far.seen:,} values")

    asyncio.run(run())
    typer.echo(f"{progress.resealed:>9,}  sealed anew")
    typer.echo(f"{progress.current:>9,}  were under the secret in force already")
    if not progress.unreadable:
        return
    typer.echo(f"{len(progress.unreadable):>9,}  cannot be opened")
    for each in progress.unreadable[:_NAMED]:
        typer.echo(f"  - {printable(each)}", err=True)
    raise typer.Exit(FAILED)
