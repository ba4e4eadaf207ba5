"""A server that speaks MongoDB's protocol, built from Maven's libraries and a small `Main.java`.

Built once a machine, into `.venv/mongo-server-…`, and anew when its sources change.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
KEPT_IN = HERE.parents[1] / ".venv"
SOURCES = ("pom.xml", "Main.java")
TOOLS = {"java": "default-jdk-headless", "javac": "default-jdk-headless", "mvn": "maven"}


def command() -> list[str]:
    """How the server is started; what follows is its port and, if it keeps anything, its file."""
    built = build()
    java = shutil.which("java") or "java"
    path = os.pathsep.join((str(built / "lib" / "*"), str(built / "classes")))
    return [java, "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", path, "Main"]


def build() -> Path:
    """The folder with the server, made by one of those who ask while the others wait."""
    version = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in SOURCES))
    root = KEPT_IN
    root.mkdir(exist_ok=True)
    finished = root / f"mongo-server-{version.hexdigest()[:12]}"
    if finished.exists():
        require("java")
        return finished
    with (root / "mongo-server.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if finished.exists():
            return finished
        require(*TOOLS)
        draft = Path(tempfile.mkdtemp(prefix="mongo-server-draft-", dir=root))
        for name in SOURCES:
            shutil.copy(HERE / name, draft)
        run(
            *("mvn", "-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime"),
            *("-DoutputDirectory=lib",),
            where=draft,
        )
        run("javac", "-cp", "lib/*", "-d", "classes", "Main.java", where=draft)
        draft.rename(finished)
    return finished


def require(*tools: str) -> None:
    """Install what is missing, or say so: a failure in CI, elsewhere a visible skip."""
    missing = sorted({TOOLS[tool] for tool in tools if shutil.which(tool) is None})
    if not missing:
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for step in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends"]):
            packages = missing if step[0] == "install" else []
            subprocess.run(
                ["apt-get", *step, *packages],
                check=False,
                env=quiet,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                timeout=600,
            )
        if all(shutil.which(tool) for tool in tools):
            return
    said = (
        f"the MongoDB test server needs {', '.join(missing)} (Debian's names), "
        "or WATCHWORD_TEST_MONGODB with the URL of a server of yours"
    )
    pytest.skip(said)  # -ra shows it; with CI=true a skipped test has failed


def run(*command: str, where: Path) -> None:
    """Run one step of the build; its output is shown if it fails."""
    done = subprocess.run(
        command, cwd=where, check=False, capture_output=True, text=True, timeout=600
    )
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
