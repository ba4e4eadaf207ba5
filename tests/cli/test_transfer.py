"""`watchword import` and `watchword export`, as a user runs them."""

import asyncio
import csv
import json
import os
import signal
import sqlite3
import stat
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.cli.command import WATCHWORD, Done, Folder, clean
from tests.hashes import (
    FIREBASE_HASH,
    FIREBASE_KEY,
    FIREBASE_PASSWORD,
    FIREBASE_SALT,
    FOREIGN,
    MADE_BY_OTHERS,
    REFUSED,
)
from watchword.testing import telling
from watchword.testing.story import Story

DJANGO = FOREIGN["django pbkdf2_sha256"][1]
BCRYPT = FOREIGN["passlib bcrypt"][1]
SECRETS = (MADE_BY_OTHERS, DJANGO, BCRYPT, FIREBASE_HASH, FIREBASE_KEY)


def users_in(folder: Folder, database: str = "data/watchword.db") -> list[tuple[Any, ...]]:
    """What stands in the database, read without code of ours."""
    with sqlite3.connect(folder.path / database) as connection:
        query = (
            "SELECT u.id, u.email_key, p.hash FROM watchword_user u "
            "LEFT JOIN watchword_password p ON p.user_id = u.id ORDER BY u.id"
        )
        found = connection.execute(query).fetchall()
    connection.close()
    return found


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def is_quiet(done: Done) -> bool:
    """Nothing of what it read stands in what it said, and no traceback."""
    said = done.stdout + done.stderr
    return "Traceback" not in said and not any(secret in said for secret in SECRETS)


