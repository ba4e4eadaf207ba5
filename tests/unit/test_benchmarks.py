"""The benchmark commands read their arguments, and one short round of ours runs."""

import asyncio
import json
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks import load, web
from benchmarks.__main__ import COMMANDS, main
from benchmarks.growth_plans import Statement, of_sqlite
from benchmarks.measure import ROOT, Samples, ratios, table
from benchmarks.revocation_client import Line, Refusals, refused
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
def test_a_command_says_what_it_takes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "--rounds" in said
    assert "--json" in said


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_refuses_what_it_does_not_know(command: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--unheard-of"])
    assert ended.value.code == 2


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


def test_a_short_round_of_refreshes_and_lists_is_shown_beside_its_own_kind() -> None:
    wanted = {web.BARE, web.NOTHING, f"{web.REFRESH}, SQLite", f"{web.LIST}, SQLite"}
    rows = web.measured([row for row in web.ROWS if row.name in wanted], rounds=2, seconds=0.2)
    assert set(rows) == wanted
    assert all(row.rate.median > 0 for row in rows.values())
    rows = {**rows, web.REFRESH_BY_HAND: rows[f"{web.REFRESH}, SQLite"]}
    first, second = web.shown(rows).split("\n\n")
    assert web.REFRESH not in first
    refreshed = next(line for line in second.splitlines() if f"{web.REFRESH}, SQLite" in line)
    assert refreshed.endswith("1.00 (1.00-1.00)    1.00")


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


def test_a_short_round_of_endings_tells_when_each_worker_refused(tmp_path: Path) -> None:
    report = tmp_path / "revocation.json"
    told = run(
        "revocation", "--only", "sqlite", "--workers", "2", "--sessions", "2", "--users", "1",
        "--commands", "1", "--seconds", "0.3", "--json", str(report),
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    row = json.loads(report.read_text())["rows"]["SQLite"]
    assert row["woken_by"] == "data_version"
    # Another worker than the one it was ended at; the command line is no worker.
    counts = {kind: len(found["delays_ms"]) for kind, found in row["refusals"].items()}
    assert counts == {"ended at one": 2, "user off at one": 1, "user off, command line": 2}
    assert all(found["yes_after_bound"] == 0 for found in row["refusals"].values())
    assert all(found["yes_after_no"] == 0 for found in row["refusals"].values())
    assert 0 < row["hit_rate"] < 1


async def test_what_is_believed_too_long_or_once_more_is_counted() -> None:
    answers = iter((200, 200, 401, 401, 200, 401, 401, 401))
    gone = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            while (await reader.readline()).strip():
                pass
            writer.write(f"HTTP/1.1 {next(answers)} -\r\nContent-Length: 0\r\n\r\n".encode())
        writer.close()
        await writer.wait_closed()
        gone.set()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    line, found = Line(server.sockets[0].getsockname()[1]), Refusals()
    async with server:
        await refused(line, "token", found, ended=time.perf_counter() - 3, bound=2)
        line.close()
        await gone.wait()
    assert (found.late, found.again, found.at_once) == (2, 1, 0)
    assert 3000 < found.last < found.delays[0]


@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
def test_a_short_round_of_growth_gives_times_and_plans(store: str, tmp_path: Path) -> None:
    report = tmp_path / "growth.json"
    told = run(
        "growth", "--only", store, "--largest", "3", "--rounds", "1", "--operations", "1",
        "--json", str(report),
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    found = json.loads(report.read_text())
    assert all(times["1000"]["median"] > 0 for times in found["microseconds"][store].values())
    planned = {plan["statement"] for plan in found["plans"][store]}
    assert {"select user", "update session", "delete session", "select outbox_mail"} <= planned


@pytest.mark.capability("S1-43", "S1-34")
@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
def test_with_a_hundred_thousand_sessions_no_statement_goes_through_a_table(
    store: str, tmp_path: Path
) -> None:
    report = tmp_path / "growth.json"
    told = run(
        "growth", "--only", store, "--largest", "5", "--rounds", "1", "--operations", "6",
        "--json", str(report),
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    plans = json.loads(report.read_text())["plans"][store]
    assert {"select session", "update session", "delete session"} <= {
        plan["statement"] for plan in plans
    }
    assert [plan for plan in plans if plan["faults"]] == []


@pytest.mark.parametrize(
    ("condition", "faults"),
    [("id = ?", 0), ("realm = ? ORDER BY mail LIMIT 3", 1), ("mail = ?", 1), ("+id = ?", 1)],
)
def test_a_way_through_a_whole_table_is_told(condition: str, faults: int, tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    with closing(sqlite3.connect(path)) as made:
        made.execute("CREATE TABLE watchword_user (id TEXT PRIMARY KEY, realm TEXT, mail TEXT)")
        made.execute("CREATE INDEX some ON watchword_user (realm)")
    asked = Statement(f"SELECT id FROM watchword_user WHERE {condition}", ("x",))
    plans = of_sqlite(str(path), {"any": [asked]}, frozenset({"watchword_user"}), when="-")
    assert len(plans[0].faults) == faults


def test_a_server_that_answers_otherwise_is_no_contender() -> None:
    wrong = Contender(name="wrong", module="bare", variant="bare", status=401)
    with pytest.raises(RuntimeError, match="answers 200 instead of 401"), serving(wrong, core=None):
        pass


def test_ratios_are_taken_within_a_round() -> None:
    assert ratios([2, 30], [1, 10]).values == [2, 3]
    assert Samples([3, 1, 2]).median == 2
    assert table(("", "n"), [("a", "10")]).splitlines()[-1] == "a  10"
