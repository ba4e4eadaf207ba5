"""MongoDB, through pymongo's asynchronous client."""

from typing import TYPE_CHECKING

from watchword.kernel.errors import ConfigurationError

if TYPE_CHECKING:
    from watchword.stores.mongo.database import MongoDriver

__all__ = ["driver"]


def driver(url: str, **options: object) -> "MongoDriver":
    """Make a driver for `mongodb://host/name` or `mongodb+srv://host/name`.

    Options, as arguments or in the URL's query: `pool_size` (connections), `pool_timeout`,
    `command_timeout`, `connect_timeout` and `selection_timeout` (seconds).

    Raises:
        ConfigurationError: the URL cannot be used, or the package is missing.
    """
    try:
        from watchword.stores.mongo.database import MongoDriver  # noqa: PLC0415  an extra
        from watchword.stores.mongo.target import parse  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name not in ("pymongo", "bson"):
            raise
        raise ConfigurationError(
            ['pymongo is missing: pip install "watchword[mongo]"'],
        ) from error
    return MongoDriver(parse(url, options))
