"""Requests a second and CPU a request: one route, guarded in every way, beside others' ways.

And beside them what changes or reads something: a refresh, a list of sessions, a sign-in.

Every contender runs on one core with the same uvicorn (uvloop, httptools, no access log); the
load comes from the other. Rounds are interleaved and shuffled, ratios are taken within a round.
"""

import random
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from benchmarks.environments import PEERS, versions_in
from benchmarks.load import CONNECTIONS, Loaded, ensure_wrk, load, post
from benchmarks.measure import (
    Cores,
    Samples,
    Target,
    arguments,
    at_least,
    busy_elsewhere,
    cpu_seconds,
    machine,
    ratios,
    say,
    spread,
    table,
    write,
)
from benchmarks.postgres import postgres
from benchmarks.servers import Contender, Server, serving

BARE, NOTHING, COOKIES = "FastAPI alone", "no-op dependency", "FastAPI alone, sent cookies"
PYJWT, PYJWT_HS = "PyJWT by hand, ES256", "PyJWT by hand, HS256"
USERS_JWT, USERS_DATABASE = "fastapi-users, JWT", "fastapi-users, database"
AUTHX = "authx, HS256"
REFRESH, REFRESH_BY_HAND = "refresh: ours", "refresh: by hand, a table in SQLite"
LIST, LIST_BY_HAND = "sessions: ours", "sessions: by hand, a table in SQLite"
SIGN_IN, SIGN_IN_USERS = "sign-in: ours", "sign-in: fastapi-users"
# What a row is compared with, by how its name begins. fastapi-users has neither a refresh nor a
# list of sessions; authx has no list, and its refresh keeps nothing.
BESIDE = {"refresh": REFRESH_BY_HAND, "sessions": LIST_BY_HAND, "sign-in": SIGN_IN_USERS}

ROWS = (
    Contender(name=BARE, module="bare", variant="bare"),
    Contender(name=COOKIES, module="bare", variant="cookies"),
    Contender(name=NOTHING, module="bare", variant="no-op"),
    Contender(name="ours: gate only", module="ours", variant="open"),
    Contender(name="ours: CurrentPrincipal", module="ours", variant="principal"),
    Contender(name="ours: CurrentUser", module="ours", variant="user"),
    Contender(name="ours: CurrentPrincipal, not lifted", module="ours", variant="principal+plain"),
    Contender(name="ours: CurrentUser, not lifted", module="ours", variant="user+plain"),
    Contender(name="ours: CurrentUser, cookie", module="ours", variant="user+cookie"),
    Contender(
        name="ours: CurrentUser, cookie, not lifted", module="ours", variant="user+cookie+plain"
    ),
    Contender(name="ours: requires(verified=True)", module="ours", variant="verified"),
    Contender(
        name="ours: requires(verified=True), not lifted", module="ours", variant="verified+plain"
    ),
    Contender(
        name="ours: anonymous, refused (401)", module="ours", variant="user+anonymous", status=401
    ),
    Contender(name="ours: CurrentUser, no cache, SQLite", module="ours", variant="user+uncached"),
    Contender(
        name="ours: CurrentUser, no cache, PostgreSQL",
        module="ours",
        variant="user+uncached",
        store="postgresql",
    ),
    Contender(
        name="ours: cookie, no cache, PostgreSQL",
        module="ours",
        variant="user+uncached+cookie",
        store="postgresql",
    ),
    Contender(name=PYJWT, module="handwritten", variant="ES256", peer="pyjwt"),
    Contender(name=PYJWT_HS, module="handwritten", variant="HS256", peer="pyjwt"),
    Contender(name=AUTHX, module="authx_peer", peer="authx"),
    Contender(name=USERS_JWT, module="fastapi_users_peer", variant="jwt", peer="fastapi-users"),
    Contender(
        name=USERS_DATABASE, module="fastapi_users_peer", variant="database", peer="fastapi-users"
    ),
    Contender(
        name=f"{REFRESH}, SQLite",
        module="ours",
        variant="refresh",
        path="/auth/refresh",
        posts=True,
    ),
    Contender(
        name=f"{REFRESH}, PostgreSQL",
        module="ours",
        variant="refresh",
        store="postgresql",
        path="/auth/refresh",
        posts=True,
    ),
    Contender(
        name=REFRESH_BY_HAND,
        module="handwritten",
        variant="refresh",
        peer="pyjwt",
        path="/auth/refresh",
        posts=True,
    ),
    Contender(
        name="refresh: authx, nothing kept",
        module="authx_peer",
        variant="refresh",
        peer="authx",
        path="/auth/refresh",
        posts=True,
    ),
    Contender(name=f"{LIST}, SQLite", module="ours", variant="sessions", path="/auth/sessions"),
    Contender(
        name=f"{LIST}, PostgreSQL",
        module="ours",
        variant="sessions",
        store="postgresql",
        path="/auth/sessions",
    ),
    Contender(
        name=LIST_BY_HAND,
        module="handwritten",
        variant="sessions",
        peer="pyjwt",
        path="/auth/sessions",
    ),
    Contender(
        name=f"{SIGN_IN}, SQLite", module="ours", variant="signin", path="/auth/login", posts=True
    ),
    Contender(
        name=SIGN_IN_USERS,
        module="fastapi_users_peer",
        variant="signin",
        peer="fastapi-users",
        path="/auth/login",
        posts=True,
    ),
)


