"""Pages that are made from the code agree with it, and the code with them."""

import json
import re
from pathlib import Path

import pytest

from tests.cli.command import Folder
from tests.plugin import PYDANTIC, Codes
from watchword.cli.reference import PAGES
from watchword.cli.reference.errors import error_kinds, fault_codes
from watchword.cli.reference.events import event_kinds
from watchword.features.audit.actions import AuthAction
from watchword.http.problems import problem
from watchword.kernel.errors import Fault, InvalidInput, NotAuthenticated, WatchwordError

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_what_the_code_says(name: str) -> None:
    """After changing a setting, an error, an event or a command: `watchword docs`."""
    assert (DOCS / name).read_text("utf-8") == PAGES[name]()


def test_the_command_writes_the_pages_and_says_which_are_stale(tmp_path: Path) -> None:
    folder = Folder(path=tmp_path)
    # A file of settings beside it, and the environment, change nothing in the reference.
    (tmp_path / "watchword.toml").write_text('client_id = "shop"\n[tokens]\naccess_ttl = "5m"\n')
    written = folder.run("docs", WATCHWORD_REALM="elsewhere")
    assert written.returncode == 0, written.stderr
    for name, page in PAGES.items():
        assert (tmp_path / "docs" / name).read_text("utf-8") == page()
    assert folder.run("docs", "--check").returncode == 0
    errors = tmp_path / "docs" / "reference" / "errors.md"
    errors.write_text(errors.read_text("utf-8").replace("`forbidden`", "`verboten`"), "utf-8")
    (tmp_path / "docs" / "reference" / "cli.md").unlink()
    checked = folder.run("docs", "--check")
    assert checked.returncode == 1
    assert "docs/reference/errors.md" in checked.stderr
    assert "docs/reference/cli.md" in checked.stderr
    assert "settings.md" not in checked.stderr
    assert "verboten" in errors.read_text("utf-8")  # --check writes nothing
    assert folder.run("docs").stdout.count("Wrote") == 2
    assert folder.run("docs", "--check", "--out", str(tmp_path / "nowhere")).returncode == 1


def test_each_setting_that_config_prints_stands_in_the_reference(tmp_path: Path) -> None:
    done = Folder(path=tmp_path).run("config", "--json")
    settings = json.loads(done.stdout)
    assert len(settings) > 80
    group, described = "", dict[str, str]()
    for line in PAGES["reference/settings.md"]().splitlines():
        if line.startswith("## "):
            group = "" if line == "## Core" else line.strip("# `") + "."
        elif line.startswith("| `"):
            name, variable, _default, _range, meaning = line.strip("| ").split(" | ", 4)
            described[group + name.strip("`")] = variable
            assert meaning, f"{name} has no description"
    assert {each["key"]: f"`{each['env']}`" for each in settings} == described


@pytest.mark.standard("16.1.1")
def test_each_event_stands_in_the_reference_with_who_announces_it() -> None:
    rows = {
        line.split("`")[1]: line.strip("| ").split(" | ")
        for line in PAGES["reference/events.md"]().splitlines()
        if line.startswith("| `")
    }
    assert set(rows) == {kind.__name__ for kind in event_kinds()}
    assert {"SessionStarted", "SignInFailed", "PasswordChanged", "RequestRefused"} <= set(rows)
    assert [name for name, cells in rows.items() if cells[5] == "–"] == []
    assert rows["SignInFailed"][3].startswith("`login_failed`")
    assert rows["SessionEnded"][3].startswith("`logout`, `token_revoked`, `session_ended`")
    kept = {word for cells in rows.values() for word in re.findall(r"`(\w+)`", cells[3])}
    assert kept <= set(AuthAction) | {name for name in kept if name.startswith("webhook_")}
    assert set(AuthAction) <= kept


def test_each_command_stands_in_the_reference(tmp_path: Path) -> None:
    heads = re.findall(r"^## `watchword ([a-z -]+)", PAGES["reference/cli.md"](), re.MULTILINE)
    words = {head.strip() for head in heads}
    assert {"serve", "docs", "users create", "keys rotate", "secret generate"} <= words
    prose = (DOCS / "cli.md").read_text("utf-8")
    for name in sorted({head.split()[0] for head in words}):
        assert f"`watchword {name}" in prose, f"docs/cli.md does not name watchword {name}"


def test_a_code_that_the_reference_lacks_fails_the_test_that_met_it() -> None:
    class Surprise(WatchwordError):
        code = "surprise"

    Surprise.__module__ = "watchword.features.surprise"  # as if it were one of ours
    codes = Codes()
    for error in (Surprise(), NotAuthenticated(), InvalidInput([Fault("age", "too_old", "is")])):
        codes.note(error)
    codes.note(InvalidInput([Fault("age", "int_parsing", "is"), Fault("age", "missing", "is")]))
    assert codes.undocumented() == ["surprise", "too_old"]
    assert codes.undocumented() == []  # said once
    assert "int_parsing" in PYDANTIC
    assert "not_authenticated" in error_kinds()
    assert "missing" in fault_codes()
    assert problem(NotAuthenticated()).status_code == 401  # which the run's own list notes


KEEPING = ("localStorage", "sessionStorage", "indexedDB")


@pytest.mark.capability("S4-39")
def test_no_page_or_example_of_ours_keeps_anything_where_scripts_can_read_it() -> None:
    told = (DOCS / "features" / "tokens.md").read_text("utf-8")
    assert "in `localStorage` or `sessionStorage`" in told
    shown = [
        path
        for folder in ("src", "examples")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".html", ".js", ".ts", ".py"} and path.is_file()
    ]
    assert len(shown) > 100
    keeping = [
        path.name
        for path in shown
        if any(word in path.read_text("utf-8", "replace") for word in KEEPING)
    ]
    assert keeping == []
