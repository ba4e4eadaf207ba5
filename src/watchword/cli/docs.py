"""`watchword docs`."""

from pathlib import Path
from typing import Annotated

import typer

from watchword.cli.failures import FAILED
from watchword.cli.reference import stale_pages, write_pages


def docs(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder of the docs.")] = (
        Path("docs")
    ),
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail if a page is not up to date.")
    ] = False,
) -> None:
    """Write the pages that are made from the code: settings, errors, events and commands.

    They are DIR/reference/settings.md, errors.md, events.md and cli.md, and DIR/what-ends.md.
    """
    if not check:
        for path in write_pages(out):
            typer.echo(f"Wrote {path}")
        return
    stale = stale_pages(out)
    for path in stale:
        typer.echo(f"{path} is not up to date: run `watchword docs --out {out}`", err=True)
    if stale:
        raise typer.Exit(FAILED)
    typer.echo(f"The pages in {out} are up to date")
