"""Runs the checks: on settings, on faults that keep them from being used, on a running App."""

import asyncio
import logging
import re
from collections.abc import Iterable
from datetime import timedelta

from watchword.app import App
from watchword.doctor.checks import CHECKS
from watchword.doctor.lines import Configuration, Grade, Line
from watchword.kernel.errors import ConfigurationError, StoreUnavailable, WatchwordError
from watchword.kernel.settings import SECTIONS
from watchword.presets import Watchword, standard
from watchword.storage.errors import SchemaBehind, SchemaNewer
from watchword.storage.record import schema_of
from watchword.storage.store import Driver

_NAMED = re.compile(r"([a-z_]+(?:\.[a-z0-9_]+)?) \(")
_GROUP = re.compile(r"([a-z_]+): ")
_VARIABLE = re.compile(r"WATCHWORD_[A-Z0-9_]+")
_PATIENCE = 60  # seconds for all that needs a connection


def examine(configuration: Configuration) -> list[Line]:
    """One line for each check that has a bearing."""
    lines = (check.line(configuration) for check in CHECKS)
    return [line for line in lines if line is not None]


def faulty(faults: Iterable[str]) -> list[Line]:
    """What keeps an App from being made, one failing line each."""
    return [_line(fault) for fault in faults]


def _line(fault: str) -> Line:
    setting = _setting_in(fault)
    check = next((each for each in CHECKS if setting in each.settings), None)
    return Line(
        check="start" if check is None else check.name,
        grade="fail",
        found=fault,
        why="the start is refused",
        setting=setting,
        rows=() if check is None else check.rows,
    )


def _setting_in(fault: str) -> str | None:
    """The setting that a fault is about, as far as it says."""
    if fault.startswith("the secret"):
        return "secret"
    if named := _NAMED.match(fault):
        return named[1]
    if group := _GROUP.match(fault):
        models = {feature.name: feature.settings for feature in standard()} | dict(SECTIONS)
        model = models.get(group[1])
        words = re.findall(r"[a-z_0-9]+", fault[group.end() :])
        fields = () if model is None else model.model_fields
        return next((f"{group[1]}.{word}" for word in words if word in fields), group[1])
    variable = _VARIABLE.search(fault)
    return None if variable is None else variable[0]


async def examine_live(auth: App) -> list[Line]:
    """What only a connection tells. It starts as each worker does; it makes no database."""
    log = logging.getLogger("watchword")
    level = log.level
    log.setLevel(logging.CRITICAL)  # it is said here
    try:
        async with asyncio.timeout(_PATIENCE):
            return await _examine(auth)
    except (StoreUnavailable, TimeoutError):
        return [_told("store", "fail", "does not answer in time", setting="database")]
    except (SchemaBehind, SchemaNewer) as error:
        return [_told("schema", "fail", str(error), remedy="run `watchword migrate`")]
    except ConfigurationError as error:
        return faulty(error.faults)
    except WatchwordError as error:
        return [_told("start", "fail", error.note or error.detail or error.title)]
    finally:
        log.setLevel(level)
        await auth.stop()


async def _examine(auth: App) -> list[Line]:
    away = [line for driver in auth.drivers if (line := await _asked(auth, driver)) is not None]
    if away:
        return away
    lines = [_told("store", "ok", "answers")]
    steps = await auth.driver.plan(auth.records_in(auth.driver))
    if steps:
        found = f"{len(steps)} steps behind"
        lines.append(
            _told(
                "schema",
                "warn",
                found,
                why="an empty database is made at the start; one that is behind stops it",
                remedy="run `watchword migrate`",
            )
        )
        return lines
    lines.append(_told("schema", "ok", "up to date"))
    await auth.start(background=False)
    lines.append(_feed(auth))
    if isinstance(auth, Watchword) and auth.has("mail"):
        count, overdue = await auth.mail.standing()
        lines.append(_outbox(count, overdue))
    if isinstance(auth, Watchword) and auth.has("audit"):
        lines.append(_seals(await auth.audit.unsealed_for()))
    return lines


async def _asked(auth: App, driver: Driver) -> Line | None:
    """Nothing if it answers."""
    try:
        await driver.ping()
    except StoreUnavailable:
        setting = _setting_of(auth, driver)
        return _told(
            "store",
            "fail",
            f"{setting} cannot be reached",
            why="every request that must ask it gets 503",
            setting=setting,
            remedy="its address, and a server that runs there",
        )
    return None


def _setting_of(auth: App, driver: Driver) -> str:
    apart = {name for name, each in auth.store.apart.items() if each is driver}
    for feature in auth.features:
        if any(schema_of(kind).name in apart for kind in feature.records):
            return f"{feature.name}.store"
    return "database"


def _feed(auth: App) -> Line:
    following = auth.following
    if following is None:
        return _told("change feed", "ok", "none: caches live for 2 s")
    status = following.status
    if status.deaf:
        return _told(
            "change feed",
            "warn",
            f"{', '.join(status.deaf)} is not heard: polled",
            why="sign-outs at other workers are heard a little later; a pooler that shares "
            "connections among transactions does this",
            setting="wake",
            remedy="redis://…, or a database URL past the pooler",
        )
    return _told("change feed", "ok", ", ".join(status.wakers) or "polled")


def _outbox(count: int, overdue: timedelta) -> Line:
    if overdue > timedelta(minutes=5):
        return _told(
            "outbox",
            "warn",
            f"{count} mails wait, the first for {overdue.total_seconds() // 60:.0f} minutes",
            why="nobody sends them",
            setting="background",
            remedy="true somewhere, or run `watchword worker`",
        )
    return _told("outbox", "ok", f"{count} mails wait")


def _seals(unsealed: timedelta) -> Line:
    if unsealed > timedelta(minutes=10):
        return _told(
            "audit seals",
            "warn",
            f"the oldest entry waits for {unsealed.total_seconds() // 60:.0f} minutes",
            why="until it is sealed it can be changed unseen",
            setting="background",
            remedy="true somewhere, or run `watchword worker`",
        )
    return _told("audit seals", "ok", "in time")


def _told(
    check: str,
    grade: Grade,
    found: str,
    *,
    why: str = "",
    setting: str | None = None,
    remedy: str = "",
) -> Line:
    return Line(
        check=check,
        grade=grade,
        found=found,
        why=why,
        setting=setting,
        remedy=remedy,
        rows=("ASVS 16.5.2",) if check in ("store", "schema") else (),
    )
