"""These stories are told with sessions in Redis too."""

import pytest


@pytest.fixture
def database_url(database_or_redis_url: str) -> str:
    """Each kind of server that sessions live in."""
    return database_or_redis_url
