"""`watchword worker`."""

import asyncio
import contextlib
import signal
from pathlib import Path
from typing import Annotated

import typer

from watchword import logs
from watchword.app import App
from watchword.cli.options import DATA, AppName, app_named, shown
from watchword.server.serving import Place, Serving


def worker(
    data: Annotated[
        Path,
        typer.Option("--data", metavar="DIR", help="The folder of `watchword serve --data DIR`."),
    ] = DATA,
    app: AppName = None,
) -> None:
    """Do the background work, and nothing else: send mail, tidy up what is past its time.

    Web workers do it too unless WATCHWORD_BACKGROUND is off. Any number of these may run: as a
    rule one of them works, and when it stops another takes over: mail waits 15 seconds at most.
    It needs the settings of the web workers, the secret and WATCHWORD_PUBLIC_URL included,
    because it writes the links in mail. SIGTERM ends it.
    """
    auth = app_named(app) if app is not None else _served(data)
    logs.configure(format=auth.core.log_format, level=auth.core.log_level)
    asyncio.run(_work(auth))


def _served(data: Path) -> App:
    # As a server that listens on every address: in production it must be told where people
    # reach it, since it writes links to there.
    return Serving(place=Place(data=data), host="0.0.0.0", port=8000).watchword()  # noqa: S104


async def _work(auth: App) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # Windows ends it with KeyboardInterrupt
            loop.add_signal_handler(number, stop.set)
    async with auth.running(background=True):
        jobs = ", ".join(sorted(job.name for job in auth.jobs()))
        typer.echo(f"Working on {shown(auth)}: {jobs}. Ctrl-C ends it.", err=True)
        await stop.wait()