def test_a_csv_file_comes_in_and_what_became_of_it_is_said(folder: Folder) -> None:
    with (folder.path / "users.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["id", "email", "password_hash", "is_verified", "shoe"])
        out.writerow([1, "ada@example.com", DJANGO, "true", 42])
        out.writerow([2, "bob@example.com", BCRYPT, "false", 42])
        out.writerow([3, "eve@example.com", "", "false", 42])
        out.writerow([4, "nobody", DJANGO, "", ""])
        out.writerow([5, "md5@example.com", REFUSED["django md5"], "", ""])
    tried = folder.run("import", "users.csv", "--dry-run")
    assert tried.returncode == 1
    assert "Would create 3 users" in tried.stdout
    assert "has no users of this version yet" in tried.stderr
    assert not (folder.path / "data").exists()

    done = folder.run("import", "users.csv", "--report", "report.jsonl")
    assert done.returncode == 1
    assert "Read 5 rows of users.csv" in done.stdout
    assert "a second" in done.stdout
    assert "Created 3 users" in done.stdout
    assert "Hashes: pbkdf2-sha256 1 · bcrypt 1" in done.stdout
    assert "No password, reset at first sign-in: 1" in done.stdout
    assert "Refused: 2" in done.stdout
    assert "Columns that are not read: shoe" in done.stderr
    assert is_quiet(done)
    report = folder.path / "report.jsonl"
    assert [json.loads(line) for line in report.read_text().splitlines()] == [
        {"line": 5, "reason": "bad_address"},
        {"line": 6, "reason": "unknown_hash"},
    ]
    assert stat.S_IMODE(report.stat().st_mode) == 0o600
    assert users_in(folder) == [
        ("1", "ada@example.com", DJANGO),
        ("2", "bob@example.com", BCRYPT),
        ("3", "eve@example.com", None),
    ]
    again = folder.run("import", "users.csv")
    assert "Already there: 3" in again.stdout
    assert "Created 0 users" in again.stdout
    refused = folder.run("import", "users.csv", "--report", "report.jsonl")
    assert refused.returncode == 2
    assert "the file is there" in refused.stderr


def test_all_well_is_0(folder: Folder) -> None:
    write_lines(folder.path / "u.jsonl", [{"email": "a@example.com", "password_hash": BCRYPT}])
    done = folder.run("import", "u.jsonl")
    assert (done.returncode, "Created 1 users" in done.stdout) == (0, True)


USAGE = [
    ([], "name one source"),
    (["nowhere.csv"], "there is no file"),
    (["u.txt"], "--from csv, jsonl or firebase"),
    (["u.jsonl", "--source", "sqlite:///old.db"], "name one source"),
    (["u.jsonl", "--table", "users"], "--table is for databases"),
    (["u.jsonl", "--map", "email"], "OURS=THEIRS"),
    (["u.jsonl", "--map", "epoch=x"], "there is no such field"),
    (["u.csv", "--map", "email=mail"], "no such column; there are id"),
    (["plain.csv"], "looks like plain passwords"),
    (["none.csv"], "--map email=COLUMN"),
    (["wide.csv"], "UTF-16"),
    (["u.jsonl", "--from", "firebase"], "SIGNER_KEYS_FILE"),
    (["u.jsonl", "--from", "django"], "--from csv, jsonl or firebase"),
    (["u.jsonl", "--dry-run", "--resume", "state"], "leave out --resume"),
    (["u.jsonl", "--resume", "u.txt"], "no place that an import left"),
    (["u.jsonl", "--verified", "--no-trust-verified"], "keep one"),
    (["u.jsonl", "--report", "nowhere/report"], "cannot be made"),
    (["--source", "mysql://root:hunter2@host/x", "--from", "django"], "must be sqlite or"),
    (["--source", "sqlite:///old.db"], "say which table"),
    (["--source", "sqlite:///nowhere.db", "--from", "django"], "no such SQLite file"),
    (["--source", "sqlite:///old.db", "--from", "django"], "no table 'auth_user'; there are: t"),
    (["sqlite:///old.db", "--table", "t"], "--map email=COLUMN"),
    (["--source", "sqlite:///old.db", "--from", "csv"], "keep one"),
]


@pytest.mark.parametrize(("arguments", "said"), USAGE, ids=[str(n) for n in range(len(USAGE))])
def test_what_cannot_be_done_is_said_with_what_to_do(
    folder: Folder, arguments: list[str], said: str
) -> None:
    write_lines(folder.path / "u.jsonl", [{"email": "a@example.com"}])
    (folder.path / "u.txt").write_text("{}")
    (folder.path / "u.csv").write_text("id,email\n")
    (folder.path / "none.csv").write_text("id,name\n")
    (folder.path / "plain.csv").write_text("email,password\na@example.com,hunter2\n")
    (folder.path / "wide.csv").write_text("email\n", "utf-16")
    with sqlite3.connect(folder.path / "old.db") as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, mail TEXT)")
    connection.close()
    done = folder.run("import", *arguments)
    assert said in done.stderr
    assert done.returncode == 2
    assert "hunter2" not in done.stdout + done.stderr
    assert is_quiet(done)
    assert not (folder.path / "data").exists()


async def signed_in(database: str, people: dict[str, str]) -> dict[str, dict[str, Any]]:
    """What signing in over HTTP shows of these people."""
    async with telling(database) as story:
        return {email: await enter(story, email, password) for email, password in people.items()}


async def enter(story: Story, email: str, password: str) -> dict[str, Any]:
    user = await story.auth.users.find(email)
    if not user.is_verified:
        async with story.auth.store.transaction() as tx:
            await story.auth.users.mark_verified(user, within=tx)
    wrong = await story.client.post("/auth/login", json={"email": email, "password": "wrong"})
    assert wrong.status_code == 401
    found = await story.log_in(email, password)
    return dict(found["user"])


def sqlite_table(folder: Folder, ddl: str, rows: list[tuple[Any, ...]]) -> str:
    with sqlite3.connect(folder.path / "old.db") as connection:
        connection.execute(ddl)
        name = ddl.split()[2]
        marks = ",".join("?" * len(rows[0]))
        connection.executemany(f"INSERT INTO {name} VALUES ({marks})", rows)
    connection.close()
    return "sqlite:///old.db"


