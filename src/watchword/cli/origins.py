"""Where `watchword import` reads: files, and tables of other systems."""

import contextlib
import hashlib
import importlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import SplitResult, unquote, urlsplit
from uuid import UUID

from watchword.cli.failures import Usage
from watchword.features.transfer import (
    PRESETS,
    TABLES,
    CsvFile,
    FirebaseExport,
    JsonLines,
    Origin,
    Place,
    Row,
    Source,
    Unreadable,
    looks_plain,
)

_ENDINGS: Final[Mapping[str, Origin]] = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_FILES: Final[Mapping[Origin, type]] = {
    "csv": CsvFile,
    "jsonl": JsonLines,
    "firebase": FirebaseExport,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """What the command line says of the source."""

    file: Path | None
    url: str | None
    origin: Origin
    table: str
    columns: Mapping[str, str]  # what `--map` says

    @property
    def shown(self) -> str:
        """Its name for people; no URL, which may hold a password."""
        return str(self.file) if self.file is not None else f"table {self.table}"

    @property
    def digest(self) -> str:
        """What tells it from other sources, for a run that goes on."""
        if self.file is not None:
            with self.file.open("rb") as content:
                what = content.read(4096)
        else:
            parts = _parts(self.url or "")
            what = f"{parts.hostname}:{parts.port}{parts.path} {self.table}".encode()
        return hashlib.sha256(self.origin.encode() + b"\0" + what).hexdigest()


def named(
    what: str | None,
    source: str | None,
    *,
    origin: str | None,
    table: str | None,
    maps: Sequence[str],
) -> Named:
    """Understand what the command line says.

    Raises:
        Usage
    """
    if (what is None) == (source is None):
        raise Usage("name one source: a FILE, or --source and the URL of a database")
    if what is not None and "://" in what:
        what, source = None, what
    columns: dict[str, str] = {}
    for each in maps:
        field, equals, column = each.partition("=")
        if not equals or not field or not column:
            raise Usage(f"--map {each}: write OURS=THEIRS, for example email=mail")
        columns[field] = column
    chosen = cast("Origin | None", origin)
    if source is not None:
        parts = _parts(source)
        if parts.scheme.startswith("sqlite") and not Path(unquote(parts.path[1:])).is_file():
            raise Usage("--source: there is no such SQLite file")
        if chosen in _FILES:
            raise Usage(f"--from {chosen} is a file, and --source a database: keep one")
        chosen = chosen or "table"
        table = table or TABLES.get(chosen)
        if table is None:
            raise Usage("say which table: --table NAME, or --from what it belongs to")
        return Named(file=None, url=source, origin=chosen, table=table, columns=columns)
    file = Path(what or "")
    if chosen is None:
        chosen = _ENDINGS.get(file.suffix.lower())
    if chosen not in _FILES:
        raise Usage(f"{file}: say what it is with --from csv, jsonl or firebase")
    if table is not None:
        raise Usage("--table is for databases: leave it out")
    if not file.is_file():
        raise Usage(f"there is no file {file}")
    return Named(file=file, url=None, origin=chosen, table="", columns=columns)


def _parts(url: str) -> SplitResult:
    """The parts of a URL. Raises Usage, which repeats nothing: the fault may be the password."""
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        if parts.port != 0 and not parts.fragment:  # the port is read when it is asked for
            return parts
    raise Usage(
        "--source cannot be read as a URL; what is no letter or digit in user and password is "
        "percent-encoded (%23 for #, %2F for /)"
    )


@asynccontextmanager
async def opened(name: Named, *, after: Place | None, line: int) -> AsyncGenerator[Source]:
    """The source, at the place where a run before this one ended.

    Raises:
        Usage: it cannot be opened, or is not what it was said to be.
        StoreUnavailable
    """
    if name.file is not None:
        try:
            with name.file.open("rb") as content:
                yield _FILES[name.origin](content, after=after)
        except Unreadable as error:
            raise Usage(f"{name.file} {error}") from error
        except OSError as error:
            raise Usage(f"{name.file} cannot be read: {error.strerror}") from error
        return
    # By name, as drivers are found: nothing above the stores imports SQL.
    sql: Any = importlib.import_module("watchword.stores.sql.foreign")
    table = sql.table(name.url, name.table)
    try:
        await table.open()
        yield TableSource(table, name, after=after, line=line)
    finally:
        await table.close()


class TableSource:
    """A table, read by its key."""

    def __init__(self, table: Any, name: Named, *, after: Place | None, line: int) -> None:
        self._table = table
        self._after: object = after
        self._line = line
        self.columns: Sequence[str] | None = table.columns
        key = table.key or {**PRESETS[name.origin], **name.columns}.get("id")
        if key is None or key not in table.columns:
            raise Usage("the table has no key of one column: name a unique one with --map id=…")
        self._key: str = key
        self.wanted: Sequence[str] = table.columns

    async def batches(self, size: int) -> AsyncGenerator[list[Row]]:
        """The rows, `size` at a time."""
        while True:
            rows: list[Mapping[str, object]] = await self._table.read(
                self.wanted, key=self._key, after=self._after, limit=size
            )
            batch: list[Row] = []
            for row in rows:
                self._after = row[self._key]
                self._line += 1
                batch.append(Row(line=self._line, values=row, place=_place(self._after)))
            if batch:
                yield batch
            if len(rows) < size:
                return


def _place(key: object) -> Place:
    if isinstance(key, UUID):
        return str(key)
    if isinstance(key, str | int):
        return key
    raise Usage("the table's key is neither a number nor a text: name another with --map id=…")


def columns_of(source: Source, name: Named, *, known: Sequence[str]) -> dict[str, str]:
    """Which of our fields is read from which column.

    Args:
        source: what there is.
        name: what the command line says.
        known: the fields that can be filled.

    Raises:
        Usage: a field or a column that is not there, or passwords as they are.
    """
    for field in name.columns:
        if field not in known:
            raise Usage(f"--map {field}=…: there is no such field; there are {', '.join(known)}")
    chosen = dict(PRESETS[name.origin])
    if name.origin in ("csv", "jsonl"):
        chosen |= {field: field for field in known}
    there = source.columns
    if there is not None:
        for column in name.columns.values():
            if column not in there:
                raise Usage(f"--map …={column}: no such column; there are {', '.join(there)}")
        chosen = {field: column for field, column in chosen.items() if column in there}
    chosen |= name.columns
    if "email" not in chosen:
        raise Usage("no column holds the e-mail address: name it with --map email=COLUMN")
    for column in there or ():
        if looks_plain(column) and column not in chosen.values():
            raise Usage(
                f"column {column} looks like plain passwords, which are never read: if it holds "
                f"hashes say --map password_hash={column}, else take it out of the source"
            )
    if isinstance(source, TableSource):
        source.wanted = tuple(dict.fromkeys(chosen.values()))
    return chosen
