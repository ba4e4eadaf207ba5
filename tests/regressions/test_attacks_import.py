"""Attacks through what `watchword import` reads: hostile users of the system that we leave."""

import asyncio
import base64
import csv
import hashlib
import io
import json
import os
import pty
import stat
import subprocess
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import WATCHWORD, Folder, clean
from tests.hashes import FOREIGN, MADE_BY_OTHERS
from tests.told import Story, problem, telling
from watchword.crypto.hashing import Hasher, HashPool, Verdict, kind_of
from watchword.features.passwords import Password
from watchword.features.transfer import (
    PRESETS,
    CsvFile,
    FirebaseExport,
    JsonLines,
    Reading,
    Tally,
)

VICTIM = "ceo@corp.example"
BCRYPT = FOREIGN["passlib bcrypt"][1]
JSON = Reading(origin="jsonl", columns=PRESETS["jsonl"])
CSV = Reading(origin="csv", columns=PRESETS["csv"], roles=True)
HEAD = ["id", "email", "password_hash", "is_verified", "roles", "bio"]
PLANTED = f"666,{VICTIM},{BCRYPT},true,admin,x"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """An empty folder to run commands in."""
    return Folder(path=tmp_path)


async def bring_in(story: Story, source: Any, reading: Reading = JSON) -> Tally:
    tally = Tally()
    async for _ in story.auth.transfer.bring_in(source, reading=reading, tally=tally):
        pass
    return tally


def lines(rows: Iterable[Mapping[str, Any]]) -> JsonLines:
    return JsonLines(io.BytesIO("".join(json.dumps(row) + "\n" for row in rows).encode()))


def as_csv(bio: str) -> bytes:
    """What a correct exporter writes of a user who wrote that about themselves, and of another."""
    file = io.StringIO()
    csv.writer(file).writerows(
        [
            HEAD,
            ["1", "mallory@evil.example", "", "", "", bio],
            ["2", "bob@example.com", "", "", "", 'says "hello"'],
        ]
    )
    return file.getvalue().encode("utf-8", "surrogateescape")


@pytest.mark.parametrize(
    "bio",
    [
        "x" * 131_073 + f"\n{PLANTED}\n",
        f"x\n\udcff\n{PLANTED}\n",
        f"x\n\0\n{PLANTED}\n",
        "x\n" + "x" * (1 << 20) + f'"\n{PLANTED}\n',
        "x" * 131_073 + f'"\n{PLANTED}\n"',
    ],
    ids=["longer than a cell", "no UTF-8", "NUL", "longer than a line", "with quotes"],
)
async def test_what_a_user_wrote_about_themselves_is_never_read_as_a_row(bio: str) -> None:
    """A fault inside a quoted cell made its next line a row: an administrator of their making."""
    async with telling() as story:
        tally = await bring_in(story, CsvFile(io.BytesIO(as_csv(bio))), CSV)
        assert await story.auth.users.by_email(VICTIM) is None
        assert await story.auth.users.by_email("bob@example.com") is not None
        assert (tally.read, tally.created, tally.refused.total()) == (2, 1, 1)


@pytest.mark.parametrize(
    "stored",
    [
        "bcrypt_sha256$" + BCRYPT.replace("$04$", "$\uff10\uff14$"),
        BCRYPT.replace("$04$", "$\uff10\uff14$"),
        f"$bcrypt-sha256$v=2,t=2b,r=\uff11\uff12${'a' * 22}${'b' * 31}",
        f"$argon2id$v=19$m=6553\uff16,t=3,p=4${'c' * 22}${'d' * 43}",
    ],
)
async def test_a_hash_with_the_digits_of_another_script_ends_nothing(stored: str) -> None:
    """It was taken for one of ours, and the import, or each sign-in, ended in a traceback."""
    assert stored.isascii() is False
    assert kind_of(stored) is None
    pool = HashPool(threads=1, queue=1)
    assert await Hasher(pool=pool).verify("any", stored) == Verdict(ok=False, upgrade=False)
    pool.close()
    async with telling() as story:
        rows = [
            {"email": "mallory@evil.example", "password_hash": stored},
            {"email": "bob@example.com", "password_hash": BCRYPT},
        ]
        tally = await bring_in(story, lines(rows))
        assert (tally.created, dict(tally.refused)) == (1, {"unknown_hash": 1})


