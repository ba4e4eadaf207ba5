"""`watchword audit`: seeing, counting, writing out, and finding who touched it."""

import asyncio
import contextlib
import csv
import io
import json
import sqlite3

import pytest

from tests.cli.command import Folder
from tests.told import ADA, ANOTHER, EVE, telling
from watchword.crypto.keys import generate_secret

SECRET = generate_secret()
EVIL = "Mozilla\r\nroot login_success\x1b[2J"


@pytest.fixture
def url(folder: Folder) -> str:
    """A database in which somebody signed in, and somebody else did not."""
    url = f"sqlite:///{folder.path / 'app.db'}"

    async def run() -> None:
        async with telling(url, secret=SECRET, background=False) as story:
            await story.join()
            await story.log_in()
            for email in (ADA, EVE, EVE):
                body = {"email": email, "password": ANOTHER}
                headers = [(b"user-agent", EVIL.encode())]
                await story.client.post("/auth/login", json=body, headers=headers)
            story.move(minutes=2)
            while await story.auth.audit.seal():
                pass

    asyncio.run(run())
    return url


def run(folder: Folder, url: str, *arguments: str, code: int = 0, secret: bool = True) -> str:
    env = {"WATCHWORD_SECRET": SECRET.reveal()} if secret else {}
    done = folder.run(
        "audit", *arguments, "--database", url, WATCHWORD_ACCEPT_MISSING="limiter", **env
    )
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stdout if not code or done.stdout else done.stderr


@pytest.mark.capability("S0-95")
@pytest.mark.standard("14: 16.4.1")
def test_an_operator_lists_counts_and_writes_out_what_happened(folder: Folder, url: str) -> None:
    listed = json.loads(run(folder, url, "list", "--json", secret=False))
    actions = [each["action"] for each in listed["items"]]
    assert actions.count("login_failed") == 3
    assert {"register", "login_success", "address_proven"} <= set(actions)
    assert "203.0.113" not in json.dumps(listed)
    text = run(folder, url, "list", "--failed", secret=False)
    assert text.count("login_failed") == 3
    assert "login_success" not in text
    assert "\x1b" not in text
    only = json.loads(run(folder, url, "list", "--action", "login_success", "--json"))
    assert len(only["items"]) == 1

    page = json.loads(run(folder, url, "list", "--json", "--limit", "2"))
    rest = json.loads(run(folder, url, "list", "--json", "--after", page["next"]))
    assert len(page["items"]) + len(rest["items"]) == len(listed["items"])
    assert "no cursor" in run(folder, url, "list", "--after", "x", code=1)

    assert len(json.loads(run(folder, url, "list", "--email", EVE, "--json"))["items"]) == 2
    theirs = json.loads(run(folder, url, "list", "--user", ADA, "--json"))["items"]
    assert {each["user_id"] for each in theirs} == {theirs[0]["user_id"]}
    found = json.loads(run(folder, url, "list", "--address", "127.0.0.1", "--json"))
    assert {each["result"] for each in found["items"]} == {"success", "failure"}
    assert "secret of the servers" in run(folder, url, "list", "--email", EVE, code=2, secret=False)
    assert "one of" in run(folder, url, "list", "--email", EVE, "--user", ADA, code=2)
    assert "write 90m" in run(folder, url, "list", "--within", "soon", code=2)

    counted = json.loads(run(folder, url, "summary", "--json", secret=False))
    assert counted["actions"]["login_failed"] == 3
    assert counted["failures"] == 3
    assert counted["total"] == len(actions)
    assert "login_failed" in run(folder, url, "summary", secret=False)

    lines = run(folder, url, "export", secret=False).splitlines()
    assert sorted(json.loads(line)["action"] for line in lines) == sorted(actions)
    assert "\x1b" not in "".join(lines)
    rows = list(csv.DictReader(io.StringIO(run(folder, url, "export", "--format", "csv"))))
    assert len(rows) == len(lines)
    assert all(cell.isprintable() for row in rows for cell in row.values())
    assert run(folder, url, "export", "--until", "30d") == ""
    out = folder.path / "audit.jsonl"
    assert run(folder, url, "export", "--output", str(out)) == ""
    assert out.read_text().splitlines() == lines
    assert out.stat().st_mode & 0o777 == 0o600
    assert "is there" in run(folder, url, "export", "--output", str(out), code=2)
    assert "which zone" in run(folder, url, "export", "--since", "2026-01-01T00:00:00", code=2)


@pytest.mark.invariant("I-23")
@pytest.mark.capability("S3-22", "DEF-31")
@pytest.mark.standard("14: 16.4.2-3")
def test_verify_names_the_entry_that_somebody_edited_in_the_database(
    folder: Folder, url: str
) -> None:
    whole = json.loads(run(folder, url, "verify", "--json"))
    assert (whole["whole"], whole["seals"], whole["faults"]) == (True, 1, [])
    text = run(folder, url, "verify", "--head", whole["head"])
    assert "All as it was sealed" in text
    assert whole["head"] in text
    assert "tail_cut" in run(folder, url, "verify", "--head", "A" * 43, code=1)

    edit = "UPDATE watchword_audit_entry SET {} WHERE id = (SELECT min(id) FROM {})"
    with contextlib.closing(sqlite3.connect(folder.path / "app.db")) as database:
        where = "watchword_audit_entry WHERE action = 'login_failed'"
        ((victim,),) = database.execute(f"SELECT min(id) FROM {where}").fetchall()
        database.execute(edit.format("action = 'login_success', result = 'success'", where))
        database.commit()
    said = run(folder, url, "verify", code=1)
    assert f"entry {victim} is not as it was sealed (entry_edited)" in said
    (fault,) = json.loads(run(folder, url, "verify", "--json", code=1))["faults"]
    assert (fault["what"], fault["entry_id"], fault["seal"]) == ("entry_edited", victim, 1)

    with contextlib.closing(sqlite3.connect(folder.path / "app.db")) as database:
        database.execute("DELETE FROM watchword_audit_entry WHERE id = ?", (victim,))
        database.commit()
    assert f"entry {victim} was sealed and is gone" in run(folder, url, "verify", code=1)
    assert "secret of the servers" in run(folder, url, "verify", code=2, secret=False)


@pytest.mark.invariant("I-23")
def test_commands_are_on_record_and_seal_by_hand(folder: Folder, url: str) -> None:
    done = folder.run(
        *("users", "disable", ADA, "--database", url), WATCHWORD_ACCEPT_MISSING="limiter"
    )
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads(run(folder, url, "list", "--action", "user_disabled", "--json"))["items"]
    assert (entry["actor"], entry["address"]) == ("command", None)
    assert entry["details"] == {"command": "users disable"}
    assert len(entry["request_id"]) == 26
    assert "1 seals" in run(folder, url, "seal"), "it is not a minute old"
    keys = json.loads(run(folder, url, "key"))["keys"]
    assert [key["crv"] for key in keys] == ["Ed25519"]
    assert "d" not in keys[0]
