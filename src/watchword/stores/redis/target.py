"""Where the server is: how a URL and its options are read."""

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from watchword.kernel.errors import ConfigurationError

CONNECT_TIMEOUT: Final = 5.0  # seconds

# A prefix ends before the hash tag and must hold nothing that looks like one.
_PREFIX: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_NUMBERS: Final[dict[str, Any]] = {
    "pool_size": int,
    "pool_timeout": float,
    "command_timeout": float,
    "clock_skew": float,
}
_TLS_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the server is and how much of it we take."""

    host: str
    port: int = 6379
    database: int = 0
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    tls_files: Mapping[str, str] = field(default_factory=dict[str, str])
    prefix: str = "watchword"
    pool_size: int = 10  # connections
    pool_timeout: float = 5.0  # seconds to wait for a free one
    command_timeout: float = 5.0  # seconds the server may take to answer
    clock_skew: float = 5.0  # seconds the server's clock may be ahead of ours


def parse(url: str, options: Mapping[str, object]) -> Target:
    """Read a URL and its options, of which the keyword arguments win.

    Raises:
        ConfigurationError: names what is wrong, never the URL, which may hold a password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or 6379
    except ValueError:
        parts, port = None, 0
    if parts is None:
        raise ConfigurationError(["redis: the URL cannot be read; is its port a number?"])
    if parts.scheme not in ("redis", "rediss"):
        raise ConfigurationError(["redis: the scheme must be redis or rediss"])
    if not parts.hostname or parts.fragment:
        # Such a letter in a password, as it is, ends the part of the URL that names the host.
        raise ConfigurationError(
            ["redis: redis://user:password@host:6379/0, special letters quoted (%23 for #)"]
        )
    given: dict[str, object] = dict(parse_qsl(parts.query, keep_blank_values=True))
    given |= options
    files = {name: str(given.pop(name)) for name in _TLS_FILES if name in given}
    if files and parts.scheme != "rediss":
        raise ConfigurationError([f"redis: {min(files)} needs rediss://"])
    prefix = str(given.pop("prefix", "watchword"))
    if _PREFIX.fullmatch(prefix) is None:
        raise ConfigurationError(["redis: prefix must be letters, digits, _ . or -"])
    return Target(
        host=parts.hostname,
        port=port,
        database=_database(parts),
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        tls=parts.scheme == "rediss",
        tls_files=files,
        prefix=prefix,
        **_numbers(given),
    )


def _database(parts: SplitResult) -> int:
    text = parts.path.strip("/") or "0"
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        raise ConfigurationError(["redis: the path must be a database's number, such as /0"])
    return int(text)


def _numbers(given: Mapping[str, object]) -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    for name, value in given.items():
        if name not in _NUMBERS:
            raise ConfigurationError([f"redis: there is no option {name}"])
        try:
            chosen[name] = _NUMBERS[name](value)
        except (TypeError, ValueError):
            chosen[name] = -1
        least = 0 if name == "clock_skew" else 1e-9
        if not least <= chosen[name] < 1e6:
            raise ConfigurationError([f"redis: {name} must be a number above 0"])
    return chosen


def require(module: str) -> Any:
    """Import a part of the client when it is needed.

    Raises:
        ConfigurationError: it is not installed; says how to.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            ['redis is missing: pip install "watchword[redis]"'],
        ) from error