@pytest.mark.parametrize("hexed", [True, False], ids=["char32", "char36"])
async def test_fastapi_users_come_in(folder: Folder, sqlite_url: str, hexed: bool) -> None:
    ids = [uuid4() for _ in range(600)]
    rows = [
        (each.hex if hexed else str(each), f"u{n}@example.com", BCRYPT, n != 1, n == 0, n != 2)
        for n, each in enumerate(ids)
    ]
    url = sqlite_table(
        folder,
        'CREATE TABLE "user" (id CHAR(36) PRIMARY KEY, email VARCHAR(320), hashed_password '
        "VARCHAR(1024), is_active BOOLEAN, is_superuser BOOLEAN, is_verified BOOLEAN)",
        rows,
    )
    before = (folder.path / "old.db").read_bytes()
    done = await asyncio.to_thread(
        folder.run, "import", url, "--from", "fastapi-users", "--roles", "--database", sqlite_url
    )
    assert (done.returncode, "Created 600 users" in done.stdout) == (0, True), done
    assert (folder.path / "old.db").read_bytes() == before  # only read, in more batches than one
    found = await signed_in(sqlite_url, {"u0@example.com": MADE_BY_OTHERS})
    user = found["u0@example.com"]
    assert UUID(user["id"]) == ids[0]
    assert user["id"] == str(ids[0])
    assert user["roles"] == ["admin"]
    with sqlite3.connect(sqlite_url.removeprefix("sqlite:///")) as connection:
        query = "SELECT is_active, is_verified FROM watchword_user WHERE email_key = ?"
        flags = [connection.execute(query, [f"u{n}@example.com"]).fetchone() for n in (1, 2)]
    connection.close()
    assert flags == [(0, 1), (1, 0)]


async def test_django_users_come_in_from_postgresql(
    folder: Folder, postgres_url: str, sqlite_url: str
) -> None:
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(
        "CREATE TABLE auth_user (id serial PRIMARY KEY, password varchar(128), last_login "
        "timestamptz, is_superuser boolean, username varchar(150), first_name varchar(150), "
        "email varchar(254), is_staff boolean, is_active boolean, date_joined timestamptz)"
    )
    joined = datetime(2015, 6, 7, 8, 9, 10, tzinfo=UTC)
    people = {
        f"u{n}@example.com": each[1]
        for n, each in enumerate(FOREIGN.values())
        if len(each[1]) < 128
    }
    rows: list[tuple[Any, ...]] = [
        (stored, None, False, email.partition("@")[0], "", email, False, True, joined)
        for email, stored in people.items()
    ]
    rows.append(
        (REFUSED["django unusable"], None, True, "odd", "", "o@example.com", True, True, joined)
    )
    rows.append((DJANGO, None, False, "none", "", "", False, True, joined))
    await connection.executemany(
        "INSERT INTO auth_user VALUES (DEFAULT, $1, $2, $3, $4, $5, $6, $7, $8, $9)", rows
    )
    done = await asyncio.to_thread(
        folder.run, "import", "--source", postgres_url, "--from", "django", "--database", sqlite_url
    )
    assert done.returncode == 1
    assert f"Created {len(people) + 1} users" in done.stdout, done
    assert "No password, reset at first sign-in: 1" in done.stdout
    assert "no_address 1" in done.stdout
    assert is_quiet(done)
    found = await signed_in(sqlite_url, dict.fromkeys(people, MADE_BY_OTHERS))
    first = found["u0@example.com"]
    assert (first["id"], first["username"]) == ("1", "u0")
    assert first["created_at"].startswith("2015-06-07T08:09:10")
    assert all(user["roles"] == [] for user in found.values())
    assert await connection.fetchval("SELECT count(*) FROM auth_user") == len(rows)
    await connection.close()


@pytest.mark.capability("S1-02", "S2-02", "S2-16")
async def test_users_of_myauth_come_in(folder: Folder, sqlite_url: str) -> None:
    url = sqlite_table(
        folder,
        "CREATE TABLE users (id TEXT PRIMARY KEY, email TEXT, username TEXT, hashed_password "
        "TEXT, roles TEXT, user_settings TEXT, is_verified INTEGER, is_active INTEGER, "
        "created_at TEXT, updated_at TEXT)",
        [
            (
                *("u-1", "Ada@example.com", "ada", BCRYPT, '["editor"]', '{"theme": "dark"}'),
                *(1, 1, "2024-02-03T04:05:06", "2024-02-03T04:05:06"),
            )
        ],
    )
    done = await asyncio.to_thread(
        folder.run, "import", url, "--from", "myauth", "--roles", "--database", sqlite_url
    )
    assert done.returncode == 0, done
    found = await signed_in(sqlite_url, {"ada@example.com": MADE_BY_OTHERS})
    user = found["ada@example.com"]
    assert (user["id"], user["username"], user["roles"]) == ("u-1", "ada", ["editor"])
    assert user["user_settings"] == {"theme": "dark"}
    assert user["created_at"] == "2024-02-03T04:05:06Z"


