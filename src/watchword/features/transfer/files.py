"""Users in files: CSV, JSON lines, and what `firebase auth:export` writes.

A file is read as it comes: no line, field or entry longer than its bound is ever held, and what
cannot be read is one refused row, never the end of all others.
"""

import csv
import json
import re
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE, getincrementaldecoder
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import BinaryIO, Final, NoReturn, cast

from watchword.features.transfer.rows import Place, Row, Unreadable

LONGEST: Final = 1024 * 1024  # bytes of a line, letters of an entry
_CHUNK: Final = 64 * 1024
_HEAVY: Final = 4 * 1024 * 1024  # bytes after which a batch is full
_DEFUSED: Final = re.compile(r"'+[=+\-@\t\r\n]")
_PLACE: Final = re.compile(r"([0-9]{1,18}):([0-9]{1,18})")
_NO_PLACE: Final = "cannot be gone on with: that is no place that an import left"
_NOTHING: Final[Mapping[str, object]] = {}


class _Faulty(Exception):
    """This line cannot be read; the next one may."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class _Lost(_Faulty):
    """Nor can anything after it: it cannot be told where that begins."""


class _Lines:
    """The lines of a file as texts, and where the next one begins."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.number = 0  # of the line given last
        self.is_quoted = False  # is the next line inside a quoted cell of a CSV file?
        self.next_at = 0
        start = file.read(4)
        if start.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
            raise Unreadable("is UTF-16: save it as UTF-8, or `iconv -f UTF-16 -t UTF-8`")
        if start.startswith(BOM_UTF8):
            self.next_at = len(BOM_UTF8)
        file.seek(self.next_at)

    def go_to(self, place: Place) -> None:
        """Go on where a row said that the next one begins: `offset:line`."""
        found = _PLACE.fullmatch(str(place))
        if found is None:
            raise Unreadable(_NO_PLACE)
        self.next_at, self.number = int(found[1]), int(found[2])
        self._file.seek(self.next_at)

    @property
    def place(self) -> str:
        """Where the next line begins."""
        return f"{self.next_at}:{self.number}"

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._file.readline(LONGEST + 1)
        if not line:
            raise StopIteration
        self.number += 1
        self._passed(line)
        if len(line) > LONGEST:
            while line and not line.endswith(b"\n"):
                line = self._file.readline(LONGEST)
                self._passed(line)
            raise _Faulty("line_too_long")
        if b"\x00" in line:
            raise _Faulty("nul_character")
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _Faulty("not_utf8") from error

    def _passed(self, data: bytes) -> None:
        self.next_at += len(data)
        self.is_quoted ^= bool(data.count(b'"') % 2)

    def leave_quotes(self) -> bool:
        """Pass the rest of a record that cannot be read, to the end of its quoted cell.

        Whoever wrote that cell chose its lines: one of them must not be read as a row.

        Returns:
            False if the file ended inside it.
        """
        while self.is_quoted:
            try:
                next(self)
            except StopIteration:
                return False
            except _Faulty:
                continue
        return True


class CsvFile:
    """A CSV file with a head; the separator is a comma, a semicolon or a tab."""

    def __init__(self, file: BinaryIO, *, after: Place | None = None) -> None:
        self._lines = _Lines(file)
        self.columns: Sequence[str] | None = self._head()
        if after is not None:
            self._lines.go_to(after)

    def _head(self) -> tuple[str, ...]:
        try:
            line = next(self._lines, "")
            self._separator = max(",;\t", key=line.count)
            reader = csv.reader([line], delimiter=self._separator, strict=True)
            names: list[str] = next(reader, list[str]())
        except (_Faulty, csv.Error) as error:
            raise Unreadable(f"has no head that can be read ({_code(error)})") from error
        columns = tuple(name.strip() for name in names)
        if not any(columns):
            raise Unreadable("is empty: its first line names the columns")
        if len(set(columns)) < len(columns):
            raise Unreadable("names a column twice in its head")
        return columns

    async def batches(self, size: int) -> AsyncGenerator[list[Row]]:
        """The rows, `size` at a time."""
        for batch in _batched(self._rows(), size, lambda: self._lines.next_at):
            yield batch

    def _rows(self) -> Iterator[Row]:
        lines, columns = self._lines, self.columns or ()
        reader = csv.reader(lines, delimiter=self._separator, strict=True)
        while True:
            number = lines.number + 1
            lines.is_quoted = False
            fault: str | None = None
            cells: list[str] = []
            try:
                cells = next(reader)
            except StopIteration:
                return
            except (_Faulty, csv.Error) as error:
                fault = _code(error) if lines.leave_quotes() else "open_quote"
            if fault is None and not cells:
                continue
            if fault is None and len(cells) != len(columns):
                fault = "wrong_width"
            values = (
                {
                    name: _armed(cell)
                    for name, cell in zip(columns, cells, strict=True)
                    if cell and name
                }
                if fault is None
                else _NOTHING
            )
            yield Row(line=number, values=values, place=lines.place, fault=fault)


