"""Load on one address of loopback, bounded in time: wrk, or a generator of our own without it."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.measure import ROOT

CONNECTIONS = 16

# wrk counts every answer below 400 as good; its own report is for people.
_SCRIPT = """
local all, turn = {}, 0
init = function(args)
  for _, fields in ipairs(SENT) do all[#all + 1] = wrk.format("GET", nil, fields) end
end
request = function() turn = turn % #all + 1; return all[turn] end
done = function(summary, latency, requests)
  io.write(string.format(
    'RESULT {"requests": %d, "seconds": %f, "refused": %d, "broken": %d, "p50": %f, "p99": %f}\\n',
    summary.requests, summary.duration / 1e6, summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What one spell of load came to."""

    requests: int
    seconds: float
    refused: int  # answers of 400 and above
    broken: int
    p50: float  # milliseconds
    p99: float
    left: list[dict[str, str]] = field(default_factory=list[dict[str, str]])  # to post next


def generator() -> str:
    """The name of what makes the load."""
    return "wrk" if shutil.which("wrk") else "own"


def ensure_wrk() -> str:
    """Install Debian's wrk where that is possible; what will make the load."""
    if shutil.which("wrk") is None and os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(
            ["apt-get", "install", "-y", "-q", "wrk"],
            check=False,
            timeout=300,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    return generator()


def load(
    port: int,
    headers: Sequence[Mapping[str, str]],
    *,
    seconds: float,
    core: int,
    path: str = "/hello",
) -> Loaded:
    """Ask for one route over 16 connections, from one core; the headers take turns."""
    url = f"http://127.0.0.1:{port}{path}"
    environ = os.environ
    if generator() == "wrk":
        with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
            script.write(f"SENT = {{{', '.join(_fields(each) for each in headers)}}}\n{_SCRIPT}")
            script.flush()
            command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s"]
            command += ["--timeout", "5s", "-s", script.name]
            output = _run([*command, url], seconds, core, environ)
    else:
        given = json.dumps([dict(each) for each in headers])
        command = [sys.executable, "-m", "benchmarks.client", "load", url, str(seconds), given]
        output = _run(command, seconds, core, environ)
    found = json.loads(output.rpartition("RESULT ")[2])
    return Loaded(**found)


def post(
    port: int, bodies: Sequence[Mapping[str, str]], *, seconds: float, core: int, path: str
) -> Loaded:
    """Post these bodies over 16 connections, each its own; wrk could not send what it is given."""
    url = f"http://127.0.0.1:{port}{path}"
    given = json.dumps([dict(each) for each in bodies])
    command = [sys.executable, "-m", "benchmarks.client", "posts", url, str(seconds), given]
    output = _run(command, seconds, core, os.environ)
    return Loaded(**json.loads(output.rpartition("RESULT ")[2]))


def _fields(headers: Mapping[str, str]) -> str:
    pairs = (f"[{json.dumps(name)}] = {json.dumps(value)}" for name, value in headers.items())
    return f"{{{', '.join(pairs)}}}"


def _run(command: list[str], seconds: float, core: int, environ: Mapping[str, str]) -> str:
    done = subprocess.run(
        ["taskset", "-c", str(core), *command] if shutil.which("taskset") else command,
        check=True,
        capture_output=True,
        text=True,
        timeout=seconds + 30,
        cwd=Path(ROOT),
        env=environ,
    )
    return done.stdout