async def test_any_table_comes_in_with_a_map(folder: Folder, sqlite_url: str) -> None:
    url = sqlite_table(
        folder,
        "CREATE TABLE people (nr INTEGER PRIMARY KEY, mail TEXT, pwd TEXT, gone BLOB)",
        [(n, f"p{n}@example.com", FOREIGN["werkzeug pbkdf2 sha512"][1], b"\xff") for n in (3, 9)],
    )
    maps = ["--map", "id=nr", "--map", "email=mail", "--map", "password_hash=pwd", "--verified"]
    done = await asyncio.to_thread(
        folder.run, "import", url, "--table", "people", *maps, "--database", sqlite_url
    )
    assert done.returncode == 0, done
    assert "not read: gone" in done.stderr
    found = await signed_in(sqlite_url, {"p9@example.com": MADE_BY_OTHERS})
    assert found["p9@example.com"]["id"] == "9"


async def test_firebases_export_comes_in(folder: Folder, sqlite_url: str) -> None:
    user = {
        "localId": "abc",
        "email": "ada@example.com",
        "emailVerified": True,
        "passwordHash": FIREBASE_HASH.replace("+", "-").replace("/", "_"),
        "salt": FIREBASE_SALT,
        "createdAt": "1486324065000",
    }
    (folder.path / "users.json").write_text(json.dumps({"users": [user]}))
    key = folder.path / "key"
    key.write_text(FIREBASE_KEY + "\n")
    environ = {"WATCHWORD_PASSWORDS__FIREBASE_SIGNER_KEYS_FILE": str(key)}
    done = await asyncio.to_thread(
        folder.run,
        *("import", "users.json", "--from", "firebase", "--database", sqlite_url),
        **environ,
    )
    assert (done.returncode, "firebase-scrypt 1" in done.stdout) == (0, True), done
    assert is_quiet(done)
    shown = folder.run("config", **environ)
    assert FIREBASE_KEY not in shown.stdout
    async with telling(sqlite_url, environ=environ) as story:
        assert (await enter(story, "ada@example.com", FIREBASE_PASSWORD))["id"] == "abc"


def test_a_conflict_skips_or_stops(folder: Folder) -> None:
    write_lines(folder.path / "first.jsonl", [{"id": 1, "email": "a@example.com"}])
    write_lines(
        folder.path / "second.jsonl",
        [{"id": 2, "email": "a@example.com"}, {"id": 3, "email": "c@example.com"}],
    )
    assert folder.run("import", "first.jsonl").returncode == 0
    stopped = folder.run("import", "second.jsonl", "--on-conflict", "fail")
    assert (stopped.returncode, len(users_in(folder))) == (1, 1)
    assert "Stopped" in stopped.stderr
    skipped = folder.run("import", "second.jsonl")
    assert (skipped.returncode, len(users_in(folder))) == (1, 2)
    assert "email_taken 1" in skipped.stdout


def test_a_part_is_taken_and_the_next_run_goes_on_there(folder: Folder) -> None:
    write_lines(folder.path / "u.jsonl", [{"email": f"u{n}@example.com"} for n in range(10)])
    first = folder.run("import", "u.jsonl", "--limit", "4", "--resume", "place")
    assert "Read 4 rows" in first.stdout
    assert (folder.path / "place").exists()
    second = folder.run("import", "u.jsonl", "--limit", "2", "--resume", "place")
    assert "Read 6 rows" in second.stdout
    other = folder.run("import", "u.jsonl", "--resume", "place", "--database", "sqlite:///o.db")
    assert (other.returncode, "another source or database" in other.stderr) == (2, True)
    last = folder.run("import", "u.jsonl", "--resume", "place")
    assert "Read 10 rows" in last.stdout
    assert "Already there" not in last.stdout  # nothing was read twice
    assert len(users_in(folder)) == 10
    assert not (folder.path / "place").exists()


