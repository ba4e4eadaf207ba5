"""What an App is started with: where people reach it, its secret, its driver."""

import contextlib
import os
import re
import secrets
from collections.abc import Callable
from ipaddress import IPv6Address
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from watchword.crypto.keys import generate_secret
from watchword.kernel.address import ascii_domain
from watchword.kernel.errors import ConfigurationError
from watchword.kernel.secrets import Secret
from watchword.kernel.settings import CoreSettings
from watchword.storage.store import Driver

_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")


def public_url_of(core: CoreSettings, *, development: bool, served: bool) -> tuple[str, list[str]]:
    """The address that people reach this at, and what is wrong with it."""
    url = core.public_url
    if url is None and development:
        return "http://localhost:8000", []
    if url is None:
        return "", [
            (
                "public_url (WATCHWORD_PUBLIC_URL) is not set: production needs the https address "
                "that people reach this app at; it is the issuer of tokens and the base of links"
            )
        ]
    try:
        parts = urlsplit(url)
        host = _host(parts.hostname or "")
        is_address = (
            parts.scheme in ("http", "https")
            and parts.port != 0
            and ("[" in parts.netloc) == (":" in host)
            and _is_plain(url)
        )
    except ValueError:
        parts, host, is_address = urlsplit(""), "", False
    fault = None
    if not is_address:
        fault = "is no http(s) address"
    elif "?" in url or "#" in url or "@" in parts.netloc or url.endswith("/"):
        fault = "must have no query, fragment, user or slash at its end"
    elif parts.scheme == "http":
        loopback = host in ("localhost", "127.0.0.1", "::1") or host.endswith(".localhost")
        if not loopback:
            fault = "must be https beyond a loopback address"
        elif not development and not served:
            fault = "must be https in production"
    if fault is None and not parts.netloc.isascii():
        # Browsers send `Origin` in ASCII.
        port = "" if parts.port is None else f":{parts.port}"
        url = urlunsplit(parts._replace(netloc=f"{host}{port}"))
    return url, [f"public_url (WATCHWORD_PUBLIC_URL): {fault}"] if fault else []


def _is_plain(url: str) -> bool:
    """Does it hold nothing that is dropped or changed by those who read it?"""
    return url.isprintable() and not any(letter.isspace() or letter == "\\" for letter in url)


def _host(name: str) -> str:
    """A host as it is looked up. Raises ValueError for what is none."""
    if ":" in name:
        if "%" in name:
            raise ValueError("an address with a zone is no one else's")
        return str(IPv6Address(name))
    host = ascii_domain(name)
    if _HOST.fullmatch(host) is None:
        raise ValueError("is no host")
    return host


def kept_secret(path: Path) -> Secret:
    """The secret kept in a file, made at the first start: mode 0600, one winner (I-22).

    Raises:
        ConfigurationError: it cannot be kept there, or others can read or write it.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.parent.name == ".watchword":  # it stands in somebody's repository
            with contextlib.suppress(OSError), (path.parent / ".gitignore").open("x") as ignored:
                ignored.write("*\n")
        if not path.exists():
            _make_secret(path)
        if os.name == "posix" and path.is_file() and path.stat().st_mode & 0o066:
            raise ConfigurationError(
                [
                    (
                        f"{path} can be read or written by others: `chmod 600 {path}`; if others "
                        "may have read it, delete it, and a new secret is made"
                    )
                ]
            )
        text = path.read_text("utf-8").strip()
    except OSError as error:
        raise ConfigurationError(
            [f"{path}: the secret cannot be kept there: {error.strerror}"]
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError([f"{path} holds no secret: it is not UTF-8"]) from error
    if not text:
        raise ConfigurationError([f"{path} holds no secret: delete it, and a new one is made"])
    return Secret(text)


def _make_secret(path: Path) -> None:
    # Written whole under another name, then linked: a second process that starts at the
    # same moment either loses the link or reads a complete file.
    text = generate_secret().reveal() + "\n"
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        _write_new(draft, text)
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        except OSError:  # a volume without hard links
            with contextlib.suppress(FileExistsError):
                _write_new(path, text)
    finally:
        draft.unlink(missing_ok=True)


def _write_new(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def driver_of(url: str, *, setting: str = "database (WATCHWORD_DATABASE)") -> Driver:
    """Find a driver by its URL's scheme; drivers are imported when a URL asks for them.

    Raises:
        ConfigurationError: no such driver, or it cannot use the URL.
    """
    from importlib.metadata import entry_points  # noqa: PLC0415  dear, and only needed here

    scheme = url.partition(":")[0].partition("+")[0].lower()
    found = entry_points(group="watchword.stores", name=scheme)
    if not found:
        known = ", ".join(sorted({entry.name for entry in entry_points(group="watchword.stores")}))
        raise ConfigurationError([f"{setting}: no driver {scheme!r}; known: {known or 'none'}"])
    make: Callable[[str], Driver] = next(iter(found)).load()
    return make(url)
