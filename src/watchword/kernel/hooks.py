"""Hooks of the application: called after the commit, bounded, and never the end of anything.

And gates: asked before something is done, which is refused if any of them raises.
"""

import asyncio
import contextlib
import contextvars
import inspect
import logging
import os
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, Final, Protocol, TypeVar, overload

from watchword.kernel.errors import RefusedByHook
from watchword.kernel.events import Event, Events
from watchword.kernel.moment import refuse_in_transaction

_log = logging.getLogger("watchword.events")

_THREADS: Final = 8  # of sync hooks; one that hangs keeps its own
_SLOW: Final = 1.0  # seconds; said in the log

E = TypeVar("E", bound=Event)

Called = Callable[[Any], Coroutine[Any, Any, None]]


class Registering(Protocol[E]):
    """What `auth.on(…)` decorates with: a hook comes out as it went in."""

    @overload
    def __call__(
        self, hook: Callable[[E], Coroutine[Any, Any, None]], /
    ) -> Callable[[E], Coroutine[Any, Any, None]]: ...

    @overload
    def __call__(self, hook: Callable[[E], None], /) -> Callable[[E], None]: ...


class Hooks:
    """The application's hooks and gates of one App.

    A coroutine function runs on the loop; any other function in a thread, never on the loop.
    """

    def __init__(self, events: Events, *, timeout: timedelta) -> None:
        self._events = events
        self._timeout = timeout.total_seconds()
        self._threads: ThreadPoolExecutor | None = None
        self._process = 0  # whose threads they are: a forked child has none
        self._free = asyncio.Semaphore(_THREADS)
        self._loop: asyncio.AbstractEventLoop | None = None  # whose semaphore it is

    def on(self, kind: type[E], *, gate: bool) -> Registering[E]:
        """Register the decorated function, after those that came before it.

        Raises:
            TypeError: a gate on what is done already, or a hook on what only gates are asked.
        """
        if gate and not kind.gated:
            raise TypeError(
                f"{kind.__name__} tells of what is done already and cannot be refused: "
                "gate=True is for events that ask, such as SignInProven"
            )
        if kind.gated and not gate:
            raise TypeError(
                f"{kind.__name__} asks before something is done: register with gate=True, or "
                "listen to the event that tells of it, such as SessionStarted"
            )

        def register(hook: Callable[[E], Any]) -> Any:
            name = str(getattr(hook, "__qualname__", type(hook).__name__))
            called = self._called(hook, name)
            if gate:
                self._events.gate(kind, self._asked(called, name))
            else:
                self._events.on(kind, self._told(called, name))
            return hook

        return register

    def close(self) -> None:
        """Let the threads end; one that hangs is not waited for."""
        threads, self._threads = self._threads, None
        if threads is not None and self._process == os.getpid():
            threads.shutdown(wait=False)

    def _told(self, called: Called, name: str) -> Called:
        """Called after the commit: whatever becomes of it, the one who asked gets an answer."""

        async def told(event: Any) -> None:
            try:
                await called(event)
            except TimeoutError:
                _log.error("hook %s on %s: given up, too slow", name, type(event).__name__)
            except (KeyboardInterrupt, GeneratorExit, asyncio.CancelledError):
                raise
            except BaseException:  # noqa: BLE001  a hook is not ours, and what it hears of is done
                _log.exception("hook %s on %s failed", name, type(event).__name__)

        return told

    def _asked(self, called: Called, name: str) -> Called:
        """Asked outside any transaction; whatever it raises is a no."""

        async def asked(event: Any) -> None:
            refuse_in_transaction("asking a gate")
            try:
                await called(event)
            except RefusedByHook:
                raise
            except TimeoutError as error:
                _log.error("gate %s on %s: refused, too slow", name, type(event).__name__)
                raise RefusedByHook(note=f"{name} was too slow") from error
            except (Exception, SystemExit) as error:
                _log.exception("gate %s on %s: refused", name, type(event).__name__)
                raise RefusedByHook(note=f"{name}: {type(error).__name__}") from error

        return asked

    def _called(self, hook: Callable[[Any], Any], name: str) -> Called:
        is_async = _is_async(hook)

        async def called(event: Any) -> None:
            began = time.monotonic()
            try:
                async with asyncio.timeout(self._timeout):
                    result = hook(event) if is_async else await self._in_thread(hook, event)
                    if inspect.isawaitable(result):  # a lambda around a coroutine function
                        await result
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                # Nobody cancelled us: something that the hook waited for was.
                raise RuntimeError("the hook was cancelled from inside") from None
            finally:
                took = time.monotonic() - began
                if took > _SLOW:
                    _log.warning("hook %s took %.1f s", name, took)

        return called

    async def _in_thread(self, hook: Callable[[Any], Any], event: Any) -> Any:
        """Run it once a thread is free; who gives up waiting leaves nothing in any queue."""
        loop = asyncio.get_running_loop()
        if self._threads is None or self._process != os.getpid() or self._loop is not loop:
            self.close()
            self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="watchword hook")
            self._free = asyncio.Semaphore(_THREADS)
            self._process, self._loop = os.getpid(), loop
        free = self._free
        await free.acquire()
        context = contextvars.copy_context()  # its log lines carry the request's id

        def freed(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is over, and nobody waits
                loop.call_soon_threadsafe(free.release)

        try:
            running = self._threads.submit(_contained, context, hook, event)
        except BaseException:
            free.release()
            raise
        running.add_done_callback(freed)
        return await asyncio.wrap_future(running)


def _contained(context: contextvars.Context, hook: Callable[[Any], Any], event: Any) -> Any:
    """A future cannot carry StopIteration, and nothing else should leave a thread as it likes."""
    try:
        return context.run(hook, event)
    except StopIteration as error:
        raise RuntimeError("the hook raised StopIteration") from error


def _is_async(hook: Callable[[Any], Any]) -> bool:
    call = getattr(hook, "__call__", None)  # noqa: B004  an object with an async __call__
    return inspect.iscoroutinefunction(hook) or inspect.iscoroutinefunction(call)
