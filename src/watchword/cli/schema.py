"""`watchword migrate`."""

import asyncio
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Annotated

import typer

from watchword.cli.options import (
    DATA,
    AppName,
    Chosen,
    Data,
    Database,
    choose,
    make_file,
    sqlite_file,
)
from watchword.storage.store import Driver


def migrate(
    plan: Annotated[bool, typer.Option("--plan", help="Print what would be done; do nothing.")] = (
        False
    ),
    skip_faulty: Annotated[
        bool,
        typer.Option(
            "--skip-faulty",
            help="Of your own table, rows without an address of their own become nobody's.",
        ),
    ] = False,
    data: Data = DATA,
    database: Database = None,
    app: AppName = None,
) -> None:
    """Bring the database up to this version.

    Only adds: old and new workers of one major version run side by side meanwhile. An empty
    database is filled in at start anyway; this is for one that an older version made, and for
    a table of your own whose rows are to be users.
    """
    chosen = choose(data=data, database=database, app=app)
    asyncio.run(_migrate(chosen, plan=plan, skip_faulty=skip_faulty))


async def _migrate(chosen: Chosen, *, plan: bool, skip_faulty: bool) -> None:
    driver, records = chosen.auth.driver, chosen.auth.records
    file = sqlite_file(chosen.auth)
    if file is not None and not plan:
        make_file(file)
    elif file is not None and not file.exists():
        # Looking makes no file, so that nothing has to be tidied away: a server may have started
        # on it meanwhile.
        driver = _in_memory()
    try:
        if plan:
            steps = await driver.plan(records)
            for step in steps:
                typer.echo(step if step.startswith("--") else f"{step};")
        else:
            typer.echo(f"Migrating {chosen.database}", err=True)
            steps = await driver.migrate(records, skip_faulty=skip_faulty)
            for step in steps:
                typer.echo(step)
    finally:
        await driver.close()
    if not steps:
        typer.echo(f"{chosen.database} is up to date.", err=True)


def _in_memory() -> Driver:
    found = next(iter(entry_points(group="watchword.stores", name="sqlite")))
    make: Callable[[str], Driver] = found.load()
    return make("sqlite://")
