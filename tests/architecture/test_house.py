"""The house: versions, pins, scripts, README, and a wheel that works where nothing else is."""

import ast
import importlib.metadata
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import watchword

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ("scripts/serve", "scripts/test", "scripts/check", ".ci/run")
LOCKS = ("constraints*.txt", "requirements*.txt", "*.lock", "package-lock.json", "pnpm-lock.yaml")
NOT_OURS = {".venv", ".git", "node_modules", "data", "dist", "build"}


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def pins() -> dict[str, str]:
    found: dict[str, str] = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line.split("  #")[0])
            (only,) = pin.specifier
            assert only.operator == "==", f"{line} is not exact"
            found[canonicalize_name(pin.name)] = only.version
    return found


def ours(pattern: str) -> Iterator[Path]:
    for path in ROOT.rglob(pattern):
        if not NOT_OURS & set(path.relative_to(ROOT).parts):
            yield path


@pytest.mark.capability("S0-122")
def test_the_version_is_said_once_and_the_metadata_agrees() -> None:
    said = pyproject()["project"]["version"]
    assert watchword.__version__ == importlib.metadata.version("watchword") == said


@pytest.mark.capability("S2-33")
def test_databases_and_the_server_are_extras() -> None:
    project = pyproject()["project"]
    assert {"postgres", "mongo", "redis", "server", "all"} <= set(project["optional-dependencies"])
    core = {Requirement(line).name for line in project["dependencies"]}
    assert not core & {"asyncpg", "pymongo", "redis", "uvicorn"}


def test_all_that_is_asked_for_is_pinned_at_a_version_that_is_allowed() -> None:
    project = pyproject()["project"]
    asked = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
        *pyproject()["dependency-groups"]["dev"],
        *pyproject()["build-system"]["requires"],
    ]
    pinned = pins()
    for requirement in map(Requirement, asked):
        if requirement.name == "watchword":
            continue
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} is pinned at {version}"


@pytest.mark.parametrize("pattern", LOCKS)
def test_no_pin_names_where_it_was_downloaded(pattern: str) -> None:
    for path in ours(pattern):
        named = re.findall(r"\w+://\S+|^\s*-[-a-z]*index\S*", path.read_text(), re.MULTILINE)
        assert not named, f"{path.relative_to(ROOT)} names {named[:3]}"


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_can_be_run_and_read_by_a_plain_shell(script: str) -> None:
    path = ROOT / script
    assert os.access(path, os.X_OK)
    assert path.read_text().startswith("#!/bin/sh\n")
    subprocess.run(["sh", "-n", path], check=True)


def test_the_readme_shows_the_two_commands_and_the_ten_line_app_before_line_40() -> None:
    head = (ROOT / "README.md").read_text().splitlines()[:39]
    text = "\n".join(head)
    assert "scripts/serve" in text
    assert "scripts/test" in text
    (app,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(app.splitlines()) == 10
    assert "auth.install(app)" in app
    assert "CurrentUser" in app
    ast.parse(app)


@pytest.mark.capability("S2-40")
@pytest.mark.parametrize("name", ["LICENSE", "CONTRIBUTING.md", "SECURITY.md", "changes/README.md"])
def test_who_may_use_it_and_how_to_help_is_said(name: str) -> None:
    assert len((ROOT / name).read_text().split()) > 50


@pytest.mark.capability("S0-119", "S2-01")
def test_the_package_imports_without_drivers_engines_or_server() -> None:
    program = """
import sys

ABSENT = {"aiosqlite", "alembic", "asyncpg", "pymongo", "redis", "sqlalchemy", "uvicorn", "uvloop"}

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
import watchword
for name in watchword.__all__:
    getattr(watchword, name)
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT / "src")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of what the build reads, so that the work tree stays as it is."""
    source = tmp_path_factory.mktemp("source")
    shutil.copytree(
        ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE", "CONTRIBUTING.md", "SECURITY.md"):
        shutil.copy(ROOT / name, source)
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, source],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    (built,) = out.glob("watchword-*.whl")
    return built


@pytest.mark.slow
@pytest.mark.capability("S2-01")
def test_the_wheel_has_all_that_the_package_has_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src" / "watchword").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert "watchword/py.typed" in package
    assert package <= names
    assert {name.split("/")[0] for name in names - package} == {
        f"watchword-{pyproject()['project']['version']}.dist-info"
    }


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, without extras: the folder of its programs."""
    home = tmp_path_factory.mktemp("elsewhere") / "env"
    venv.create(home, with_pip=True)
    install(home / "bin", str(wheel))
    return home / "bin"


def install(programs: Path, requirement: str) -> None:
    pip = [programs / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "--constraint", ROOT / "constraints.txt", requirement], check=True)


def clean_environment() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("WATCHWORD_", "PYTHON", "COVERAGE"))
    }


@pytest.mark.slow
@pytest.mark.capability("S2-01", "S2-33")
def test_the_installed_wheel_serves_and_says_what_to_install_when_it_cannot(
    wheel: Path, elsewhere: Path, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command = [elsewhere / "watchword", "serve", "--host", "127.0.0.1", "--port", port]
    command += ["--data", tmp_path / "data"]

    bare = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env=clean_environment(),
    )
    assert bare.returncode != 0
    assert "watchword[server]" in bare.stdout + bare.stderr
    assert "Traceback" not in bare.stdout + bare.stderr

    install(elsewhere, f"{wheel}[server]")
    log = tmp_path / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=tmp_path,
            env=clean_environment(),
        )
    try:
        answer = wait_for(f"http://127.0.0.1:{port}/healthz", server, log)
        assert answer.status_code == 200
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@pytest.mark.slow
@pytest.mark.capability("DEF-20", "S0-70")
@pytest.mark.standard("1: 6.2.4")
def test_the_installed_wheel_knows_common_passwords(elsewhere: Path, tmp_path: Path) -> None:
    program = """
from watchword.features.passwords import is_common, password_strength
assert is_common("password123")
assert is_common("PASSWORD123")
assert not is_common("administrator-of-nothing")
assert password_strength("password").band == "very weak"
assert password_strength("correct horse battery staple").score == 4
"""
    subprocess.run(
        [elsewhere / "python", "-I", "-c", program],
        check=True,
        cwd=tmp_path,
        env=clean_environment(),
    )


def wait_for(url: str, server: "subprocess.Popen[bytes]", log: Path) -> httpx.Response:
    with httpx.Client(trust_env=False) as client:
        for _ in range(300):
            assert server.poll() is None, log.read_text()
            try:
                return client.get(url)
            except httpx.TransportError:
                time.sleep(0.1)
    raise AssertionError(f"nothing answered in 30 s:\n{log.read_text()}")
