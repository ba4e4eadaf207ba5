"""The driver: one MongoDB database."""

from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any, Final, NoReturn, TypeVar

from watchword.storage.feed import Feed
from watchword.storage.store import Verbs
from watchword.stores.mongo import schema
from watchword.stores.mongo.faults import translated
from watchword.stores.mongo.feed import MongoFeed
from watchword.stores.mongo.target import Clients, Target, finished
from watchword.stores.mongo.verbs import MongoVerbs

T = TypeVar("T")
Step = Callable[[schema.Database], Coroutine[Any, Any, T]]

_PATIENCE: Final = 3600.0  # seconds that building an index may take

_ALONE: Final = (
    "MongoDB's writes are committed one by one: there is no connection of yours that ours could "
    "join; keep users in SQLite or PostgreSQL if they must commit with your own rows"
)


class MongoDriver:
    """A MongoDB database. It connects when it is first used.

    Nothing rests on transactions: there is one path, whatever the server could do (I-19).
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._clients = Clients(target)
        self._verbs = MongoVerbs(self._clients)
        self._feed = MongoFeed(target)

    @property
    def is_transactional(self) -> bool:
        """No: every write stands at once."""
        return False

    @property
    def feed(self) -> Feed | None:
        """The change feed, polled."""
        return self._feed

    @property
    def verbs(self) -> Verbs:
        """Verbs that commit by themselves."""
        return self._verbs

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Verbs]:
        """Verbs that commit by themselves: what is written stays, even if the block raises."""
        yield self._verbs

    def joined(self, connection: Any) -> NoReturn:  # noqa: ARG002  refused whatever it is
        """Refuse: there is nothing to join."""
        raise TypeError(_ALONE)

    def savepoint(
        self,
        connection: Any,  # noqa: ARG002
    ) -> AbstractAsyncContextManager[None]:
        """Refuse: there is nothing to go back to."""
        raise TypeError(_ALONE)

    async def after_commit(
        self,
        connection: Any,  # noqa: ARG002
        tried: Callable[[], None],  # noqa: ARG002
        then: Callable[[], Coroutine[Any, Any, None]],  # noqa: ARG002
    ) -> None:
        """Refuse: no caller commits here."""
        raise TypeError(_ALONE)

    async def open(self, records: Sequence[type]) -> None:
        """Connect and compare the schema; create it in an empty database.

        Any number of workers may do so at once: every step may be done twice.

        Raises:
            SchemaBehind, SchemaNewer, StoreUnavailable
        """
        if not await self._look(lambda database: schema.check(database, records)):
            await self._change(lambda database: schema.apply(database, records))

    async def close(self) -> None:
        """Give every connection back."""
        await self._clients.close()

    async def ping(self) -> None:
        """Ask the primary for a sign of life. Raises StoreUnavailable."""
        await self._look(lambda database: database.command("ping"))

    async def plan(self, records: Sequence[type]) -> tuple[str, ...]:
        """What `migrate` would do, one step each; empty if there is nothing to do."""
        return await self._look(lambda database: schema.plan(database, records))

    async def migrate(
        self,
        records: Sequence[type],
        *,
        skip_faulty: bool = False,  # noqa: ARG002  it concerns adopted tables, and there are none
    ) -> tuple[str, ...]:
        """Bring the schema up to these records; what was done."""
        return await self._change(lambda database: schema.apply(database, records))

    async def _look(self, step: Step[T]) -> T:
        return await _told(self._clients, step)

    async def _change(self, step: Step[T]) -> T:
        # An index on a large collection may take longer than a command.
        patient = Clients(replace(self._target, command_timeout=_PATIENCE))
        try:
            return await _told(patient, step)
        finally:
            await patient.close()


async def _told(clients: Clients, step: Step[T]) -> T:
    try:
        return await finished(step(clients.database()))
    except Exception as error:
        fault = translated(error)
        if fault is None:
            raise
    raise fault  # outside the handler: the cause may quote values
