"""The change feed of a SQL database: state and change commit together."""

from watchword.storage.feed import Follower, Waker
from watchword.stores.sql.engine import Pool
from watchword.stores.sql.feed_postgres import NotifyWaker, PostgresFollower
from watchword.stores.sql.feed_sqlite import DataVersionWaker, MemoryFollower, SqliteFollower


class SqlFeed:
    """How workers on one SQLite or PostgreSQL database hear of each other's changes."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool  # only a database in memory is read through it
        self._target = pool.target

    @property
    def is_coherent(self) -> bool:
        """A change row commits with the state that it reports (I-06)."""
        return True

    def follow(self, realm: str) -> Follower:
        """A place in the feed; nothing is connected yet."""
        if self._target.backend == "postgresql":
            return PostgresFollower(self._target, realm)
        if self._target.in_memory:
            return MemoryFollower(self._pool, realm)
        return SqliteFollower(self._target.dsn, realm)

    def waker(self) -> Waker | None:
        """NOTIFY or `data_version`; none in memory, where there is nobody else."""
        if self._target.backend == "postgresql":
            return NotifyWaker(self._target)
        return None if self._target.in_memory else DataVersionWaker(self._target.dsn)
