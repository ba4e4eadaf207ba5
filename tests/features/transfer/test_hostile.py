"""Hostile files: a refused row for each thing that is wrong, and all others come in."""

import io
import json
import tracemalloc
from typing import Any

import pytest

from watchword.features.transfer import CsvFile, FirebaseExport, JsonLines, Row, Unreadable

MIB = 1024 * 1024


async def rows_of(source: Any, size: int = 3) -> list[Row]:
    return [row async for batch in source.batches(size) for row in batch]


async def told(source: Any) -> list[tuple[int, str | None]]:
    """Line and fault of each row."""
    return [(row.line, row.fault) for row in await rows_of(source)]


GOOD = b'{"email": "a@example.com"}\n'
DEEP = b"[" * 100_000 + b"]" * 100_000
BAD_LINES = [
    (b"not json\n", "not_json"),
    (b'{"email": "a@example.com"\n', "not_json"),
    (b'{"email": "a"} {"email": "b"}\n', "not_json"),
    (b'{"n": NaN}\n', "not_json"),
    (b'{"n": -Infinity}\n', "not_json"),
    (b'{"n": ' + b"9" * 10_000 + b"}\n", "not_json"),
    (b'{"a": ' + DEEP + b"}\n", "not_json"),
    (b"[1, 2]\n", "not_an_object"),
    (b'"text"\n', "not_an_object"),
    (b"null\n", "not_an_object"),
    (b'{"email": "a", "email": "b"}\n', "repeated_key"),
    (b'{"a": {"b": 1, "b": 2}}\n', "repeated_key"),
    (b'{"email": "\xff\xfe"}\n', "not_utf8"),
    (b'{"email": "\xed\xa0\x80"}\n', "not_utf8"),
    (b'{"email": "a\x00b"}\n', "nul_character"),
    (b'{"email": "' + b"x" * (10 * MIB) + b'"}\n', "line_too_long"),
    (b"x" * (3 * MIB) + b"\n", "line_too_long"),
]


@pytest.mark.parametrize(
    ("line", "fault"), BAD_LINES, ids=[f"{n}-{fault}" for n, (_, fault) in enumerate(BAD_LINES)]
)
async def test_a_bad_line_of_json_is_one_refused_row(line: bytes, fault: str) -> None:
    found = await told(JsonLines(io.BytesIO(GOOD + line + b"\r\n" + GOOD)))
    assert found == [(1, None), (2, fault), (4, None)]


BAD_CELLS = [
    (b'"a"b,c\n', "not_csv"),
    (b"a,b,c\n", "wrong_width"),
    (b"a\n", "wrong_width"),
    (b'a,"' + b"x" * 200_000 + b'"\n', "not_csv"),
    (b"a," + b"x" * (10 * MIB) + b"\n", "line_too_long"),
    (b"a\x00,b\n", "nul_character"),
    (b"a\xff,b\n", "not_utf8"),
    (b"a\rb,c\n", "not_csv"),
]


@pytest.mark.parametrize(
    ("line", "fault"), BAD_CELLS, ids=[f"{n}-{fault}" for n, (_, fault) in enumerate(BAD_CELLS)]
)
async def test_a_bad_line_of_csv_is_one_refused_row(line: bytes, fault: str) -> None:
    found = await told(CsvFile(io.BytesIO(b"email,username\nx,y\n" + line + b"\n" + b"z,w\n")))
    assert found == [(2, None), (3, fault), (5, None)]


async def test_after_a_quote_that_is_never_closed_nothing_is_taken_for_a_row() -> None:
    """Its cell could be anybody's, and so could the lines in it."""
    text = b'email,username\na,b\n"open,\n' + b"".join(b"r%d,x\n" % n for n in range(50_000))
    found = await told(CsvFile(io.BytesIO(text)))
    assert found == [(2, None), (3, "open_quote")]


async def test_marks_and_line_ends_of_every_system_make_no_difference() -> None:
    expected = [{"email": "a@example.com", "username": "ü"}, {"email": "b@example.com"}]
    for head in (b"", b"\xef\xbb\xbf"):
        for end in (b"\n", b"\r\n"):
            for mark in (b",", b";", b"\t"):
                lines = [b"email,username", "a@example.com,ü".encode(), b"b@example.com,", b""]
                text = head + end.join(lines).replace(b",", mark)
                rows = await rows_of(CsvFile(io.BytesIO(text)))
                assert [dict(row.values) for row in rows] == expected
            text = head + end.join(json.dumps(row).encode() for row in expected)
            rows = await rows_of(JsonLines(io.BytesIO(text)))
            assert [dict(row.values) for row in rows] == expected


