"""The benchmark commands read their arguments, and one short round of ours runs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import load, web
from benchmarks.__main__ import COMMANDS
from benchmarks.measure import ROOT, Samples, ratios, table
from benchmarks.servers import Contender, serving

pytestmark = pytest.mark.slow


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_says_what_it_takes(command: str) -> None:
    told = run(command, "--help")
    assert told.returncode == 0, told.stderr
    assert "--rounds" in told.stdout
    assert "--json" in told.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_refuses_what_it_does_not_know(command: str) -> None:
    assert run(command, "--unheard-of").returncode == 2


def test_an_unknown_command_is_answered_with_those_there_are() -> None:
    told = run("nothing")
    assert told.returncode == 2
    assert all(command in told.stdout for command in COMMANDS)


@pytest.mark.parametrize("maker", ["wrk", "own"])
def test_a_short_round_of_ours_gives_a_rate(maker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if maker == "own" or load.generator() != "wrk":
        monkeypatch.setattr(load, "generator", lambda: "own")
    chosen = [
        Contender(name=web.BARE, module="bare", variant="bare"),
        Contender(name=web.NOTHING, module="bare", variant="no-op"),
        Contender(name="ours: CurrentUser", module="ours", variant="user"),
        Contender(name="refused", module="ours", variant="user+anonymous", status=401),
        Contender(name="no cache", module="ours", variant="user+uncached+cookie"),
    ]
    rows = web.measured(chosen, rounds=1, seconds=0.2)
    assert all(row.rate.median > 0 for row in rows.values())
    assert "CurrentUser" in web.shown(rows)
    assert [target.name for target in web.judged(rows)] == [
        "CurrentUser, lifted, of no-op",
        "CurrentUser, lifted, of no-op, by CPU",
    ]


@pytest.mark.real_cost
def test_a_short_round_of_sign_ins_counts_them(tmp_path: Path) -> None:
    report = tmp_path / "signin.json"
    told = run(
        "signin", "--no-peers", "--only", "ours, SQLite", "--rounds", "1", "--seconds", "1",
        "--clients", "2", "--json", str(report),
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    row = json.loads(report.read_text())["rows"]["ours, SQLite"]
    assert row["failed"] == 0
    assert row["cpu_ms"]["median"] > 0


def test_a_short_round_of_look_ups_gives_cpu(tmp_path: Path) -> None:
    report = tmp_path / "lookup.json"
    told = run("lookup", "--rounds", "1", "--seconds", "0.05", "--json", str(report))
    assert told.returncode == 0, told.stderr
    assert json.loads(report.read_text())["rows"]["SQLite: gate, cookie"]["cpu"]["median"] > 0


def test_a_server_that_answers_otherwise_is_no_contender() -> None:
    wrong = Contender(name="wrong", module="bare", variant="bare", status=401)
    with pytest.raises(RuntimeError, match="answers 200 instead of 401"), serving(wrong, core=None):
        pass


def test_ratios_are_taken_within_a_round() -> None:
    assert ratios([2, 30], [1, 10]).values == [2, 3]
    assert Samples([3, 1, 2]).median == 2
    assert table(("", "n"), [("a", "10")]).splitlines()[-1] == "a  10"
