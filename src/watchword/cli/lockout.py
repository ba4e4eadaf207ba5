"""`watchword lockout`."""

import asyncio
import json
import math
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import typer

from watchword.cli.configuration import print_table, printable
from watchword.cli.failures import Usage
from watchword.cli.options import DATA, AppName, Chosen, Data, Database, Json, choose, records
from watchword.features.lockout import Lock
from watchword.kernel.quotas import Standing
from watchword.presets import Watchword

lockout = typer.Typer(no_args_is_help=True, help="Who waits.", rich_markup_mode=None)

Email = Annotated[
    str | None,
    typer.Argument(metavar="[EMAIL]", help="Failures at the account of this e-mail address."),
]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="IP", help="Failures from this address; with EMAIL, at that account from there."
    ),
]
BY = "operator"


@lockout.callback()
def lockout_command() -> None:
    """See who waits after failures, and let them in; needs the secret of the servers.

    Addresses, of mail and of the network, are kept as keyed hashes: ask for one to find it.
    """


@lockout.command()
def show(
    email: Email = None,
    address: Address = None,
    limit: Annotated[
        int, typer.Option(min=1, max=1000, help="How many at most, where nobody is named.")
    ] = 100,
    after: Annotated[str | None, typer.Option(help="Go on where a list ended.")] = None,
    as_json: Json = False,
    data: Data = DATA,
    database: Database = None,
    app: AppName = None,
) -> None:
    """Show the failures that count now, and until when one waits; without a name everybody's.

    And of the limits of sign-in and the like, those of which EMAIL has used something.

    `pair` is an account from an address, `device` an account from a device that it knows,
    `account` an account from wherever, `address` an address at whatever accounts.
    """
    chosen = _chosen(data=data, database=database, app=app)

    async def find() -> tuple[list[Lock], str | None, Sequence[Standing]]:
        async with records(chosen) as auth:
            if email is None and address is None:
                page = await auth.lockout.locks(limit=limit, after=after)
                return list(page.items), page.next, ()
            found = await auth.lockout.show(email=email, address=address)
            return found, None, await _standings(auth, email, address)

    found, further, standings = asyncio.run(find())
    items, limits = [_shown(each) for each in found], [_limit(each) for each in standings]
    if as_json:
        shown = {"items": items, "limits": limits, "next": further}
        typer.echo(json.dumps(shown, indent=2))
        return
    if not items and not limits and further is None:
        typer.echo("No failures that count now")
        return
    print_table(
        ("what", "failures", "waits until", "forgotten at"),
        (
            (
                str(each["what"]),
                str(each["failures"]),
                str(each["until"] or ""),
                str(each["forgotten_at"]),
            )
            for each in items
        ),
    )
    if limits:
        print_table(
            ("limit of", "how many", "left", "opens in seconds"),
            (tuple(str(value) for value in each.values()) for each in limits),
        )
    if further is not None:
        typer.echo(f"There are more: --after {further}", err=True)


@lockout.command()
def clear(
    email: Email = None,
    address: Address = None,
    data: Data = DATA,
    database: Database = None,
    app: AppName = None,
) -> None:
    """Forget failures, and what limits counted, so that one need not wait. At once, everywhere."""
    if email is None and address is None:
        raise Usage("name an EMAIL, or an address with --address, or both")
    chosen = _chosen(data=data, database=database, app=app)

    async def forget() -> int:
        async with records(chosen) as auth:
            if auth.has("limits"):
                await _reset_limits(auth, email, address)
            return await auth.lockout.clear(email=email, address=address, by=BY)

    forgotten = asyncio.run(forget())
    whose = " from ".join(printable(each) for each in (email, address) if each is not None)
    typer.echo(f"Cleared {whose}: {forgotten} counts forgotten")


def _chosen(**where: Any) -> Chosen:
    chosen = choose(seals=True, **where)  # what is kept are hashes under the servers' secret
    if not chosen.auth.has("lockout"):
        raise Usage("this app has no lockout: the feature is not installed")
    return chosen


async def _standings(auth: Watchword, email: str | None, address: str | None) -> Sequence[Standing]:
    if not auth.has("limits"):
        return ()
    if email is not None:
        return await auth.limits.status(email, address=address)
    standings = await auth.limits.peek("login", address=address)
    return [each for each in standings if each.left < each.quota.tries]


async def _reset_limits(auth: Watchword, email: str | None, address: str | None) -> None:
    if email is not None:
        await auth.limits.clear(email, address=address)
    else:
        await auth.limits.reset("login", address=address)


def _limit(standing: Standing) -> dict[str, object]:
    return {
        "action": standing.action,
        "limit": str(standing.quota),
        "left": standing.left,
        "opens_in": math.ceil(standing.opens.total_seconds()),
    }


def _shown(lock: Lock) -> dict[str, object]:
    return {
        "what": lock.what,
        "failures": lock.failures,
        "until": _written(lock.until),
        "forgotten_at": _written(lock.forgotten_at),
    }


def _written(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat(timespec="seconds")
