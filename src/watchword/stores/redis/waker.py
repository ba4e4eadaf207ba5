"""Wake-ups through pub/sub: a word on a channel that there may be something to read."""

import asyncio
import secrets
from typing import Any, Final

from watchword.kernel.errors import StoreUnavailable
from watchword.stores.redis.faults import translated
from watchword.stores.redis.link import Link, dropped
from watchword.stores.redis.target import Target, parse

_ALIVE: Final = 15.0
"""Seconds of silence after which the server is asked whether it is still there."""


def waker(url: str, realm: str | None = None, **options: object) -> "RedisWaker":
    """Make a waker on the server of this URL, of one realm or of all together.

    Raises:
        ConfigurationError: the URL cannot be used, or a package is missing.
    """
    return RedisWaker(parse(url, options), realm)


class RedisWaker:
    """One worker's ear and voice. What is said while nobody listens is lost."""

    def __init__(self, target: Target, realm: str | None = None) -> None:
        # Channels know no databases, so the number stands in the name.
        self._channel = f"{target.prefix}:wake:{target.database}:{realm or '*'}"
        self._link = Link(target)
        self._timeout = target.command_timeout
        self._heard = asyncio.Event()
        self._fault: Exception | None = StoreUnavailable("the waker is closed")
        self._listening: asyncio.Task[None] | None = None
        self._saying: asyncio.Task[None] | None = None
        self._is_owed = False

    @property
    def name(self) -> str:
        """What it is, for operators."""
        return "redis"

    async def open(self) -> bool:
        """Subscribe, and prove by a round trip that what is said comes back (I-08).

        Raises:
            StoreUnavailable
        """
        await self._hang_up()
        try:
            ear = await self._link.connect()
        except Exception as error:
            fault = translated(error)
            if fault is None:
                raise
        else:
            return await self._prove(ear)
        raise fault

    async def _prove(self, ear: Any) -> bool:
        proof = secrets.token_hex(8)
        is_kept = False
        fault: Exception | None
        try:
            async with asyncio.timeout(self._timeout):
                await ear.send_command("SUBSCRIBE", self._channel)
                await ear.read_response()
                await self._link.write(("PUBLISH", self._channel, proof))
                while (await ear.read_response())[-1] != proof.encode():
                    pass
            self._fault = None
            self._heard.clear()
            self._listening = asyncio.create_task(self._listen(ear))
            is_kept = True
        except TimeoutError:
            return False  # connected, and deaf
        except Exception as error:
            fault = translated(error)
            if fault is None:
                raise
        else:
            return True
        finally:
            if not is_kept:
                await dropped(ear)
        raise fault

    def hint(self) -> None:
        """Something was committed: tell the others, best effort. Returns at once, never raises."""
        self._is_owed = True
        if self._saying is None or self._saying.done():
            try:
                self._saying = asyncio.get_running_loop().create_task(self._say())
            except RuntimeError:  # no loop runs: they will find out by themselves
                self._is_owed = False

    async def wait(self) -> None:
        """Return when there may be something to read.

        Raises:
            StoreUnavailable: it can hear nothing any more; open it again.
        """
        if self._fault is None:
            await self._heard.wait()
            self._heard.clear()
        if self._fault is not None:
            raise self._fault

    async def close(self) -> None:
        """Give the connections back."""
        saying, self._saying = self._saying, None
        if saying is not None and not saying.done():
            saying.cancel()
            await asyncio.wait([saying])
        await self._hang_up()
        await self._link.close()

    async def _listen(self, ear: Any) -> None:
        """Hear until the connection is lost. A dead peer is silent, so silence is looked into."""
        try:
            while True:
                answer = await ear.read_response(timeout=_ALIVE)
                if answer is None:
                    await ear.send_command("PING")
                    answer = await ear.read_response(timeout=self._timeout)
                    if answer is None:
                        raise StoreUnavailable("silence")
                if answer[0] == b"message":
                    self._heard.set()
        except Exception as error:  # noqa: BLE001 who waits gets it
            self._fault = translated(error) or StoreUnavailable(type(error).__name__)
            self._heard.set()
        finally:
            await dropped(ear)

    async def _say(self) -> None:
        while self._is_owed:  # what came while we spoke is said once more, together
            self._is_owed = False
            try:
                await self._link.write(("PUBLISH", self._channel, "1"))
            except StoreUnavailable:
                return

    async def _hang_up(self) -> None:
        listening, self._listening = self._listening, None
        self._fault = StoreUnavailable("the waker is closed")
        self._heard.set()
        if listening is not None:
            listening.cancel()
            await asyncio.wait([listening])
