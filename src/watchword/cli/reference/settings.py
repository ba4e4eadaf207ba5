"""Every setting: its name in a file and in the environment, default, range and meaning."""

import types
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from watchword.cli.reference.tables import MADE, first_paragraph, table
from watchword.kernel.secrets import Secret
from watchword.kernel.settings import SECTIONS, CoreSettings, Settings, format_duration
from watchword.presets import CATALOGUE
from watchword.sources import PREFIX

_HEAD = f"""# Settings

{MADE}

Sources, the first that names a setting wins: keyword arguments, the environment,
`watchword.toml` (or the file that `WATCHWORD_CONFIG` names), a file per secret
(`WATCHWORD_SECRET_FILE`, `WATCHWORD_DATABASE_FILE`, `WATCHWORD_MAIL_FILE`, …, or a
directory that `WATCHWORD_SECRETS_DIR` names, one file a setting).
In `watchword.toml` those of the core stand at the top, all others in a table of the
name that heads them here.
Durations are `90s`, `15m`, `8h`, `7d` or ISO 8601. Several values are separated by commas in
the environment. Unknown names stop the start.
`watchword config` prints what is in force and where it came from.
"""


def settings_page() -> str:
    """The page."""
    lines = [_HEAD]
    for name, model in _models():
        lines += [f"## {f'`{name}`' if name else 'Core'}", "", first_paragraph(model.__doc__), ""]
        short = model.shorthand
        if name and short is not None:
            lines += [f"`{PREFIX}{name.upper()}` is `{short}`.", ""]
        lines += table(
            ("setting", "in the environment", "default", "range", "meaning"),
            (_row(name, field, info) for field, info in model.model_fields.items()),
        )
        lines.append("")
    return "\n".join(lines)


def _models() -> Iterator[tuple[str, type[Settings]]]:
    yield "", CoreSettings
    yield from SECTIONS.items()
    for make in CATALOGUE:
        feature = make()
        yield feature.name, feature.settings


def _row(group: str, name: str, info: Any) -> tuple[str, ...]:
    bounds = [
        f"{sign} {_shown(getattr(mark, attribute))}"
        for mark in info.metadata
        for attribute, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
        if getattr(mark, attribute, None) is not None
    ]
    variable = PREFIX + (f"{group}__" if group else "") + name
    limits = ", ".join(bounds) or _choices(info.annotation)
    meaning = " ".join((info.description or "").split())
    return f"`{name}`", f"`{variable.upper()}`", _default(info), limits, meaning


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
    if isinstance(value, tuple):
        return ", ".join(f"`{_shown(each)}`" for each in value)  # pyright: ignore[reportUnknownVariableType]
    return f"`{_shown(value)}`"


def _shown(value: Any) -> str:
    if hasattr(value, "total_seconds"):
        return format_duration(value)
    return str(value).lower() if isinstance(value, bool) else str(value)
