"""The driver: what Watchword asks of a database besides the verbs."""

from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NoReturn

from watchword.kernel.errors import ConfigurationError
from watchword.storage.feed import Feed
from watchword.storage.record import schema_of
from watchword.storage.store import Verbs
from watchword_jsonfile.file import JsonFile
from watchword_jsonfile.verbs import JsonVerbs, on_thread


class JsonDriver:
    """A database of one JSON file. The protocol `Driver` says what each part is for."""

    def __init__(self, path: str) -> None:
        self._file = JsonFile(path)
        self._verbs = JsonVerbs(self._file)

    @property
    def is_transactional(self) -> bool:
        """No: every write stands at once, and services write what decides last."""
        return False

    @property
    def feed(self) -> Feed | None:
        """None: no worker believes its cache for longer than 2 s."""
        return None

    @property
    def verbs(self) -> Verbs:
        return self._verbs

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Verbs]:
        """What is written stays, even if the block raises."""
        yield self._verbs

    def joined(self, connection: Any) -> NoReturn:
        raise TypeError("a JSON file has no connection of yours that ours could join")

    def savepoint(self, connection: Any) -> AbstractAsyncContextManager[None]:
        self.joined(connection)

    async def after_commit(
        self,
        connection: Any,
        tried: Callable[[], None],
        then: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        self.joined(connection)

    async def open(self, records: Sequence[type]) -> None:
        if any(schema_of(kind).adoption is not None for kind in records):
            raise ConfigurationError(["a JSON file has no tables of yours to adopt"])
        await on_thread(self._file.make)
        await self.ping()

    async def close(self) -> None:
        """Nothing is kept open."""

    async def ping(self) -> None:
        await on_thread(self._file.check)

    async def plan(self, records: Sequence[type]) -> tuple[str, ...]:
        """Nothing: a field that a row lacks has its default."""
        return ()

    async def migrate(
        self, records: Sequence[type], *, skip_faulty: bool = False
    ) -> tuple[str, ...]:
        await self.open(records)
        return ()
