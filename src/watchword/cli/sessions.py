"""`watchword sessions`."""

import asyncio
import json
import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console

from watchword.cli.configuration import print_table, printable
from watchword.cli.failures import Usage
from watchword.cli.options import (
    DATA,
    AppName,
    Chosen,
    Data,
    Database,
    Json,
    choose,
    records,
)
from watchword.features.sessions import Session, Sessions, agent_of
from watchword.features.users import User
from watchword.kernel.errors import SessionNotFound
from watchword.kernel.settings import parse_duration

sessions = typer.Typer(no_args_is_help=True, help="Sessions.", rich_markup_mode=None)

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
WHY = "operator"


@sessions.callback()
def sessions_command() -> None:
    """See who is signed in where, and end it; takes effect in running servers within 2 seconds."""


@sessions.command("list")
def list_sessions(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[USER]", help="An e-mail address or an id; else everybody's."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 100,
    after: Annotated[str | None, typer.Option(help="Go on where a list ended.")] = None,
    as_json: Json = False,
    data: Data = DATA,
    database: Database = None,
    app: AppName = None,
) -> None:
    """List sessions that live, the newest first.

    Addresses are shown where WATCHWORD_SECRET is set as it is for the servers: they are sealed.
    """
    chosen = _chosen(data=data, database=database, app=app)

    async def page() -> tuple[list[dict[str, Any]], str | None]:
        async with records(chosen) as auth:
            service = auth.sessions
            if name is None:
                everyones = await service.everyones(limit=limit, after=after)
                pairs, further = everyones.items, everyones.next
            else:
                user: User = await auth.users.find(name)
                theirs = await service.page(user, limit=limit, after=after)
                pairs, further = tuple((each, user) for each in theirs.items), theirs.next
            return [_listed(service, each, user) for each, user in pairs], further

    items, further = asyncio.run(page())
    if as_json:
        typer.echo(json.dumps({"items": items, "next": further}, indent=2, ensure_ascii=False))
        return
    print_table(
        ("id", "user", "device", "address", "transport", "started", "last seen"),
        (
            (
                each["id"],
                each["email"],
                each["name"] or each["device"],
                each["address"] or "",
                each["transport"],
                _short(each["started_at"]),
                _short(each["seen_at"]),
            )
            for each in items
        ),
    )
    if further is not None:
        typer.echo(f"There are more: --after {further}", err=True)


@sessions.command()
def show(
    session_id: Annotated[str, typer.Argument(metavar="ID", help="Of a session, over or not.")],
    as_json: Json = False,
    data: Data = DATA,
    database: Database = None,
    app: AppName = None,
) -> None:
    """Show one session: how it began, how it was refreshed, and when and why it ended.

    Nothing is printed that could be used: no token, no cookie, nor the digest of one.
    """
    chosen = _chosen(data=data, database=database, app=app)

    async def find() -> dict[str, Any]:
        async with records(chosen) as auth:
            session = await auth.sessions.get(session_id)
            if session is None:
                raise SessionNotFound
            user: User | None = await auth.users.get(session.user_id)
            return _shown(auth.sessions, session, user)

    fields = asyncio.run(find())
    if as_json:
        typer.echo(json.dumps(fields, indent=2, ensure_ascii=False))
        return
    for field, value in fields.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        typer.echo(f"{field:<18} {printable(text)}")


@sessions.command()
def end(
    session_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="The session to end.")
    ] = None,
    user: Annotated[
        str | None, typer.Option(metavar="USER", help="All of this user: an address or an id.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="All that were alive at or after TIME, whatever ended them since: "
            "2026-03-01T08:30:00Z, or 90m for 90 minutes ago.",
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All of everybody: everyone signs in again.")
    ] = False,
    yes: Yes = False,
    data: Data = DATA,
    database: Database = None,
    app: AppName = None,
) -> None:
    """End a session, or all of a user, of a time, or of everybody. Name one of the four.

    `--since` is for after a failover to a copy of the database that lagged: what was ended in the
    meantime may live again there. It and `--all` end everything that a user has begun, API keys
    and open links included, and look at every user: they say how far they are. `--all` does so
    for users without a session, too.
    """
    if sum((session_id is not None, user is not None, since is not None, everything)) != 1:
        raise Usage("name one of: ID, --user USER, --since TIME, --all")
    start = None if since is None else _instant(since)
    chosen = _chosen(data=data, database=database, app=app)
    if session_id is not None:
        _end_one(chosen, session_id)
    elif user is not None:
        _end_users(chosen, user)
    else:
        _confirm(start, yes=yes)
        _end_since(chosen, start)


