"""What the same work costs with a thousand people and with a million, and how rows are found.

For every size a database of its own, with a session and a password for each of its people, a
tenth as many mails in the outbox and rows in the change feed. Each operation is the service's own,
alone and on one connection; hashing is at the test cost, so a sign-in is the work of the store.
Sizes take turns within a round, and ratios are taken within it.
"""

import asyncio
import random
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.growth_plans import (
    Plan,
    Statement,
    feed_statement,
    hearing,
    of_postgres,
    of_sqlite,
)
from benchmarks.growth_rows import (
    Backend,
    analyze_sqlite,
    path_of,
    plain,
)
from benchmarks.growth_work import BACKENDS, BATCH, LABELS, Filled, Operation, add_past, filled
from benchmarks.measure import (
    Samples,
    Target,
    arguments,
    at_most,
    busy_elsewhere,
    machine,
    ratios,
    say,
    table,
    write,
)
from benchmarks.postgres import Databases, postgres
from watchword.features.sessions import Session
from watchword.testing import cheap_hashing

SMALLEST = 3  # 10^3 people are what the others are compared with
RATIO = 1.5
JUDGED_FROM = 100_000  # people; with fewer a database may well read a table through


Times = dict[str, dict[int, Samples]]  # by operation and size: medians of the rounds, microseconds


def main(given: Sequence[str]) -> None:
    """Fill, measure, and print the tables."""
    parser = arguments("growth", __doc__, rounds=10, seconds=None)
    parser.add_argument(
        "--largest", type=int, default=6, choices=range(3, 8), help="10^N people; %(default)s"
    )
    parser.add_argument(
        "--operations", type=int, default=40, help="of each kind, size and round; %(default)s"
    )
    parser.add_argument("--only", choices=BACKENDS, help="this database alone")
    options = parser.parse_args(given)
    about = machine()
    sizes = [10**power for power in range(SMALLEST, options.largest + 1)]
    times: dict[str, Times] = {}
    plans: dict[str, list[Plan]] = {}
    loads: dict[str, dict[int, float]] = {}
    with ExitStack() as stack:
        stack.enter_context(cheap_hashing())
        for backend in BACKENDS:
            if options.only in (None, backend):
                found = _one(backend, sizes, rounds=options.rounds, operations=options.operations)
                if found is not None:
                    times[backend], plans[backend], loads[backend] = found
    for backend, found in times.items():
        print(f"{LABELS[backend]}: microseconds, median\n{shown(found, sizes)}\n")
        print(f"{shown_plans(plans[backend])}\n")
    targets = judged(times, plans, sizes)
    print("\n".join(str(target) for target in targets))
    write(
        options.json,
        about,
        load_after=round(busy_elsewhere(), 2),
        seconds_to_load=loads,
        microseconds=times,
        plans={
            backend: [{**_dict(plan), "faults": list(plan.faults)} for plan in several]
            for backend, several in plans.items()
        },
        targets=targets,
    )


def _dict(plan: Plan) -> dict[str, Any]:
    names = ("operation", "statement", "text", "when", "path", "work")
    return {name: getattr(plan, name) for name in names}


def _one(
    backend: Backend, sizes: Sequence[int], *, rounds: int, operations: int
) -> tuple[Times, list[Plan], dict[int, float]] | None:
    with ExitStack() as stack:
        urls: list[str]
        if backend == "postgresql":
            databases: Databases | None = stack.enter_context(postgres())
            if databases is None:
                return None
            urls = [databases.make() for _ in sizes]
        else:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="watchword-grow-")))
            free = shutil.disk_usage(place).free
            if free < sizes[-1] * 4000:
                say(f"only {free >> 20} MiB on the disk of {place}")
            urls = [f"sqlite:///{place / f'{size}.db'}" for size in sizes]
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_measured(backend, urls, sizes, rounds=rounds, operations=operations))


async def _measured(
    backend: Backend, urls: Sequence[str], sizes: Sequence[int], *, rounds: int, operations: int
) -> tuple[Times, list[Plan], dict[int, float]]:
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(filled(backend, url, size))
            for url, size in zip(urls, sizes, strict=True)
        ]
        plans: list[Plan] = []
        if backend == "sqlite":  # as in a database where nobody ever says ANALYZE: the usual one
            plans = await _plans(opened[-1], when="not analyzed")
            for each in opened:
                analyze_sqlite(path_of(each.url))
                await each.auth.disconnect()  # statistics are read when a file is opened
                await each.auth.connect()
        times = await _rounds(opened, rounds=rounds, operations=operations)
        plans += await _plans(opened[-1], when="analyzed")
        return times, plans, {each.people.size: each.loaded for each in opened}


