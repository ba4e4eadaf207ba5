"""What every test may ask for: a server, and a fresh database on each kind of it."""

from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest

from tests import told
from tests.servers import Mongo, Postgres, Redis
from tests.told import work
from watchword.testing import cheap_hashing

__all__ = ["work"]

HASHING = "tests/unit/crypto/"  # says itself what a hash costs


@pytest.fixture(autouse=True)
def hashing_is_cheap(request: pytest.FixtureRequest) -> Iterator[None]:
    """Everybody hashes at the test cost but those marked `real_cost`."""
    if request.node.get_closest_marker("real_cost") or HASHING in request.node.nodeid:
        yield
    else:
        with cheap_hashing():
            yield


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server for the whole run."""
    server = Postgres.start()
    yield server
    server.stop()


@pytest.fixture
async def postgres_url(postgres: Postgres) -> AsyncGenerator[str, None]:
    """An empty PostgreSQL database."""
    async with postgres.database() as url:
        yield url


@pytest.fixture(scope="session")
def mongo() -> Iterator[Mongo]:
    """A server that speaks MongoDB's protocol for the whole run."""
    server = Mongo.start()
    yield server
    server.stop()


@pytest.fixture
async def mongo_url(mongo: Mongo) -> AsyncGenerator[str, None]:
    """An empty MongoDB database."""
    async with mongo.database() as url:
        yield url


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Redis]:
    """A Redis server for the whole run."""
    server = Redis.start()
    yield server
    server.stop()


@pytest.fixture
async def redis_url(redis_server: Redis) -> AsyncGenerator[str, None]:
    """A prefix on a Redis server under which there is nothing."""
    async with redis_server.prefix() as url:
        yield url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'watchword.db'}"


URLS = {"sqlite": "sqlite_url", "postgresql": "postgres_url", "mongodb": "mongo_url"}


@pytest.fixture(params=list(URLS))
def database_url(request: pytest.FixtureRequest) -> str:
    """An empty database on each kind of server."""
    url: str = request.getfixturevalue(URLS[request.param])
    return url


@pytest.fixture(params=[*URLS, "redis"])
def database_or_redis_url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each kind of server, and SQLite with the sessions in Redis."""
    if request.param == "redis":
        redis_url: str = request.getfixturevalue("redis_url")
        monkeypatch.setitem(told.ENVIRON, "WATCHWORD_SESSIONS__STORE", redis_url)
    url: str = request.getfixturevalue(URLS.get(request.param, "sqlite_url"))
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def sql_database_url(request: pytest.FixtureRequest) -> str:
    """An empty database on each kind that has SQL, transactions and connections to join."""
    url: str = request.getfixturevalue(URLS[request.param])
    return url
