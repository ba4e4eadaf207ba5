"""Sign-ins a second beside the raw argon2 rate of the same cores, and what others feel meanwhile.

Server, clients and probe share all cores, as on a small machine. Each round measures, in another
order each time: argon2 alone on as many threads as there are cores; our server; fastapi-users.
While a server is kept full, a probe asks it for a plain route fifty times a second. An answer 503
(too much hashing is asked for) is counted apart and is no sign-in.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from benchmarks.contenders.ours import PASSWORD, PEOPLE
from benchmarks.measure import (
    ROOT,
    Samples,
    Target,
    arguments,
    at_least,
    at_most,
    busy_elsewhere,
    cpu_seconds,
    forget_peak,
    machine,
    peak_memory,
    percentile,
    ratios,
    say,
    spread,
    table,
    write,
)
from benchmarks.postgres import postgres
from benchmarks.servers import Contender, Server, serving

RAW, OURS, ON_POSTGRES, USERS = "argon2 alone", "ours, SQLite", "ours, PostgreSQL", "fastapi-users"
EVEN = "ours, SQLite, same priority"
ROWS = (
    Contender(name=OURS, module="ours", variant="signin"),
    Contender(name=EVEN, module="ours", variant="signin+even"),
    Contender(name=ON_POSTGRES, module="ours", variant="signin", store="postgresql"),
    Contender(name=USERS, module="fastapi_users_peer", variant="signin", peer="fastapi-users"),
)
WARM_UP = 1.0  # seconds before the first sign-in that counts
HASH_MIB = 64

# The password of everyone is checked against a hash at the default cost, as a sign-in does.
_RAW = """
import sys, threading, time
from argon2.low_level import Type, hash_secret, verify_secret
threads, seconds = int(sys.argv[1]), float(sys.argv[2])
password = b"correct horse battery staple"
stored = hash_secret(password, b"sixteen bytes it", 3, 65536, 4, 32, Type.ID)
done, until = [], time.monotonic() + seconds
def work():
    while time.monotonic() < until:
        verify_secret(stored, password, Type.ID)
        done.append(time.monotonic())
