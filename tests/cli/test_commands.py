"""Commands that end by themselves: what they print, and what they refuse."""

import json
import sqlite3
from contextlib import closing
from typing import Any

import pytest
import typer

from tests.cli.command import PASSWORD, Folder
from watchword.crypto.keys import generate_secret, secret_fault
from watchword.kernel.secrets import Secret
from watchword.server.serving import Place

DATABASE = ("--database", "sqlite:///app.db")
ADA = "ada@example.org"


def create(folder: Folder, *options: str, email: str = ADA, password: str = PASSWORD) -> None:
    done = folder.run(
        "users", "create", email, "--password-stdin", *DATABASE, *options, stdin=f"{password}\n"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_help_names_every_command(folder: Folder) -> None:
    text = folder.script("--help").stdout
    for name in (
        *("serve", "dev", "worker", "migrate", "config", "users", "tokens", "secret"),
        *("import", "export"),
    ):
        assert name in text
        assert folder.run(name, "--help").stdout.count("\n") > 3


def test_config_says_where_a_setting_came_from_and_masks_secrets(folder: Folder) -> None:
    secret = generate_secret().reveal()
    (folder.path / "watchword.toml").write_text('[tokens]\naccess_ttl = "5m"\n')
    done = folder.run(
        "config",
        "--json",
        WATCHWORD_SECRET=secret,
        WATCHWORD_DATABASE="postgresql://ada:hunter2@db.example.org/app?sslpassword=hunter3",
        WATCHWORD_MAIL="smtp://ada:hunter4@mail.example.org",
    )
    assert done.returncode == 0, done.stderr
    settings = {each["key"]: each for each in json.loads(done.stdout)}
    assert settings["secret"]["value"] == "***"
    assert settings["secret"]["source"] == "environment WATCHWORD_SECRET"
    assert settings["tokens.access_ttl"]["value"] == "5m"
    assert settings["tokens.access_ttl"]["source"] == "watchword.toml"
    assert settings["tokens.access_ttl"]["env"] == "WATCHWORD_TOKENS__ACCESS_TTL"
    assert settings["tokens.refresh_ttl"] | {"description": ""} == {
        "key": "tokens.refresh_ttl",
        "env": "WATCHWORD_TOKENS__REFRESH_TTL",
        "value": "7d",
        "source": "default",
        "description": "",
    }
    assert settings["database"]["value"] == (
        "postgresql://ada:***@db.example.org/app?sslpassword=***"
    )
    table = folder.run("config", WATCHWORD_SECRET=secret, WATCHWORD_MAIL="smtp://a:hunter4@b.org")
    for text in (done.stdout, table.stdout):
        assert secret not in text
        assert "hunter" not in text
    assert "tokens.access_ttl" in table.stdout


def test_config_knows_what_serve_keeps_in_its_folder(folder: Folder) -> None:
    done = folder.run("config", "--json", "--data", "things")
    settings = {each["key"]: each for each in json.loads(done.stdout)}
    assert settings["database"]["value"].endswith("/things/watchword.db")
    assert settings["database"]["source"] == "--data"
    assert settings["secret"]["source"] == "file things/secret"


@pytest.mark.slow
def test_config_of_an_app_of_ones_own(folder: Folder) -> None:
    (folder.path / "mine.py").write_text(
        "from fastapi import FastAPI\n"
        "from watchword import Watchword\n"
        "app = FastAPI()\n"
        "Watchword('sqlite:///mine.db').install(app)\n"
    )
    done = folder.script(
        "config", "--app", "mine:app", "--json", WATCHWORD_ENVIRONMENT="development"
    )
    settings = {each["key"]: each for each in json.loads(done.stdout)}
    assert settings["database"]["value"] == "sqlite:///mine.db"
    assert settings["database"]["source"] == "argument"


@pytest.mark.parametrize("name", ["nothing:app", "json:nothing", "json:loads", "json"])
def test_an_app_that_is_not_there_is_named(folder: Folder, name: str) -> None:
    done = folder.run("config", "--app", name)
    assert done.returncode == 2
    assert name in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_variable_is_named_with_every_other_fault(folder: Folder) -> None:
    done = folder.run("config", WATCHWORD_TOKNES__ACCESS_TTL="5m", WATCHWORD_HASH_QUEUE="none")
    assert done.returncode == 2
    assert "WATCHWORD_TOKNES__ACCESS_TTL" in done.stderr
    assert "WATCHWORD_HASH_QUEUE" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_script_itself_makes_an_administrator_and_lists_it(folder: Folder) -> None:
    done = folder.script(
        *("users", "create", ADA, "--role", "admin", "--password-stdin", *DATABASE),
        stdin=f"{PASSWORD}\n",
    )
    assert done.returncode == 0, done.stderr
    page = json.loads(folder.script("users", "list", "--json", *DATABASE).stdout)
    assert [(user["email"], user["roles"]) for user in page["items"]] == [(ADA, ["admin"])]
    refused = folder.script("users", "list", WATCHWORD_NONSENSE="1")
    assert refused.returncode == 2
    assert "WATCHWORD_NONSENSE" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.capability("S1-29", "S0-38")
def test_a_generated_secret_is_good_for_production(folder: Folder) -> None:
    one, other = (folder.run("secret", "generate").stdout.strip() for _ in range(2))
    assert one != other
    assert secret_fault(Secret(one), development=False) is None


def test_the_life_of_a_user(folder: Folder) -> None:
    create(folder, "--role", "admin", "--role", "editor", "--username", "Ada")
    create(folder, "--no-verified", email="eve@example.org")
    page = json.loads(folder.run("users", "list", "--json", *DATABASE).stdout)
    assert [(u["email"], u["roles"], u["is_verified"]) for u in page["items"]] == [
        (ADA, ["admin", "editor"], True),
        ("eve@example.org", [], False),
    ]
    assert page["next"] is None
    assert "hash" not in json.dumps(page)
    table = folder.run("users", "list", *DATABASE).stdout
    assert ADA in table
    assert "admin, editor" in table

    assert folder.run("users", "disable", ADA, *DATABASE).returncode == 0
    ada = json.loads(folder.run("users", "show", ADA, "--json", *DATABASE).stdout)
    assert ada["is_active"] is False
    assert folder.run("users", "enable", ada["id"], *DATABASE).returncode == 0
    assert "is_active      true" in folder.run("users", "show", ada["id"], *DATABASE).stdout

    owing = folder.run("users", "require-password-change", ADA, *DATABASE)
    assert f"{ADA} ({ada['id']}) sets another password" in owing.stdout
    with closing(sqlite3.connect(folder.path / "app.db")) as connection:
        owed = connection.execute("SELECT user_id, change_owed FROM watchword_password").fetchall()
    assert (ada["id"], "operator") in owed
    nobody = folder.run("users", "require-password-change", "nobody@example.org", *DATABASE)
    assert nobody.returncode == 1

    asked = folder.run("users", "delete", ADA, *DATABASE)
    assert asked.returncode == 2
    assert "--yes" in asked.stderr
    assert folder.run("users", "delete", ADA, "--yes", *DATABASE).returncode == 0
    gone = folder.run("users", "show", ADA, *DATABASE)
    assert gone.returncode == 1
    assert gone.stderr == "No such user (user_not_found)\n"
    with closing(sqlite3.connect(folder.path / "app.db")) as database:
        assert database.execute("SELECT count(*) FROM watchword_password").fetchone() == (1,)


def test_lists_go_on_where_they_ended(folder: Folder) -> None:
    for number in range(3):
        create(folder, email=f"user{number}@example.org")
    first = json.loads(folder.run("users", "list", "--json", "--limit", "2", *DATABASE).stdout)
    rest = json.loads(
        folder.run("users", "list", "--json", "--after", first["next"], *DATABASE).stdout
    )
    assert [user["email"] for user in first["items"] + rest["items"]] == [
        f"user{number}@example.org" for number in range(3)
    ]


def test_a_weak_password_is_refused_with_its_reason(folder: Folder) -> None:
    done = folder.run("users", "create", ADA, "--password-stdin", *DATABASE, stdin="short\n")
    assert done.returncode == 1
    assert "password_too_short" in done.stderr
    assert "short\n" not in done.stdout
    assert json.loads(folder.run("users", "list", "--json", *DATABASE).stdout)["items"] == []


@pytest.mark.parametrize("email", ["ada", "a@example.org,b@example.org", "a@b\r\nBcc: c@d.org"])
def test_what_is_no_address_is_refused(folder: Folder, email: str) -> None:
    done = folder.run(
        "users", "create", email, "--password-stdin", *DATABASE, stdin=f"{PASSWORD}\n"
    )
    assert done.returncode == 1
    assert "email_invalid" in done.stderr


def test_an_address_is_taken_once(folder: Folder) -> None:
    create(folder)
    done = folder.run(
        "users", "create", ADA.upper(), "--password-stdin", *DATABASE, stdin=f"{PASSWORD}\n"
    )
    assert done.returncode == 1
    assert "user_already_exists" in done.stderr


def test_a_password_is_never_an_argument_and_never_guessed(folder: Folder) -> None:
    assert folder.run("users", "create", ADA, "--password", PASSWORD, *DATABASE).returncode == 2
    silent = folder.run("users", "create", ADA, *DATABASE)
    assert silent.returncode == 2
    assert "--password-stdin" in silent.stderr


def test_a_database_that_is_not_there_is_not_made_by_looking(folder: Folder) -> None:
    done = folder.run("users", "list", *DATABASE)
    assert done.returncode == 2
    assert "app.db" in done.stderr
    assert not (folder.path / "app.db").exists()


def test_a_plan_for_an_empty_database_changes_nothing(folder: Folder) -> None:
    plan = folder.run("migrate", "--plan", *DATABASE)
    assert plan.returncode == 0, plan.stderr
    assert "CREATE TABLE watchword_user" in plan.stdout
    assert not (folder.path / "app.db").exists()


def test_migrate_fills_an_empty_database_and_then_has_nothing_to_do(folder: Folder) -> None:
    done = folder.run("migrate", *DATABASE)
    assert done.returncode == 0, done.stderr
    assert "watchword_user" in done.stdout
    plan = folder.run("migrate", "--plan", *DATABASE)
    assert (plan.returncode, plan.stdout) == (0, "")
    assert "up to date" in plan.stderr
    assert folder.run("migrate", *DATABASE).stdout == ""


def test_a_database_that_is_behind_says_so_and_is_brought_up(folder: Folder) -> None:
    create(folder)
    with closing(sqlite3.connect(folder.path / "app.db")) as database:
        database.execute("ALTER TABLE watchword_user DROP COLUMN username")
        database.commit()
    behind = folder.run("users", "list", *DATABASE)
    assert behind.returncode == 1
    assert "watchword migrate" in behind.stderr
    assert "Traceback" not in behind.stderr
    assert "username" in folder.run("migrate", "--plan", *DATABASE).stdout
    assert folder.run("migrate", *DATABASE).returncode == 0
    assert ADA in folder.run("users", "list", *DATABASE).stdout


def test_a_database_that_is_away_is_one_line(folder: Folder) -> None:
    done = folder.run("users", "list", "--database", "postgresql://u:hunter2@127.0.0.1:1/none")
    assert done.returncode == 1
    assert "store_unavailable" in done.stderr
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr


def test_a_plan_never_touches_a_database_that_appears_meanwhile(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = folder.path / "later" / "app.db"
    echo = typer.echo

    def start_a_server(*arguments: Any, **options: Any) -> None:
        if not file.exists():
            assert not file.parent.exists()  # planning makes no folder
            file.parent.mkdir()
            file.write_bytes(b"live")
            file.with_name("app.db-wal").write_bytes(b"live")
        echo(*arguments, **options)

    monkeypatch.setattr(typer, "echo", start_a_server)
    done = folder.run("migrate", "--plan", "--database", "sqlite:///later/app.db")
    assert done.returncode == 0, done.stderr
    assert "CREATE TABLE" in done.stdout
    assert file.read_bytes() == file.with_name("app.db-wal").read_bytes() == b"live"


def test_a_database_is_for_its_owner_only(folder: Folder) -> None:
    data = folder.path / "data"
    data.mkdir(mode=0o755)
    assert folder.run("migrate").returncode == 0
    file = data / "watchword.db"
    assert file.stat().st_mode & 0o777 == 0o600
    assert data.stat().st_mode & 0o777 == 0o755
    file.chmod(0o644)
    Place(data=data).make(database=True)
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("command", [("migrate",), ("users", "create", ADA, "--password-stdin")])
def test_a_database_below_a_file_is_one_line(folder: Folder, command: tuple[str, ...]) -> None:
    (folder.path / "file").write_text("no folder")
    done = folder.run(*command, "--database", "sqlite:///file/x.db", stdin=f"{PASSWORD}\n")
    assert done.returncode == 2
    assert "cannot be made" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["", "x" * 129, "a\nb", "a\x1b[2Jb"])
def test_a_username_is_checked_as_over_http(folder: Folder, name: str) -> None:
    done = folder.run(
        *("users", "create", ADA, "--username", name, "--password-stdin", *DATABASE),
        stdin=f"{PASSWORD}\n",
    )
    assert done.returncode == 1
    assert "username" in done.stderr
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr
    assert not (folder.path / "app.db").exists()
