"""The same services for synchronous code, through one event loop.

    with blocking(Watchword("sqlite:///app.db")) as run:
        user = run(auth.users.create(email="ada@example.org"))

In a `def` handler of an app that the Watchword is installed in, the server's own loop is used:

    run = blocking(auth)

    @app.get("/profile")
    def profile(user: CurrentUser) -> Profile:
        return profile_of(run(auth.users.find(user.id)))

`run` keeps the type of what it is given. There is no second set of services to learn, and none
that could lag behind.
"""

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from types import TracebackType
from typing import Any, Self, TypeVar

from watchword.app import App

T = TypeVar("T")


class NotRunnable(RuntimeError):
    """Synchronous code cannot wait here, or nothing would ever answer."""


def blocking(auth: App) -> "Blocking":
    """Offer a Watchword's services to synchronous code; see the head of this module."""
    return Blocking(auth)


class Blocking:
    """Runs coroutines of one Watchword and waits for them, from any thread without a loop.

    As a context manager it starts the Watchword on a loop of its own, in a background thread,
    and stops both at the end; unless it runs already, in this process's server.
    """

    def __init__(self, auth: App) -> None:
        self._auth = auth
        self._own: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._process = 0

    def __enter__(self) -> Self:
        if self._own is not None:
            raise NotRunnable("this is running already")
        _refuse_on_a_loop(None)
        if self._auth.loop is None:
            self._begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._own is not None and self._process == os.getpid():
            loop = self._own
            try:
                _waited(asyncio.run_coroutine_threadsafe(self._auth.stop(), loop), None)
            finally:
                self._end(loop)

    def __call__(self, coroutine: Coroutine[Any, Any, T], *, timeout: float | None = None) -> T:
        """Run a coroutine to its end; what it returns or raises.

        Args:
            coroutine: of a service of this Watchword, or one of your own that calls several.
            timeout: seconds; then it is cancelled, which undoes what it had not committed.

        Raises:
            TimeoutError: the time was up.
            NotRunnable: on an event loop's own thread, where one awaits instead; not started;
                stopped meanwhile; or in a process that was forked off after the start.
        """
        try:
            loop = self._loop()
            _refuse_on_a_loop(loop)
            future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        except BaseException:
            coroutine.close()
            raise
        return _waited(future, timeout)

    def _loop(self) -> asyncio.AbstractEventLoop:
        if self._own is not None:
            if self._process != os.getpid():
                raise NotRunnable("a forked process has no loop: use blocking(…) in it afresh")
            return self._own
        loop = self._auth.loop
        if loop is None:
            raise NotRunnable("not started: use `with blocking(auth) as run:`")
        if loop.is_closed():
            raise NotRunnable("the server's event loop is closed")
        return loop

    def _begin(self) -> None:
        loop = asyncio.new_event_loop()
        # A daemon: a script that forgets to leave the block can still end.
        thread = threading.Thread(
            target=_turn, args=(loop,), name="watchword blocking", daemon=True
        )
        thread.start()
        self._own, self._thread, self._process = loop, thread, os.getpid()
        try:
            _waited(asyncio.run_coroutine_threadsafe(self._auth.start(), loop), None)
        except BaseException:
            self._end(loop)
            raise

    def _end(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_soon_threadsafe(loop.stop)
        if self._thread is not None:
            self._thread.join()
        self._own = self._thread = None


def _turn(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def _refuse_on_a_loop(wanted: asyncio.AbstractEventLoop | None) -> None:
    try:
        here = asyncio.get_running_loop()
    except RuntimeError:
        return
    raise NotRunnable(
        "this would wait for itself: in an `async def` on the server's loop, await the coroutine"
        if here is wanted
        else "this would stop the event loop of this thread: await the coroutine instead"
    )


def _waited(future: "Future[T]", timeout: float | None) -> T:
    try:
        result: T = future.result(timeout)
    except CancelledError:
        raise NotRunnable("stopped before it was done") from None
    except BaseException:
        # Time is up, or Ctrl-C: nobody waits for it any more.
        future.cancel()
        raise
    return result
