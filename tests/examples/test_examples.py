"""The examples do what the README says, run as it says."""

import re
import shutil
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from tests import told
from tests.cli.command import Folder, clean
from tests.examples.walking import ROOT, walk

README = (ROOT / "README.md").read_text("utf-8")

pytestmark = pytest.mark.slow


def test_the_example_is_the_readmes_to_the_letter() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    hello = (ROOT / "examples" / "hello" / "hello.py").read_text("utf-8")
    assert blocks[0] == hello
    assert len([line for line in hello.splitlines() if line.strip()]) <= 10


def test_the_readmes_commands_greet_ada(tmp_path: Path) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    assert "watchword dev hello:app\n" in blocks
    calls = next(block for block in blocks if "/auth/register" in block)
    shutil.copy(ROOT / "examples" / "hello" / "hello.py", tmp_path)
    with Folder(path=tmp_path).running("dev", "hello:app", "--port", "0") as server:
        assert "localhost:8000" in calls
        calls = calls.replace("localhost:8000", server.address.removeprefix("http://"))
        done = subprocess.run(
            ["bash", "-euc", calls],
            cwd=tmp_path,
            env=clean({}),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith('"ada@example.org"'), done.stdout
        with server.client() as client:
            assert client.get("/docs").status_code == 200
            assert client.get("/hello").status_code == 401


def test_dev_starts_again_when_a_file_changes(tmp_path: Path) -> None:
    hello = tmp_path / "hello.py"
    shutil.copy(ROOT / "examples" / "hello" / "hello.py", hello)
    with Folder(path=tmp_path).running("dev", "hello:app", "--port", "0") as server:
        hello.write_text(
            hello.read_text("utf-8") + '\n@app.get("/new")\nasync def new() -> int:\n    return 1\n'
        )
        with server.client() as client:
            until = time.monotonic() + 60
            while not is_there(client, "/new"):
                assert time.monotonic() < until, server.said()
                time.sleep(0.2)


def is_there(client: httpx.Client, path: str) -> bool:
    try:
        return client.get(path).status_code == 200
    except httpx.TransportError:  # between one start and the next
        return False


def test_the_walkthrough_goes_the_whole_way(tmp_path: Path, database_or_redis_url: str) -> None:
    environ = {
        "WATCHWORD_ENVIRONMENT": "development",
        "WATCHWORD_MAIL": f"file:{tmp_path / 'mail'}",
        "WATCHWORD_DATABASE": database_or_redis_url,
        **told.ENVIRON,
    }
    folder = Folder(path=tmp_path, environ=environ)
    with folder.running("serve", "--port", "0", "--data", "data", "--workers", "2") as server:
        done = walk(server.address, tmp_path / "mail")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "refresh_token_reused" in done.stdout
        assert done.stdout.endswith("The whole way.\n")


def test_the_walkthrough_says_where_it_stopped(tmp_path: Path) -> None:
    done = walk("http://127.0.0.1:1", tmp_path)
    assert done.returncode == 1
    assert "FAILED: POST /auth/register" in done.stderr