async def test_a_cell_may_hold_lines_of_its_own() -> None:
    text = b'email,username\na@example.com,"one\ntwo"\nb@example.com,x\n'
    rows = await rows_of(CsvFile(io.BytesIO(text)))
    assert [(row.line, row.values["username"]) for row in rows] == [(2, "one\ntwo"), (4, "x")]


async def test_what_looks_like_a_formula_is_a_text() -> None:
    text = b"email,username\n'=a@example.com,=HYPERLINK(1)\n''+b@example.com,'quoted\n"
    rows = await rows_of(CsvFile(io.BytesIO(text)))
    assert [tuple(row.values.values()) for row in rows] == [
        ("=a@example.com", "=HYPERLINK(1)"),
        ("'+b@example.com", "'quoted"),
    ]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
async def test_utf16_is_said_or_refused_row_by_row(encoding: str) -> None:
    text = "email,username\na@example.com,b\n".encode(encoding)
    with pytest.raises(Unreadable, match=r"UTF-16|nul_character"):
        CsvFile(io.BytesIO(text))
    if encoding == "utf-16":  # it has a mark at its beginning
        with pytest.raises(Unreadable, match="UTF-16"):
            JsonLines(io.BytesIO(text))
    else:
        found = await told(JsonLines(io.BytesIO(text)))
        assert {fault for _, fault in found} == {"nul_character"}


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\n",
        b",,\n",
        b"email,email\n",
        b"x" * (2 * MIB),
        b"em\x00ail\n",
        b'"open\n',
        b"\xff\n",
    ],
)
def test_a_head_that_names_nothing_or_something_twice_is_said(head: bytes) -> None:
    with pytest.raises(Unreadable):
        CsvFile(io.BytesIO(head))


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'{"x": []}', b"\x00" * 50, b"\xff\xfe{\x00", b"users", DEEP]
)
async def test_what_firebase_did_not_write_is_said(text: bytes) -> None:
    with pytest.raises(Unreadable):
        await rows_of(FirebaseExport(io.BytesIO(text)))


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        (b"nonsense", "not_json"),
        (b"", "not_json"),
        (b'{"a": ' + DEEP + b"}", "not_json"),
        (b'{"a": "' + b"x" * (3 * MIB) + b'"}', "line_too_long"),
        (b'{"a": "\x00"}', "not_json"),
    ],
)
async def test_after_an_entry_that_is_no_json_a_firebase_export_ends(
    entry: bytes, fault: str
) -> None:
    text = b'{"users": [{"email": "a"}, ' + entry
    assert await told(FirebaseExport(io.BytesIO(text))) == [(1, None), (2, fault)]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "firebase"])
async def test_reading_goes_on_where_any_row_ended(kind: str) -> None:
    emails = [f"ü{n}@example.com" for n in range(20)]
    if kind == "csv":
        make: Any = CsvFile
        text = "\ufeffemail,x\r\n" + "".join(f'{email},"a\nb"\r\n' for email in emails)
    elif kind == "jsonl":
        make = JsonLines
        text = "".join(
            json.dumps({"email": email}, ensure_ascii=False) + "\n\n" for email in emails
        )
    else:
        make = FirebaseExport
        text = json.dumps({"users": [{"email": email} for email in emails]}, indent=1)
    data = text.encode()
    whole = await rows_of(make(io.BytesIO(data)))
    assert [row.values["email"] for row in whole] == emails
    for at, row in enumerate(whole):
        rest = await rows_of(make(io.BytesIO(data), after=row.place))
        assert rest == whole[at + 1 :]


async def test_a_long_file_is_never_held() -> None:
    class Endless(io.RawIOBase):
        """A hundred MiB of JSON lines with a huge one among them."""

        left = 100 * MIB

        def read(self, size: int = -1, /) -> bytes:
            return b""

        def seek(self, offset: int, whence: int = 0, /) -> int:
            return offset

        def readline(self, size: int | None = -1, /) -> bytes:
            if self.left <= 0:
                return b""
            long = self.left < 50 * MIB and self.left > 5 * MIB
            line = b"x" * (size or 0) if long else GOOD
            self.left -= 256 * 1024 if not long else len(line)
            return line

    tracemalloc.start()
    rows = 0
    async for batch in JsonLines(Endless()).batches(500):  # type: ignore[arg-type]
        rows += len(batch)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows > 200
    assert peak < 8 * MIB


async def test_rows_as_long_as_may_be_come_in_small_batches() -> None:
    line = b'{"email": "ada@example.com", "bio": "' + b"x" * (1024 * 1024 - 100) + b'"}\n'
    source = JsonLines(io.BytesIO(line * 12))
    sizes = [len(batch) async for batch in source.batches(500)]
    assert sum(sizes) == 12
    assert max(sizes) <= 5
