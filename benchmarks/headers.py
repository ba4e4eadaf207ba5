"""What stands around an app (Host, https, CORS, headers of every answer) beside FastAPI alone.

One route of the host's, as the benchmark `http` measures it: no gate and no routes of ours.
"""

from collections.abc import Sequence

from benchmarks.load import CONNECTIONS, ensure_wrk
from benchmarks.measure import arguments, at_least, busy_elsewhere, machine, ratios, spread, table
from benchmarks.measure import write as keep
from benchmarks.servers import Contender
from benchmarks.web import BARE, measured

AROUND, CORS = "with the shield", "with the shield and CORS"
LEAST = 0.92  # of the bare route's rate, the limiter included

ROWS = (
    Contender(name=BARE, module="bare", variant="bare"),
    Contender(name=AROUND, module="bare", variant="shield"),
    Contender(name=CORS, module="bare", variant="shield+cors"),
)


def main(given: Sequence[str]) -> None:
    """Run the rounds and print the table."""
    options = arguments("headers", __doc__, rounds=9, seconds=2).parse_args(given)
    about = machine()
    rows = measured(ROWS, rounds=options.rounds, seconds=options.seconds)
    beside = {name: ratios(row.rate.values, rows[BARE].rate.values) for name, row in rows.items()}
    lines = [
        (name, spread(row.rate), spread(row.cpu, 1), spread(beside[name], 3))
        for name, row in rows.items()
    ]
    print(table(("", "requests/s", "CPU us a request", "rate beside FastAPI alone"), lines))
    targets = [at_least("the shield: rate beside a bare route's", beside[AROUND].median, LEAST)]
    print("\n" + "\n".join(str(target) for target in targets))
    keep(
        options.json,
        about,
        load=f"{ensure_wrk()}, {CONNECTIONS} connections",
        load_after=round(busy_elsewhere(), 2),
        rows={
            name: {"requests_per_second": row.rate, "cpu_us": row.cpu} for name, row in rows.items()
        },
        ratios=beside,
        targets=targets,
    )
