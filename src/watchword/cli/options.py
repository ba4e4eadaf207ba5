"""The options that say which Watchword a command works on."""

import importlib
import itertools
import re
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast
from urllib.parse import unquote

import typer

from watchword.app import App
from watchword.cli.failures import Usage
from watchword.crypto.keys import generate_secret
from watchword.kernel.errors import ConfigurationError
from watchword.kernel.ids import new_id
from watchword.kernel.occasion import HAPPENING, Occasion
from watchword.kernel.secrets import Secret
from watchword.kernel.settings import CoreOptions
from watchword.presets import Watchword, standard
from watchword.server.serving import Place, make_private
from watchword.sources import Loaded, load
from watchword.starting import kept_secret

Data = Annotated[
    Path,
    typer.Option(
        "--data",
        metavar="DIR",
        help="The data folder of `watchword serve`: its database, unless one is set elsewhere.",
    ),
]
Database = Annotated[
    str | None,
    typer.Option(
        "--database",
        metavar="URL",
        help="The database, for example sqlite:///app.db; else WATCHWORD_DATABASE, "
        "watchword.toml, and then the one in --data.",
    ),
]
AppName = Annotated[
    str | None,
    typer.Option(
        "--app",
        metavar="MODULE:APP",
        help="Your own app, whose Watchword says which database and features there are.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

DATA = Path("data")

_WORD = re.compile(r"[a-z][a-z-]{1,30}")  # of a command, and no address, path or id


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The Watchword that a command works on, and the name of its database for people."""

    auth: App
    database: str


def choose(*, data: Path, database: str | None, app: str | None, seals: bool = False) -> Chosen:
    """Find or make it.

    Most commands only read and write records: neither the secret nor the public URL has a part
    in that, so none need be set. One that `seals` needs the secret of the servers: what it
    sealed under another one would keep them from starting.

    Raises:
        Usage, ConfigurationError: all that is wrong.
    """
    if app is not None:
        if database is not None:
            raise Usage("--app and --database: your app names its own; keep one")
        auth = app_named(app)
        return Chosen(auth=auth, database=shown(auth))
    loaded = load({}, standard())
    place = Place(data=data, database=database)
    url, _ = place.database_in(loaded)
    options: CoreOptions = {}
    if loaded.core.secret is None:
        options["secret"] = (_secret_of if seals else _any_secret)(place, loaded)
    if loaded.core.public_url is None:
        options["public_url"] = "http://localhost"
    auth = Watchword(url, served=True, **options)
    return Chosen(auth=auth, database=shown(auth))


def _secret_of(place: Place, loaded: Loaded) -> Secret:
    """The secret that the servers of this place made for themselves; none is made here.

    Raises:
        Usage: there is none.
        ConfigurationError: it cannot be read, or others can.
    """
    own = place.database_in(loaded)[0] == place.own_database
    kept = [place.secret_path] if place.keeps_secret(loaded) else []
    if loaded.core.environment == "development":  # embedded, or served beside another database
        embedded = Path(".watchword") / "secret"
        kept = [*kept, embedded] if own else [embedded, *kept]
    for path in kept:
        if path.exists():
            return kept_secret(path)
    raise Usage(
        "this command needs the secret of the servers: set WATCHWORD_SECRET or "
        "WATCHWORD_SECRET_FILE, or name their folder with --data, or your app with --app"
    )


def _any_secret(place: Place, loaded: Loaded) -> Secret:
    """That of the servers where it is at hand: endpoints of webhooks may hear of what is done."""
    try:
        return _secret_of(place, loaded)
    except (Usage, ConfigurationError):
        return generate_secret()


def shown(auth: App) -> str:
    """The database's URL without its password."""
    return next(each.value for each in auth.settings if each.key == "database")


def app_named(name: str) -> App:
    """Import `MODULE:APP` from the working directory and find the Watchword in it.

    Raises:
        Usage: there is none.
    """
    found = _imported(name)
    if not isinstance(found, App):
        found = getattr(getattr(found, "state", None), "watchword", None)
    if not isinstance(found, App):
        raise Usage(f"{name}: no Watchword is installed there")
    return found


def asgi_named(name: str) -> Any:
    """Import `MODULE:APP` from the working directory: the FastAPI app itself.

    Raises:
        Usage: it is none, or is not there.
    """
    found = _imported(name)
    if getattr(found, "routes", None) is None:
        raise Usage(f"{name}: that is no app with routes: name your FastAPI app")
    return found


def _imported(name: str) -> Any:
    module, colon, attribute = name.partition(":")
    if not colon or not all(module.split(".")) or not attribute:
        raise Usage(f"{name}: write MODULE:APP, for example hello:app")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise Usage(f"{name}: there is no module {module} here") from error
    except AttributeError as error:
        raise Usage(f"{name}: {module} has no {attribute}") from error


@asynccontextmanager
async def records(chosen: Chosen, *, may_create: bool = False) -> AsyncGenerator[Watchword]:
    """Open the database, without starting any background work.

    Raises:
        Usage: a SQLite file that is not there, unless it may be made.
        SchemaBehind, SchemaNewer, StoreUnavailable
    """
    file = sqlite_file(chosen.auth)
    if file is not None and may_create:
        make_file(file)
    elif file is not None and not file.exists():
        raise Usage(f"there is no database {file}: name one with --data, --database or --app")
    HAPPENING.set((_Command(chosen.auth), {}))
    try:
        await chosen.auth.connect()
        yield cast("Watchword", chosen.auth)
    finally:
        await chosen.auth.disconnect()
        chosen.auth.hash_pool.close()


class _Command:
    """The occasion of all that a command does; its words, and none of its arguments."""

    def __init__(self, auth: App) -> None:
        words = itertools.takewhile(_WORD.fullmatch, sys.argv[1:3])
        self._occasion = Occasion(
            kind="command",
            request_id=new_id(auth.clock.now()),
            app=auth.core.client_id,
            client=None,
            principal=None,
            path=" ".join(words),
        )

    def occasion_of(self, scope: Mapping[str, Any]) -> Occasion:  # noqa: ARG002
        """Always the same."""
        return self._occasion


def make_file(file: Path) -> None:
    """Make a SQLite file that is not there, and its folder, for this user only.

    Raises:
        Usage: it cannot be made.
    """
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        make_private(file)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "that is no file name"
        raise Usage(f"the database {file} cannot be made: {why}") from error


def sqlite_file(auth: App) -> Path | None:
    """The file of a SQLite database."""
    lead = "sqlite:///"
    url = auth.core.database.partition("?")[0]
    path = unquote(url.removeprefix(lead))
    return Path(path) if url.startswith(lead) and path not in ("", ":memory:") else None
