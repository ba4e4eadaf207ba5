"""Looks for secrets in the code of the app that was loaded."""

import sys
from pathlib import Path
from typing import Any

from watchword.doctor.lines import Configuration
from watchword.kernel.secrets import Secret

_LEAST = 8  # characters; a shorter text stands in code for other reasons
_MOST = 1024 * 1024  # bytes of one module


def hard_coded(configuration: Configuration) -> tuple[str, str] | None:
    """The first secret that stands in a module of the app's own: its setting, and the file's name.

    Only what came as an argument can: whatever came from outside is not looked for.
    """
    texts = {
        each.key: text
        for each in configuration.report
        if each.source == "argument"
        and (text := _text(_value(configuration, each.key))) is not None
        and len(text) >= _LEAST
    }
    if not texts:
        return None
    for file in _own_files(configuration.roots):
        try:
            content = file.read_bytes()[:_MOST].decode("utf-8", "replace")
        except OSError:
            continue
        for key, text in texts.items():
            if text in content:
                return key, file.name
    return None


def _value(configuration: Configuration, key: str) -> Any:
    section, dot, name = key.rpartition(".")
    return configuration.of(section, name) if dot else getattr(configuration.core, name, None)


def _text(value: Any) -> str | None:
    if isinstance(value, Secret):
        return value.reveal().strip()
    password = getattr(value, "password", None)
    return password.reveal() if isinstance(password, Secret) else None


def _own_files(roots: tuple[str, ...]) -> list[Path]:
    found: list[Path] = []
    for module in list(sys.modules.values()):
        name = getattr(module, "__file__", None)
        if not isinstance(name, str) or not name.endswith(".py"):
            continue
        path = Path(name).resolve()
        if "site-packages" not in path.parts and any(path.is_relative_to(root) for root in roots):
            found.append(path)
    return found
