"""`watchword audit`."""

import asyncio
import json
import sys
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal, TextIO, cast

import typer

from watchword.app import App
from watchword.cli.configuration import print_table, printable
from watchword.cli.failures import FAILED, Usage
from watchword.cli.journal import made_private
from watchword.cli.options import DATA, AppName, Data, Database, Json, choose, records
from watchword.features.audit import Audit, AuditEntry, Summary, Verified, view_of
from watchword.kernel.clock import SystemClock
from watchword.kernel.errors import FeatureNotInstalled
from watchword.kernel.settings import parse_duration
from watchword.storage.store import Page

audit = typer.Typer(
    no_args_is_help=True, help="What happened, and the seals over it.", rich_markup_mode=None
)

Within = Annotated[
    str, typer.Option(metavar="DURATION", help="How far back: 90m, 24h, 7d.", show_default=True)
]
Since = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="None older: 2026-03-01T08:30:00Z, or 90m, 8h, 7d ago."),
]


@audit.callback()
def audit_command() -> None:
    """Who did what, when, from where and with what result; and whether anybody changed it since."""


@audit.command("list")
def list_entries(
    within: Within = "24h",
    action: Annotated[
        str | None, typer.Option(help="Only this: login_failed, password_changed, …")
    ] = None,
    failed: Annotated[
        bool | None, typer.Option("--failed/--succeeded", help="Only what went wrong, or well.")
    ] = None,
    user: Annotated[
        str | None, typer.Option(help="Only what is about this user: an address or an id.")
    ] = None,
    email: Annotated[
        str | None, typer.Option(help="Only failed sign-ins with this address, known or not.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(metavar="IP", help="Only what came from this address.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 100,
    after: Annotated[str | None, typer.Option(help="Go on where a list ended.")] = None,
    as_json: Json = False,
    data: Data = DATA,
    database: Database = None,
    app: AppName = None,
) -> None:
    """List what happened, the newest first.

    Addresses are kept as keyed hashes: to look for one, the secret of the servers is needed.
    """
    if sum(each is not None for each in (user, email, address)) > 1:
        raise Usage("name one of --user, --email, --address")
    if (user, email, address) != (None, None, None) and (action, failed) != (None, None):
        raise Usage("--action, --failed and --succeeded go without --user, --email and --address")
    back = _duration("--within", within)
    is_hashed = email is not None or address is not None or (user is not None and "@" in user)
    chosen = choose(data=data, database=database, app=app, seals=is_hashed)

    async def page() -> Page[AuditEntry]:
        async with records(chosen) as auth:
            found = _installed(auth)
            if user is not None:
                return await found.user_activity(user, within=back, limit=limit, after=after)
            if email is not None:
                return await found.failed_logins(email=email, within=back, limit=limit, after=after)
            if address is not None:
                return await found.address_activity(address, within=back, limit=limit, after=after)
            return await found.recent(
                within=back,
                action=action,
                success=None if failed is None else not failed,
                limit=limit,
                after=after,
            )

    found = asyncio.run(page())
    if as_json:
        items = [view_of(entry) for entry in found.items]
        typer.echo(json.dumps({"items": items, "next": found.next}, indent=2))
        return
    print_table(
        ("time", "action", "result", "user", "by", "from", "details"),
        (_line(entry) for entry in found.items),
    )
    if found.next is not None:
        typer.echo(f"There are more: --after {found.next}", err=True)


@audit.command()
def summary(
    within: Within = "24h",
    as_json: Json = False,
    data: Data = DATA,
    database: Database = None,
    app: AppName = None,
) -> None:
    """Count what happened."""
    back = _duration("--within", within)
    chosen = choose(data=data, database=database, app=app)

    async def run() -> Summary:
        async with records(chosen) as auth:
            return await _installed(auth).security_summary(within=back)

    found = asyncio.run(run())
    if as_json:
        counted = {
            "since": found.since.isoformat(),
            "total": found.total,
            "failures": found.failures,
            "actions": found.actions,
        }
        typer.echo(json.dumps(counted, indent=2))
        return
    typer.echo(
        f"{found.total} entries since {found.since:%Y-%m-%d %H:%M} UTC, {found.failures} failures"
    )
    most = sorted(found.actions.items(), key=lambda each: (-each[1], each[0]))
    print_table(("action", "count"), ((name, str(many)) for name, many in most))


@audit.command()
def export(
    form: Annotated[
        Literal["jsonl", "csv"], typer.Option("--format", help="One JSON object a line, or CSV.")
    ] = "jsonl",
    since: Since = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="None younger.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="A new file for this user only, instead of stdout.")
    ] = None,
    data: Data = DATA,
    database: Database = None,
    app: AppName = None,
) -> None:
    """Write every entry out, the oldest first, for whoever keeps them elsewhere."""
    begin, end = _instant("--since", since), _instant("--until", until)
    chosen = choose(data=data, database=database, app=app)

    async def run(file: TextIO) -> None:
        async with records(chosen) as auth:
            lines = _installed(auth).export(form, since=begin, until=end)
            async for line in lines:
                file.write(line)

    with _target(output) as file:
        asyncio.run(run(file))


@audit.command()
def verify(
    head: Annotated[
        list[str] | None,
        typer.Option(help="Digest of a seal, from the log: it must be there. May be repeated."),
    ] = None,
    as_json: Json = False,
    data: Data = DATA,
    database: Database = None,
    app: AppName = None,
) -> None:
    """Compare every entry with its seal; 1 if any was edited, removed, moved or put in.

    What is younger than about two minutes has no seal yet. Without --head nobody can tell whether
    the newest seals were removed together with their entries.
    """
    chosen = choose(data=data, database=database, app=app, seals=True)

    async def run() -> Verified:
        async with records(chosen) as auth:
            return await _installed(auth).verify(heads=head or ())

    found = asyncio.run(run())
    if as_json:
        typer.echo(json.dumps(_json(found), indent=2))
    else:
        _print(found)
    if not found.is_whole:
        raise typer.Exit(FAILED)


@audit.command()
def seal(data: Data = DATA, database: Database = None, app: AppName = None) -> None:
    """Seal what is a minute old. Running servers, and `watchword worker`, do so every minute."""
    chosen = choose(data=data, database=database, app=app, seals=True)

    async def run() -> Verified:
        async with records(chosen) as auth:
            found = _installed(auth)
            while await found.seal():
                pass
            return await found.verify()

    found = asyncio.run(run())
    typer.echo(f"{found.seals} seals, head {found.head or '-'}; {found.unsealed} entries wait")


@audit.command()
def key(data: Data = DATA, database: Database = None, app: AppName = None) -> None:
    """Print the public keys of seals as a JWKS, to verify them elsewhere."""
    chosen = choose(data=data, database=database, app=app, seals=True)
    keys = [each.public_jwk() for each in _installed(chosen.auth).seals.ring()]
    typer.echo(json.dumps({"keys": keys}, indent=2))


def _print(found: Verified) -> None:
    for fault in found.faults:
        where = "" if fault.seal is None else f"seal {fault.seal}: "
        typer.echo(printable(f"{where}{fault.detail} ({fault.what})"))
    if not found.is_whole:
        typer.echo(f"{len(found.faults)} faults in {found.seals} seals", err=True)
        return
    typer.echo(f"All as it was sealed: {found.entries} entries in {found.seals} seals")
    if found.expired:
        typer.echo(f"{found.expired} more were kept as long as they are to be")
    if found.erased:
        typer.echo(f"{found.erased} without what was personal in them")
    typer.echo(f"{found.unsealed} wait for their seal")
    if found.overdue:
        typer.echo(
            "some for over ten minutes: is a server or `watchword worker` running?", err=True
        )
    if found.late:
        typer.echo(
            f"{found.late} seals were made over an hour after what they sign: was no server "
            "running then? If one was, somebody may have had changed entries sealed anew",
            err=True,
        )
    typer.echo(f"Head: {found.head or '-'}")


def _json(found: Verified) -> dict[str, object]:
    return {
        "whole": found.is_whole,
        "seals": found.seals,
        "entries": found.entries,
        "expired": found.expired,
        "erased": found.erased,
        "unsealed": found.unsealed,
        "overdue": found.overdue,
        "late": found.late,
        "head": found.head or None,
        "faults": [
            {
                "what": fault.what,
                "seal": fault.seal,
                "entry_id": fault.entry_id,
                "detail": fault.detail,
            }
            for fault in found.faults
        ],
    }


def _line(entry: AuditEntry) -> tuple[str, ...]:
    details = ", ".join(f"{name}={_said(value)}" for name, value in entry.details.items())
    return (
        f"{entry.at:%Y-%m-%d %H:%M:%S}",
        entry.action,
        entry.result,
        entry.user_id or "",
        entry.actor,
        entry.address or "",
        details,
    )


def _said(value: object) -> str:
    many = cast("tuple[object, ...]", value) if isinstance(value, tuple) else (value,)
    return " ".join(str(each) for each in many)


@contextmanager
def _target(output: Path | None) -> Generator[TextIO]:
    if output is None:
        yield sys.stdout
        return
    with made_private(output, option="--output") as file:
        yield file


def _duration(option: str, text: str) -> timedelta:
    try:
        return parse_duration(text)
    except (ValueError, OverflowError) as error:
        raise Usage(f"{option} {printable(text)}: write 90m, 24h or 7d") from error


def _instant(option: str, text: str | None) -> datetime | None:
    """A time with its zone, or a duration before now."""
    if text is None:
        return None
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        return _now() - _duration(option, text)
    if read.tzinfo is None:
        raise Usage(f"{option} {printable(text)}: say in which zone: add Z for UTC, or +02:00")
    return read


def _now() -> datetime:
    return SystemClock().now()


def _installed(auth: App) -> Audit:
    try:
        return auth.service(Audit)
    except FeatureNotInstalled as error:
        raise Usage("this app has no audit: add audit() to its features") from error
