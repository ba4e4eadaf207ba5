"""`watchword migrate`."""

import asyncio
from typing import Annotated

import typer

from watchword.cli.options import DATA, AppName, Chosen, Data, Database, choose, sqlite_file


def migrate(
    plan: Annotated[bool, typer.Option("--plan", help="Print what would be done; do nothing.")] = (
        False
    ),
    data: Data = DATA,
    database: Database = None,
    app: AppName = None,
) -> None:
    """Bring the database up to this version.

    Only adds: old and new workers of one major version run side by side meanwhile. An empty
    database is filled in at start anyway; this is for one that an older version made.
    """
    asyncio.run(_migrate(choose(data=data, database=database, app=app), plan=plan))


async def _migrate(chosen: Chosen, *, plan: bool) -> None:
    driver, records = chosen.auth.driver, chosen.auth.records
    file = sqlite_file(chosen.auth)
    if file is not None:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    is_new = file is not None and not file.exists()
    try:
        if plan:
            steps = await driver.plan(records)
            for step in steps:
                typer.echo(f"{step};")
        else:
            typer.echo(f"Migrating {chosen.database}", err=True)
            steps = await driver.migrate(records)
            for step in steps:
                typer.echo(step)
    finally:
        await driver.close()
        if plan and is_new and file is not None:
            for path in (
                file,
                file.with_name(f"{file.name}-wal"),
                file.with_name(f"{file.name}-shm"),
            ):
                path.unlink(missing_ok=True)
    if not steps:
        typer.echo(f"{chosen.database} is up to date.", err=True)