@dataclass
class Row:
    """What one contender came to, once a round."""

    rate: Samples = field(default_factory=Samples)  # requests a second
    cpu: Samples = field(default_factory=Samples)  # microseconds of the server's CPU a request
    p99: Samples = field(default_factory=Samples)  # milliseconds


Rows = Mapping[str, Row]


def main(given: Sequence[str]) -> None:
    """Run the rounds and print the table."""
    parser = arguments("http", __doc__, rounds=7, seconds=3)
    parser.add_argument("--only", default="", help="rows whose names hold one of these, a,b,c")
    parser.add_argument("--no-peers", action="store_true", help="only FastAPI and ours")
    options = parser.parse_args(given)
    wanted = [part.strip() for part in options.only.split(",") if part.strip()]
    chosen = [
        row
        for row in ROWS
        if (not wanted or row.name in (BARE, NOTHING) or any(part in row.name for part in wanted))
        and not (options.no_peers and row.peer)
    ]
    about = machine()
    rows = measured(chosen, rounds=options.rounds, seconds=options.seconds)
    print(shown(rows))
    targets = judged(rows)
    print("\n" + "\n".join(str(target) for target in targets))
    peers = {name: versions_in(name) for name in PEERS if any(r.peer == name for r in chosen)}
    write(
        options.json,
        about,
        load=f"{ensure_wrk()}, {CONNECTIONS} connections",
        load_after=round(busy_elsewhere(), 2),
        seconds=options.seconds,
        rows={
            name: {"requests_per_second": row.rate, "cpu_us": row.cpu, "p99_ms": row.p99}
            for name, row in rows.items()
        },
        ratios={name: _ratios(rows, name) for name in rows},
        beside={
            name: {
                "to": other,
                "rate": ratios(row.rate.values, rows[other].rate.values),
                "cpu": ratios(rows[other].cpu.values, row.cpu.values),
            }
            for name, row in rows.items()
            if (other := beside(name)) is not None and other in rows
        },
        targets=targets,
        peers=peers,
    )


def measured(chosen: Sequence[Contender], *, rounds: int, seconds: float) -> Rows:
    """Every contender once a round, in another order each time."""
    cores = Cores.choose()
    maker = ensure_wrk()
    say(f"load: {maker} on core {cores.load}, servers on core {cores.server}")
    rows = {contender.name: Row() for contender in chosen}
    with ExitStack() as stack:
        databases = None
        if any(contender.store == "postgresql" for contender in chosen):
            databases = stack.enter_context(postgres(core=cores.load))
        servers: list[Server] = []
        for contender in chosen:
            database = None
            if contender.store == "postgresql":
                if databases is None:
                    del rows[contender.name]
                    continue
                database = databases.make()
            started = serving(contender, core=cores.server, database=database)
            servers.append(stack.enter_context(started))
        for server in servers:  # what is compiled or read at first use is not measured
            _loaded(server, seconds=min(1, seconds), core=cores.load)
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}, load average {busy_elsewhere():.2f}")
            for server in random.sample(servers, len(servers)):
                _measure(server, rows[server.contender.name], seconds=seconds, core=cores.load)
    return rows