@pytest.mark.invariant("I-18")
async def test_two_imports_at_once_leave_everybody_their_password(database_url: str) -> None:
    """Whoever lost the race for a user took the winner's password away with their own."""
    rows = [{"id": n, "email": f"u{n}@example.com", "password_hash": BCRYPT} for n in range(60)]
    async with telling(database_url) as story:
        await asyncio.gather(*(bring_in(story, lines(rows)) for _ in range(3)))
        for row in rows:
            found = await story.auth.store.get(Password, user_id=str(row["id"]))
            assert found is not None, row["id"]
            assert found.hash == BCRYPT


def write_users(folder: Folder) -> None:
    rows = [{"id": n, "email": f"u{n}@example.com"} for n in range(4)]
    text = "".join(json.dumps(row) + "\n" for row in [*rows, {"id": 5, "email": "no"}])
    (folder.path / "u.jsonl").write_text(text)


def test_a_place_is_kept_in_a_file_of_its_own_whoever_prepared_another(folder: Folder) -> None:
    """In a folder that others may write to, root's files could be written over."""
    write_users(folder)
    precious = folder.path / "precious"
    precious.write_text("precious")
    for link in ("place.new", "place.part"):
        (folder.path / link).symlink_to(precious)
    os.link(precious, folder.path / "hard.new")
    for name in ("place", "hard"):
        done = folder.run("import", "u.jsonl", "--resume", name, "--limit", "2")
        assert done.returncode == 0, done.stderr
        assert precious.read_text() == "precious"
        kept = folder.path / name
        assert not kept.is_symlink()
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600  # a table's place is a name or an address


def test_a_report_that_goes_on_follows_no_link(folder: Folder) -> None:
    write_users(folder)
    assert folder.run("import", "u.jsonl", "--resume", "place", "--limit", "2").returncode == 0
    precious = folder.path / "precious"
    precious.write_text("precious")
    (folder.path / "report").symlink_to(precious)
    done = folder.run("import", "u.jsonl", "--resume", "place", "--report", "report")
    assert done.returncode == 2
    assert "cannot be made" in done.stderr
    assert precious.read_text() == "precious"


@pytest.mark.parametrize(
    "place", ["abc", "-5:1", "99999999999999999999:1", 5, [1], "0:0\0", "1:2:3", True]
)
def test_a_place_that_somebody_changed_is_refused_in_words(folder: Folder, place: object) -> None:
    write_users(folder)
    assert folder.run("import", "u.jsonl", "--resume", "place", "--limit", "2").returncode == 0
    kept = folder.path / "place"
    kept.write_text(json.dumps({**json.loads(kept.read_text()), "place": place}))
    done = folder.run("import", "u.jsonl", "--resume", "place")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "no place that an import left" in done.stderr


@pytest.mark.parametrize("url", ["postgresql://u:s3cr#et@h/db", "postgresql://u:s3cr/et@h/db"])
def test_a_password_with_a_letter_that_ends_the_host_is_not_repeated(
    folder: Folder, url: str
) -> None:
    """Its first half was taken for a port and stood in a traceback."""
    done = folder.run("import", "--source", url, "--table", "users", "--map", "email=mail")
    assert done.returncode == 2
    assert "s3cr" not in done.stdout + done.stderr
    assert "--source" in done.stderr


@pytest.mark.standard("CVE row 56")
def test_names_of_columns_are_no_commands_to_a_terminal(folder: Folder) -> None:
    (folder.path / "u.csv").write_bytes(b"id,email,\x1b]0;owned\x07\xc2\x9b31m\n")
    for options in (["--map", "username=nope"], []):
        done = folder.run("import", "u.csv", *options)
        said = (done.stdout + done.stderr).replace("\n", "")
        assert "owned" in said
        assert said.isprintable()


