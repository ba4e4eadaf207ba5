"""The stores that faults are shown on."""

import pytest

from tests.faults.places import KINDS, Place


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest) -> Place:
    """An empty place of each kind."""
    kind, _, apart = request.param.partition("-")
    urls = {"sqlite": "sqlite_url", "postgresql": "postgres_url", "mongodb": "mongo_url"}
    return Place(
        name=f"{kind} and {apart}" if apart else kind,
        database=request.getfixturevalue(urls[kind]),
        sessions=request.getfixturevalue("redis_url") if apart else None,
    )
