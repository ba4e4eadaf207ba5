"""`watchword routes`."""

import dataclasses
import json
from fnmatch import fnmatchcase
from typing import Annotated

import typer

from watchword.cli.configuration import print_table
from watchword.cli.failures import FAILED
from watchword.cli.options import Json, asgi_named
from watchword.http.guarded import Guarded, guarded_routes


def routes(
    app: Annotated[
        str, typer.Option("--app", metavar="MODULE:APP", help="Your app, for example hello:app.")
    ],
    unguarded: Annotated[
        bool, typer.Option("--unguarded", help="Only those that anybody comes in at.")
    ] = False,
    public: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="A path that is meant for everybody, `*` being any letters; may be repeated.",
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Exit status 1 if one is open that no --public names."),
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Watchword's own too, which guard themselves.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the routes of your app, and what guards each of them.

    Routes of included routers, mounted apps and sockets too, with the guards that stand at the
    route, its router or the app, or in a dependency of yours. What cannot be looked into counts
    as open.
    """
    patterns = public or []
    found = [each for each in guarded_routes(asgi_named(app)) if everything or not each.is_ours]
    opened = [each for each in found if _is_open(each, patterns)]
    shown = opened if unguarded else found
    if as_json:
        rows = [{**dataclasses.asdict(each), "open": each in opened} for each in shown]
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        print_table(
            ("", "route", "methods", "guards", "note"),
            (_row(each, is_open=each in opened) for each in shown),
        )
        typer.echo(f"{len(found)} routes, {len(opened)} open to anybody")
    if check and opened:
        raise typer.Exit(FAILED)


def _is_open(route: Guarded, public: list[str]) -> bool:
    if route.is_guarded or route.is_ours:
        return False
    return not any(fnmatchcase(route.path, pattern) for pattern in public)


def _row(route: Guarded, *, is_open: bool) -> tuple[str, ...]:
    others = f"own: {', '.join(route.others)}" if route.others else ""
    return (
        "OPEN" if is_open else "",
        route.path,
        ", ".join(route.methods),
        ", ".join(route.guards) or ("Watchword's own" if route.is_ours else "none"),
        "; ".join(text for text in (route.note, others) if text),
    )
