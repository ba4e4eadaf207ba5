"""A server whose store is away, or cannot be, does not start, and says why without a secret."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.victim import REAL, ROOT, environment

SAID_IN = 60.0  # seconds


def no_postgres(folder: Path) -> dict[str, str]:
    url = f"postgresql://somebody:hidden@/nowhere?host={folder}"
    return environment(url, folder / "mails")


def no_mongodb(folder: Path) -> dict[str, str]:
    url = "mongodb://somebody:hidden@127.0.0.1:1/nowhere?selection_timeout=1"
    return environment(url, folder / "mails")


def no_redis(folder: Path) -> dict[str, str]:
    kept = {"WATCHWORD_SESSIONS__STORE": "redis://somebody:hidden@127.0.0.1:1/0"}
    return environment(f"sqlite:///{folder / 'here.db'}", folder / "mails", **kept)


def no_folder(folder: Path) -> dict[str, str]:
    (folder / "hidden").write_text("a file")
    return environment(f"sqlite:///{folder / 'hidden' / 'watchword.db'}", folder / "mails")


@pytest.mark.slow
@pytest.mark.capability("DEF-18")
@pytest.mark.parametrize(
    ("away", "said"),
    [
        pytest.param(no_postgres, "store", id="postgresql"),
        pytest.param(no_mongodb, "store", id="mongodb"),
        pytest.param(no_redis, "store", id="sqlite-redis"),
        pytest.param(no_folder, "", id="sqlite"),
    ],
)
@pytest.mark.parametrize("command", ["serve", "worker"])
def test_what_has_no_store_does_not_start_and_says_why_in_a_line(
    tmp_path: Path, away: Callable[[Path], dict[str, str]], said: str, command: str
) -> None:
    program, serve, *port = REAL
    ended = subprocess.run(
        [*(program, command), *(port if command == serve else ()), "--data", tmp_path / "data"],
        check=False,
        capture_output=True,
        text=True,
        timeout=SAID_IN,
        cwd=ROOT,
        env=away(tmp_path),
    )
    text = ended.stdout + ended.stderr
    assert ended.returncode not in {0, -9}, text
    assert "Traceback" not in text
    assert "hidden" not in text.replace(str(tmp_path / "hidden"), ""), text
    assert said in text
    assert len(text.strip().splitlines()) in range(1, 4), text
