"""Which statements the operations send, and how the database finds the rows of each.

PostgreSQL plans a statement for its values five times, then perhaps once for whatever values
come: both plans are looked at, and how many rows each really reads. SQLite says its plan, and how
many steps of its machine a statement takes.
"""

import json
import re
import sqlite3
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from sqlalchemy import event

from benchmarks.growth_rows import connected, path_of
from watchword.presets import Watchword
from watchword.stores.sql import feed_postgres, feed_sqlite

READ_AT_MOST = 5_000  # rows, of which an expiry needs 500, each from several places
STEPS_AT_MOST = 250_000  # of SQLite's machine; an expiry takes some 200 for each row
_LATER = 6  # executions after which PostgreSQL has decided which plan it keeps


@dataclass(frozen=True, slots=True)
class Statement:
    """What was sent, and with which values the first time."""

    text: str
    values: tuple[Any, ...]

    @property
    def short(self) -> str:
        """The verb and the table, for people."""
        found = re.search(r"(?:FROM|INTO|UPDATE|JOIN)\s+watchword_(\w+)", self.text)
        verb = self.text.split(None, 1)[0]
        verb = next((v for v in ("DELETE FROM", "UPDATE ", "INSERT INTO") if v in self.text), verb)
        return f"{verb.split()[0].lower()} {found[1] if found else '?'}"


@dataclass(frozen=True, slots=True)
class Plan:
    """How one statement is carried out."""

    operation: str
    statement: str
    text: str
    when: str  # which of its plans
    path: str  # the accesses, one after the other
    work: int  # rows read, or steps made
    faults: tuple[str, ...]


@dataclass
class Heard:
    """The statements of one App, each once, by their text."""

    statements: dict[str, Statement] = field(default_factory=dict[str, Statement])

    def add(self, text: str, values: Any) -> None:
        """Keep it, unless it is known or looks for no rows."""
        insert = text.lstrip().startswith("INSERT")
        if "watchword_" in text and not insert and text not in self.statements:
            given = tuple(cast("Mapping[str, Any]", values).values()) if _is_map(values) else values
            self.statements[text] = Statement(text, tuple(given or ()))


def _is_map(values: object) -> bool:
    return isinstance(values, Mapping)


