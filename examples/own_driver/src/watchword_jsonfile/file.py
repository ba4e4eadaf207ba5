"""One JSON file that several processes change, one at a time."""

import fcntl
import json
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from watchword.kernel.errors import StoreUnavailable
from watchword.storage.errors import SchemaNewer

Tables = dict[str, list[dict[str, Any]]]

_FORMAT: Final = 1
_PATIENCE: Final = 10.0  # seconds for the lock: who holds it may have been stopped in its tracks


class JsonFile:
    """Rows by table, under a lock of the operating system's.

    The lock is a file of its own, since the other is replaced at every change. Whoever dies
    loses it. Each use opens it anew, so that it keeps threads apart too and crosses no fork.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    @contextmanager
    def reading(self) -> Generator[Tables]:
        """What is on the disk."""
        with self._locked(fcntl.LOCK_SH):
            yield self._load()

    @contextmanager
    def changing(self) -> Generator[Tables]:
        """What is on the disk; if the block ends well, afterwards what it made of it."""
        with self._locked(fcntl.LOCK_EX):
            tables = self._load()
            yield tables
            self._save(tables)

    def make(self) -> None:
        """Make the file unless there is one; any number of processes may do so at once."""
        with self._locked(fcntl.LOCK_EX):
            if not self._path.exists():
                self._save({})

    def check(self) -> None:
        """Raises StoreUnavailable if it cannot be read."""
        with self.reading():
            pass

    @contextmanager
    def _locked(self, how: int) -> Generator[None]:
        try:
            lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                _take(lock, how)
                yield
            finally:
                os.close(lock)
        except OSError as error:
            raise StoreUnavailable(f"{type(error).__name__} {error.errno}") from None

    def _load(self) -> Tables:
        try:
            stored = json.loads(self._path.read_text("utf-8"))
            version, tables = stored["format"], stored["tables"]
        except (ValueError, KeyError, TypeError):
            # A ValueError would say that the caller's value is wrong.
            raise StoreUnavailable("the file holds something else") from None
        if version > _FORMAT:
            raise SchemaNewer("a newer version wrote this file")
        return tables

    def _save(self, tables: Tables) -> None:
        """Whole or not at all, and on the disk when it returns."""
        draft = Path(f"{self._path}.draft")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        with os.fdopen(os.open(draft, flags, 0o600), "w", encoding="utf-8") as file:
            json.dump({"format": _FORMAT, "tables": tables}, file, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the new name too
        finally:
            os.close(folder)


def _take(lock: int, how: int) -> None:
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(lock, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise
            time.sleep(0.001)
        else:
            return
