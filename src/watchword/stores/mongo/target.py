"""Where the database is: how a URL becomes a client that is pinned to the primary (I-19)."""

import asyncio
import contextlib
import logging
import os
import warnings
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from watchword.kernel.errors import ConfigurationError

T = TypeVar("T")
Document = dict[str, Any]

_FORM: Final = (
    "database: mongodb://user:password@host:port/name or mongodb+srv://…; what is no letter or "
    "digit in user and password is percent-encoded; options are those of pymongo"
)
# What the URL may ask for and does not get: the primary and a majority of disks decide.
_PINNED: Final = frozenset(
    (
        *("w", "j", "journal", "fsync", "wtimeout", "wtimeoutms", "readconcernlevel"),
        *("readpreference", "readpreferencetags", "maxstalenessseconds", "slaveok"),
    )
)
# MongoDB's own names of what our options say, in thousandths of a second but for the pool's size.
_OWN_NAMES: Final = {
    "maxpoolsize": "pool_size",
    "waitqueuetimeoutms": "pool_timeout",
    "timeoutms": "command_timeout",
    "sockettimeoutms": "command_timeout",
    "connecttimeoutms": "connect_timeout",
    "serverselectiontimeoutms": "selection_timeout",
}
_NOT_IN_NAMES: Final = frozenset('/\\. "$*<>:|?\x00')


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the database is and how much of it we take."""

    url: str  # without our options and without what is pinned
    name: str
    pool_size: int = 20  # connections to the primary
    pool_timeout: float = 5.0  # seconds to wait for a free one
    command_timeout: float = 10.0  # seconds a command may take, its journal and majority included
    connect_timeout: float = 5.0  # seconds to reach a server
    selection_timeout: float = 5.0  # seconds to find the primary

    def __repr__(self) -> str:
        return "Target(…)"  # the URL may hold a password


def parse(url: str, options: Mapping[str, object]) -> Target:
    """Read a URL and its options, of which the keyword arguments win.

    Raises:
        ConfigurationError: names what is wrong, never the URL, which may hold a password.
    """
    try:
        parts = urlsplit(url)
        query = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:
        raise ConfigurationError([_FORM]) from None
    if parts.scheme not in ("mongodb", "mongodb+srv"):
        raise ConfigurationError(["database: the scheme must be mongodb or mongodb+srv"])
    chosen: dict[str, Any] = {}
    rest: list[tuple[str, str]] = []
    for name, value in query:
        own = _OWN_NAMES.get(name.lower())
        if name in _KINDS:
            chosen[name] = _number(name, value)
        elif own is not None:
            number = _number(name, value)
            chosen[own] = int(number) if own == "pool_size" else number / 1000
        elif name.lower() == "directconnection" and value.lower() == "true":
            # It would read from a secondary too, if that is what answers there.
            raise ConfigurationError(
                ["database: leave directConnection out: only the primary decides"]
            )
        elif name.lower() not in _PINNED:
            rest.append((name, value))
    for name, value in options.items():
        if name not in _KINDS:
            raise ConfigurationError([f"database: there is no option {name}"])
        chosen[name] = _number(name, value)
    name = unquote(parts.path.removeprefix("/")) or "watchword"
    if len(name.encode("utf-8", "replace")) > 63 or not _NOT_IN_NAMES.isdisjoint(name):
        raise ConfigurationError(
            [f"database: no MongoDB database can have this name of {len(name)} letters"]
        )
    target = Target(
        url=urlunsplit(parts._replace(path=parts.path or "/", query=urlencode(rest), fragment="")),
        name=name,
        **chosen,
    )
    refused = False
    try:
        with warnings.catch_warnings(action="error", category=UserWarning):  # an unknown option
            connect(target)  # reads the URL; nothing is connected yet
    except (PyMongoError, UserWarning, ValueError, TypeError):
        refused = True
    if refused:
        raise ConfigurationError([_FORM])  # outside the handler: the cause may quote the URL
    return target


_KINDS: Final[dict[str, type]] = {
    "pool_size": int,
    "pool_timeout": float,
    "command_timeout": float,
    "connect_timeout": float,
    "selection_timeout": float,
}


def _number(name: str, value: object) -> Any:
    """A number above 0: in MongoDB's own options 0 means for ever."""
    number: Any = 0
    try:
        number = _KINDS.get(name, int)(value)
    except (TypeError, ValueError, OverflowError):
        number = 0
    if not 0 < number < 10**6 * (1 if name in _KINDS else 1000):
        raise ConfigurationError([f"database: {name} must be a number above 0"])
    return number


def connect(target: Target) -> AsyncMongoClient[Document]:
    """A client; it connects when it is first used and belongs to that event loop."""
    return AsyncMongoClient(
        target.url,
        connect=False,
        appname="watchword",
        maxPoolSize=target.pool_size,
        waitQueueTimeoutMS=_thousandths(target.pool_timeout),
        socketTimeoutMS=_thousandths(target.command_timeout),
        connectTimeoutMS=_thousandths(target.connect_timeout),
        serverSelectionTimeoutMS=_thousandths(target.selection_timeout),
    )


def database_of(client: AsyncMongoClient[Document], target: Target) -> AsyncDatabase[Document]:
    """The database; whatever its collections do goes to the primary and to a majority."""
    return client.get_database(
        target.name,
        read_preference=ReadPreference.PRIMARY,
        read_concern=ReadConcern("majority"),
        write_concern=WriteConcern(
            "majority", j=True, wtimeout=_thousandths(target.command_timeout)
        ),
    )


class Clients:
    """The client of this process and event loop, made when it is first needed."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._client: AsyncMongoClient[Document] | None = None
        self._database: AsyncDatabase[Document] | None = None
        self._place: tuple[int, asyncio.AbstractEventLoop] | None = None

    def database(self) -> AsyncDatabase[Document]:
        """The database, on the running loop.

        A client that was made before a fork, or on a loop that has ended, is let go unclosed:
        its connections belong to the other side.
        """
        place = (os.getpid(), asyncio.get_running_loop())
        if self._database is None or self._place != place:
            _quieten()
            self._client = connect(self.target)
            self._database = database_of(self._client, self.target)
            self._place = place
        return self._database

    async def close(self) -> None:
        """Close the client's connections; the next use makes another."""
        client, place = self._client, self._place
        self._client = self._database = self._place = None
        if client is not None and place == (os.getpid(), asyncio.get_running_loop()):
            await client.close()


async def finished(step: Awaitable[T]) -> T:
    """Run a step to its end, and only then let a cancellation through.

    pymongo closes the connection of a cancelled command, and leaves the socket of a cancelled
    connect to the garbage collector. Every step ends by itself: all its waits are bounded.
    """
    task = asyncio.ensure_future(step)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # seen, so that nobody warns of it
        raise


def _quieten() -> None:
    """Keep whole commands out of the log: at DEBUG, pymongo writes addresses and digests there.

    Whoever sets this logger's own level has decided otherwise and is left alone.
    """
    logger = logging.getLogger("pymongo.command")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)


def _thousandths(seconds: float) -> int:
    return max(1, round(seconds * 1000))