@contextmanager
def hearing(auth: Watchword) -> Generator[Heard]:
    """Hear what an App sends: through its engine, and by the short way of look-ups."""
    heard = Heard()
    driver: Any = auth.driver
    engine, reader = driver._pool.engine.sync_engine, driver._reader  # noqa: SLF001  nobody else knows them

    def before(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        heard.add(statement, parameters)

    fetch = reader.fetch

    def fetching(text: str, values: tuple[Any, ...]) -> Any:
        heard.add(text, values)
        return fetch(text, values)

    event.listen(engine, "before_cursor_execute", before)
    reader.fetch = fetching
    try:
        yield heard
    finally:
        del reader.fetch
        event.remove(engine, "before_cursor_execute", before)


async def feed_statement(auth: Watchword, url: str) -> Statement:
    """What a follower of the change feed sends, which has a connection of its own, as of now."""
    if url.startswith("sqlite"):
        text: str = feed_sqlite._READ  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        last: str = feed_sqlite._LAST  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        with closing(sqlite3.connect(path_of(url))) as found:
            return Statement(text, (found.execute(last).fetchone()[0], auth.core.realm))
    async with connected(url) as connection:
        now: str = await connection.fetchval("SELECT pg_current_snapshot()::text")
    text = feed_postgres._READ  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    return Statement(text, (auth.core.realm, now))


# PostgreSQL


async def of_postgres(
    url: str, statements: Mapping[str, list[Statement]], big: frozenset[str]
) -> list[Plan]:
    """The plans of these statements, by operation; what they would change is undone."""
    found: list[Plan] = []
    async with connected(url, statement_cache_size=0) as connection:
        for operation, several in statements.items():
            for statement in several:
                found += await _planned(connection, operation, statement, big)
    return found


async def _planned(
    connection: Any, operation: str, statement: Statement, big: frozenset[str]
) -> list[Plan]:
    values = ", ".join(_literal(value) for value in statement.values)
    call = f"EXECUTE planned({values})" if values else "EXECUTE planned"
    plans: list[Plan] = []
    await connection.execute(f"PREPARE planned AS {statement.text}")
    try:
        for number in range(_LATER + 1):
            analyzed = number in (0, _LATER)
            text = await _explained(connection, call, analyzed=analyzed)
            if analyzed:
                tree = json.loads(text)[0]["Plan"]
                when = "at first" if number == 0 else "later"
                plans.append(_plan(operation, statement, when, tree, big))
    finally:
        await connection.execute("DEALLOCATE planned")
    return plans


async def _explained(connection: Any, call: str, *, analyzed: bool) -> str:
    transaction = connection.transaction()
    await transaction.start()
    try:
        how = "ANALYZE, FORMAT JSON" if analyzed else "FORMAT JSON"
        return await connection.fetchval(f"EXPLAIN ({how}) {call}")
    finally:
        await transaction.rollback()


def _literal(value: object) -> str:
    if value is None:
        return "NULL"
    text = value.isoformat() if isinstance(value, datetime) else str(value)
    return "'" + text.replace("'", "''") + "'"


def _plan(
    operation: str, statement: Statement, when: str, tree: Mapping[str, Any], big: frozenset[str]
) -> Plan:
    path: list[str] = []
    faults: list[str] = []
    read = 0
    for node in _nodes(tree):
        kind = node["Node Type"]
        table = node.get("Relation Name", "")
        if "Scan" not in kind or not (table or node.get("Index Name")):
            continue
        loops = node.get("Actual Loops", 0)
        rows = node.get("Actual Rows", 0) * loops
        for removed in ("Rows Removed by Filter", "Rows Removed by Index Recheck"):
            rows += node.get(removed, 0) * loops
        read += round(rows)
        index = node.get("Index Name", "")
        path.append(f"{kind} {index or table}")
        if kind == "Seq Scan" and table in big:
            faults.append(f"Seq Scan on {table}")
        elif rows > READ_AT_MOST:
            faults.append(f"reads {rows:.0f} rows by {kind} {index or table}")
    faults += [
        "sorts more than it needs"
        for node in _nodes(tree)
        if node["Node Type"] == "Sort" and node.get("Actual Rows", 0) > READ_AT_MOST
    ]
    return Plan(
        operation, statement.short, statement.text, when, "; ".join(path), read, tuple(faults)
    )


def _nodes(tree: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield tree
    for below in tree.get("Plans", ()):
        yield from _nodes(below)


# SQLite


def of_sqlite(
    path: str, statements: Mapping[str, list[Statement]], big: frozenset[str], *, when: str
) -> list[Plan]:
    """The plans of these statements, by operation; what they would change is undone."""
    found: list[Plan] = []
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for operation, several in statements.items():
            for statement in several:
                rows = connection.execute(
                    f"EXPLAIN QUERY PLAN {statement.text}", statement.values
                ).fetchall()
                details = [str(row[3]) for row in rows]
                steps = _steps(connection, statement)
                faults = [each for each in details if _walks(each, statement.text, big)]
                if steps > STEPS_AT_MOST:
                    faults.append(f"takes {steps} steps")
                accesses = [each for each in details if each.startswith(("SEARCH", "SCAN"))]
                if any("TEMP B-TREE" in each for each in details):
                    accesses.append("sorts")
                found.append(
                    Plan(
                        operation,
                        statement.short,
                        statement.text,
                        when,
                        "; ".join(_shorter(each) for each in accesses),
                        steps,
                        tuple(faults),
                    )
                )
    return found


def _steps(connection: sqlite3.Connection, statement: Statement) -> int:
    """How much work it is, to the next thousand."""
    thousands = 0

    def count() -> int:
        nonlocal thousands
        thousands += 1
        return 0

    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.set_progress_handler(count, 1000)
        connection.execute(statement.text, statement.values).fetchall()
    finally:
        connection.set_progress_handler(None, 1000)
        connection.execute("ROLLBACK")
    return thousands * 1000


def _walks(detail: str, text: str, big: frozenset[str]) -> bool:
    """Does SQLite go through all of a table, or all of a realm? It names aliases."""
    found = re.match(r"(SCAN|SEARCH) (\w+)", detail)
    if found is None or (found[1] == "SEARCH" and not detail.endswith("(realm=?)")):
        return False
    named = re.search(rf"(\w+) AS {found[2]}\b", text)
    return (named[1] if named else found[2]) in big


def _shorter(detail: str) -> str:
    return re.sub(r" USING (?:COVERING )?INDEX ", " by ", detail)
