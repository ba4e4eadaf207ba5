"""`watchword webhooks`."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import typer

from watchword.cli.configuration import print_table, printable
from watchword.cli.failures import Usage
from watchword.cli.options import DATA, AppName, Chosen, Data, Database, Json, choose, records
from watchword.features.webhooks import (
    DeliveryFailed,
    IssuedEndpoint,
    TargetRefused,
    WebhookDelivery,
    WebhookEndpoint,
    Webhooks,
)
from watchword.kernel.errors import FeatureNotInstalled
from watchword.presets import Watchword
from watchword.storage.store import Page

webhooks = typer.Typer(
    no_args_is_help=True, help="Endpoints of others that hear of events.", rich_markup_mode=None
)

T = TypeVar("T")
EndpointId = Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.")]


@webhooks.callback()
def webhooks_command() -> None:
    """Endpoints of others that hear of events, signed as Standard Webhooks."""


@webhooks.command()
def add(
    url: Annotated[str, typer.Argument(metavar="URL", help="https://host/path")],
    events: Annotated[
        list[str],
        typer.Option(help="Of what: user.created, session.*, or *; may be repeated."),
    ],
    with_email: Annotated[
        bool, typer.Option("--with-email", help="Send the address of users where it is known.")
    ] = False,
    data: Data = DATA,
    database: Database = None,
    app: AppName = None,
) -> None:
    """Let an endpoint hear of events, and print its secret: this one time."""
    chosen = choose(data=data, database=database, app=app, seals=True)
    made = _run(
        chosen,
        lambda hooks: hooks.add(url, events=events, with_email=with_email),
        may_create=True,
    )
    _print_secret("Added", made)


@webhooks.command("list")
def list_endpoints(
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many at most.")] = 100,
    after: Annotated[str | None, typer.Option(help="Go on where a list ended.")] = None,
    as_json: Json = False,
    data: Data = DATA,
    database: Database = None,
    app: AppName = None,
) -> None:
    """List endpoints, the oldest first."""
    chosen = choose(data=data, database=database, app=app)
    found = _run(chosen, lambda hooks: hooks.page(limit=limit, after=after))
    if as_json:
        _print_json({"items": [_endpoint(each) for each in found.items], "next": found.next})
        return
    print_table(("id", "url", "events", "state", "created"), (_row(each) for each in found.items))
    _print_next(found)


@webhooks.command()
def show(
    endpoint_id: EndpointId,
    data: Data = DATA,
    database: Database = None,
    app: AppName = None,
) -> None:
    """Print one endpoint as JSON, and how much waits for it."""
    chosen = choose(data=data, database=database, app=app)

    async def look(hooks: Webhooks) -> dict[str, Any]:
        endpoint = await hooks.get(endpoint_id)
        return {**_endpoint(endpoint), "waiting": await hooks.waiting(endpoint.id)}

    _print_json(_run(chosen, look))


@webhooks.command()
def rotate(
    endpoint_id: EndpointId,
    data: Data = DATA,
    database: Database = None,
    app: AppName = None,
) -> None:
    """Print a fresh secret; the former one signs too until `webhooks.overlap` is over."""
    chosen = choose(data=data, database=database, app=app, seals=True)
    _print_secret("Rotated", _run(chosen, lambda hooks: hooks.rotate(endpoint_id)))


@webhooks.command()
def enable(
    endpoint_id: EndpointId,
    data: Data = DATA,
    database: Database = None,
    app: AppName = None,
) -> None:
    """Let an endpoint hear of events again."""
    chosen = choose(data=data, database=database, app=app)
    _run(chosen, lambda hooks: hooks.enable(endpoint_id))
    typer.echo(f"Enabled {printable(endpoint_id)}")


@webhooks.command()
def disable(
    endpoint_id: EndpointId,
    data: Data = DATA,
    database: Database = None,
    app: AppName = None,
) -> None:
    """Let an endpoint hear of nothing; what waits for it is given up."""
    chosen = choose(data=data, database=database, app=app)
    _run(chosen, lambda hooks: hooks.disable(endpoint_id))
    typer.echo(f"Disabled {printable(endpoint_id)}")


@webhooks.command()
def remove(
    endpoint_id: EndpointId,
    data: Data = DATA,
    database: Database = None,
    app: AppName = None,
) -> None:
    """Forget an endpoint, and all that waits for it."""
    chosen = choose(data=data, database=database, app=app)
    _run(chosen, lambda hooks: hooks.remove(endpoint_id))
    typer.echo(f"Removed {printable(endpoint_id)}")


@webhooks.command("test")
def send_test(
    endpoint_id: EndpointId,
    data: Data = DATA,
    database: Database = None,
    app: AppName = None,
) -> None:
    """Send a `webhook.test` now and say what came of it; exit status 1 if it was not taken."""
    chosen = choose(data=data, database=database, app=app, seals=True)
    try:
        status = _run(chosen, lambda hooks: hooks.test(endpoint_id))
    except DeliveryFailed as failed:
        typer.echo(f"Not taken: {printable(failed.note)}", err=True)
        raise typer.Exit(1) from failed
    except TargetRefused as refused:
        typer.echo(f"Not sent: the address {refused}", err=True)
        raise typer.Exit(1) from refused
    typer.echo(f"Taken: {status}")


@webhooks.command()
def retry(
    endpoint_id: EndpointId,
    data: Data = DATA,
    database: Database = None,
    app: AppName = None,
) -> None:
    """Have all that waits for an endpoint tried now. What was given up has no body any more."""
    chosen = choose(data=data, database=database, app=app)
    hurried = _run(chosen, lambda hooks: hooks.retry(endpoint_id))
    typer.echo(f"{hurried} are tried now")


@webhooks.command()
def dead(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 100,
    after: Annotated[str | None, typer.Option(help="Go on where a list ended.")] = None,
    as_json: Json = False,
    data: Data = DATA,
    database: Database = None,
    app: AppName = None,
) -> None:
    """List what was given up: which kind, to whom, and why; its body is gone."""
    chosen = choose(data=data, database=database, app=app)
    found = _run(chosen, lambda hooks: hooks.undeliverable(limit=limit, after=after))
    if as_json:
        _print_json({"items": [_delivery(each) for each in found.items], "next": found.next})
        return
    print_table(
        ("id", "endpoint", "kind", "happened", "attempts", "why"),
        (
            (
                each.id,
                each.endpoint_id,
                each.kind,
                f"{each.announced_at:%Y-%m-%d %H:%M}",
                str(each.attempts),
                each.last_error or "",
            )
            for each in found.items
        ),
    )
    _print_next(found)


def _run(
    chosen: Chosen, verb: Callable[[Webhooks], Awaitable[T]], *, may_create: bool = False
) -> T:
    async def run() -> T:
        async with records(chosen, may_create=may_create) as auth:
            return await verb(_installed(auth))

    return asyncio.run(run())


def _installed(auth: Watchword) -> Webhooks:
    try:
        return auth.webhooks
    except FeatureNotInstalled as error:
        raise Usage("this app has no webhooks: add webhooks() to its features") from error


def _print_secret(done: str, made: IssuedEndpoint) -> None:
    typer.echo(f"{done} {made.endpoint.id}", err=True)
    typer.echo("Its secret, which is shown this one time:", err=True)
    typer.echo(made.secret.reveal())


def _print_json(value: dict[str, Any]) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _print_next(found: Page[Any]) -> None:
    if found.next is not None:
        typer.echo(f"There are more: --after {found.next}", err=True)


def _endpoint(endpoint: WebhookEndpoint) -> dict[str, Any]:
    return {
        "id": endpoint.id,
        "url": endpoint.url,
        "events": list(endpoint.events),
        "with_email": endpoint.with_email,
        "is_active": endpoint.is_active,
        "disabled_why": endpoint.disabled_why,
        "created_at": endpoint.created_at.isoformat(),
    }


def _delivery(row: WebhookDelivery) -> dict[str, Any]:
    return {
        "id": row.id,
        "endpoint_id": row.endpoint_id,
        "kind": row.kind,
        "announced_at": row.announced_at.isoformat(),
        "attempts": row.attempts,
        "last_error": row.last_error,
    }


def _row(endpoint: WebhookEndpoint) -> tuple[str, ...]:
    return (
        endpoint.id,
        endpoint.url,
        ", ".join(endpoint.events),
        "on" if endpoint.is_active else f"off: {endpoint.disabled_why}",
        f"{endpoint.created_at:%Y-%m-%d %H:%M}",
    )
