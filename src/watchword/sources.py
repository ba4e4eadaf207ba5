"""Where settings come from: arguments, environment, `watchword.toml`, a file per secret."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from watchword.kernel.errors import ConfigurationError
from watchword.kernel.feature import Feature
from watchword.kernel.secrets import Secret
from watchword.kernel.settings import SECTIONS, CoreSettings, Settings

PREFIX = "WATCHWORD_"
# Read by the loader or the command line, not settings themselves.
_OURS = frozenset({"WATCHWORD_CONFIG", "WATCHWORD_SECRETS_DIR", "WATCHWORD_SERVE"})
_TESTS = "WATCHWORD_TEST_"

MAX_FILE = 64 * 1024  # bytes of a secret's file

# No secrets by their type, but with passwords in them: these too may stand in a file.
_HOLD_PASSWORDS = frozenset(
    {"database", "old_secrets", "keys.old_secrets", "mail.url", "passwords.firebase_signer_keys"}
)
_TELLING = ("password", "secret", "token")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting in force, and where it came from."""

    key: str  # `tokens.access_ttl`, or `database` for what belongs to no feature
    env: str
    value: str  # as it would be written; a secret is `***`
    source: str
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """All settings, checked."""

    core: CoreSettings
    features: Mapping[str, Settings]  # and the sections of the core
    report: tuple[Setting, ...]


@dataclass(slots=True)
class _Group:
    """What was found for one model, by field: the value and its source."""

    name: str  # empty for the core
    model: type[Settings]
    found: dict[str, tuple[object, str]] = field(default_factory=dict[str, tuple[object, str]])

    def offer(self, name: str, value: object, source: str) -> None:
        self.found.setdefault(name, (value, source))

    def env(self, name: str) -> str:
        return (PREFIX + (f"{self.name}__" if self.name else "") + name).upper()


