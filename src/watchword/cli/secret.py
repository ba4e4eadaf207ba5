"""`watchword secret`."""

import typer

from watchword.crypto.keys import generate_secret

secret = typer.Typer(no_args_is_help=True, help="The root secret.", rich_markup_mode=None)


@secret.callback()
def secret_command() -> None:
    """The root secret."""


@secret.command()
def generate() -> None:
    """Print a new root secret, for WATCHWORD_SECRET or the file of WATCHWORD_SECRET_FILE.

    It is printed once and kept nowhere. All workers of one app share one secret.
    """
    typer.echo(generate_secret().reveal())
