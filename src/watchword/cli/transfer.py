"""`watchword import` and `watchword export`."""

import asyncio
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO, cast

import typer

from watchword.cli.configuration import printable
from watchword.cli.failures import FAILED, Usage
from watchword.cli.journal import Journal, made_private, report, summary, telling
from watchword.cli.options import (
    DATA,
    AppName,
    Chosen,
    Data,
    Database,
    choose,
    records,
    sqlite_file,
)
from watchword.cli.origins import Named, columns_of, named, opened
from watchword.crypto.foreign import read_base64
from watchword.features.transfer import (
    FIELDS,
    FirebaseParameters,
    Reading,
    Source,
    Transfer,
    as_csv,
    as_json,
)
from watchword.features.transfer import (
    columns_of as columns_given_out,
)
from watchword.presets import Watchword
from watchword.storage.record import schema_of

From = Literal["fastapi-users", "django", "myauth", "firebase", "csv", "jsonl"]


def import_users(  # noqa: PLR0917  options of a command, given by name
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE|URL", help="A file of users, or the database that holds their table."
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--source",
            metavar="URL",
            help="The database, as SQLAlchemy writes it: sqlite:///old.db, postgresql://…; it is "
            "only read. PGPASSWORD or ~/.pgpass keep a password out of the command line.",
        ),
    ] = None,
    origin: Annotated[
        From | None,
        typer.Option(
            "--from", help="What it is; else .csv and .jsonl say so, and a table needs --map."
        ),
    ] = None,
    table: Annotated[
        str | None, typer.Option(metavar="NAME", help="The table, where it is not the usual one.")
    ] = None,
    maps: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="OURS=THEIRS",
            help=f"Which column fills a field: {', '.join(FIELDS)}, or one of your own fields. "
            "May be repeated.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, write nothing.")
    ] = False,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Keep the place there after each batch, and go on from there if it was stopped.",
        ),
    ] = None,
    on_conflict: Annotated[
        Literal["skip", "fail"],
        typer.Option(help="What to do where an address or an id is another user's here."),
    ] = "skip",
    trust_verified: Annotated[
        bool, typer.Option(help="Does it count that the source says an address is verified?")
    ] = True,
    verified: Annotated[
        bool, typer.Option("--verified", help="All addresses are verified, say you.")
    ] = False,
    roles: Annotated[
        bool,
        typer.Option(
            "--roles", help="Keep roles too; a superuser gets the role admin. Else nobody has any."
        ),
    ] = False,
    report_to: Annotated[
        Path | None,
        typer.Option(
            "--report", metavar="FILE", help="Write which rows were refused, one JSON a line."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many rows.")] = None,
    rounds: Annotated[
        int, typer.Option("--firebase-rounds", min=1, max=64, help="Firebase: `rounds`.")
    ] = 8,
    mem_cost: Annotated[
        int, typer.Option("--firebase-mem-cost", min=1, max=20, help="Firebase: `mem_cost`.")
    ] = 14,
    separator: Annotated[
        str,
        typer.Option("--firebase-salt-separator", help="Firebase: `base64_salt_separator`."),
    ] = "Bw==",
    data: Data = DATA,
    database: Database = None,
    app: AppName = None,
) -> None:
    """Bring users in from a file or from the table of another system, hashes kept.

    Everybody signs in with the password they have; the first sign-in replaces its hash by one of
    ours. Who is here already is left alone, so the same command can be run again. No mail is
    sent. Exit code 1: some rows were refused. Passwords that are no hashes are never read.
    """
    if dry_run and resume is not None:
        raise Usage("--dry-run keeps no place: leave out --resume")
    if verified and not trust_verified:
        raise Usage("--verified and --no-trust-verified: keep one")
    name = named(what, source, origin=origin, table=table, maps=maps or ())
    chosen = choose(data=data, database=database, app=app)
    asyncio.run(
        _Import(
            name=name,
            chosen=chosen,
            dry=dry_run,
            journal=Journal(
                path=resume,
                source=name.digest,
                target=f"{chosen.database} {chosen.auth.core.realm}",
            ),
            stop_at_conflict=on_conflict == "fail",
            verified="all" if verified else "trust" if trust_verified else "none",
            roles=roles,
            report_to=report_to,
            limit=limit,
            firebase=(rounds, mem_cost, separator),
        ).run()
    )


class _Import:
    """One run of `watchword import`."""

    def __init__(
        self,
        *,
        name: Named,
        chosen: Chosen,
        dry: bool,
        journal: Journal,
        stop_at_conflict: bool,
        verified: Literal["trust", "none", "all"],
        roles: bool,
        report_to: Path | None,
        limit: int | None,
        firebase: tuple[int, int, str],
    ) -> None:
        self._name = name
        self._chosen = chosen
        self._dry = dry
        self._journal = journal
        self._stop_at_conflict = stop_at_conflict
        self._verified: Literal["trust", "none", "all"] = verified
        self._roles = roles
        self._report_to = report_to
        self._limit = limit
        self._firebase = firebase
        self._transfer = _transfer_of(chosen)

    async def run(self) -> None:
        """Read, write, and say what became of it."""
        journal = self._journal
        journal.open()
        line = journal.tally.read
        with ExitStack() as files:
            async with opened(self._name, after=journal.place, line=line) as source:
                reading = self._reading(source)
                file = (
                    files.enter_context(
                        made_private(self._report_to, option="--report", again=journal.goes_on)
                    )
                    if self._report_to is not None
                    else None
                )
                async with _target(self._chosen, dry=self._dry) as look:
                    stopped = await self._through(source, reading, file, look=look)
        if stopped:
            typer.echo("Stopped: an address or an id is another user's here.", err=True)
        if journal.tally.refused:
            raise typer.Exit(FAILED)

    def _reading(self, source: Source) -> Reading:
        fields = (*FIELDS, *self._transfer.fields)
        columns = columns_of(source, self._name, known=fields)
        unread = [each for each in source.columns or () if each not in columns.values()]
        if unread:
            typer.echo(f"Columns that are not read: {printable(', '.join(unread))}", err=True)
        return Reading(
            origin=self._name.origin,
            columns=columns,
            verified=self._verified,
            roles=self._roles,
            firebase=self._parameters() if self._name.origin == "firebase" else None,
        )

    def _parameters(self) -> FirebaseParameters:
        signers = self._transfer.signers()
        if not signers:
            raise Usage(
                "Firebase's hashes need the project's base64_signer_key: put it into a file that "
                "WATCHWORD_PASSWORDS__FIREBASE_SIGNER_KEYS_FILE names, here and for your servers"
            )
        rounds, mem_cost, separator = self._firebase
        salt_separator = read_base64(separator) if separator else b""
        if salt_separator is None:
            raise Usage("--firebase-salt-separator is no base64")
        return FirebaseParameters(
            signer=signers[0], rounds=rounds, mem_cost=mem_cost, salt_separator=salt_separator
        )

    async def _through(
        self, source: Source, reading: Reading, file: TextIO | None, *, look: bool
    ) -> bool:
        """Bring them in; tells whether it stopped at a conflict."""
        journal, began = self._journal, time.monotonic()
        before, stopped = journal.tally.read, False
        with telling(began=began) as say:
            steps = self._transfer.bring_in(
                source,
                reading=reading,
                tally=journal.tally,
                limit=self._limit,
                write=not self._dry,
                look=look,
                stop_at_conflict=self._stop_at_conflict,
            )
            async with aclosing(steps):
                async for step in steps:
                    report(file, step.refusals)
                    stopped = step.stopped
                    if not stopped:
                        journal.keep(step.place)
                    say(journal.tally)
        reached = self._limit is not None and journal.tally.read - before >= self._limit
        if not stopped and not reached:
            journal.close()
        lines = summary(
            journal.tally,
            source=self._name.shown,
            target=self._chosen.database,
            seconds=time.monotonic() - began,
            dry=self._dry,
        )
        for line in lines:
            typer.echo(printable(line))
        return stopped


@asynccontextmanager
async def _target(chosen: Chosen, *, dry: bool) -> AsyncGenerator[bool]:
    """Open the database; in a dry run tells whether there are users to compare with.

    A dry run makes neither a file nor tables: where there are none, everybody is new.
    """
    if not dry:
        async with records(chosen, may_create=True):
            yield True
        return
    file = sqlite_file(chosen.auth)
    absent = file is not None and not file.exists()
    if not absent:
        try:
            absent = bool(await chosen.auth.driver.plan(chosen.auth.records))
        finally:
            await chosen.auth.driver.close()
    if absent:
        typer.echo(f"{chosen.database} has no users of this version yet", err=True)
        yield False
        return
    async with records(chosen):
        yield True


def _transfer_of(chosen: Chosen) -> Transfer:
    if not chosen.auth.has("transfer"):
        raise Usage("your app has no import: add transfer() to its features")
    auth = cast("Watchword", chosen.auth)
    adoption: Any = getattr(schema_of(auth.users.kind), "adoption", None)
    if adoption is not None and adoption.ids != "text":
        raise Usage("your users live in a table of your own, which gives them their ids")
    return auth.transfer


def export_users(
    file_format: Annotated[
        Literal["jsonl", "csv"], typer.Option("--format", help="JSON lines or CSV.")
    ] = "jsonl",
    hashes: Annotated[
        bool,
        typer.Option(
            "--hashes", help="The hashes of passwords too: whoever has them can guess at leisure."
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A new file, readable by you only; else stdout."),
    ] = None,
    data: Data = DATA,
    database: Database = None,
    app: AppName = None,
) -> None:
    """Write all users, the oldest first, in a form that `watchword import` reads."""
    if hashes and output is None and sys.stdout.isatty():
        raise Usage("hashes do not belong on a screen: name a file with --output")
    chosen = choose(data=data, database=database, app=app)
    transfer = _transfer_of(chosen)

    async def write(to: TextIO) -> int:
        many, is_screen = 0, to.isatty()
        async with records(chosen) as auth:
            columns = columns_given_out(auth.users.kind, hashes=hashes)
            if file_format == "csv":
                to.write(",".join(columns) + "\n")
            async with aclosing(transfer.give_out(hashes=hashes)) as pages:
                async for page in pages:
                    many += len(page)
                    for fields in page:
                        line = (
                            as_json(fields) if file_format == "jsonl" else as_csv(fields, columns)
                        )
                        # What users wrote of themselves must not command a terminal.
                        to.write(f"{printable(line[:-1])}\n" if is_screen else line)
        return many

    if output is None:
        asyncio.run(write(sys.stdout))
        return
    with made_private(output, option="--output") as file:
        try:
            many = asyncio.run(write(file))
        except BaseException:
            output.unlink(missing_ok=True)  # half an export looks like a whole one
            raise
    typer.echo(f"Wrote {many:,} users to {output}", err=True)