async def test_a_cell_that_begins_with_a_line_break_is_no_formula() -> None:
    """A spreadsheet passes over it and calculates what comes next."""
    from watchword.features.transfer import as_csv as line_of  # noqa: PLC0415  named as ours here

    text = line_of({"bio": "\n=1+1", "id": "'\n=1"}, ["id", "bio"])
    (cells,) = csv.reader(io.StringIO(text, newline=""))
    assert all(cell.startswith("'") for cell in cells)
    file = io.BytesIO(b"id,bio\n" + text.encode())
    async for rows in CsvFile(file).batches(5):
        assert [row.values for row in rows] == [{"id": "'\n=1", "bio": "\n=1+1"}]


@pytest.mark.parametrize("size", [1, 200_000])
async def test_one_odd_entry_of_firebase_does_not_lose_all_users_after_it(size: int) -> None:
    """The run said `Refused: 1` and ended; whoever came after it had no account."""
    text = '{"email": "m@evil.example", "a": {"b": 1, "b": 2}, "c": "' + "x" * size + '"}'
    entries = [text, '{"email": NaN}', "7", '{"email": "bob@example.com", "localId": "2"}']
    source = FirebaseExport(io.BytesIO(f'{{"users": [{", ".join(entries)}]}}'.encode()))
    found = [(row.line, row.fault) async for rows in source.batches(3) for row in rows]
    expected = ["repeated_key", "not_json", "not_an_object", None]
    assert found == list(enumerate(expected, start=1))


def test_what_users_wrote_is_no_command_to_the_terminal_of_who_looks(folder: Folder) -> None:
    """JSON escapes ESC but not its one-letter form, and CSV escapes neither."""
    row = {"email": "m@evil.example", "user_settings": {"a": "\x9b2J\x7f"}}
    (folder.path / "u.jsonl").write_text(json.dumps(row) + "\n")
    assert folder.run("import", "u.jsonl").returncode == 0
    leader, follower = pty.openpty()
    subprocess.run(
        [WATCHWORD, "export"],
        cwd=folder.path,
        env=clean({}),
        stdout=follower,
        stderr=follower,
        check=True,
        timeout=60,
    )
    os.close(follower)
    shown = os.read(leader, 1 << 16).decode()
    os.close(leader)
    assert "m@evil.example" in shown
    assert shown.rstrip("\r\n").isprintable()


@pytest.mark.capability("S1-02")
@pytest.mark.parametrize(
    "password", ["\u212bngstr\u00f6m und Ohm \u2126", "pa\u0301ssword of a Mac"]
)
async def test_a_password_that_was_hashed_as_it_was_typed_is_still_right(password: str) -> None:
    """We hash NFC; other systems did not, and their users were locked out."""
    made = hashlib.pbkdf2_hmac("sha256", password.encode(), b"salt", 1000)
    stored = f"pbkdf2_sha256$1000$salt${base64.b64encode(made).decode()}"
    async with telling() as story:
        row = {"email": "ada@example.com", "password_hash": stored, "is_verified": True}
        assert (await bring_in(story, lines([row]))).created == 1
        wrong = {"email": "ada@example.com", "password": password + "\u0301"}
        problem(await story.client.post("/auth/login", json=wrong), 401, "invalid_credentials")
        await story.log_in(password=password)
        await story.log_in(password=password)  # now over a hash of ours
        await story.log_in(password=unicodedata.normalize("NFC", password))


async def test_nobody_signs_in_with_an_imported_hash_and_another_password() -> None:
    """Forms that are nearly those we know: cut, empty, or of another scheme than they say."""
    _, pbkdf2 = FOREIGN["django pbkdf2_sha256"]
    head, _, result = pbkdf2.rpartition("$")
    faults = [f"{head}$", f"{head}$A", f"{head}${result[:8]}", f"{head.replace('sha256', 'sha1')}"]
    faults += [f"{head}${result}\n", pbkdf2.replace("$", "$$", 1), f"bcrypt${BCRYPT}x"]
    for fault in faults:
        assert kind_of(fault) is None, fault
    async with telling() as story:
        row = {"email": "ada@example.com", "password_hash": pbkdf2, "is_verified": True}
        assert (await bring_in(story, lines([row]))).created == 1
        body = {"email": "ada@example.com", "password": MADE_BY_OTHERS + " "}
        problem(await story.client.post("/auth/login", json=body), 401, "invalid_credentials")
