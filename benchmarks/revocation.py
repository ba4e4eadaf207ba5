"""How long an ended session is still believed by the other workers, store by store.

Four worker processes over one store. A session is used at all of them until their caches answer;
it is ended at one, and from the moment that this one's answer is there the others are asked, as
fast as they answer, until each refuses. Then: users switched off at one worker, and by the command
line; and what share of requests the caches answer while sessions come and go. What a delay holds
beside the product's part is one request, and the turns that workers, database and this client
take on the same cores.
"""

import asyncio
import math
import random
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import uvloop

from benchmarks.measure import (
    Target,
    arguments,
    at_most,
    busy_elsewhere,
    machine,
    percentile,
    say,
    table,
    write,
)
from benchmarks.revocation_client import (
    PAUSE,
    Asking,
    Line,
    Refusals,
    buckets,
    cached,
    counted,
    signed_in,
)
from benchmarks.revocation_stores import (
    BOUND,
    PLACES,
    Place,
    disable_command,
    people,
    workers,
)
from watchword.testing import cheap_hashing

WORKERS = 4
LIVING = 50  # sessions of the mixed load
ENDINGS = 0.01  # of its requests
LOGOUT, DISABLE, COMMAND = "ended at one", "user off at one", "user off, command line"


@dataclass
class Row:
    """What came of one store."""

    place: Place
    woken: str = ""
    believed: float = 0.0  # seconds that a cache may believe without any word
    refusals: dict[str, Refusals] = field(default_factory=dict[str, Refusals])
    lags: dict[float, float] = field(default_factory=dict[float, float])  # seconds: how many
    hits: float = 0.0
    misses: float = 0.0
    rate: float = 0.0  # requests a second of the mixed load
    endings: int = 0

    @property
    def hit_rate(self) -> float:
        """Of all requests that presented something."""
        return self.hits / max(1.0, self.hits + self.misses)


def main(given: Sequence[str]) -> None:
    """Measure every store and print the tables."""
    parser = arguments("revocation", __doc__, rounds=1, seconds=10)
    parser.add_argument("--sessions", type=int, default=200, help="ended a round; %(default)s")
    parser.add_argument("--users", type=int, default=40, help="switched off; %(default)s")
    parser.add_argument("--commands", type=int, default=5, help="switched off from a command line")
    parser.add_argument(
        "--background", type=int, default=0, help="requests/s at each worker meanwhile; %(default)s"
    )
    parser.add_argument(
        "--every", type=float, default=0, help="ms between two askings; 0: as fast as it goes"
    )
    parser.add_argument("--workers", type=int, default=WORKERS, help="default: %(default)s")
    parser.add_argument("--only", default="", help=f"of {','.join(PLACES)}")
    options = parser.parse_args(given)
    wanted = [name for name in options.only.split(",") if name] or list(PLACES)
    if unknown := set(wanted) - PLACES.keys():
        parser.error(f"no store {', '.join(sorted(unknown))}")
    about = machine()
    rows: list[Row] = []
    for name in wanted:
        with ExitStack() as stack:
            stack.enter_context(cheap_hashing())
            place = stack.enter_context(PLACES[name]())
            if place is not None:
                rows.append(_measured(place, options))
    print(shown(rows))
    print(f"\n{shown_load(rows)}\n")
    targets = judged(rows)
    print("\n".join(str(target) for target in targets))
    write(
        options.json,
        about,
        load_after=round(busy_elsewhere(), 2),
        background=options.background,
        rows={row.place.name: _json(row) for row in rows},
        targets=targets,
    )


def _measured(place: Place, options: Any) -> Row:
    say(f"{place.name}, load average {busy_elsewhere():.2f}")
    off = [f"off{n}" for n in range(options.users)] + [f"cli{n}" for n in range(options.commands)]
    living = [f"p{number}" for number in range(LIVING)]
    row = Row(place)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(people(place, [*living, *off]))
        with workers(place, many=options.workers) as ports:
            runner.run(_asked(row, ports, living, options))
    return row


