"""The project's pytest plugin: markers, `--capabilities`, `--stores`, and no silent skips in CI.

And what it takes to run on several workers (pytest-xdist): lines that reach the terminal, and
who runs what.
"""

import logging
import os
import re
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, get_args

import pytest
from pydantic_core.core_schema import ErrorType
from xdist.scheduler import LoadScopeScheduling

MARKERS = {
    "capability": "capability(*rows): rows of the capability inventory that this test shows",
    "invariant": "invariant(*numbers): rules that cut across features and that this test holds",
    "standard": "standard(*sections): requirements of a standard, or CVEs, that this test shows",
    "real_cost": "real_cost: hashes at the default cost instead of the tests' own",
    "slow": "slow: takes seconds; scripts/test runs it, scripts/check does not",
    "long": "long: takes minutes; runs with scripts/test --long only",
}
SHOWN = {
    "capability": re.compile(r"(S[0-4]|DEF)-\d+"),
    "invariant": re.compile(r"I-\d\d"),
    "standard": re.compile(r".*\d.*"),  # "13.1", "RFC 6750 §3", "CVE-2026-48710"
}
STORES = {
    "sqlite": re.compile(r"sqlite"),
    "postgresql": re.compile(r"postgres(ql)?"),
    "mongodb": re.compile(r"mongo(db)?"),
    "redis": re.compile(r"redis"),
}

SAID = "said"  # the user property that `say` fills
# Several processes each, killed, frozen and timed: no two of these at once.
ONE_BY_ONE = ("tests/faults/",)
# The files (or folders) that take longest, the longest first: on several workers they go first.
LONGEST = (
    *("tests/faults/", "tests/cli/test_serve.py", "tests/stores/", "tests/cli/", "tests/examples/"),
    *("tests/attacks/test_enumeration.py", "tests/attacks/test_stuffing.py"),
    *("tests/architecture/", "tests/unit/test_benchmarks.py", "tests/regressions/", "tests/races/"),
)

PYDANTIC = frozenset(get_args(ErrorType))  # its own names of what is wrong with a field


def is_long() -> bool:
    return os.environ.get("WATCHWORD_TEST_LONG", "") not in {"", "0"}


def is_ci() -> bool:
    return os.environ.get("CI", "") not in {"", "0", "false"}


@pytest.fixture(scope="session")
def count() -> Callable[[int, int], int]:
    """Choose between the short and the full count: `count(20, 500)`."""
    return lambda short, full: full if is_long() else short


