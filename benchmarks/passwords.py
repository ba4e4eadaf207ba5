"""What the password policy costs: a look-up in the list, its memory, and a score.

CPU of this process; the memory of a fresh one. The worst piece is made of the letters that the
estimator tries as others.
"""

import random
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from itertools import cycle, islice

from benchmarks.measure import Samples, arguments, at_most, machine, spread, table, write
from watchword.features.passwords import common, is_common
from watchword.features.passwords.policy import faults_of
from watchword.features.passwords.settings import PasswordSettings
from watchword.features.passwords.strength import score_of

COMMON, FINE = "password123", "correct horse battery staple"
ODD = "".join(islice(cycle("4836910572@$!("), 128))
PLAIN = "".join(random.Random(1).choices([chr(code) for code in range(33, 127)], k=128))

_MEMORY = """
import resource
from pathlib import Path
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
from watchword.features.passwords import common, strength
before = resident()
{what}
print(resident() - before)
"""


def main(given: Sequence[str]) -> None:
    """Run the rounds and print the table."""
    options = arguments("passwords", __doc__, rounds=9, seconds=0.2).parse_args(given)
    about = machine()
    settings = PasswordSettings.model_validate({})
    jobs: dict[str, Callable[[], object]] = {
        "look-up, on the list": lambda: is_common(COMMON),
        "look-up, not on it": lambda: is_common(FINE),
        "score of a passphrase": lambda: score_of(FINE, enough=3),
        "score of 128 random letters": lambda: score_of(PLAIN, enough=4),
        "score of 128 odd letters": lambda: score_of(ODD, enough=4),
        "the whole policy, passphrase": lambda: faults_of(FINE, settings, field="password"),
        "the whole policy, 4,096 letters": lambda: faults_of(
            "x" * 4096, settings, field="password"
        ),
    }
    found = {name: Samples() for name in jobs}
    for job in jobs.values():
        job()
    for _ in range(options.rounds):
        for name in random.sample(list(jobs), len(jobs)):
            found[name].values.append(_microseconds(jobs[name], seconds=options.seconds))
    print(table(("what", "µs CPU"), ((name, spread(each, 2)) for name, each in found.items())))
    tracemalloc.start()
    common._listed.cache_clear()  # noqa: SLF001
    common._listed()  # noqa: SLF001
    kept = tracemalloc.get_traced_memory()[0] / 1024 / 1024
    tracemalloc.stop()
    resident = _megabytes("common.is_common('x')")
    scored = _megabytes("strength.score_of('x', enough=3)")
    print(f"\nthe list: {kept:.2f} MiB kept, {resident:.1f} MiB more resident with its load")
    print(f"the estimator: {scored:.1f} MiB more resident once it scored")
    targets = [
        at_most("look-up in the list, µs", found["look-up, not on it"].median, 5),
        at_most("the list in memory, MiB", max(kept, resident), 8),
    ]
    for target in targets:
        print(target)
    write(
        options.json,
        about,
        microseconds=found,
        memory={"list": kept, "list_resident": resident, "estimator_resident": scored},
        targets=targets,
    )


def _microseconds(job: Callable[[], object], *, seconds: float) -> float:
    began, times = time.process_time(), 0
    while (used := time.process_time() - began) < seconds or not times:
        for _ in range(16):
            job()
        times += 16
    return used / times * 1e6


def _megabytes(what: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY.format(what=what)],
        check=True,
        capture_output=True,
        text=True,
    )
    return float(done.stdout)