async def _asked(row: Row, ports: Sequence[int], living: Sequence[str], options: Any) -> None:
    heard = [await Line(port).json("/heard") for port in ports]
    row.woken = ", ".join(heard[0]["wakers"]) or ("poll" if heard[0]["polls"] else "nothing")
    if any(each["wakers"] != heard[0]["wakers"] for each in heard):
        row.woken += " (not all)"
    row.believed = heard[0]["believed"]
    noise = [asyncio.create_task(_noise(port, living[0], options.background)) for port in ports]
    try:
        # Where nothing wakes a worker, each takes about the bound: then several at a time.
        together = 1 if heard[0]["wakers"] else 4
        before = await _lags(ports)
        many = options.sessions * options.rounds
        asking = Asking(ports, bound=BOUND, together=together, every=options.every / 1e3)
        row.refusals[LOGOUT] = await _logouts(asking, living[1:], many=many)
        after = await _lags(ports)
        row.lags = {edge: count - before.get(edge, 0.0) for edge, count in after.items()}
        row.refusals[DISABLE] = await _disabled(asking, many=options.users)
        row.refusals[COMMAND] = await _commands(row.place, asking, many=options.commands)
    finally:
        for task in noise:
            task.cancel()
        await asyncio.gather(*noise, return_exceptions=True)
    await _mixed(row, ports, living, seconds=options.seconds)


async def _noise(port: int, name: str, rate: int) -> None:
    """Somebody else's requests, evenly."""
    if not rate:
        return
    line = Line(port)
    token = await signed_in(line, name)
    due = time.perf_counter()
    while True:
        due += 1 / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        await line.ask("/hello", token=token)


async def _lags(ports: Sequence[int]) -> dict[float, float]:
    found: dict[float, float] = {}
    for port in ports:
        line = Line(port)
        text = await line.text("/metrics")
        line.close()
        for edge, count in buckets(text, "watchword_feed_lag_seconds").items():
            found[edge] = found.get(edge, 0.0) + count
    return found


async def _logouts(asking: Asking, names: Sequence[str], *, many: int) -> Refusals:
    found = Refusals()

    async def one(number: int, lines: Sequence[Line]) -> None:
        here = number % len(lines)
        token = await signed_in(lines[here], names[number % len(names)])
        for line in lines:
            await cached(line, token)
        status, _ = await lines[here].ask("/auth/logout", token=token, body={})
        ended = time.perf_counter()
        if status != 204:
            raise RuntimeError(f"logout is answered {status}")
        await asking.until_refused(lines, token, found, ended=ended, but=here)

    await asking.several(many, one)
    return found


async def _disabled(asking: Asking, *, many: int) -> Refusals:
    found = Refusals()

    async def one(number: int, lines: Sequence[Line]) -> None:
        here = number % len(lines)
        name = f"off{number}"
        token = await signed_in(lines[here], name)
        for line in lines:
            await cached(line, token)
        status, _ = await lines[here].ask(f"/disable/{name}@example.com", body={})
        ended = time.perf_counter()
        if status != 200:
            raise RuntimeError(f"switching off is answered {status}")
        await asking.until_refused(lines, token, found, ended=ended, but=here)

    await asking.several(many, one)
    return found


