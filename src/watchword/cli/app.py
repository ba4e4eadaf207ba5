"""The commands, in the order in which people meet them."""

from typing import Annotated

import typer

import watchword
from watchword.cli.api_keys import api_keys
from watchword.cli.audit import audit
from watchword.cli.configuration import config
from watchword.cli.docs import docs
from watchword.cli.doctor import doctor
from watchword.cli.keys import keys
from watchword.cli.lockout import lockout
from watchword.cli.routes import routes
from watchword.cli.schema import migrate
from watchword.cli.secret import secret
from watchword.cli.servers import dev, serve
from watchword.cli.services import services
from watchword.cli.sessions import sessions
from watchword.cli.token import token
from watchword.cli.tokens import tokens
from watchword.cli.transfer import export_users, import_users
from watchword.cli.users import users
from watchword.cli.webhooks import webhooks
from watchword.cli.worker import worker

app = typer.Typer(
    name="watchword",
    help="Watchword: users, sign-in and sessions for FastAPI.\n\n"
    "A first look: `watchword serve`. An app of your own: `watchword dev hello:app`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(serve)
app.command()(dev)
app.command()(worker)
app.command()(migrate)
app.command()(config)
app.command()(doctor)
app.command()(routes)
app.command()(docs)
app.command("import")(import_users)
app.command("export")(export_users)
app.add_typer(users, name="users")
app.add_typer(sessions, name="sessions")
app.add_typer(tokens, name="tokens")
app.add_typer(token, name="token")
app.add_typer(api_keys, name="api-keys")
app.add_typer(services, name="services")
app.add_typer(lockout, name="lockout")
app.add_typer(webhooks, name="webhooks")
app.add_typer(audit, name="audit")
app.add_typer(keys, name="keys")
app.add_typer(secret, name="secret")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"watchword {watchword.__version__}")
        raise typer.Exit


@app.callback()
def watchword_command(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Users, sign-in and sessions for FastAPI."""
