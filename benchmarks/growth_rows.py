"""Fills a database with people, each with a password and a session, as the services write them.

The first of each kind is written by its service and read back; the others differ from it in what
tells people apart. All of them are computed from a number, so that none is kept: the token of
anybody can be made again.
"""

import asyncio
import sqlite3
import time
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Literal, cast

import asyncpg
from sqlalchemy import MetaData

from benchmarks.contenders.ours import PASSWORD, SOMEWHERE
from watchword.features.mail import OutboxMail
from watchword.features.passwords import Password
from watchword.features.sessions import Session
from watchword.features.tokens.refresh import RefreshToken
from watchword.features.users import User
from watchword.kernel.secrets import Digest, Secret, digest_of
from watchword.presets import Watchword
from watchword.storage.feed import Change
from watchword.storage.record import ColumnKind, schema_of
from watchword.storage.store import Paging
from watchword.stores.sql.tables import PREFIX, encode

Backend = Literal["sqlite", "postgresql"]

SHARE = 10  # one mail in the outbox, and one row of the change feed, for so many people
GRACE_SHARE = 200  # one session of so many was refreshed a moment ago
_LETTERS = "0123456789abcdefghjkmnpqrstvwxyz"
_JOINED = timedelta(days=365)  # people came over this time
_STARTED = timedelta(hours=2)  # and signed in over this one


@dataclass(frozen=True, slots=True)
class People:
    """People 0 to size - 1. Even ones signed in with tokens, odd ones with a cookie."""

    size: int
    now: datetime

    def email(self, number: int) -> str:
        """Their address."""
        return f"p{number}@example.com"

    def user_id(self, number: int) -> str:
        """Their id, in the order in which they came."""
        return _id(self.joined(number), f"user {number}")

    def session_id(self, number: int) -> str:
        """The id of their session."""
        return _id(self.started(number), f"session {number}")

    def joined(self, number: int) -> datetime:
        """When they came."""
        return self.now - _JOINED * (1 - number / self.size)

    def started(self, number: int) -> datetime:
        """When their session began."""
        return self.now - _STARTED * (1 - number / self.size)

    def token(self, number: int) -> RefreshToken:
        """Their refresh token."""
        return RefreshToken(Secret(f"{number:022d}"), Secret(f"{number:043d}"))

    def cookie(self, number: int) -> str:
        """Their session cookie."""
        return f"wwc_{number:043d}"


@dataclass(frozen=True, slots=True)
class Templates:
    """One of each kind, as it stands in the database."""

    user: User
    password: Password
    bearer: Session
    cookie: Session
    mail: OutboxMail
    change: Change


async def templates(auth: Watchword) -> Templates:
    """Have the services write one of each, read them back, and remove them."""
    store = auth.store
    user = await auth.passwords.create_user(
        email="first@example.com", password=PASSWORD, is_verified=True
    )
    found: dict[str, Session] = {}
    for name in ("bearer", "cookie"):
        started = await auth.sessions.start(
            user, amr=("pwd",), transport=auth.sessions.transport(name), client=SOMEWHERE
        )
        found[name] = started.session
    async with store.transaction() as tx:
        await auth.mail.queue(tx, purpose="password_reset", address=user.email)
    mail = (await store.find(OutboxMail, Paging(order=("due_at", "id"), limit=1))).items[0]
    password = await store.get(Password, user_id=user.id)
    await auth.sessions.end(found["cookie"].id, why="logout")
    change = (await store.find(Change, Paging(order=("expires_at", "id"), limit=1))).items[0]
    assert password is not None
    await auth.users.delete(user.id)
    await store.erase(OutboxMail)
    await store.erase(Change)
    return Templates(user, password, found["bearer"], found["cookie"], mail, change)


@dataclass(frozen=True, slots=True)
class Fill:
    """Rows of one table: columns in order, and all of them, one at a time."""

    table: str
    columns: tuple[str, ...]
    rows: Iterable[tuple[Any, ...]]


