"""A bell: wakes the background work of this process when there is something to do."""

import asyncio
from weakref import WeakKeyDictionary


class Bell:
    """Wakes the workers of this process, whatever loop they and the caller run in."""

    def __init__(self) -> None:
        self._events: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Event]
        self._events = WeakKeyDictionary()
        self._has_rung = False

    def ring(self) -> None:
        """Let everybody who waits, and the next who comes, go on."""
        self._has_rung = True
        for loop, event in list(self._events.items()):
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set)

    async def wait(self) -> None:
        """Return when it rings, or has rung since the last time."""
        loop = asyncio.get_running_loop()
        event = self._events.get(loop)
        if event is None:
            event = self._events[loop] = asyncio.Event()
            if self._has_rung:  # perhaps just now, while this worker began
                return
        await event.wait()
        event.clear()