async def _commands(place: Place, asking: Asking, *, many: int) -> Refusals:
    """Counted from the moment that the command says it; no worker is a part of it."""
    found = Refusals()

    async def one(number: int, lines: Sequence[Line]) -> None:
        name = f"cli{number}"
        token = await signed_in(lines[0], name)
        process = await asyncio.create_subprocess_exec(
            *disable_command(place, name),
            env=place.environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        said = asyncio.create_task(process.stdout.readline())
        while not said.done():  # so that the caches hold it when the command comes to its point
            for line in lines:
                await line.ask("/hello", token=token)
            await asyncio.wait([said], timeout=PAUSE)
        ended = time.perf_counter()
        if not said.result().startswith(b"Disabled"):
            _, errors = await process.communicate()
            raise RuntimeError(f"the command failed: {errors.decode()[-500:]}")
        await asking.until_refused(lines, token, found, ended=ended, but=None)
        await process.communicate()

    await asking.several(many, one, together=1)
    return found


async def _mixed(row: Row, ports: Sequence[int], names: Sequence[str], *, seconds: float) -> None:
    """Sessions in use at all workers, some of which end; others begin in their place."""
    alive = {name: await signed_in(Line(ports[0]), name) for name in names}
    before = await _counts(ports)
    until = time.perf_counter() + seconds
    asked = 0

    async def lane(port: int) -> None:
        nonlocal asked
        line = Line(port)
        while time.perf_counter() < until:
            name = random.choice(list(alive))
            token = alive[name]
            if random.random() < ENDINGS:
                del alive[name]
                await line.ask("/auth/logout", token=token, body={})
                alive[name] = await signed_in(line, name)
                row.endings += 1
            else:
                await line.ask("/hello", token=token)
            asked += 1
        line.close()

    began = time.perf_counter()
    await asyncio.gather(*(lane(port) for port in ports))
    row.rate = asked / (time.perf_counter() - began)
    after = await _counts(ports)
    row.hits, row.misses = after[0] - before[0], after[1] - before[1]


async def _counts(ports: Sequence[int]) -> tuple[float, float]:
    hits = misses = 0.0
    for port in ports:
        line = Line(port)
        text = await line.text("/metrics")
        line.close()
        hits += counted(text, "watchword_gate_hits_total")
        misses += counted(text, "watchword_gate_misses_total")
    return hits, misses


# What came out


def _lag_of(row: Row, share: float) -> float:
    """Milliseconds from the writing of a change to its eviction, by the workers' own count."""
    total = row.lags.get(math.inf, 0.0)
    if not total:
        return math.nan
    edge = next(edge for edge, count in sorted(row.lags.items()) if count >= total * share)
    return edge * 1e3  # the edge of a bucket: at most that


def shown(rows: Sequence[Row]) -> str:
    """A line for each store and way of ending."""
    head = (
        *("", "n", "p50 ms", "p90", "p99", "max", "last yes", "at once", "yes after 2 s"),
        *("yes after no", "woken by", "believed s", "writing to eviction, p50, p99 ms"),
    )
    lines: list[Sequence[str]] = []
    for row in rows:
        for kind, found in row.refusals.items():
            if not found.delays:
                continue
            marks = [percentile(found.delays, share) for share in (0.5, 0.9, 0.99)]
            lags = [_lag_of(row, share) if kind == LOGOUT else math.nan for share in (0.5, 0.99)]
            lines.append(
                (
                    *(f"{row.place.name}: {kind}", str(len(found.delays))),
                    *(f"{each:.1f}" for each in (*marks, max(found.delays), found.last)),
                    f"{found.at_once / len(found.delays):.0%}",
                    *(str(found.late), str(found.again)),
                    *(row.woken, f"{row.believed:g}"),
                    "" if math.isnan(lags[0]) else "<= {:g}, <= {:g}".format(*lags),
                )
            )
    return table(head, lines)


def shown_load(rows: Sequence[Row]) -> str:
    """What the caches answered."""
    head = (f"{LIVING} sessions, {ENDINGS:.0%} endings", "requests/s", "endings", "hits")
    lines = [
        (row.place.name, f"{row.rate:.0f}", str(row.endings), f"{row.hit_rate:.1%}") for row in rows
    ]
    return table(head, lines)


def judged(rows: Sequence[Row]) -> list[Target]:
    """What is aimed at; that nothing is believed after the bound is a promise."""
    found: list[Target] = []
    for row in rows:
        ended = row.refusals[LOGOUT]
        if row.place.aim < BOUND * 1e3 and ended.delays:
            p99 = percentile(ended.delays, 0.99)
            found.append(at_most(f"{row.place.name}: {LOGOUT}, p99 ms", p99, row.place.aim))
        else:
            title = f"{row.place.name}: {LOGOUT}, last believed, ms"
            found.append(at_most(title, ended.last, row.place.aim))
        for what, wrong in (
            ("believed after the bound", sum(each.late for each in row.refusals.values())),
            ("believed after a refusal", sum(each.again for each in row.refusals.values())),
        ):
            found.append(at_most(f"{row.place.name}: {what}", wrong, 0))
    return found


def _json(row: Row) -> dict[str, Any]:
    def of(found: Refusals) -> dict[str, Any]:
        marks = {
            f"p{share}": percentile(found.delays, share / 100) if found.delays else None
            for share in (50, 90, 99)
        }
        return {
            **marks,
            "max": max(found.delays, default=None),
            "last_yes_ms": found.last,
            "at_once": found.at_once,
            "yes_after_bound": found.late,
            "yes_after_no": found.again,
            "delays_ms": found.delays,
        }

    return {
        "woken_by": row.woken,
        "believed_seconds": row.believed,
        "aim_p99_ms": row.place.aim,
        "refusals": {kind: of(found) for kind, found in row.refusals.items()},
        "lag_seconds": {str(edge): count for edge, count in row.lags.items()},
        "hit_rate": row.hit_rate,
        "requests_per_second": row.rate,
        "endings": row.endings,
    }
