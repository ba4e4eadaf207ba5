"""examples/under_attack.sh, run as it says; and that it would notice."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.command import clean
from tests.examples.walking import ROOT

pytestmark = pytest.mark.slow

ATTACK = ROOT / "examples" / "under_attack"


@pytest.mark.capability("DEF-09", "DEF-15", "S4-38")
@pytest.mark.invariant("I-20", "I-21", "I-22")
def test_nothing_gets_through_and_the_audit_has_it_all(
    tmp_path: Path, say: Callable[[str], None]
) -> None:
    done = subprocess.run(
        ["sh", str(ROOT / "examples" / "under_attack.sh"), str(tmp_path)],
        env=clean({"CROWD": "150"}),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.strip().splitlines()[-1]
    say(f"examples/under_attack.sh: {last}")
    assert "nothing got through" in last
    rows = {line[:34].strip(): line[34:] for line in done.stdout.splitlines() if len(line) > 34}
    seen = {
        "150 accounts from one address": {"20"},
        "one account from 150 addresses": {"47", "48", "49", "50"},
        "50 guesses at the same moment": {"5"},
        "200 made-up addresses": {"20"},
    }
    for name, counts in seen.items():
        _, looked, through = rows[name].split()[:3]
        assert looked in counts, (name, rows[name])
        assert through == "0"
    assert len([line for line in rows.values() if re.match(r"\s*\d+ .*\b0\b", line)]) >= 12
    for action in ("login_failed", "rate_limit_exceeded", "account_locked", "request_refused"):
        assert re.search(rf"^{action} +\d+", done.stdout, re.MULTILINE), done.stdout
    assert "All as it was sealed" in done.stdout


def test_it_notices_a_server_that_lets_everybody_guess(tmp_path: Path) -> None:
    settings = {
        "WATCHWORD_LIMITS__ENABLED": "false",
        "WATCHWORD_LOCKOUT__ENABLED": "false",
        "WATCHWORD_ACCEPT_MISSING": "limiter",
    }
    script = (
        "import pathlib, sys; sys.path.insert(0, sys.argv[1]); import attack\n"
        f"server = attack.Server(pathlib.Path(sys.argv[2]), settings={settings!r})\n"
        "server.start()\n"
        "try: print(attack.at_once(server, 12).through)\n"
        "finally: server.stop()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(ATTACK), str(tmp_path)],
        env=clean({"PATH": os.environ["PATH"]}),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 12 - 5
