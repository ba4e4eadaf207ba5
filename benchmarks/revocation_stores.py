"""The stores that workers share, each from the tests' own servers; and the workers over one."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field

from benchmarks.contenders.ours import PASSWORD
from benchmarks.measure import ROOT, say
from benchmarks.postgres import postgres
from benchmarks.revocation_worker import watchword
from tests.servers import Mongo, Redis
from watchword.crypto.keys import generate_secret

BOUND = 2.0  # seconds, whatever the store (I-06, I-08)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where records live, and what is aimed at there."""

    name: str
    database: str
    sessions_in: str | None = None
    aim: float  # milliseconds: 99 of 100 refuse by then; where it is the bound, all
    secret: str = field(default_factory=lambda: generate_secret().reveal(), repr=False)

    @property
    def environ(self) -> dict[str, str]:
        """What the command line needs to know of it, beside the database."""
        apart = {} if self.sessions_in is None else {"WATCHWORD_SESSIONS__STORE": self.sessions_in}
        return {"PATH": os.environ.get("PATH", ""), "PYTHONUNBUFFERED": "1", **apart}


@contextmanager
def _sqlite() -> Generator[Place | None]:
    with tempfile.TemporaryDirectory(prefix="watchword-bench-") as folder:
        yield Place(name="SQLite", database=f"sqlite:///{folder}/watchword.db", aim=20)


@contextmanager
def _postgres() -> Generator[Place | None]:
    with postgres() as databases:
        yield databases and Place(name="PostgreSQL", database=databases.make(), aim=5)


@contextmanager
def _mongo() -> Generator[Place | None]:
    try:
        server = Mongo.start()
    except (OSError, RuntimeError) as error:
        say(f"no MongoDB here, it is left out: {error}")
        yield None
        return
    try:
        url = server.make_database()
        name = "MongoDB" if server.is_real else "MongoDB (the tests' small server)"
        yield Place(name=name, database=url, aim=BOUND * 1e3)
        asyncio.run(server.drop_database(url))
    finally:
        server.stop()


@contextmanager
def _redis() -> Generator[Place | None]:
    with postgres() as databases:
        if databases is None:
            yield None
            return
        try:
            server = Redis.start()
        except (ImportError, AttributeError, OSError, RuntimeError) as error:
            say(f"no Redis here, it is left out: {error}")
            yield None
            return
        try:
            yield Place(
                name="PostgreSQL, sessions in Redis",
                database=databases.make(),
                sessions_in=f"{server.url}?prefix=bench{os.getpid()}",
                aim=BOUND * 1e3,
            )
        finally:
            server.stop()


PLACES: dict[str, Callable[[], AbstractContextManager[Place | None]]] = {
    "sqlite": _sqlite,
    "postgresql": _postgres,
    "mongodb": _mongo,
    "redis": _redis,
}


async def people(place: Place, names: list[str]) -> None:
    """Sign these up, at the test cost of hashing; the schema is made on the way."""
    auth = watchword(database=place.database, sessions_in=place.sessions_in, secret=place.secret)
    await auth.connect()
    try:
        for name in names:
            await auth.passwords.create_user(
                email=f"{name}@example.com", password=PASSWORD, is_verified=True
            )
    finally:
        await auth.disconnect()
        auth.hash_pool.close()


@contextmanager
def workers(place: Place, *, many: int) -> Generator[list[int]]:
    """So many processes over this store, ready to be asked; their ports.

    Raises:
        RuntimeError: one does not start.
    """
    given = {
        "database": place.database,
        "sessions_in": place.sessions_in,
        "secret": place.secret,
    }
    with ExitStack() as stack:
        started = [stack.enter_context(_worker(given)) for _ in range(many)]
        ports: list[int] = []
        for process in started:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"a worker over {place.name} did not start")
            ports.append(json.loads(line)["port"])
        for port in ports:
            _await_ready(port, place)
        yield ports


@contextmanager
def _worker(given: dict[str, str | None]) -> Generator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.revocation_worker"],
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdin is not None
        process.stdin.write(json.dumps(given) + "\n")
        process.stdin.flush()
        yield process
    finally:
        process.terminate()
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _await_ready(port: int, place: Place) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                return
        except (OSError, urllib.error.URLError) as error:
            if time.monotonic() > until:
                raise RuntimeError(f"a worker over {place.name} is not ready") from error
            time.sleep(0.1)


def disable_command(place: Place, name: str) -> list[str]:
    """What an operator would type."""
    start = [sys.executable, "-c", "from watchword.cli import main; main()"]
    return [*start, "users", "disable", f"{name}@example.com", "--database", place.database]