workers = [threading.Thread(target=work) for _ in range(threads)]
[each.start() for each in workers]
[each.join() for each in workers]
import json
used = time.process_time()
print("RESULT", json.dumps({"done": sorted(done), "cpu": used * 1e3 / (len(done) + 1)}))
"""


@dataclass
class Row:
    """What one contender came to, once a round."""

    rate: Samples = field(default_factory=Samples)  # sign-ins a second
    cpu: Samples = field(default_factory=Samples)  # milliseconds of the server's CPU a sign-in
    p50: Samples = field(default_factory=Samples)  # of the plain route, milliseconds
    p99: Samples = field(default_factory=Samples)
    delay: Samples = field(default_factory=Samples)  # median of a sign-in, milliseconds
    memory: Samples = field(default_factory=Samples)  # peak, MiB above the idle server's
    peak: Samples = field(default_factory=Samples)  # peak, MiB
    turned_away: int = 0  # 503 with Retry-After
    failed: int = 0  # anything else that is no sign-in


def main(given: Sequence[str]) -> None:
    """Run the rounds and print the table."""
    cores = len(os.sched_getaffinity(0))
    parser = arguments("signin", __doc__, rounds=5, seconds=8)
    parser.add_argument("--clients", type=int, default=4 * cores, help="default: %(default)s")
    parser.add_argument("--no-peers", action="store_true", help="only ours")
    parser.add_argument("--only", choices=[row.name for row in ROWS], help="this row alone")
    options = parser.parse_args(given)
    about = machine()
    rows = measured(
        [
            row
            for row in ROWS
            if not (options.no_peers and row.peer) and options.only in (None, row.name)
        ],
        rounds=options.rounds,
        seconds=options.seconds,
        clients=options.clients,
        threads=cores,
    )
    of_raw = {name: ratios(row.rate.values, rows[RAW].rate.values) for name, row in rows.items()}
    print(shown(rows, of_raw))
    targets = judged(rows, of_raw, threads=cores)
    print("\n" + "\n".join(str(target) for target in targets))
    write(
        options.json,
        about,
        clients=options.clients,
        seconds=options.seconds,
        load_after=round(busy_elsewhere(), 2),
        rows={
            name: {
                "sign_ins_per_second": row.rate,
                "of_raw": of_raw[name],
                "cpu_ms": row.cpu,
                "turned_away": row.turned_away,
                "failed": row.failed,
                **(
                    {
                        "sign_in_p50_ms": row.delay,
                        "plain_p50_ms": row.p50,
                        "plain_p99_ms": row.p99,
                        "peak_mib": row.peak,
                        "peak_above_idle_mib": row.memory,
                    }
                    if row.p50.values
                    else {}
                ),
            }
            for name, row in rows.items()
        },
        targets=targets,
    )


def measured(
    chosen: Sequence[Contender], *, rounds: int, seconds: float, clients: int, threads: int
) -> Mapping[str, Row]:
    """Argon2 and every contender once a round."""
    rows = {RAW: Row(), **{contender.name: Row() for contender in chosen}}
    with ExitStack() as stack:
        databases = None
        if any(contender.store == "postgresql" for contender in chosen):
            databases = stack.enter_context(postgres())
        servers: dict[str, Server | None] = {RAW: None}
        idle: dict[str, float] = {}
        for contender in chosen:
            database = None
            if contender.store == "postgresql":
                if databases is None:
                    del rows[contender.name]
                    continue
                database = databases.make()
            server = stack.enter_context(serving(contender, core=None, database=database))
            servers[contender.name] = server
        for name, server in servers.items():
            if server is not None:
                idle[name] = forget_peak(server.pid)
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}, load average {busy_elsewhere():.2f}")
            for name in random.sample(list(servers), len(servers)):
                server = servers[name]
                if server is None:
                    done = _said(_started(["-c", _RAW, str(threads), str(seconds + WARM_UP)]))
                    rows[name].rate.values.append(_rate(done["done"]))
                    rows[name].cpu.values.append(done["cpu"])
                else:
                    _measure(server, rows[name], seconds=seconds, clients=clients, idle=idle[name])
    return rows


def _measure(server: Server, row: Row, *, seconds: float, clients: int, idle: float) -> None:
    ours = server.contender.module == "ours"
    people = [f"p{number}@example.com" for number in range(PEOPLE)]
    if ours:
        path, kind = "/auth/login", "application/json"
        bodies = [json.dumps({"email": each, "password": PASSWORD}) for each in people]
    else:
        path, kind = "/auth/login", "application/x-www-form-urlencoded"
        bodies = [urlencode({"username": each, "password": PASSWORD}) for each in people]
    address = f"http://127.0.0.1:{server.port}"
    forget_peak(server.pid)
    before = cpu_seconds(server.pid)
    command = ["-m", "benchmarks.client"]
    signers = _started(
        [
            *(*command, "signers", address + path, str(seconds + WARM_UP)),
            *(str(clients), json.dumps(bodies), kind),
        ]
    )
    time.sleep(WARM_UP)
    probe = _started([*command, "probe", f"{address}/hello", str(seconds - 0.5)])
    felt, found = _said(probe)["delays"], _said(signers)
    peak, used = peak_memory(server.pid), cpu_seconds(server.pid) - before
    # All that were hashed: wrong ones there are none of, and a 503 was not.
    row.cpu.values.append(used * 1e3 / max(1, len(found["done"])))
    row.rate.values.append(_rate(found["done"]))
    row.delay.values.append(Samples(found["delays"]).median if found["delays"] else float("nan"))
    row.p50.values.append(percentile(felt, 0.5))
    row.p99.values.append(percentile(felt, 0.99))
    row.peak.values.append(peak)
    row.memory.values.append(peak - idle)
    for status, count in found["statuses"].items():
        if status == "503":
            row.turned_away += count
        elif not status.startswith("2"):
            row.failed += count
    row.failed += found["bare"]  # a 503 that does not say when to come again


def _rate(done: Sequence[float]) -> float:
    """A second, from the first that counts to the last that began in time."""
    counted = [at for at in done if at >= done[0] + WARM_UP]
    if len(counted) < 3:
        return 0.0
    return (len(counted) - 1) / (counted[-1] - counted[0])


def _started(arguments: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def _said(process: "subprocess.Popen[str]") -> dict[str, Any]:
    output, _ = process.communicate(timeout=180)
    if process.returncode:
        raise RuntimeError("a client failed; what it said stands above")
    found: dict[str, Any] = json.loads(output.rpartition("RESULT ")[2])
    return found


def shown(rows: Mapping[str, Row], of_raw: Mapping[str, Samples]) -> str:
    """The table: medians, in brackets the middle half of the rounds."""
    head = (
        "",
        "sign-ins/s",
        "of argon2",
        "CPU ms",
        "sign-in p50 ms",
        "plain p50 ms",
        "plain p99 ms",
    )
    lines: list[Sequence[str]] = []
    for name, row in rows.items():
        line = [name, spread(row.rate, 1), spread(of_raw[name], 2), spread(row.cpu, 1)]
        if row.p50.values:
            line += [spread(row.delay), spread(row.p50, 1), spread(row.p99, 1)]
            line += [spread(row.peak), spread(row.memory), str(row.turned_away), str(row.failed)]
        lines.append(line + [""] * (len(head) + 4 - len(line)))
    return table((*head, "peak MiB", "above idle", "503", "failed"), lines)


def judged(rows: Mapping[str, Row], of_raw: Mapping[str, Samples], *, threads: int) -> list[Target]:
    """What the issue asks of ours."""
    found: list[Target] = []
    for name in (OURS, ON_POSTGRES):
        if name in rows:
            bound = threads * HASH_MIB
            found += [
                at_least(f"{name}: sign-ins of the raw argon2 rate", of_raw[name].median, 0.95),
                at_most(f"{name}: plain route's p99, ms", rows[name].p99.median, 60),
                at_most(
                    f"{name}: peak above idle, of {bound} MiB ({threads} threads)",
                    max(rows[name].memory.values) / bound,
                    1.1,
                ),
            ]
    return found
