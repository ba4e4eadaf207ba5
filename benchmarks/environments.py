"""An environment of its own for each peer, under .benchmarks/, made when first needed.

What serves the requests is the same version everywhere (that of our own environment); a peer
brings the rest in the versions written here.
"""

import json
import os
import shutil
import subprocess
import sys
import venv
from importlib.metadata import version
from pathlib import Path

from benchmarks.measure import KEPT, say

SHARED = (
    *("fastapi", "starlette", "pydantic", "uvicorn", "uvloop", "httptools"),
    *("python-multipart", "cryptography"),
)
PEERS: dict[str, tuple[str, ...]] = {
    "pyjwt": ("pyjwt[crypto]==2.15.1", "sqlalchemy[asyncio]==2.1.9", "aiosqlite==0.22.1"),
    "authx": ("authx==1.7.1",),
    "fastapi-users": ("fastapi-users[sqlalchemy]==15.0.5", "aiosqlite==0.22.1"),
}


def python_of(peer: str | None) -> str:
    """The interpreter of a peer's environment, or of ours; it is made if it is not there."""
    if peer is None:
        return sys.executable
    place = KEPT / "env" / peer
    wanted = [*(f"{name}=={version(name)}" for name in SHARED), *PEERS[peer]]
    stamp = place / "installed.json"
    python = place / "bin" / "python"
    if stamp.exists() and json.loads(stamp.read_text("utf-8")) == wanted:
        return str(python)
    say(f"installing {', '.join(PEERS[peer])} into {place}")
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    _install(place, wanted)
    stamp.write_text(json.dumps(wanted), "utf-8")
    return str(python)


def _install(place: Path, wanted: list[str]) -> None:
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    python = str(place / "bin" / "python")
    if uv is not None:
        _run(uv, "venv", "-q", "--python", sys.executable, str(place))
        _run(uv, "pip", "install", "-q", "--python", python, *wanted)
    else:
        venv.create(place, with_pip=True)
        _run(python, "-m", "pip", "install", "-q", *wanted)


def _run(*command: str) -> None:
    # A configured constraints file is ours, not the peer's.
    environ = {name: text for name, text in os.environ.items() if "CONSTRAINT" not in name}
    subprocess.run(command, check=True, timeout=600, env=environ)


def versions_in(peer: str) -> dict[str, str]:
    """Name and version of all that is installed there."""
    code = (
        "import json, importlib.metadata as m;"
        "print(json.dumps({d.metadata['Name'].lower(): d.version for d in m.distributions()}))"
    )
    done = subprocess.run(
        [python_of(peer), "-c", code], check=True, capture_output=True, text=True, timeout=60
    )
    found: dict[str, str] = json.loads(done.stdout)
    return dict(sorted(found.items()))
