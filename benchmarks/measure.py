"""What every command needs: arguments, cores, CPU and memory of a process, medians, a report."""

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from math import nan
from pathlib import Path
from statistics import median, quantiles
from typing import Any

ROOT = Path(__file__).parents[1]
KEPT = ROOT / ".benchmarks"  # environments, data and reports; git ignores it
VERSIONS = (
    *("watchword", "fastapi", "starlette", "pydantic", "uvicorn", "uvloop", "httptools"),
    *("cryptography", "argon2-cffi", "sqlalchemy", "aiosqlite", "asyncpg"),
)
_TICK = os.sysconf("SC_CLK_TCK")


def arguments(
    command: str, about: str | None, *, rounds: int, seconds: float | None
) -> argparse.ArgumentParser:
    """The options that commands share."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks {command}",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=rounds, help="default: %(default)s")
    if seconds is not None:
        parser.add_argument(
            "--seconds", type=float, default=seconds, help="of one measurement; default %(default)s"
        )
    parser.add_argument("--json", type=Path, default=KEPT / f"{command}.json", help="%(default)s")
    return parser


@dataclass(frozen=True, slots=True)
class Cores:
    """Where the server runs, and where what loads it runs."""

    server: int
    load: int

    @classmethod
    def choose(cls) -> "Cores":
        """The first two this process may use; one for both where there is only one."""
        found = sorted(os.sched_getaffinity(0))
        return cls(found[0], found[1 if len(found) > 1 else 0])


def cpu_seconds(pid: int) -> float:
    """CPU that a process has used, its threads included (user and system)."""
    text = Path(f"/proc/{pid}/stat").read_text("ascii")
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def peak_memory(pid: int) -> float:
    """The most memory a process has held since `forget_peak`, MiB."""
    return _status(pid, "VmHWM")


def forget_peak(pid: int) -> float:
    """Start the peak anew, at what is held now; that, MiB."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", "ascii")
    return _status(pid, "VmRSS")


def _status(pid: int, name: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise LookupError(name)


def busy_elsewhere() -> float:
    """Load average of the last minute: above 0.5 before a run, somebody else is at work."""
    return os.getloadavg()[0]


@dataclass
class Samples:
    """One figure, measured once a round."""

    values: list[float] = field(default_factory=list[float])

    @property
    def median(self) -> float:
        """The middle of it; of nothing, no number."""
        return median(self.values) if self.values else nan

    @property
    def quarters(self) -> tuple[float, float]:
        """The bounds of the middle half."""
        if not self.values:
            return nan, nan
        if len(self.values) < 3:
            return min(self.values), max(self.values)
        first, _, third = quantiles(self.values, n=4, method="inclusive")
        return first, third

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        first, third = self.quarters
        return {"median": self.median, "q1": first, "q3": third, "rounds": self.values}


def ratios(over: Sequence[float], under: Sequence[float]) -> Samples:
    """Ratios of the same rounds, so that what slowed a whole round cancels out."""
    return Samples([a / b for a, b in zip(over, under, strict=True) if b])


def spread(samples: Samples, digits: int = 0) -> str:
    """A median and its middle half as text."""
    first, third = samples.quarters
    return f"{samples.median:.{digits}f} ({first:.{digits}f}-{third:.{digits}f})"


def percentile(values: Iterable[float], share: float) -> float:
    """The value that this share of all stay at or below."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns: the first to the left, the others to the right."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]

    def shown(line: list[str]) -> str:
        cells = [
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return "\n".join([shown(lines[0]), "-" * (sum(widths) + 2 * (len(widths) - 1))]) + "".join(
        f"\n{shown(line)}" for line in lines[1:]
    )


@dataclass(frozen=True, slots=True)
class Target:
    """What issue or documentation promise, and what came out. Nothing fails by it."""

    name: str
    wanted: str
    found: float
    met: bool

    def __str__(self) -> str:
        return (
            f"{'met   ' if self.met else 'MISSED'}  {self.name}: {self.found:.2f} ({self.wanted})"
        )


def at_least(name: str, found: float, bound: float) -> Target:
    """A target from below."""
    return Target(name, f"at least {bound:g}", found, found >= bound)


def at_most(name: str, found: float, bound: float) -> Target:
    """A target from above."""
    return Target(name, f"at most {bound:g}", found, found <= bound)


def machine() -> dict[str, Any]:
    """What the figures depend on; no names of hosts."""
    versions: dict[str, str] = {}
    for name in VERSIONS:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)),
        "load_before": round(busy_elsewhere(), 2),
        "versions": versions,
    }


def write(path: Path, about: Mapping[str, Any], **parts: Any) -> None:
    """Keep a report."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**about, **parts}, indent=2, default=_json) + "\n", "utf-8")
    print(f"\nwritten: {path}", file=sys.stderr)


def _json(value: object) -> object:
    if isinstance(value, Samples):
        return value.to_json()
    if isinstance(value, Target):
        return {"name": value.name, "wanted": value.wanted, "found": value.found, "met": value.met}
    raise TypeError(type(value).__name__)


def say(text: str) -> None:
    """What goes on, beside the report."""
    print(text, file=sys.stderr, flush=True)
