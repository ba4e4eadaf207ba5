"""The driver: one Redis server."""

from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from watchword.kernel.errors import ConfigurationError
from watchword.storage.feed import Feed, Waker
from watchword.storage.record import schema_of
from watchword.storage.store import Verbs
from watchword.storage.windows import Windows
from watchword.stores.redis.checks import check
from watchword.stores.redis.link import Link
from watchword.stores.redis.target import Target, parse
from watchword.stores.redis.verbs import RedisVerbs
from watchword.stores.redis.waker import RedisWaker
from watchword.stores.redis.windows import RedisWindows


def driver(url: str, **options: object) -> "RedisDriver":
    """Make a driver for `redis://user:password@host:6379/0` or `rediss://…`.

    Options, as arguments or in the URL's query: `prefix` of every key, `pool_size`
    (connections), `pool_timeout`, `command_timeout` and `clock_skew` (seconds), and for
    `rediss` the files `ssl_ca_certs`, `ssl_certfile` and `ssl_keyfile`.

    Raises:
        ConfigurationError: the URL cannot be used, or a package is missing.
    """
    return RedisDriver(parse(url, options))


class RedisDriver:
    """A Redis server, for records that expire. It connects when it is first used."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._link = Link(target)
        self._verbs = RedisVerbs(self._link)

    @property
    def is_transactional(self) -> bool:
        """Each write stands at once: services write the record that decides last."""
        return False

    @property
    def feed(self) -> Feed | None:
        """There is none: what lives here is cached for 2 s (I-06)."""
        return None

    @property
    def verbs(self) -> Verbs:
        """Verbs that commit by themselves."""
        return self._verbs

    def waker(self) -> Waker:
        """Hints from worker to worker through this server."""
        return RedisWaker(self._target)

    def windows(self, realm: str) -> Windows:
        """Where tries are counted, in one round trip each."""
        return RedisWindows(self._link, realm)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Verbs]:
        """Verbs that commit by themselves."""
        yield self._verbs

    def joined(self, connection: Any) -> Verbs:  # noqa: ARG002 the protocol's
        """There is nothing to join. Raises TypeError."""
        raise TypeError("Redis has no transaction that could be joined")

    def savepoint(self, connection: Any) -> AbstractAsyncContextManager[None]:  # noqa: ARG002
        """There is nothing to undo. Raises TypeError."""
        raise TypeError("Redis has no transaction that could be joined")

    async def after_commit(
        self,
        connection: Any,  # noqa: ARG002
        tried: Callable[[], None],  # noqa: ARG002
        then: Callable[[], Coroutine[Any, Any, None]],  # noqa: ARG002
    ) -> None:
        """There is no commit to wait for. Raises TypeError."""
        raise TypeError("Redis has no transaction that could be joined")

    async def open(self, records: Sequence[type]) -> None:
        """Connect, and see that this server may keep these records.

        Raises:
            ConfigurationError: the server is set so that it may lose them, or they never expire.
            SchemaNewer, StoreUnavailable
        """
        lasting = [schema_of(kind).name for kind in records if schema_of(kind).expires is None]
        if lasting:
            names = ", ".join(sorted(lasting))
            raise ConfigurationError(
                [f"redis: {names} never expires: keep it in the database, here only what does"]
            )
        await check(self._link)

    async def close(self) -> None:
        """Give every connection back."""
        await self._link.close()

    async def ping(self) -> None:
        """Ask the server for a sign of life, as the primary. Raises StoreUnavailable."""
        await self._link.read(("PING",))

    async def plan(self, records: Sequence[type]) -> tuple[str, ...]:  # noqa: ARG002
        """Nothing: there is no schema."""
        return ()

    async def migrate(
        self,
        records: Sequence[type],
        *,
        skip_faulty: bool = False,  # noqa: ARG002 nothing is adopted here
    ) -> tuple[str, ...]:
        """Open it, since there is no schema to change."""
        await self.open(records)
        return ()
