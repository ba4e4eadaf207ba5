"""CPU of what a miss of the gate's cache costs: one look-up in the store, and the whole of it.

Everything runs in this process, on one core, on uvloop; CPU is that of this process with its
threads, and not that of the PostgreSQL server, which runs on the other core.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import uvloop
from starlette.types import Receive, Scope, Send

from benchmarks.contenders.ours import credentials, signed_up, watchword
from benchmarks.measure import (
    Cores,
    Samples,
    Target,
    arguments,
    at_most,
    machine,
    say,
    spread,
    table,
    write,
)
from benchmarks.postgres import postgres
from watchword.features.sessions import Session
from watchword.http.gate import IDENTITY, Gate, GateSettings
from watchword.kernel.ports import Authenticator
from watchword.kernel.principal import Identity
from watchword.presets import Watchword
from watchword.storage.store import Paging

TOGETHER = 16
LIMITS = {"SQLite": 80, "PostgreSQL": 100}
Step = Callable[[], Awaitable[object]]


def main(given: Sequence[str]) -> None:
    """Run the rounds and print the table."""
    parser = arguments("lookup", __doc__, rounds=7, seconds=0.5)
    options = parser.parse_args(given)
    about = machine()
    cores = Cores.choose()
    found: dict[str, dict[str, Samples]] = {}
    before = os.sched_getaffinity(0)
    with ExitStack() as stack:
        databases = stack.enter_context(postgres(core=cores.load))
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="watchword-bench-")))
        urls = {"SQLite": f"sqlite:///{place / 'watchword.db'}"}
        if databases is not None:
            urls["PostgreSQL"] = databases.make()
        os.sched_setaffinity(0, {cores.server})
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                found = runner.run(measured(urls, rounds=options.rounds, seconds=options.seconds))
        finally:
            os.sched_setaffinity(0, before)
    lines = [
        (name, spread(row["cpu"], 1), spread(row["alone"], 1), f"{row['p50'].median:.3f}")
        for name, row in found.items()
    ]
    print(table(("", f"CPU us, {TOGETHER} at once", "CPU us, alone", "p50 ms, alone"), lines))
    targets = judged(found)
    print("\n" + "\n".join(str(target) for target in targets))
    write(options.json, about, rows=found, targets=targets)


async def measured(
    urls: Mapping[str, str], *, rounds: int, seconds: float
) -> dict[str, dict[str, Samples]]:
    """Every row once a round."""
    opened = {name: watchword(url, cache_size=0) for name, url in urls.items()}
    steps: dict[str, Step] = {}
    try:
        for name, auth in opened.items():
            await auth.start()
            steps |= {f"{name}: {what}": step for what, step in (await _steps(auth)).items()}
        rows = {name: {"cpu": Samples(), "alone": Samples(), "p50": Samples()} for name in steps}
        for step in steps.values():
            await _spell(step, workers=TOGETHER, seconds=0.2)
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            for name, step in steps.items():
                cpu, _ = await _spell(step, workers=TOGETHER, seconds=seconds)
                rows[name]["cpu"].values.append(cpu)
                cpu, p50 = await _spell(step, workers=1, seconds=seconds)
                rows[name]["alone"].values.append(cpu)
                rows[name]["p50"].values.append(p50)
    finally:
        for auth in opened.values():
            await auth.stop()
    return rows


async def _steps(auth: Watchword) -> dict[str, Step]:
    user = await signed_up(auth)
    bearer = await credentials(auth, user, transport="bearer")
    cookie = await credentials(auth, user, transport="cookie")
    newest = Paging(order=("started_at", "id"), limit=1)
    session_id = (await auth.store.find(Session, newest, user_id=user.id)).items[0].id

    async def session() -> object:
        return await auth.store.get(Session, id=session_id)

    return {
        "store.get of a session": session,
        "gate, bearer": _through_gate(auth, bearer),
        "gate, cookie": _through_gate(auth, cookie),
    }


def _through_gate(auth: Watchword, headers: Mapping[str, str]) -> Step:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del receive, send
        if type(scope[IDENTITY]) is not Identity:
            raise RuntimeError(f"the gate let nobody in: {scope[IDENTITY]}")

    gate = Gate(
        app,
        settings=GateSettings(
            app=f"{auth.core.realm}/{auth.core.client_id}",
            cookies=auth.cookies,
            check=auth.core.token_check,
            takes_access_cookie=False,
            realm=auth.core.realm,
            client_id=auth.core.client_id,
            max_body=auth.core.max_body,
        ),
        authenticators=auth.answering(Authenticator),
        cache=auth.cache,
        csrf=auth.csrf,
        clients=auth.clients,
        clock=auth.clock,
        events=auth.events,
        ready=lambda: None,
    )
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    # Each asks for itself: misses of one key at one time would share a read. A second header
    # that differs would not do, the key is what was presented; so the reads are set apart.
    reads: dict[Any, Any] = auth.cache._reads  # noqa: SLF001

    async def step() -> None:
        reads.clear()
        scope: dict[str, Any] = {"type": "http", "method": "GET", "headers": raw}
        await gate(scope, _nothing, _nowhere)

    return step


async def _nothing() -> Any:
    raise RuntimeError("the gate reads no body")


async def _nowhere(message: Any) -> None:
    del message


async def _spell(step: Step, *, workers: int, seconds: float) -> tuple[float, float]:
    """Microseconds of CPU a step, and the median of how many milliseconds one took."""
    delays: list[float] = []
    until = time.perf_counter() + seconds

    async def one() -> None:
        while (began := time.perf_counter()) < until:
            await step()
            delays.append((time.perf_counter() - began) * 1e3)

    before = time.process_time()
    await asyncio.gather(*(one() for _ in range(workers)))
    used = time.process_time() - before
    return used / len(delays) * 1e6, Samples(delays).median


def judged(found: Mapping[str, Mapping[str, Samples]]) -> list[Target]:
    """A look-up against what the issue allows."""
    return [
        at_most(f"{name}: CPU us of a look-up", found[row]["cpu"].median, limit)
        for name, limit in LIMITS.items()
        if (row := f"{name}: store.get of a session") in found
    ]
