"""`watchword serve` and `watchword dev`."""

import importlib.util
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from watchword.cli.failures import Usage
from watchword.cli.options import DATA
from watchword.server.serving import Place, Serving

_REMEDY = 'the server is not installed: pip install "watchword[server]"'

Host = Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 is every one.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")]


def serve(
    host: Host = "127.0.0.1",
    port: Port = 8000,
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            metavar="DIR",
            help="Where the SQLite database and the generated secret are kept.",
        ),
    ] = DATA,
    workers: Annotated[int, typer.Option(min=1, max=256, help="How many processes serve.")] = 1,
) -> None:
    """Serve Watchword as a server of its own.

    Needs nothing else: SQLite and a generated secret in DIR. WATCHWORD_DATABASE names another
    database; in production that needs WATCHWORD_SECRET too, and a server that listens beyond
    this machine needs WATCHWORD_PUBLIC_URL. `watchword config` shows every setting.
    SIGTERM lets requests in flight finish, for at most 30 seconds.
    """
    try:
        from watchword.server import running  # noqa: PLC0415  uvicorn is an extra
    except ImportError as error:
        raise _without_server(error) from error
    running.serve(
        Serving(place=Place(data=data), host=host, port=port), workers=workers, say=typer.echo
    )


def dev(
    app: Annotated[str, typer.Argument(metavar="MODULE:APP", help="For example hello:app.")],
    host: Host = "127.0.0.1",
    port: Port = 8000,
    reload: Annotated[bool, typer.Option(help="Start again when a file changes.")] = True,
) -> None:
    """Run your own app in development.

    A missing secret is generated and kept in .watchword/, mail is printed, plain http is fine,
    and the app starts again when one of its files changes.
    """
    try:
        from watchword.server import running  # noqa: PLC0415  uvicorn is an extra
    except ImportError as error:
        raise _without_server(error) from error
    _check_name(app)
    running.develop(app, host=host, port=port, reload=reload, say=typer.echo)


def _without_server(error: ImportError) -> Exception:
    if (error.name or "").partition(".")[0] in {"uvicorn", "httptools", "h11", "prometheus_client"}:
        return Usage(_REMEDY)
    return error


def _check_name(app: str) -> None:
    module, colon, attribute = app.partition(":")
    if not colon or not all(module.split(".")) or not attribute:
        raise Usage(f"{app}: write MODULE:APP, for example hello:app")
    here = os.getcwd()  # noqa: PTH109  sys.path holds texts
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = importlib.util.find_spec(module)
    except (ModuleNotFoundError, ValueError):
        found = None
    if found is None:
        raise Usage(f"{app}: there is no module {module} in {here}")
