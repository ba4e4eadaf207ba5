"""`watchword users`."""

import asyncio
import json
import sys
from typing import Annotated, Any, cast

import typer
from pydantic import TypeAdapter, ValidationError
from rich.console import Console

from watchword.cli.configuration import print_table, printable
from watchword.cli.failures import Usage
from watchword.cli.options import DATA, AppName, Data, Database, Json, choose, records
from watchword.features.users import User, seen, view_of
from watchword.features.users.shapes import Username
from watchword.kernel.errors import Fault, InvalidInput

users = typer.Typer(no_args_is_help=True, help="Users.", rich_markup_mode=None)

Name = Annotated[str, typer.Argument(metavar="USER", help="An e-mail address or an id.")]


@users.callback()
def users_command() -> None:
    """Make, find, disable and delete users; takes effect in running servers within 2 seconds."""


@users.command()
def create(
    email: Annotated[str, typer.Argument(metavar="EMAIL")],
    role: Annotated[
        list[str] | None,
        typer.Option(help="A role; may be repeated. `admin` makes an administrator."),
    ] = None,
    username: Annotated[str | None, typer.Option(help="A name to show.")] = None,
    verified: Annotated[bool, typer.Option(help="Is the address theirs?")] = True,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
    data: Data = DATA,
    database: Database = None,
    app: AppName = None,
) -> None:
    """Make a user; asks for the password. `--role admin` makes the first administrator.

    There is no default account. A password is never an argument: those are seen by others.
    """
    _check_username(username)
    chosen = choose(data=data, database=database, app=app)

    async def create_user() -> User:
        async with records(chosen, may_create=True) as auth:
            auth.users.address(email)
            password = _password(from_stdin=password_stdin)
            with Console(stderr=True).status("Hashing the password"):
                return await auth.passwords.create_user(
                    email=email,
                    password=password,
                    username=username,
                    roles=tuple(role or ()),
                    is_verified=verified,
                )

    user = asyncio.run(create_user())
    typer.echo(f"Created {printable(user.email)} ({user.id}) in {chosen.database}")


@users.command("list")
def list_users(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 100,
    after: Annotated[str | None, typer.Option(help="Go on where a list ended.")] = None,
    as_json: Json = False,
    data: Data = DATA,
    database: Database = None,
    app: AppName = None,
) -> None:
    """List users, the oldest first."""
    chosen = choose(data=data, database=database, app=app)

    async def page() -> Any:
        async with records(chosen) as auth:
            return auth.users.kind, await auth.users.page(limit=limit, after=after)

    kind, found = asyncio.run(page())
    if as_json:
        items = [_json(kind, user) for user in found.items]
        typer.echo(json.dumps({"items": items, "next": found.next}, indent=2, ensure_ascii=False))
        return
    print_table(
        ("id", "e-mail", "name", "roles", "verified", "active", "created"),
        (_row(user) for user in cast("tuple[User, ...]", found.items)),
    )
    if found.next is not None:
        typer.echo(f"There are more: --after {found.next}", err=True)


@users.command()
def show(
    name: Name,
    as_json: Json = False,
    data: Data = DATA,
    database: Database = None,
    app: AppName = None,
) -> None:
    """Show one user."""
    chosen = choose(data=data, database=database, app=app)

    async def find() -> Any:
        async with records(chosen) as auth:
            return auth.users.kind, await auth.users.find(name)

    kind, user = asyncio.run(find())
    fields = _json(kind, user)
    if as_json:
        typer.echo(json.dumps(fields, indent=2, ensure_ascii=False))
        return
    for field, value in fields.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        typer.echo(f"{field:<14} {printable(text)}")


@users.command()
def disable(name: Name, data: Data = DATA, database: Database = None, app: AppName = None) -> None:
    """Switch an account off; all its sessions end."""
    _change("disable", "Disabled", name, data=data, database=database, app=app)


@users.command()
def enable(name: Name, data: Data = DATA, database: Database = None, app: AppName = None) -> None:
    """Switch an account on again; sessions that ended stay ended."""
    _change("enable", "Enabled", name, data=data, database=database, app=app)


@users.command("require-password-change")
def require_password_change(
    name: Name, data: Data = DATA, database: Database = None, app: AppName = None
) -> None:
    """Ask for another password at the next sign-in; all sessions end."""
    chosen = choose(data=data, database=database, app=app)

    async def require() -> User:
        async with records(chosen) as auth:
            user: User = await auth.users.find(name)
            await auth.passwords.require_change(user.id)
            return user

    user = asyncio.run(require())
    typer.echo(f"{printable(user.email)} ({user.id}) sets another password at the next sign-in")


@users.command()
def delete(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    data: Data = DATA,
    database: Database = None,
    app: AppName = None,
) -> None:
    """Delete a user and all that is kept of them. There is no way back."""
    if not yes:
        if not sys.stdin.isatty():
            raise Usage("there is nobody to ask: give --yes to delete")
        typer.confirm(f"Delete {printable(name)}?", abort=True)
    _change("delete", "Deleted", name, data=data, database=database, app=app)


def _change(verb: str, done: str, name: str, **where: Any) -> None:
    chosen = choose(**where)

    async def change() -> User:
        async with records(chosen) as auth:
            user: User = await auth.users.find(name)
            await getattr(auth.users, verb)(user.id)
            return user

    user = asyncio.run(change())
    typer.echo(f"{done} {printable(user.email)} ({user.id})")


def _check_username(username: str | None) -> None:
    """The rules of HTTP: what is made here is shown there."""
    if username is None:
        return
    try:
        TypeAdapter[str](Username).validate_python(username)
    except ValidationError as error:
        raise InvalidInput(
            [
                Fault("username", each["type"], each["msg"].removeprefix("Value error, "))
                for each in error.errors(include_input=False, include_url=False)
            ]
        ) from error


def _password(*, from_stdin: bool) -> str:
    if from_stdin:
        text = sys.stdin.readline()
        return text.removesuffix("\n").removesuffix("\r")
    if not sys.stdin.isatty():
        raise Usage("there is no terminal to ask at: give --password-stdin")
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))


def _json(kind: type[User], user: User) -> dict[str, Any]:
    return seen(view_of(kind, "admin"), user)


def _row(user: User) -> tuple[str, ...]:
    return (
        user.id,
        user.email,
        user.username or "",
        ", ".join(user.roles),
        "yes" if user.is_verified else "no",
        "yes" if user.is_active else "no",
        f"{user.created_at:%Y-%m-%d %H:%M}",
    )
