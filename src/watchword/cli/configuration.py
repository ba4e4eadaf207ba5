"""`watchword config`."""

import dataclasses
import json
from collections.abc import Iterable

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from watchword.cli.options import DATA, AppName, Data, Database, Json, app_named
from watchword.presets import standard
from watchword.server.serving import Place
from watchword.sources import Setting, load


def config(
    data: Data = DATA, database: Database = None, app: AppName = None, as_json: Json = False
) -> None:
    """Print every setting in force, and where it came from. Secrets are masked.

    The first place that names a setting wins: an argument in your code, the environment,
    watchword.toml (WATCHWORD_CONFIG names another file), a file per secret
    (WATCHWORD_SECRET_FILE, or the folder WATCHWORD_SECRETS_DIR), then the default.
    """
    report = app_named(app).settings if app else _of_server(Place(data=data, database=database))
    if as_json:
        rows = [dataclasses.asdict(setting) for setting in report]
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        print_table(
            ("setting", "value", "source", "variable"),
            ((each.key, each.value, each.source, each.env) for each in report),
        )


def _of_server(place: Place) -> tuple[Setting, ...]:
    """What `watchword serve` would run with."""
    loaded = load({}, standard())
    database, said = place.database_in(loaded)
    known = {"database": database} if said.startswith("--") else {}
    report = load(known, standard()).report
    kept = place.keeps_secret(loaded)
    return tuple(
        dataclasses.replace(each, source=said)
        if each.key == "database"
        else dataclasses.replace(each, value="***", source=f"file {place.secret_path}")
        if each.key == "secret" and kept
        else each
        for each in report
    )


def print_table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Print rows under their heads, none of them cut off where nobody looks at a screen."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=1000)
    console.print(table)


def printable(text: str) -> str:
    """Without what a terminal would take for a command."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
