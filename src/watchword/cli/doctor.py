"""`watchword doctor`."""

import asyncio
import dataclasses
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from watchword.app import App
from watchword.cli.configuration import printable
from watchword.cli.failures import FAILED
from watchword.cli.options import DATA, AppName, Data, Database, Json, app_named, sqlite_file
from watchword.crypto.keys import generate_secret
from watchword.doctor import Configuration, Line, examine, examine_live, faulty
from watchword.kernel.errors import ConfigurationError
from watchword.kernel.settings import SECTIONS, CoreOptions
from watchword.presets import Watchword, standard
from watchword.server.serving import Place
from watchword.sources import Setting, load
from watchword.starting import kept_secret

_MARKS = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Patient:
    """What there is to look at, and what kept it from being made."""

    configuration: Configuration | None = None
    faults: tuple[str, ...] = ()
    auth: App | None = None
    is_reachable: bool = False  # is there a database to connect to, and a secret that fits it?


def doctor(
    data: Data = DATA,
    database: Database = None,
    app: AppName = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="How many processes serve; else WEB_CONCURRENCY, else 1."),
    ] = None,
    connect: Annotated[
        bool, typer.Option(help="Ask the database too, if there is one already.")
    ] = True,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail too.")] = False,
    as_json: Json = False,
) -> None:
    """Grade the settings in force: what is wrong, why, and the setting to change.

    Looks at what `watchword serve` would run with, or at your own app. Exit status 1 if
    anything fails, so that a deployment can ask first. Nothing is changed.
    """
    patient = (
        _served(Place(data=data, database=database), _count(workers))
        if app is None
        else _embedded(app, _count(workers))
    )
    lines = faulty(patient.faults)
    named = {line.check for line in lines}
    if patient.configuration is not None:
        lines += [line for line in examine(patient.configuration) if line.check not in named]
    if connect and patient.auth is not None and patient.is_reachable:
        lines += asyncio.run(examine_live(patient.auth))
    if patient.auth is not None:
        patient.auth.hash_pool.close()
    report = {} if patient.configuration is None else _by_key(patient.configuration.report)
    if as_json:
        typer.echo(json.dumps(_json(lines, report), indent=2, ensure_ascii=False))
    else:
        _print(lines, report)
    grades = {line.grade for line in lines}
    if "fail" in grades or (strict and "warn" in grades):
        raise typer.Exit(FAILED)


def _count(workers: int | None) -> int:
    if workers is not None:
        return workers
    said = os.environ.get("WEB_CONCURRENCY", "")
    return int(said) if said.isascii() and said.isdigit() and int(said) > 0 else 1


def _embedded(name: str, workers: int) -> _Patient:
    try:
        auth = app_named(name)
    except ConfigurationError as error:
        return _Patient(faults=error.faults)
    return _Patient(configuration=_of(auth, workers), auth=auth, is_reachable=_has_database(auth))


def _served(place: Place, workers: int) -> _Patient:
    """What `watchword serve` would make of the same settings; no secret and no file is made."""
    try:
        loaded = load({}, standard())
    except ConfigurationError as error:
        return _Patient(faults=error.faults)
    options: CoreOptions = {}
    faults: list[str] = []
    keeps = place.keeps_secret(loaded)
    has_secret = not keeps or place.secret_path.exists()
    if keeps:
        options["secret"] = generate_secret()
        if has_secret:
            try:
                options["secret"] = kept_secret(place.secret_path)
            except ConfigurationError as error:
                faults.extend(error.faults)
    if loaded.core.public_url is None:
        options["public_url"] = "http://localhost"
    auth = None
    try:
        auth = Watchword(place.database_in(loaded)[0], served=True, **options)
    except ConfigurationError as error:
        faults.extend(error.faults)
    configuration = Configuration(
        core=loaded.core,
        sections=loaded.features,
        report=loaded.report,
        public_url=loaded.core.public_url or "http://localhost",
        workers=workers,
        keeps_secret=keeps,
    )
    return _Patient(
        configuration=configuration,
        faults=tuple(faults),
        auth=auth,
        is_reachable=auth is not None and has_secret and not faults and _has_database(auth),
    )


def _of(auth: App, workers: int) -> Configuration:
    names = [*SECTIONS, *(feature.name for feature in auth.features)]
    sends: bool | None = None
    if isinstance(auth, Watchword) and auth.has("mail"):
        sends = cast("Watchword", auth).mail.sender is not None
    return Configuration(
        core=auth.core,
        sections={name: auth.settings_of(name) for name in names},
        report=auth.settings,
        public_url=auth.public_url,
        workers=workers,
        sends_mail=sends,
        roots=(str(Path.cwd().resolve()),),
    )


def _has_database(auth: App) -> bool:
    file = sqlite_file(auth)
    return file is None or file.exists()


def _by_key(report: Iterable[Setting]) -> dict[str, Setting]:
    return {each.key: each for each in report}


def _json(lines: list[Line], report: dict[str, Setting]) -> dict[str, Any]:
    return {
        "grade": _worst(lines),
        "lines": [{**dataclasses.asdict(line), "env": _env(line, report)} for line in lines],
    }


def _env(line: Line, report: dict[str, Setting]) -> str | None:
    known = report.get(line.setting or "")
    return None if known is None else known.env


def _worst(lines: list[Line]) -> str:
    grades = [line.grade for line in lines]
    return next((grade for grade in ("fail", "warn") if grade in grades), "ok")


def _print(lines: list[Line], report: dict[str, Setting]) -> None:
    for line in lines:
        typer.echo(printable(f"{_MARKS[line.grade]}  {line.check}: {line.found}"))
        if line.grade == "ok":
            continue
        if line.why:
            typer.echo(printable(f"      why: {line.why}"))
        if line.setting is not None:
            env = _env(line, report)
            named = f"{line.setting} ({env})" if env else line.setting
            typer.echo(printable(f"      set: {named}{': ' if line.remedy else ''}{line.remedy}"))
        elif line.remedy:
            typer.echo(printable(f"      do: {line.remedy}"))
        if line.rows:
            typer.echo(f"      see: {', '.join(line.rows)}")
    counted = {grade: sum(line.grade == grade for line in lines) for grade in _MARKS}
    typer.echo(f"{counted['fail']} fail, {counted['warn']} warn, {counted['ok']} are fine")
