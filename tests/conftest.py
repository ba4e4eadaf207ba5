"""What every test may ask for: a server, and a fresh database on each kind of it."""

from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest

from tests.servers import Postgres
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


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'watchword.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """An empty database on each kind of server."""
    name = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    url: str = request.getfixturevalue(name)
    return url