def _batched(rows: Iterator[Row], size: int, passed: Callable[[], int]) -> Iterator[list[Row]]:
    """The rows, `size` at a time, and sooner where they are long: memory is bounded, too."""
    batch: list[Row] = []
    began = passed()
    for row in rows:
        batch.append(row)
        if len(batch) == size or passed() - began >= _HEAVY:
            yield batch
            batch, began = [], passed()
    if batch:
        yield batch


def _code(error: Exception) -> str:
    return error.code if isinstance(error, _Faulty) else "not_csv"


def _armed(cell: str) -> str:
    """A cell as it was before somebody put a quote in front of what looks like a formula."""
    return cell[1:] if cell[0] == "'" and _DEFUSED.match(cell) else cell


class JsonLines:
    """A file with one JSON object a line."""

    columns: Sequence[str] | None = None

    def __init__(self, file: BinaryIO, *, after: Place | None = None) -> None:
        self._lines = _Lines(file)
        if after is not None:
            self._lines.go_to(after)

    async def batches(self, size: int) -> AsyncGenerator[list[Row]]:
        """The rows, `size` at a time."""
        for batch in _batched(self._rows(), size, lambda: self._lines.next_at):
            yield batch

    def _rows(self) -> Iterator[Row]:
        lines = self._lines
        while True:
            fault: str | None = None
            values = _NOTHING
            try:
                line = next(lines)
                if line.isspace():
                    continue
                values = read_object(line)
            except StopIteration:
                return
            except _Faulty as error:
                fault = error.code
            yield Row(line=lines.number, values=values, place=lines.place, fault=fault)


class FirebaseExport:
    """What `firebase auth:export users.json` writes: one object whose `users` is a list.

    It is read entry by entry; after one that is no JSON nothing can be told apart any more.
    """

    columns: Sequence[str] | None = None

    def __init__(self, file: BinaryIO, *, after: Place | None = None) -> None:
        self._file = file
        if not isinstance(after, int | None):
            raise Unreadable(_NO_PLACE)
        self._skip = max(after or 0, 0)

    async def batches(self, size: int) -> AsyncGenerator[list[Row]]:
        """The rows, `size` at a time."""
        rows = self._rows()
        for _ in islice(rows, self._skip):  # parsed again, asked for no more
            pass
        for batch in _batched(rows, size, self._file.tell):
            yield batch

    def _rows(self) -> Iterator[Row]:
        stream = _Stream(self._file)
        if stream.text.startswith(("\ufeff", "\x00")) or not stream.to_users():
            raise Unreadable('holds no {"users": […]}: is it what `firebase auth:export` wrote?')
        number = 0
        while True:
            number += 1
            try:
                values = stream.entry()
            except _Faulty as error:
                yield Row(line=number, values=_NOTHING, place=number, fault=error.code)
                if isinstance(error, _Lost):
                    return
                continue
            if values is None:
                return
            yield Row(line=number, values=values, place=number)


class _Stream:
    """A JSON text of which only a part is held."""

    _USERS = re.compile(r'\s*\{\s*"users"\s*:\s*\[')

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = getincrementaldecoder("utf-8-sig")("replace")
        self.text = ""
        self._at = 0
        self._ended = False
        self._more()

    def _more(self) -> bool:
        """Read on; is there any more?"""
        data = self._file.read(_CHUNK)
        self._ended = self._ended or not data
        self.text = self.text[self._at :] + self._decoder.decode(data, final=not data)
        self._at = 0
        return not self._ended

    def to_users(self) -> bool:
        """Go to the list of users; False if there is none where it should be."""
        found = self._USERS.match(self.text)
        if found is None:
            return False
        self._at = found.end()
        return True

    def entry(self) -> Mapping[str, object] | None:
        """The next user; None at the end of the list."""
        while True:
            while self._at < len(self.text) and self.text[self._at] in " \t\r\n,":
                self._at += 1
            if self._at < len(self.text) or not self._more():
                break
        if self.text[self._at : self._at + 1] == "]":
            return None
        try:
            return _object(self._decoded(_DECODER))
        except _Lost:
            raise
        except _Faulty as fault:
            if fault.code != "not_an_object":
                self._decoded(_LENIENT)  # JSON, but not such as we take: pass it
            raise

    def _decoded(self, decoder: json.JSONDecoder) -> object:
        while True:
            try:
                value, self._at = decoder.raw_decode(self.text, self._at)
            except RecursionError as error:
                raise _Lost("not_json") from error
            except ValueError as error:
                too_long = len(self.text) - self._at > LONGEST
                if too_long or not self._more():
                    raise _Lost("line_too_long" if too_long else "not_json") from error
            else:
                return cast("object", value)


def read_object(text: str) -> Mapping[str, object]:
    """A JSON object, each name of which stands once."""
    try:
        return _object(_DECODER.decode(text))
    except (ValueError, RecursionError) as error:
        raise _Faulty("not_json") from error


def _object(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise _Faulty("not_an_object")
    return cast("dict[str, object]", value)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise _Faulty("repeated_key")
    return made


def _no_number(_: str) -> NoReturn:
    raise _Faulty("not_json")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_number)
_LENIENT: Final = json.JSONDecoder()
