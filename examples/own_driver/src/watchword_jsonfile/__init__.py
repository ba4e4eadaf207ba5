"""Watchword's records in one JSON file: an example of a driver of one's own."""

from urllib.parse import unquote, urlsplit

from watchword.kernel.errors import ConfigurationError
from watchword.storage.store import Driver
from watchword_jsonfile.database import JsonDriver

__all__ = ["driver"]


def driver(url: str) -> Driver:
    """Make a driver for `jsonfile:users.json` or `jsonfile:/var/lib/app/users.json`.

    Connects to nothing: settings are checked first, `open` comes later.

    Raises:
        ConfigurationError: the URL cannot be used. Say why, and do not repeat it: other databases'
            URLs hold passwords.
    """
    parts = urlsplit(url)
    if parts.netloc or parts.query or parts.fragment or not parts.path.strip("/"):
        raise ConfigurationError(
            ["database (WATCHWORD_DATABASE): write jsonfile:PATH, with no host and no options"]
        )
    return JsonDriver(unquote(parts.path))