@pytest.mark.slow
@pytest.mark.parametrize("resume", [True, False], ids=["resumed", "run again"])
def test_killed_in_the_middle_and_run_again_everybody_is_there_once(
    folder: Folder, count: Callable[[int, int], int], resume: bool
) -> None:
    """Real processes and SIGKILL: at no moment is there half a user, and nobody is lost."""
    many = count(2_500, 10_000)
    rows = [
        {"email": f"u{n}@example.com", "password_hash": BCRYPT, **({"id": n} if n % 2 else {})}
        for n in range(many)
    ]
    rows[700] = {"email": "no address"}
    write_lines(folder.path / "u.jsonl", rows)
    place = folder.path / "place"
    database = folder.path / "data" / "watchword.db"
    arguments = ["import", "u.jsonl", "--report", "report"]
    if resume:
        arguments += ["--resume", "place"]
    kills, code, output = 0, 0, b""
    for _ in range(200):
        if not resume or not place.exists():
            (folder.path / "report").unlink(missing_ok=True)
        before = len(users_in(folder)) if kills else 0
        process = subprocess.Popen(
            [WATCHWORD, *arguments],
            cwd=folder.path,
            env=clean({"WATCHWORD_TRANSFER__BATCH": "100"}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        while process.poll() is None and kills < 4:
            time.sleep(0.03)
            if database.exists() and progress(folder) > before + 150:
                os.kill(process.pid, signal.SIGKILL)
                break
        output, _ = process.communicate(timeout=300)
        code = process.returncode
        if code != -signal.SIGKILL:
            break
        kills += 1
        whole = users_in(folder)
        assert all(stored == BCRYPT for *_, stored in whole)
    assert kills >= 3
    assert code == 1, output
    found = users_in(folder)
    emails = Counter(email for _, email, _ in found)
    assert emails == Counter(row["email"] for row in rows if row["email"] != "no address")
    assert {stored for *_, stored in found} == {BCRYPT}
    ids = {email: user_id for user_id, email, _ in found}
    assert all(ids[row["email"]] == str(row["id"]) for row in rows if "id" in row)
    lines = [json.loads(line) for line in (folder.path / "report").read_text().splitlines()]
    assert {"line": 701, "reason": "bad_address"} in lines
    if resume:
        assert f"Read {many:,} rows" in output.decode()
        assert not place.exists()


def progress(folder: Folder) -> int:
    try:
        return len(users_in(folder))
    except sqlite3.OperationalError:  # its tables are being made
        return 0


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_what_export_writes_import_reads(folder: Folder, form: str) -> None:
    rows = [
        {
            "id": n,
            "email": f"u{n}@example.com",
            "password_hash": stored,
            "username": "=1+1" if n % 2 else None,
            "user_settings": {"n": n},
            "roles": ["editor"],
            "is_verified": n % 3 == 0,
            "is_active": n % 4 != 0,
            "created_at": f"2020-01-{n + 1:02}T00:00:00+00:00",
        }
        for n, (_, stored) in enumerate(FOREIGN.values())
    ]
    write_lines(folder.path / "u.jsonl", rows)
    assert folder.run("import", "u.jsonl", "--roles").returncode == 0
    name = f"out.{form}"
    done = folder.run("export", "--format", form, "--hashes", "--output", name)
    assert (done.returncode, f"Wrote {len(rows)} users" in done.stderr) == (0, True), done
    assert stat.S_IMODE((folder.path / name).stat().st_mode) == 0o600
    assert folder.run("export", "--hashes", "--output", name).returncode == 2  # never overwritten
    back = folder.run("import", name, "--roles", "--database", "sqlite:///second.db")
    assert back.returncode == 0, back
    assert users_in(folder, "second.db") == users_in(folder)
    first, second = (
        folder.run("export", "--hashes", *more).stdout
        for more in ([], ["--database", "sqlite:///second.db"])
    )
    assert first == second
    assert len(first.splitlines()) == len(rows)
    without = folder.run("export").stdout
    assert "password_hash" not in without
    assert not any(stored in without for _, stored in FOREIGN.values())


def test_an_export_that_cannot_be_finished_leaves_no_file(folder: Folder) -> None:
    done = folder.run("export", "--output", "out.jsonl")
    assert (done.returncode, "there is no database" in done.stderr) == (2, True)
    assert not (folder.path / "out.jsonl").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"\x00" * 4096,
        b"email\n" + b"\xff" * 100 + b"\n",
        b"email\n" + b"x" * (10 * 1024 * 1024) + b"\n",
        b'email\n"\n',
        b"email\r\n=cmd|' /C calc'!A0\r\n",
        b'{"email": ' + b"[" * 50_000,
        b"\xef\xbb\xbf\xef\xbb\xbfemail\n",
    ],
    ids=["nul", "bytes", "huge", "quote", "formula", "deep", "marks"],
)
@pytest.mark.parametrize("ending", ["csv", "jsonl", "json"])
def test_a_hostile_file_ends_in_words(folder: Folder, content: bytes, ending: str) -> None:
    (folder.path / f"u.{ending}").write_bytes(content)
    options = ["--from", "firebase"] if ending == "json" else []
    done = folder.run(
        *("import", f"u.{ending}", *options),
        WATCHWORD_PASSWORDS__FIREBASE_SIGNER_KEYS=FIREBASE_KEY,
    )
    assert done.returncode in (1, 2)
    assert is_quiet(done)
    assert max(map(len, (done.stdout + done.stderr).splitlines())) < 500


