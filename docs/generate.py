"""Writes the pages that are made from the code: `python docs/generate.py`.

`tests/architecture/test_docs.py` holds them to it.
"""
# ruff: noqa: INP001  a script, not a package

import importlib
import pkgutil
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import watchword.features
from watchword.kernel import errors
from watchword.kernel.errors import WatchwordError
from watchword.kernel.feature import Ends
from watchword.kernel.secrets import Secret
from watchword.kernel.settings import CoreSettings, Settings, format_duration
from watchword.presets import CATALOGUE
from watchword.server import errors as server_errors

DOCS = Path(__file__).parent
COLUMNS = (
    *("sessions and cookies", "access tokens", "refresh tokens", "API keys"),
    *("half-done sign-ins", "service tokens"),
)
CACHES = "30s on SQLite and PostgreSQL, 2s on others"


def settings_page() -> str:
    """Every setting: name, default, range, reason."""
    lines = [
        "# Settings",
        "",
        "Made from the code by `python docs/generate.py`.",
        "",
        "Sources, the first that names a setting wins: keyword arguments, the environment,",
        "`watchword.toml` (or the file that `WATCHWORD_CONFIG` names), a file per secret",
        "(`WATCHWORD_SECRET_FILE`, `WATCHWORD_DATABASE_FILE`, `WATCHWORD_MAIL_FILE`, …, or a",
        "directory that `WATCHWORD_SECRETS_DIR` names, one file a setting). In the",
        "environment a setting is `WATCHWORD_<NAME>`, a feature's",
        "`WATCHWORD_<FEATURE>__<NAME>`.",
        "Durations are `90s`, `15m`, `8h`, `7d` or ISO 8601. Unknown names stop the start.",
        "`watchword config` prints what is in force and where it came from.",
        "",
    ]
    for title, model in [("Core", CoreSettings), *_models()]:
        lines += [f"## {title}", "", _sentence(model), ""]
        lines += ["| setting | default | range | meaning |", "|---|---|---|---|"]
        lines += [_row(name, info) for name, info in model.model_fields.items()]
        lines.append("")
    return "\n".join(lines)


def errors_page() -> str:
    """Every refusal: code, status, title."""
    by_code = {
        kind.code: kind for kind in sorted(_errors(), key=lambda kind: len(kind.__mro__))[::-1]
    }
    kinds = sorted(by_code.values(), key=lambda kind: (kind.status, kind.code))
    lines = [
        "# Refusals",
        "",
        "Made from the code by `python docs/generate.py`.",
        "",
        "Each comes as `application/problem+json` (RFC 9457) with `type` =",
        "`urn:watchword:error:<code>`. Match on `code`; the texts may change.",
        "",
        "| status | code | title |",
        "|---|---|---|",
        *(f"| {kind.status} | `{kind.code}` | {kind.title} |" for kind in kinds),
        "",
    ]
    return "\n".join(lines)


def endings_page() -> str:
    """What ends when, and how fast."""
    bounds = CoreSettings.model_fields
    feed = _default(bounds["feed_bound"])
    rows = [row for make in CATALOGUE for row in make().ends]
    lines = [
        "# What ends when",
        "",
        "Made from the code by `python docs/generate.py`. `tests/attacks/test_endings.py` does",
        "each of these and looks at every column, here and at another worker.",
        "",
        "Cookies and access tokens point at a session and end with it. Where it happens, what ends",
        "is refused at once; at every other worker within `feed_bound`, milliseconds as a rule,",
        "where state and change commit together (SQLite, PostgreSQL), else within `cache_max_age`",
        f"(`feed_bound` is {feed} unless set; `cache_max_age` {CACHES}).",
        "Refresh tokens, half-done sign-ins and links in mail are looked up at each use: they end",
        'at once, everywhere. With `token_check="stateless"` guards that read no row believe an',
        "access token until it expires (`access_ttl`); all others ask.",
        "",
        "*all*: everything of the user's. *others*: everything but the session it was done in.",
        "*this*: that one alone. *oldest*: those past the limit. –: nothing.",
        "",
        f"| what happens | {' | '.join(COLUMNS)} | note |",
        "|---|---|---|---|---|---|---|---|",
        *(_ending(row) for row in rows),
        "",
    ]
    return "\n".join(lines)


def _ending(row: Ends) -> str:
    access = row.sessions if row.access_tokens is None else row.access_tokens
    columns = (row.sessions, access, row.refresh_tokens, row.api_keys, row.challenges, row.services)
    reach = " | ".join("–" if each == "none" else each for each in columns)
    return f"| {row.what} | {reach} | {row.note} |"


def _models() -> Iterator[tuple[str, type[Settings]]]:
    for make in CATALOGUE:
        feature = make()
        yield f"`{feature.name}`", feature.settings


def _errors() -> set[type[WatchwordError]]:
    modules: list[Any] = [errors, server_errors]
    found = pkgutil.walk_packages(watchword.features.__path__, "watchword.features.")
    modules.extend(importlib.import_module(each.name) for each in found)
    return {
        kind
        for module in modules
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, WatchwordError)
    }


def _sentence(model: type[Settings]) -> str:
    return (model.__doc__ or "").split("\n\n")[0].strip()


def _row(name: str, info: Any) -> str:
    bounds = [
        f"{sign} {_shown(getattr(mark, attribute))}"
        for mark in info.metadata
        for attribute, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
        if getattr(mark, attribute, None) is not None
    ]
    choices = _choices(info.annotation)
    limits = ", ".join(bounds) or choices
    return f"| `{name}` | {_default(info)} | {limits} | {info.description or ''} |"


def _choices(annotation: Any) -> str:
    if get_origin(annotation) is types.UnionType:
        return next((text for part in get_args(annotation) if (text := _choices(part))), "")
    args = get_args(annotation)
    if args and all(isinstance(each, str) for each in args):
        return ", ".join(f"`{each}`" for each in args)
    return ""


def _default(info: Any) -> str:
    value = info.get_default(call_default_factory=True)
    if value is None or value == () or isinstance(value, Secret):
        return "unset"
    return f"`{_shown(value)}`"


def _shown(value: Any) -> str:
    if hasattr(value, "total_seconds"):
        return format_duration(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


PAGES = {
    "settings.md": settings_page,
    "errors.md": errors_page,
    "what-ends.md": endings_page,
}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), "utf-8")