async def _rounds(opened: Sequence[Filled], *, rounds: int, operations: int) -> Times:
    times: Times = {
        name: {each.people.size: Samples() for each in opened} for name in opened[0].operations
    }
    for each in opened:  # what is compiled or connected at first use is not measured
        for operation in each.operations.values():
            await _spell(operation, many=3)
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}, load average {busy_elsewhere():.2f}")
        for name in random.sample(list(times), len(times)):
            for each in random.sample(opened, len(opened)):
                operation = each.operations[name]
                many = max(1, round(operations * operation.share))
                median = (await _spell(operation, many=many)).median
                times[name][each.people.size].values.append(median)
    return times


async def _spell(operation: Operation, *, many: int) -> Samples:
    """So many, one after the other; microseconds of each."""
    found = Samples()
    for _ in range(many):
        if operation.before is not None:
            await operation.before()
        began = time.perf_counter()
        await operation.step()
        found.values.append((time.perf_counter() - began) * 1e6)
    return found


# Plans


async def _plans(made: Filled, *, when: str) -> list[Plan]:
    statements: dict[str, list[Statement]] = {}
    known: set[str] = set()
    for name, operation in made.operations.items():
        if operation.before is not None:
            await operation.before()
        with hearing(made.auth) as heard:
            await operation.step()
        fresh = [each for text, each in heard.statements.items() if text not in known]
        known |= heard.statements.keys()
        if fresh:
            statements[name] = fresh
    statements["change feed poll"] = [await feed_statement(made.auth, plain(made.url))]
    await add_past(made)  # something to expire
    big = _big(made)
    if made.backend == "sqlite":
        plans = of_sqlite(path_of(made.url), statements, big, when=when)
    else:
        plans = await of_postgres(plain(made.url), statements, big)
    await made.auth.store.expire(Session, now=made.auth.clock.now(), limit=BATCH)
    return plans


def _big(made: Filled) -> frozenset[str]:
    """The tables that grow with people; of small ones it is right to read all."""
    if made.people.size < JUDGED_FROM:
        return frozenset()
    names = ("user", "password", "session", "outbox_mail", "change")
    return frozenset(f"watchword_{name}" for name in names)


# What came out


def shown(times: Times, sizes: Sequence[int]) -> str:
    """Operation by size, and how much more the larger sizes cost than the smallest."""
    head = ["", *(f"10^{len(str(size)) - 1}" for size in sizes)]
    head += [f"10^{len(str(size)) - 1} : 10^{SMALLEST}" for size in sizes[1:]]
    lines: list[Sequence[str]] = []
    for name, by_size in times.items():
        line = [name, *(f"{by_size[size].median:.0f}" for size in sizes)]
        line += [f"{_ratio(by_size, size, sizes[0]).median:.2f}" for size in sizes[1:]]
        lines.append(line)
    return table(head, lines)


def _ratio(by_size: Mapping[int, Samples], size: int, smallest: int) -> Samples:
    return ratios(by_size[size].values, by_size[smallest].values)


def shown_plans(plans: Sequence[Plan]) -> str:
    """A line for each way to the rows of a statement, and what is wrong with it."""
    merged: dict[tuple[str, ...], tuple[list[str], int]] = {}
    for plan in plans:
        wrong = f"MISSED, {', '.join(plan.faults)}: " if plan.faults else ""
        key = (plan.operation, plan.statement, plan.text, wrong + plan.path)
        whens, work = merged.get(key, ([], 0))
        merged[key] = ([*whens, plan.when], max(work, plan.work))
    head = f"{'plans':26} {'statement':26} {'rows or steps':>13}  {'when':23} way"
    lines = [
        f"{operation:26} {statement:26} {work:>13}  {', '.join(whens):23} {way}"
        for (operation, statement, _, way), (whens, work) in merged.items()
    ]
    return "\n".join((head, "-" * len(head), *lines))


def judged(
    times: Mapping[str, Times], plans: Mapping[str, Sequence[Plan]], sizes: Sequence[int]
) -> list[Target]:
    """The largest size against the smallest, and no way through a whole table."""
    found: list[Target] = []
    largest = sizes[-1]
    for backend, by_operation in times.items():
        label = LABELS[backend]
        power = len(str(largest)) - 1
        if largest > sizes[0]:
            for name, by_size in by_operation.items():
                ratio = _ratio(by_size, largest, sizes[0]).median
                title = f"{label}: {name}, 10^{power} to 10^{SMALLEST}"
                found.append(at_most(title, ratio, RATIO))
        if largest >= JUDGED_FROM:
            faulty = {plan.text for plan in plans[backend] if plan.faults}
            title = f"{label}: statements that go through a table"
            found.append(at_most(title, len(faulty), 0))
    return found