def fills(first: Templates, people: People, backend: Backend) -> Iterator[Fill]:
    """All that a database of this size holds."""
    postgres = backend == "postgresql"
    users = (
        (people.user_id(n), people.email(n), people.email(n), people.joined(n), people.joined(n))
        for n in range(people.size)
    )
    names = ("id", "email", "email_key", "created_at", "updated_at")
    yield _fill(first.user, names, users, postgres=postgres)
    passwords = ((people.user_id(n), people.joined(n)) for n in range(people.size))
    yield _fill(first.password, ("user_id", "set_at"), passwords, postgres=postgres)
    yield from _sessions(first, people, postgres=postgres)
    few = max(1, people.size // SHARE)
    yield _fill(
        first.mail,
        ("id", "address", "requested_at", "due_at", "is_given_up", "attempts", "expires_at"),
        (_mail(people, n, of=few) for n in range(few)),
        postgres=postgres,
    )
    written = people.now + timedelta(days=1)  # kept for as long as the benchmark may last
    yield _fill(
        first.change,
        ("id", "subject", "at", "expires_at"),
        ((_id(people.now, f"change {n}"), f"s{n}", people.now, written) for n in range(few)),
        postgres=postgres,
    )


def sessions_past(first: Templates, people: People, many: int, backend: Backend) -> Fill:
    """Sessions of those people whose time to be deleted has come."""
    past = people.now - timedelta(days=2)
    mark = time.perf_counter_ns()  # another batch every time

    def values() -> Iterator[tuple[Any, ...]]:
        for number in range(many):
            name = f"{mark}/{number}"
            yield (
                _id(past, name),
                people.user_id(number * (people.size // many or 1) % people.size),
                *(past,) * 6,
                past,
                "logout",
                Digest(digest_of(name, purpose="refresh-family")),
            )

    names = (
        *("id", "user_id", "auth_time", "started_at", "seen_at", "idle_expires_at"),
        *("expires_at", "delete_at", "ended_at", "ended_why", "refresh_family"),
    )
    return _fill(first.bearer, names, values(), postgres=backend == "postgresql")


def _sessions(first: Templates, people: People, *, postgres: bool) -> Iterator[Fill]:
    times = ("auth_time", "started_at", "seen_at", "idle_expires_at", "expires_at", "delete_at")

    def moved(template: Session, number: int) -> tuple[Any, ...]:
        by = people.started(number) - template.started_at
        return (
            people.session_id(number),
            people.user_id(number),
            *(getattr(template, name) + by for name in times),
        )

    def bearer() -> Iterator[tuple[Any, ...]]:
        for number in range(0, people.size, 2):
            token = people.token(number)
            until = first.bearer.refresh_expires_at
            assert until is not None
            lately = number % GRACE_SHARE == 0
            yield (
                *moved(first.bearer, number),
                token.family_digest,
                token.proof_digest,
                until,
                # Over in an hour: nothing of it is due while this lasts.
                people.now + timedelta(hours=1) if lately else None,
            )

    def cookie() -> Iterator[tuple[Any, ...]]:
        for number in range(1, people.size, 2):
            digest = digest_of(people.cookie(number), purpose="session-cookie")
            yield (*moved(first.cookie, number), digest)

    names = ("id", "user_id", *times)
    refresh = ("refresh_family", "refresh_current", "refresh_expires_at", "refresh_grace_until")
    yield _fill(first.bearer, (*names, *refresh), bearer(), postgres=postgres)
    yield _fill(first.cookie, (*names, "cookie_digest"), cookie(), postgres=postgres)


def _mail(people: People, number: int, *, of: int) -> tuple[Any, ...]:
    """Half wait for another try, the others were given up; none is due."""
    asked = people.now - timedelta(hours=1) * (1 - number / of)
    given_up = number % 2 == 1
    due = asked if given_up else people.now + timedelta(hours=1) + timedelta(seconds=number)
    return (
        *(_id(asked, f"mail {number}"), people.email(number), asked, due),
        *(given_up, 8 if given_up else 1, people.now + timedelta(days=7)),
    )


def _fill(
    template: object, names: Sequence[str], values: Iterable[tuple[Any, ...]], *, postgres: bool
) -> Fill:
    """Rows like this record but for these fields."""
    schema = schema_of(type(template))
    columns = tuple(schema.columns)
    same: list[Any] = [
        encode(column.kind, getattr(template, column.name), postgres=postgres)
        for column in schema.columns.values()
    ]
    places: list[tuple[int, ColumnKind]] = [
        (columns.index(name), schema.columns[name].kind) for name in names
    ]

    def rows() -> Iterator[tuple[Any, ...]]:
        for given in values:
            row = list(same)
            for (place, kind), value in zip(places, given, strict=True):
                row[place] = encode(kind, value, postgres=postgres)
            yield tuple(row)

    return Fill(PREFIX + schema.name, columns, rows())


def _id(at: datetime, name: str) -> str:
    """An id as `new_id` makes them, but the same every time."""
    random = int.from_bytes(sha256(name.encode()).digest()[:10])
    number = (int(at.timestamp() * 1000) << 80) | random
    return "".join([_LETTERS[(number >> shift) & 31] for shift in range(125, -1, -5)])


# Into the database


async def load(auth: Watchword, url: str, everything: Iterable[Fill]) -> None:
    """Write all of it at once, and let the database count it. The App must not be open.

    Indexes are made anew afterwards, which is quicker than to keep them while rows come.
    """
    tables = _tables(auth)
    if url.startswith("sqlite"):
        await asyncio.to_thread(_load_sqlite, path_of(url), tables, everything)
    else:
        await _load_postgres(plain(url), tables, everything)


def _tables(auth: Watchword) -> frozenset[str]:
    """Those that the driver made, and nobody else's."""
    metadata = MetaData()
    auth.tables_into(metadata)
    return frozenset(metadata.tables)


async def _load_postgres(url: str, tables: frozenset[str], everything: Iterable[Fill]) -> None:
    async with connected(url) as connection:
        await connection.execute("SET maintenance_work_mem = '256MB'")
        async with connection.transaction():
            found = await connection.fetch(
                "SELECT i.indexrelid::regclass::text AS name, "
                "pg_get_indexdef(i.indexrelid) AS text FROM pg_index i "
                "WHERE NOT i.indisprimary AND i.indrelid::regclass::text = ANY($1)",
                list(tables),
            )
            for row in found:
                await connection.execute(f"DROP INDEX {row['name']}")
            for fill in everything:
                await add_to_postgres(connection, fill)
            for row in found:
                await connection.execute(row["text"])
        await connection.execute("VACUUM ANALYZE")


@asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncGenerator[Any]:
    """A connection beside the App's."""
    connection = await cast("Any", asyncpg).connect(url, **options)
    try:
        yield connection
    finally:
        await connection.close()


async def add_to_postgres(connection: Any, fill: Fill) -> None:
    """COPY, which reads rows as they are made."""
    await connection.copy_records_to_table(
        fill.table, columns=list(fill.columns), records=fill.rows
    )


def _load_sqlite(path: str, tables: frozenset[str], everything: Iterable[Fill]) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        # Nothing is lost that could not be made again.
        for pragma in ("journal_mode = MEMORY", "synchronous = OFF", "cache_size = -65536"):
            connection.execute(f"PRAGMA {pragma}")
        found: list[tuple[str, str]] = [
            (name, text)
            for name, table, text in connection.execute(
                "SELECT name, tbl_name, sql FROM sqlite_master "
                "WHERE type = 'index' AND sql IS NOT NULL"
            )
            if table in tables
        ]
        connection.execute("BEGIN")
        for name, _ in found:
            connection.execute(f"DROP INDEX {name}")
        for fill in everything:
            add_to_sqlite(connection, fill)
        for _, text in found:
            connection.execute(text)
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")


def add_to_sqlite(connection: sqlite3.Connection, fill: Fill) -> None:
    """One statement for all rows, which reads them as they are made."""
    marks = ", ".join("?" * len(fill.columns))
    statement = f"INSERT INTO {fill.table} ({', '.join(fill.columns)}) VALUES ({marks})"
    connection.executemany(statement, fill.rows)


def analyze_sqlite(path: str) -> None:
    """Let SQLite count what it holds; it does so only when told to."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("ANALYZE")


def path_of(url: str) -> str:
    """The file of a SQLite URL."""
    return url.partition("?")[0].removeprefix("sqlite:///")


def plain(url: str) -> str:
    """A PostgreSQL URL without the options that are ours; those stand last."""
    return url.partition("&pool_size")[0].partition("?pool_size")[0]