def load(
    given: Mapping[str, object],
    features: Iterable[Feature[Any]],
    *,
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Loaded:
    """Merge every source; the first one that names a setting wins.

    Raises:
        ConfigurationError: all faults at once, each with its key and what to do.
    """
    environ = os.environ if environ is None else environ
    directory = directory or Path.cwd()
    faults: list[str] = []
    groups = {"": _Group("", CoreSettings)}
    for section, model in SECTIONS.items():
        groups[section] = _Group(section, model)
    for feature in features:
        if feature.name in SECTIONS:
            faults.append(f"feature {feature.name} is called as settings of ours are: rename it")
            continue
        groups[feature.name] = _Group(feature.name, feature.settings)
        for name, value in feature.given.items():
            groups[feature.name].offer(name, value, "argument")
    for name, value in given.items():
        table = _table(value) if name in SECTIONS else None
        if table is None:
            groups[""].offer(name, value, "argument")
        else:
            for key, item in table.items():
                groups[name].offer(key, item, "argument")
    _from_environment(groups, environ, faults)
    _from_toml(groups, environ, directory, faults)
    _from_secrets_directory(groups, environ, faults)
    made: dict[str, Settings] = {}
    report: list[Setting] = []
    for group in groups.values():
        try:
            made[group.name] = group.model.model_validate(
                {name: value for name, (value, _) in group.found.items()}
            )
        except ValidationError as error:
            faults.extend(_explain(group, error))
        else:
            report.extend(_report(group, made[group.name]))
    if faults:
        raise ConfigurationError(faults)
    core = cast("CoreSettings", made.pop(""))
    return Loaded(core=core, features=made, report=tuple(report))


def _place(groups: Mapping[str, _Group], name: str) -> tuple[_Group, str] | None:
    """The group and field that `tokens__access_ttl`, `database` or `mail` mean."""
    head, separator, tail = name.partition("__")
    if separator:
        group = groups.get(head) if head else None
        return (group, tail) if group and tail in group.model.model_fields else None
    if name in CoreSettings.model_fields:
        return groups[""], name
    group = groups.get(name) if name else None
    if group is not None and group.model.shorthand is not None:
        return group, group.model.shorthand
    return None


def _from_environment(
    groups: Mapping[str, _Group], environ: Mapping[str, str], faults: list[str]
) -> None:
    for variable, text in sorted(environ.items()):
        if not variable.startswith(PREFIX) or variable in _OURS or variable.startswith(_TESTS):
            continue
        name = variable.removeprefix(PREFIX).lower()
        placed = _place(groups, name)
        if placed is not None:
            group, field_name = placed
            value = _split(group.model.model_fields[field_name], text)
            group.offer(field_name, value, f"environment {variable}")
            continue
        placed = _place(groups, name.removesuffix("_file")) if name.endswith("_file") else None
        if placed is not None and _may_be_file(*placed):
            _offer_file(*placed, Path(text), (variable, f"file {variable}"), faults)
            continue
        faults.append(f"{variable} is not known: see `watchword config` for all, or unset it")


def _from_toml(
    groups: Mapping[str, _Group],
    environ: Mapping[str, str],
    directory: Path,
    faults: list[str],
) -> None:
    named = environ.get("WATCHWORD_CONFIG")
    path = Path(named) if named else directory / "watchword.toml"
    if not path.is_file():
        if named:
            faults.append("WATCHWORD_CONFIG names a file that is not there")
        return
    import tomllib  # noqa: PLC0415  only where there is such a file

    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        faults.append(f"{path.name} cannot be read: {error}")
        return
    for name, value in cast("dict[str, object]", content).items():
        table = _table(value)
        if table is not None and name in groups:
            for key, item in table.items():
                if key in groups[name].model.model_fields:
                    groups[name].offer(key, item, path.name)
                else:
                    faults.append(f"{path.name}: [{name}] has no setting {key}: remove it")
            continue
        placed = _place(groups, name) if "__" not in name else None
        if placed is None:
            faults.append(f"{path.name}: {name} is not known: remove it")
        else:
            placed[0].offer(placed[1], value, path.name)


def _table(value: object) -> dict[str, object] | None:
    return cast("dict[str, object]", value) if isinstance(value, dict) else None


def _from_secrets_directory(
    groups: Mapping[str, _Group], environ: Mapping[str, str], faults: list[str]
) -> None:
    named = environ.get("WATCHWORD_SECRETS_DIR")
    if not named:
        return
    directory = Path(named)
    if not directory.is_dir():
        faults.append("WATCHWORD_SECRETS_DIR names no directory")
        return
    try:
        paths = sorted(directory.iterdir())
    except OSError:
        faults.append("WATCHWORD_SECRETS_DIR names a directory that cannot be read")
        return
    for path in paths:
        if path.name.startswith("."):  # `..data` and its like, which Kubernetes puts there
            continue
        placed = _place(groups, path.name)
        said = f"WATCHWORD_SECRETS_DIR: {path.name}"
        if placed is None:
            faults.append(f"{said} is not known: see `watchword config` for all, or remove it")
        elif not _may_be_file(*placed):
            faults.append(f"{said} is no secret: remove it, and set it elsewhere")
        else:
            _offer_file(*placed, path, (said, f"secrets directory {path.name}"), faults)


def _offer_file(
    group: _Group, name: str, path: Path, said: tuple[str, str], faults: list[str]
) -> None:
    """Offer what a file holds; `said` is how faults name it, and how the report does."""
    secret = _read_secret(path, said[0], faults)
    if secret is None:
        return
    info = group.model.model_fields[name]
    value: object = secret
    if "tuple" in repr(info.annotation):
        value = _split(info, ",".join(secret.reveal().splitlines()))
    elif not _is_secret(info):
        value = secret.reveal()
    group.offer(name, value, said[1])


def _read_secret(path: Path, key: str, faults: list[str]) -> Secret | None:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
        text = content.decode("utf-8").strip()
    except (OSError, ValueError):  # no such file, not UTF-8, a NUL in its name
        faults.append(
            f"{key}: its file cannot be read: check its path, its mode and that it is text"
        )
        return None
    if len(content) > MAX_FILE:
        faults.append(f"{key}: its file is longer than {MAX_FILE} bytes: that is no secret")
        return None
    if not text:
        faults.append(f"{key}: its file is empty: write the secret there")
        return None
    return Secret(text)


def _may_be_file(group: _Group, name: str) -> bool:
    key = f"{group.name}.{name}" if group.name else name
    return key in _HOLD_PASSWORDS or _is_secret(group.model.model_fields[name])


def _is_secret(info: FieldInfo) -> bool:
    return "Secret" in repr(info.annotation) and "tuple" not in repr(info.annotation)


def _split(info: FieldInfo, text: str) -> object:
    if "tuple" in repr(info.annotation):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return text


def _explain(group: _Group, error: ValidationError) -> list[str]:
    faults: list[str] = []
    for item in error.errors(include_input=False, include_url=False):
        name = str(item["loc"][0]) if item["loc"] else ""
        source = group.found.get(name, (None, "default"))[1]
        key = f"{group.name}.{name}" if group.name and name else name or group.name
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            faults.append(f"{key} ({source}) is not known: remove it")
        elif name:
            faults.append(f"{key} ({source}; {group.env(name)}): {message}")
        else:
            faults.append(f"{key}: {message}")
    return faults


def _report(group: _Group, made: Settings) -> list[Setting]:
    written = made.model_dump(mode="json", fallback=lambda value: type(value).__name__)
    return [
        Setting(
            key=f"{group.name}.{name}" if group.name else name,
            env=group.env(name),
            value=_shown(name, written[name]),
            source=group.found.get(name, (None, "default"))[1],
            description=info.description or "",
        )
        for name, info in group.model.model_fields.items()
    ]


def _shown(name: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(str(item) for item in cast("list[object]", value))
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if name in ("database", "url"):
        text = re.sub(r"([?&])([^=&]*)=([^&]*)", _masked, text)
        if "@" in text:
            scheme, _, rest = text.partition("://")
            account, _, place = rest.rpartition("@")
            user, colon, _ = account.partition(":")
            return f"{scheme}://{user}{colon and ':***'}@{place}"
    return text


def _masked(found: re.Match[str]) -> str:
    """One `name=value` of a query, as it is shown."""
    mark, name, value = found.groups()
    parsed = "".join(each.lower() for each, _ in parse_qsl(f"{name}=x"))
    return f"{mark}{name}={'***' if any(word in parsed for word in _TELLING) else value}"