def test_an_app_without_the_feature_says_so(folder: Folder) -> None:
    (folder.path / "bare.py").write_text(
        "from fastapi import FastAPI\n"
        "from watchword.presets import Watchword, minimal\n"
        "auth = Watchword('sqlite:///bare.db', features=minimal(), environment='development')\n"
        "app = FastAPI()\n"
        "auth.install(app)\n"
    )
    write_lines(folder.path / "u.jsonl", [{"email": "a@example.com"}])
    done = folder.script("import", "u.jsonl", "--app", "bare:app")
    assert (done.returncode, "add transfer() to its features" in done.stderr) == (2, True)


def test_the_help_says_what_each_option_is_for(folder: Folder) -> None:
    for command in ("import", "export"):
        done = folder.run(command, "--help")
        assert done.returncode == 0
        assert done.stdout.count("--") > 5


async def test_import_and_export_work_on_every_database(folder: Folder, database_url: str) -> None:
    rows = [
        {"id": n, "email": f"u{n}@example.com", "password_hash": BCRYPT, "is_verified": True}
        for n in range(25)
    ]
    write_lines(folder.path / "u.jsonl", rows)

    async def run(*arguments: str) -> Done:
        return await asyncio.to_thread(
            folder.run,
            *(*arguments, "--database", database_url),
            WATCHWORD_TRANSFER__BATCH="10",
        )

    tried = await run("import", "u.jsonl", "--dry-run")
    assert (tried.returncode, "Would create 25 users" in tried.stdout) == (0, True), tried
    first = await run("import", "u.jsonl", "--limit", "15")
    assert (first.returncode, "Created 15 users" in first.stdout) == (0, True), first
    tried = await run("import", "u.jsonl", "--dry-run")
    assert "Would create 10 users" in tried.stdout
    assert "Already there: 15" in tried.stdout
    again = await run("import", "u.jsonl")
    assert (again.returncode, "Created 10 users" in again.stdout) == (0, True), again
    out = await run("export", "--hashes")
    assert Counter(json.loads(line)["email"] for line in out.stdout.splitlines()) == Counter(
        row["email"] for row in rows
    )
    found = await signed_in(database_url, {"u24@example.com": MADE_BY_OTHERS})
    assert found["u24@example.com"]["id"] == "24"
