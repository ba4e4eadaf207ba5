"""Import time beside FastAPI's: fresh processes, compiled files, interleaved rounds."""

import json
import os
import random
import subprocess
from collections.abc import Mapping, Sequence

from benchmarks.environments import python_of
from benchmarks.measure import (
    KEPT,
    Samples,
    arguments,
    at_most,
    machine,
    ratios,
    spread,
    table,
    write,
)

FASTAPI = "fastapi"
ROWS = {  # name: (whose environment, what is imported)
    FASTAPI: (None, "fastapi"),
    "watchword": (None, "watchword"),
    "fastapi (beside fastapi-users)": ("fastapi-users", "fastapi"),
    "fastapi_users": ("fastapi-users", "fastapi_users, fastapi_users.authentication"),
    "fastapi_users, SQLAlchemy": (
        "fastapi-users",
        "fastapi_users, fastapi_users.authentication, fastapi_users_db_sqlalchemy",
    ),
}
_CODE = """
import time
began, cpu = time.perf_counter(), time.process_time()
import {what}
print([(time.perf_counter() - began) * 1e3, (time.process_time() - cpu) * 1e3])
"""


def main(given: Sequence[str]) -> None:
    """Run the rounds and print the table."""
    parser = arguments("import", __doc__, rounds=11, seconds=None)
    options = parser.parse_args(given)
    about = machine()
    wall, cpu = measured(rounds=options.rounds)
    peers = {"watchword": FASTAPI, "fastapi_users": "fastapi (beside fastapi-users)"}
    peers["fastapi_users, SQLAlchemy"] = peers["fastapi_users"]
    found = {
        name: (ratios(wall[name].values, wall[to].values), ratios(cpu[name].values, cpu[to].values))
        for name, to in peers.items()
    }
    lines = [
        (
            name,
            spread(wall[name]),
            spread(cpu[name]),
            spread(found[name][0], 2) if name in found else "",
            spread(found[name][1], 2) if name in found else "",
        )
        for name in ROWS
    ]
    print(table(("import", "ms", "CPU ms", "of fastapi", "of fastapi by CPU"), lines))
    target = at_most("import watchword, of import fastapi", found["watchword"][1].median, 1.40)
    print(f"\n{target}")
    write(
        options.json,
        about,
        rows={name: {"ms": wall[name], "cpu_ms": cpu[name]} for name in ROWS},
        ratios={
            name: {"wall": by_wall, "cpu": by_cpu} for name, (by_wall, by_cpu) in found.items()
        },
        targets=[target],
    )


def measured(*, rounds: int) -> tuple[Mapping[str, Samples], Mapping[str, Samples]]:
    """Milliseconds and CPU milliseconds of each import; the first, which compiles, is not kept."""
    wall = {name: Samples() for name in ROWS}
    cpu = {name: Samples() for name in ROWS}
    for number in range(rounds + 1):
        for name in random.sample(list(ROWS), len(ROWS)):
            peer, what = ROWS[name]
            milliseconds, used = _once(python_of(peer), what, kept=peer or "ours")
            if number:
                wall[name].values.append(milliseconds)
                cpu[name].values.append(used)
    return wall, cpu


def _once(python: str, what: str, *, kept: str) -> list[float]:
    environ = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
    environ["PYTHONPYCACHEPREFIX"] = str(KEPT / "pycache" / kept)
    done = subprocess.run(
        [python, "-c", _CODE.format(what=what)],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
        env=environ,
    )
    found: list[float] = json.loads(done.stdout)
    return found