def _loaded(server: Server, *, seconds: float, core: int) -> Loaded:
    path = server.contender.path
    if not server.contender.posts:
        return load(server.port, server.headers, seconds=seconds, core=core, path=path)
    found = post(server.port, server.headers, seconds=seconds, core=core, path=path)
    server.headers[:] = found.left
    return found


def _measure(server: Server, row: Row, *, seconds: float, core: int) -> None:
    before = cpu_seconds(server.pid)
    found = _loaded(server, seconds=seconds, core=core)
    used = cpu_seconds(server.pid) - before
    refused = found.requests if server.contender.status >= 400 else 0
    if found.broken or found.refused != refused:
        raise RuntimeError(
            f"{server.contender.name}: {found.refused} of {found.requests} answers were errors, "
            f"{found.broken} connections broke"
        )
    row.rate.values.append(found.requests / found.seconds)
    row.cpu.values.append(used / found.requests * 1e6)
    row.p99.values.append(found.p99)


def _ratios(rows: Rows, name: str) -> dict[str, Samples]:
    rate, cpu = rows[name].rate.values, rows[name].cpu.values
    return {
        "rate_to_bare": ratios(rate, rows[BARE].rate.values),
        "rate_to_no_op": ratios(rate, rows[NOTHING].rate.values),
        "cpu_no_op_to_it": ratios(rows[NOTHING].cpu.values, cpu),
    }


def beside(name: str) -> str | None:
    """The row that one which changes or reads something is compared with."""
    return BESIDE.get(name.partition(":")[0])


def shown(rows: Rows) -> str:
    """The tables: medians, in brackets the middle half of the rounds."""
    head = ("", "requests/s", "CPU us", "p99 ms", "of bare", "of no-op", "of no-op by CPU")
    lines: list[Sequence[str]] = []
    others: list[Sequence[str]] = []
    for name, row in rows.items():
        figures = (name, spread(row.rate), spread(row.cpu, 1), f"{row.p99.median:.1f}")
        other = beside(name)
        if other is None:
            found = _ratios(rows, name)
            by_cpu = f"{found['cpu_no_op_to_it'].median:.2f}"
            to_bare = f"{found['rate_to_bare'].median:.2f}"
            lines.append((*figures, to_bare, spread(found["rate_to_no_op"], 2), by_cpu))
        elif other in rows:
            rate = ratios(row.rate.values, rows[other].rate.values)
            by_cpu = ratios(rows[other].cpu.values, row.cpu.values)
            others.append((*figures, spread(rate, 2), f"{by_cpu.median:.2f}"))
        else:
            others.append((*figures, "", ""))
    told = table(head, lines)
    if others:
        told += "\n\n" + table((*head[:4], "of by hand*", "by CPU"), others)
        told += "\n* sign-ins: of fastapi-users"
    return told


def judged(rows: Rows) -> list[Target]:
    """The targets of the rows that were run.

    By rate as they are meant, and by CPU, which says the same on a machine that is busy with
    something else.
    """
    found: list[Target] = []

    def target(name: str, over: str, under: str, bound: float) -> None:
        if over in rows and under in rows:
            by_rate = ratios(rows[over].rate.values, rows[under].rate.values).median
            by_cpu = ratios(rows[under].cpu.values, rows[over].cpu.values).median
            found.append(at_least(name, by_rate, bound))
            found.append(at_least(f"{name}, by CPU", by_cpu, bound))

    for guard in ("CurrentPrincipal", "CurrentUser"):
        target(f"{guard}, not lifted, of no-op", f"ours: {guard}, not lifted", NOTHING, 0.92)
        target(f"{guard}, lifted, of no-op", f"ours: {guard}", NOTHING, 1.0)
    user = "ours: CurrentUser"
    target("times PyJWT by hand (ES256)", user, PYJWT, 2)
    target("times PyJWT by hand (HS256)", user, PYJWT_HS, 2)
    target("times authx (HS256)", user, AUTHX, 2)
    target("times fastapi-users (JWT)", user, USERS_JWT, 8)
    target("times fastapi-users (database)", user, USERS_DATABASE, 8)
    return found
