"""The doctor's checks, the start that refuses what they would fail, and the lists they answer."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from tests import told
from tests.stores.deaf import deaf_line
from watchword import Watchword
from watchword.crypto.keys import generate_secret
from watchword.doctor import CHECKS, Line, examine_live, faulty
from watchword.features.audit import audit
from watchword.features.limits import limits
from watchword.features.lockout import lockout
from watchword.features.passwords import passwords
from watchword.features.sessions import sessions
from watchword.features.sign_in import sign_in
from watchword.features.users import users
from watchword.kernel.errors import ConfigurationError
from watchword.presets import minimal, standard

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "features" / "operations.md"
ITEMS = (
    *("TTLs", "cookies", "hash", "regenerate", "state", "jti", "object-level", "limits"),
    *("generic errors", "backup codes", "TOTP secrets", "absolute timeout", "CSRF"),
)
LATER = {"state", "backup codes", "TOTP secrets"}  # of features that are not there yet


def production(**options: Any) -> dict[str, Any]:
    return {
        "environment": "production",
        "public_url": "https://accounts.example.com",
        "secret": generate_secret(),
        "environ": {},
    } | options


def plain() -> list[Any]:
    return [users(), sessions(), sign_in(), passwords()]


@pytest.mark.invariant("I-22")
@pytest.mark.parametrize(
    ("features", "named"),
    [
        (plain(), ["audit.enabled", "limits.enabled"]),
        ([*plain(), limits()], ["audit.enabled"]),
        ([*plain(), audit()], ["limits.enabled"]),
        ([*plain(), audit(), lockout()], ["limits.enabled"]),
        ([*plain(), audit(), limits(enabled=False)], ["limits.enabled"]),
        ([*plain(), audit(enabled=False), limits()], ["audit.enabled"]),
    ],
    ids=["both", "no-audit", "no-limits", "lockout-is-no-limiter", "limits-off", "audit-off"],
)
def test_production_starts_with_no_sign_in_that_is_unlimited_or_unheard(
    features: list[Any], named: list[str]
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Watchword("sqlite://", features=features, **production())
    assert [line.setting for line in faulty(refused.value.faults)] == named
    missing = {"audit.enabled": "events", "limits.enabled": "limiter"}
    accepted = [missing[each] for each in named]
    assert Watchword("sqlite://", features=features, **production(accept_missing=accepted))
    assert Watchword("sqlite://", features=features, **production(environment="development"))


@pytest.mark.invariant("I-22")
def test_what_is_missing_is_said_with_all_that_is_wrong() -> None:
    with pytest.raises(ConfigurationError) as refused:
        Watchword("sqlite://", features=plain(), environ={})
    settings = {line.setting for line in faulty(refused.value.faults)}
    assert settings == {"public_url", "secret", "audit.enabled", "limits.enabled"}


@pytest.mark.invariant("I-22")
def test_both_presets_start_in_production_and_so_does_an_app_without_sign_in() -> None:
    for features in (minimal(), standard(), [users()]):
        assert Watchword("sqlite://", features=features, **production())


def test_each_setting_that_is_looked_at_exists() -> None:
    known = {each.key for each in Watchword("sqlite://", **production()).settings}
    sections = {key.partition(".")[0] for key in known}
    for check in CHECKS:
        for setting in check.settings:
            assert setting in known or setting in sections, (check.name, setting)


@pytest.mark.parametrize(
    ("fault", "setting"),
    [
        ("the secret was not made by Watchword: do this", "secret"),
        ("keys.secret (environment X; WATCHWORD_KEYS__SECRET): is short", "keys.secret"),
        ("cors: allow_origins `*` with allow_credentials", "cors.allow_origins"),
        ("WATCHWORD_NONSENSE is not known: unset it", "WATCHWORD_NONSENSE"),
        ("something else", None),
    ],
)
def test_a_fault_names_its_setting(fault: str, setting: str | None) -> None:
    (line,) = faulty([fault])
    assert (line.grade, line.setting, line.found) == ("fail", setting, fault)


async def looked_at(url: str, **options: Any) -> dict[str, Line]:
    auth = Watchword(url, **production(**options))
    return {line.check: line for line in await examine_live(auth)}


async def test_it_changes_nothing_in_an_empty_database(sql_database_url: str) -> None:
    for _ in range(2):
        lines = await looked_at(sql_database_url)
        assert lines["schema"].grade == "warn"
        assert "change feed" not in lines


async def test_a_database_in_order_is_all_green(database_or_redis_url: str) -> None:
    secret = generate_secret()
    options = production(secret=secret, environ=told.ENVIRON)
    async with Watchword(database_or_redis_url, **options).running(background=False):
        pass
    lines = await looked_at(database_or_redis_url, secret=secret, environ=told.ENVIRON)
    assert set(lines) == {"store", "schema", "change feed", "outbox", "audit seals"}
    assert {line.grade for line in lines.values()} == {"ok"}, lines


@pytest.mark.invariant("I-08")
async def test_a_line_on_which_nothing_is_heard_is_named(postgres_url: str) -> None:
    secret = generate_secret()
    async with Watchword(postgres_url, **production(secret=secret)).running(background=False):
        pass
    lines = await looked_at(postgres_url, secret=secret)
    assert {line.grade for line in lines.values()} == {"ok"}
    async with deaf_line(postgres_url) as deaf:
        line = (await looked_at(deaf, secret=secret))["change feed"]
    assert line.grade == "warn"
    assert "polled" in line.found
    assert line.setting == "wake"


async def test_keys_under_another_secret_are_a_failing_line(sqlite_url: str) -> None:
    async with Watchword(sqlite_url, **production()).running(background=False):
        pass
    lines = await looked_at(sqlite_url)
    assert [line.grade for line in lines.values()] == ["fail"]


def rows_of(heading: str) -> list[list[str]]:
    """The cells of the table under a heading of the page."""
    section = PAGE.read_text("utf-8").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def check_shown(cell: str) -> None:
    """A cell names checks of the doctor, or tests that are there."""
    names = re.findall(r"`([^`]+)`", cell)
    assert names, cell
    for name in names:
        path, colons, function = name.partition("::")
        if not colons:
            assert name in {check.name for check in CHECKS}, name
            continue
        tree = ast.parse((ROOT / path).read_text("utf-8"))
        defined = {
            node.name
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert function in defined, name


@pytest.mark.capability("S4-44")
def test_each_of_the_thirteen_items_is_checked_by_something_that_is_there() -> None:
    rows = rows_of("Thirteen items")
    assert tuple(row[0] for row in rows) == ITEMS
    for item, _, shown in rows:
        if item in LATER:
            assert shown == "not there yet"
        else:
            check_shown(shown)


@pytest.mark.capability("S0-116")
def test_each_of_the_ten_practices_is_a_default_or_a_check() -> None:
    rows = rows_of("Ten practices")
    assert len(rows) == 10
    for _, _, shown in rows:
        if shown != "not there yet":
            check_shown(shown)


@pytest.mark.capability("S0-118")
def test_each_note_on_security_names_its_test() -> None:
    for _, _, shown in rows_of("Notes"):
        check_shown(shown)


@pytest.mark.capability("S0-117")
def test_the_checklist_of_six_is_graded() -> None:
    graded = {check.name for check in CHECKS if "S0-117" in check.rows}
    assert graded >= {"secret", "limits", "audit", "public URL", "access token life", "logout"}
