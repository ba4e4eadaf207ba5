"""Connections: given out one at a time, thrown away when a command did not end well.

Not the client's own pool and pipeline: those try a failed command again by themselves, and a
write whose answer was lost may have been applied. Here a write is sent once.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from watchword.kernel.errors import StoreUnavailable
from watchword.stores.redis.faults import is_lost, translated
from watchword.stores.redis.scripts import Script
from watchword.stores.redis.target import CONNECT_TIMEOUT, Target, require

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """One run of a script. Its key is its only one, or has the hash tag of the others."""

    script: Script
    keys: tuple[bytes, ...]
    arguments: tuple[bytes, ...]

    def command(self) -> tuple[Any, ...]:
        """As the server takes it."""
        return ("EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.arguments)


Step = Call | tuple[Any, ...]


class Link:
    """A few connections to one server. Each exchange is one round trip."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._client = require("redis.asyncio.connection")
        self._errors = require("redis.exceptions")
        self._home: tuple[int, asyncio.AbstractEventLoop] | None = None
        self._idle: list[Any] = []
        self._inherited: list[list[Any]] = []  # by a fork: theirs to close, not ours
        self._free = asyncio.Semaphore(target.pool_size)
        self._guard = ("GETEX", f"{target.prefix}:schema")

    async def read(self, *steps: Step) -> list[Any]:
        """Answers of the primary to what changes nothing; asked again if a connection died.

        A replica answers plain reads, with what was true a while ago. It refuses a command that
        may write, and GETEX is one, though this one writes nothing (I-19).
        """
        fault: Exception | None = None
        for again in (True, False):
            try:
                return (await self._exchange((self._guard, *steps)))[1:]
            except Exception as error:
                fault = translated(error)
                if fault is None:
                    raise
                if again and is_lost(error):
                    continue
            break
        assert fault is not None
        raise fault  # outside the handler: the cause may quote a key

    async def write(self, *steps: Step) -> list[Any]:
        """Answers to what is sent once and never again: a lost answer may have been applied."""
        try:
            return await self._exchange(steps)
        except Exception as error:
            fault = translated(error)
            if fault is None:
                raise
        raise fault

    async def connect(self) -> Any:
        """A connection of the caller's own."""
        target = self.target
        kind = self._client.SSLConnection if target.tls else self._client.Connection
        connection = kind(
            host=target.host,
            port=target.port,
            db=target.database,
            username=target.username,
            password=target.password,
            socket_connect_timeout=CONNECT_TIMEOUT,
            socket_timeout=None,  # each exchange has its own
            protocol=2,
            driver_info=None,
            **target.tls_files,
        )
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await connection.connect()
        except BaseException:
            await dropped(connection)
            raise
        return connection

    async def close(self) -> None:
        """Close every idle connection."""
        idle, self._idle = self._idle, []
        for connection in idle:
            await dropped(connection)

    async def _exchange(self, steps: Sequence[Step]) -> list[Any]:
        answers = await self._once([_command(step) for step in steps])
        unknown = [
            number
            for number, answer in enumerate(answers)
            if isinstance(answer, self._errors.NoScriptError)
        ]
        if unknown:  # those, and only those, did not run
            missing = {step.script.sha: step.script for step in steps if isinstance(step, Call)}
            await self._once([("SCRIPT", "LOAD", script.text) for script in missing.values()])
            again = await self._once([_command(steps[number]) for number in unknown])
            for number, answer in zip(unknown, again, strict=True):
                answers[number] = answer
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    async def _once(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        async with self._connection() as connection, asyncio.timeout(self.target.command_timeout):
            await connection.send_packed_command(
                connection.pack_commands(commands), check_health=False
            )
            answers: list[Any] = []
            for _ in commands:
                try:
                    answers.append(await connection.read_response())
                except self._errors.ResponseError as error:
                    answers.append(error)
            return answers

    @asynccontextmanager
    async def _connection(self) -> AsyncGenerator[Any]:
        self._settle()
        free = self._free
        if free.locked():
            try:
                async with asyncio.timeout(self.target.pool_timeout):
                    await free.acquire()
            except TimeoutError:
                raise StoreUnavailable("PoolTimeout") from None
        else:
            await free.acquire()  # at once
        try:
            connection = await self._live()
            try:
                yield connection
            except BaseException:
                await dropped(connection)  # an answer may still be on its way
                raise
            self._idle.append(connection)
        finally:
            free.release()

    async def _live(self) -> Any:
        while self._idle:
            connection = self._idle.pop()
            try:
                if not await connection.can_read():  # nothing owed, and not closed
                    return connection
            except (self._errors.RedisError, OSError):
                pass
            await dropped(connection)
        return await self.connect()

    def _settle(self) -> None:
        """Forget the connections of another event loop or of the process we were forked from."""
        home = (os.getpid(), asyncio.get_running_loop())
        if self._home != home:
            if self._home is not None and self._home[0] != home[0]:
                # Collected here, they would take the parent's sockets out of the epoll that
                # both processes share.
                self._inherited.append(self._idle)
            self._home = home
            self._idle = []
            self._free = asyncio.Semaphore(self.target.pool_size)


def _command(step: Step) -> tuple[Any, ...]:
    return step.command() if isinstance(step, Call) else step


async def dropped(connection: Any) -> None:
    """Close a connection without asking the server."""
    with suppress(Exception):  # it is thrown away whatever it says
        await connection.disconnect(nowait=True)


async def finished(step: Coroutine[Any, Any, T]) -> T:
    """Run a step to its end, and only then let a cancellation through.

    A write in several steps that stopped between two of them would leave hints behind.
    """
    task = asyncio.ensure_future(step)
    interrupted: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            interrupted = error
    if interrupted is not None:
        if not task.cancelled():
            task.exception()  # seen, so that nobody warns of it
        raise interrupted
    return task.result()