@pytest.fixture
def say(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Tell the reader of a run something: `say("50 kills")`, one line, whatever the outcome.

    A worker's own output goes nowhere, so the line travels with the test's report.
    """
    return lambda line: request.node.user_properties.append((SAID, line.strip("\n")))


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("watchword")
    group.addoption(
        "--capabilities",
        action="store_true",
        help="print the rows that are shown and by which tests, without running any",
    )
    group.addoption(
        "--stores",
        default=",".join(STORES),
        help=f"run parametrized tests on these stores only (default: {','.join(STORES)})",
    )


def pytest_configure(config: pytest.Config) -> None:
    for line in MARKERS.values():
        config.addinivalue_line("markers", line)
    unknown = set(chosen_stores(config)) - set(STORES)
    if unknown:
        raise pytest.UsageError(f"--stores: unknown {sorted(unknown)}; known: {', '.join(STORES)}")


def chosen_stores(config: pytest.Config) -> list[str]:
    return [name.strip() for name in str(config.getoption("--stores")).split(",") if name.strip()]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    faults = [fault for item in items for fault in marker_faults(item)]
    if faults:
        raise pytest.UsageError("\n".join(faults))
    left_out = [pattern for name, pattern in STORES.items() if name not in chosen_stores(config)]
    away = [item for item in items if any(on_store(item, pattern) for pattern in left_out)]
    if away:
        config.hook.pytest_deselected(items=away)
        items[:] = [item for item in items if item not in away]
    if hasattr(config, "workerinput"):
        items.sort(key=takes_long)
    if not is_long():
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="takes minutes: scripts/test --long"))


def marker_faults(item: pytest.Item) -> Iterable[str]:
    for name, form in SHOWN.items():
        for marker in item.iter_markers(name):
            if not marker.args:
                yield f"{item.nodeid}: {name}() names nothing"
            for row in marker.args:
                if not isinstance(row, str) or not form.fullmatch(row):
                    yield f"{item.nodeid}: {name}({row!r}) does not match {form.pattern}"


def on_store(item: pytest.Item, pattern: re.Pattern[str]) -> bool:
    """Whether the test is parametrized, among other things, with this store."""
    call = getattr(item, "callspec", None)
    return call is not None and any(pattern.fullmatch(part) for part in call.id.split("-"))


class Codes:
    """The codes of problems that a test met, against docs/reference/errors.md."""

    def __init__(self) -> None:
        self._met: set[str] = set()
        self._done: set[str] = set()

    def note(self, error: Any) -> None:
        """Remember what a refusal says of itself. What tests raise of their own is not ours."""
        if type(error).__module__.startswith("watchword."):
            self._met.add(error.code)
            self._met.update(each["code"] for each in error.extra.get("errors", ()))

    def undocumented(self) -> list[str]:
        """Those that the reference lacks; each is said once."""
        fresh = self._met - self._done
        if not fresh:
            return []
        self._done |= fresh
        from watchword.cli.reference.errors import error_kinds, fault_codes  # noqa: PLC0415

        return sorted(fresh - set(error_kinds()) - fault_codes() - PYDANTIC)

    def watch(self) -> None:
        """Hear of every problem that this process answers with."""
        from watchword.http import problems  # noqa: PLC0415  where coverage or a test may come first

        before = problems.headers_of

        def headers_of(error: Any) -> Mapping[str, str]:
            self.note(error)
            return before(error)

        problems.headers_of = headers_of


CODES = Codes()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    if session.items:
        CODES.watch()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    result = yield
    undocumented = CODES.undocumented()
    if undocumented:
        pytest.fail(f"codes that docs/reference/errors.md lacks: {', '.join(undocumented)}")
    return result


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    if not session.config.getoption("--capabilities"):
        return None
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    write = print if reporter is None else reporter.write_line
    for line in capability_lines(session.items):
        write(line)
    return True


def capability_lines(items: Iterable[pytest.Item]) -> Iterable[str]:
    shown: dict[str, dict[str, None]] = defaultdict(dict)
    for item in items:
        test = item.nodeid.split("[")[0]
        for name in SHOWN:
            for marker in item.iter_markers(name):
                for row in marker.args:
                    shown[row][test] = None
    width = max((len(row) for row in shown), default=0)
    yield ""
    for row in sorted(shown, key=natural):
        for position, test in enumerate(shown[row]):
            yield f"{row if position == 0 else '':<{width}}  {test}"
    yield f"{len(shown)} rows shown"


def natural(row: str) -> list[tuple[int, str]]:
    """Order S2-9 before S2-10."""
    parts = [part for part in re.split(r"(\d+)", row) if part]
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    if config.getoption("--capabilities"):  # nothing runs, and one process knows all of it
        config.option.numprocesses = 0


class Teller:
    """Prints what tests said, as soon as their reports are there."""

    def __init__(self, reporter: pytest.TerminalReporter) -> None:
        self._reporter = reporter

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # A setup has said nothing yet; a teardown's report repeats what the call's had.
        lines = [line for name, line in report.user_properties if name == SAID]
        if report.when != "call" or not lines:
            return
        self._reporter.write("\n" + "".join(f"{line}\n" for line in lines))


class Leaks(logging.Handler):
    """Hears of all that we log, and fails the test in which a secret of ours was in it."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self._found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "watchword.test":  # of tests that log secrets on purpose
            return
        from watchword.logs import SECRET  # noqa: PLC0415  as above

        said = record.getMessage()
        if record.exc_info:
            said += logging.Formatter().formatException(record.exc_info)
        self._found += (f"{record.name}: {hit[0][:8]}…" for hit in SECRET.finditer(said))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        self._found.clear()
        result = yield
        if self._found:
            pytest.fail(f"secrets in the logs (DEF-13): {', '.join(self._found)}")
        return result


def pytest_sessionstart(session: pytest.Session) -> None:
    plugins = session.config.pluginmanager
    leaks = Leaks()
    ours = logging.getLogger("watchword")
    ours.addHandler(leaks)
    ours.setLevel(logging.DEBUG)
    plugins.register(leaks)
    reporter = plugins.get_plugin("terminalreporter")
    if reporter is not None:
        plugins.register(Teller(reporter))


class ByFile(LoadScopeScheduling):
    """A file's tests go to one worker, with what they share; so does a folder in `ONE_BY_ONE`."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        config.option.loadscopereorder = False  # `takes_long` says what goes first
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return next((folder for folder in ONE_BY_ONE if path.startswith(folder)), path)


def takes_long(item: pytest.Item) -> int:
    """Where a test's file stands among those that take longest, so that none of them is last."""
    path = item.nodeid.partition("::")[0]
    found = (place for place, start in enumerate(LONGEST) if path.startswith(start))
    return next(found, len(LONGEST))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    return ByFile(config, log) if config.getoption("dist") == "load" else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    expected = hasattr(report, "wasxfail") or item.get_closest_marker("long") is not None
    if is_ci() and report.skipped and not expected:
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI takes for a failure: {reason_of(report.longrepr)}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if is_ci() and report.skipped:
        report.outcome = "failed"
        report.longrepr = (
            f"{collector.nodeid} skipped, which CI takes for a failure: "
            f"{reason_of(report.longrepr)}"
        )
    return report


def reason_of(longrepr: object) -> str:
    if isinstance(longrepr, tuple):
        parts: tuple[object, ...] = longrepr
        return str(parts[-1])
    return str(longrepr)