def _end_one(chosen: Chosen, session_id: str) -> None:
    async def run() -> bool:
        async with records(chosen) as auth:
            if await auth.sessions.end(session_id, why=WHY):
                return True
            if await auth.sessions.get(session_id) is None:
                raise SessionNotFound
            return False

    done = asyncio.run(run())
    typer.echo(f"{'Ended' if done else 'Was over already:'} {printable(session_id)}")


def _end_users(chosen: Chosen, name: str) -> None:
    async def run() -> User:
        async with records(chosen) as auth:
            user: User = await auth.users.find(name)
            await auth.sessions.end_all(user.id, why=WHY)
            return user

    user = asyncio.run(run())
    typer.echo(f"Ended all sessions of {printable(user.email)} ({user.id})")


def _end_since(chosen: Chosen, start: datetime | None) -> None:
    async def run() -> tuple[int, int]:
        looked = ended = 0
        async with records(chosen) as auth:
            with Console(stderr=True).status("Looking at users") as status:
                async for looked, ended in auth.sessions.end_since(start, why=WHY):
                    status.update(f"{looked:,} users looked at, {ended:,} signed out")
        return looked, ended

    looked, ended = asyncio.run(run())
    typer.echo(f"{looked:,} users looked at, {ended:,} signed out everywhere")


def _confirm(start: datetime | None, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise Usage("there is nobody to ask: give --yes to end them")
    whose = "everybody" if start is None else f"everybody who was signed in since {start:%c} UTC"
    typer.confirm(f"Sign out {whose}?", abort=True)


def _instant(text: str) -> datetime:
    """An instant as it is written, or a time ago."""
    try:
        return datetime.now(UTC) - parse_duration(text)
    except (ValueError, OverflowError):
        pass
    try:
        instant = datetime.fromisoformat(text.strip())
        if instant.tzinfo is not None:
            return instant.astimezone(UTC)
    except (ValueError, OverflowError):
        raise Usage(
            f"--since {printable(text)}: write 2026-03-01T08:30:00Z, or 90m, 8h, 7d for that "
            "long ago"
        ) from None
    raise Usage(f"--since {printable(text)}: say in which zone: add Z for UTC, or +02:00")


def _chosen(**where: Any) -> Chosen:
    chosen = choose(**where)
    if not chosen.auth.has("sessions"):
        raise Usage("this app has no sessions: the feature is not installed")
    return chosen


def _listed(service: Sessions, session: Session, user: User) -> dict[str, Any]:
    return {
        "id": session.id,
        "user_id": user.id,
        "email": user.email,
        "name": session.device_name,
        "device": agent_of(session.user_agent).spoken,
        "address": service.address(session),
        "transport": session.transport,
        "app": session.app,
        "amr": list(session.amr),
        "remembered": session.remembered,
        "started_at": _written(session.started_at),
        "seen_at": _written(session.seen_at),
        "expires_at": _written(session.expires_at),
    }


def _shown(service: Sessions, session: Session, user: User | None) -> dict[str, Any]:
    """The session and its chain, without anything that proves something."""
    state, why = _state(service, session, user)
    return {
        "id": session.id,
        "user_id": session.user_id,
        "email": None if user is None else user.email,
        "state": state,
        "why": why,
        "ended_at": _written(session.ended_at),
        "name": session.device_name,
        "device": agent_of(session.user_agent).spoken,
        "user_agent": session.user_agent,
        "address": service.address(session),
        "transport": session.transport,
        "app": session.app,
        "amr": list(session.amr),
        "remembered": session.remembered,
        "bound_to_address": session.binding is not None,
        "started_at": _written(session.started_at),
        "proven_at": _written(session.auth_time),
        "seen_at": _written(session.seen_at),
        "idle_expires_at": _written(session.idle_expires_at),
        "expires_at": _written(session.expires_at),
        "has_refresh_token": session.refresh_current is not None,
        "rotations": session.refresh_rotations,
        "rotated_at": _written(session.refresh_rotated_at),
        "refresh_expires_at": _written(session.refresh_expires_at),
        "epoch": session.epoch,
        "users_epoch": None if user is None else user.epoch,
    }


def _state(service: Sessions, session: Session, user: User | None) -> tuple[str, str | None]:
    now = service.clock.now()
    if session.ended_at is not None:
        return "ended", session.ended_why
    if user is None:
        return "ended", "the user is gone"
    if not user.is_active:
        return "ended", "the account is disabled"
    if session.epoch != user.epoch:
        return "ended", "all sessions of the user were ended (epoch raised)"
    if session.expires_at <= now:
        return "expired", "at its longest life"
    if session.idle_expires_at <= now:
        return "expired", "not used for too long"
    return "alive", None


def _written(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat(timespec="seconds")


def _short(written: str) -> str:
    return written[:16].replace("T", " ")
