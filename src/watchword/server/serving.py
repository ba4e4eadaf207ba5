"""Where a server keeps its things: the folder that `--data` names, its database and secret."""

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final, cast
from urllib.parse import quote

from watchword.kernel.errors import ConfigurationError
from watchword.kernel.settings import CoreOptions
from watchword.presets import Watchword, standard
from watchword.sources import Loaded, load
from watchword.starting import kept_secret

VARIABLE: Final = "WATCHWORD_SERVE"
"""How the process that was started tells its workers what to serve. Holds no secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The data folder of a server, and the database that goes with it."""

    data: Path
    database: str | None = None  # instead of what the settings say

    @property
    def secret_path(self) -> Path:
        """Where a generated secret is kept."""
        return self.data / "secret"

    @property
    def own_database(self) -> str:
        """The SQLite file in the folder."""
        return f"sqlite:///{quote(str(self._file))}"

    @property
    def _file(self) -> Path:
        return self.data.resolve() / "watchword.db"

    def database_in(self, loaded: Loaded) -> tuple[str, str]:
        """The database in force, and where that was said."""
        if self.database is not None:
            return self.database, "--database"
        said = next(each.source for each in loaded.report if each.key == "database")
        if said != "default":
            return loaded.core.database, said
        return self.own_database, "--data"

    def keeps_secret(self, loaded: Loaded) -> bool:
        """Is the secret the one in the folder?

        In development always, unless one is set; in production only beside the SQLite file
        that it belongs to.
        """
        if loaded.core.secret is not None:
            return False
        development = loaded.core.environment == "development"
        return development or self.database_in(loaded)[0] == self.own_database

    def make(self, *, database: bool = False) -> None:
        """Make the folder, and the SQLite file in it, readable by this user only.

        Either may have been there before, with a mode that lets others in: the file is closed to
        them if it is ours, the folder may hold what is theirs.

        Raises:
            ConfigurationError: it cannot be made.
        """
        try:
            self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
            if database:
                make_private(self._file)
                _close_to_others(self._file)
        except OSError as error:
            raise ConfigurationError(
                [f"--data: {self.data} cannot be made: {error.strerror}"]
            ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What one server serves, and where it listens."""

    place: Place
    host: str
    port: int

    @property
    def address(self) -> str:
        """The address it listens on, as a link."""
        return address_at(self.host, self.port)

    def to_environ(self) -> str:
        """The form in which workers get it."""
        return json.dumps({"data": str(self.place.data), "host": self.host, "port": self.port})

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "Serving":
        """Read what the parent left.

        Raises:
            ConfigurationError: nobody left anything.
        """
        if VARIABLE not in environ:
            raise ConfigurationError(["start the server with `watchword serve`"])
        found = cast("dict[str, str | int]", json.loads(environ[VARIABLE]))
        place = Place(data=Path(str(found["data"])))
        return cls(place=place, host=str(found["host"]), port=int(found["port"]))

    def watchword(self) -> Watchword:
        """The Watchword that is served.

        Raises:
            ConfigurationError: all that is wrong.
        """
        loaded = load({}, standard())
        loopback = is_loopback(self.host)
        options: CoreOptions = {}
        if loaded.core.public_url is None and (
            loopback or loaded.core.environment == "development"
        ):
            options["public_url"] = self.address
        if self.place.keeps_secret(loaded):
            self.place.make()
            options["secret"] = kept_secret(self.place.secret_path)
        database, _ = self.place.database_in(loaded)
        if database == self.place.own_database:
            self.place.make(database=True)
        return Watchword(database, served=loopback, **options)


def address_at(host: str, port: int) -> str:
    """The address of a server that listens there, as a link for this machine."""
    host = {"0.0.0.0": "localhost", "::": "localhost"}.get(host, host)  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def make_private(file: Path) -> None:
    """Make an empty SQLite file for this user only; its -wal and -shm get the same mode.

    One that is there is left alone, and not even opened: to close it again would give back the
    locks that SQLite holds on it in this process.

    Raises:
        OSError: it cannot be made.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _close_to_others(file: Path) -> None:
    if os.name != "posix":
        return
    for path in (file, Path(f"{file}-wal"), Path(f"{file}-shm")):
        try:
            found = path.stat()
        except FileNotFoundError:
            continue
        if found.st_uid == os.getuid() and found.st_mode & 0o077:
            path.chmod(0o600)


def is_loopback(host: str) -> bool:
    """Does only this machine reach a server that listens there?"""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def announce(serving: Serving) -> None:
    """Leave it where the workers look."""
    os.environ[VARIABLE] = serving.to_environ()
