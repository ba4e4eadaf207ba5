"""Hooks of the application: after the commit, bounded, never the end of anything; and gates."""

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

import pytest

from tests.told import ADA, PASSWORD, Story, problem, telling
from watchword import Event, Watchword
from watchword.features.sessions import Session, SessionStarted, SignInProven
from watchword.features.sign_in.events import SignInFailed
from watchword.features.users import UserRegistered
from watchword.kernel.errors import RefusedByHook
from watchword.kernel.events import Events
from watchword.kernel.hooks import Hooks
from watchword.kernel.occasion import occasion
from watchword.kernel.principal import Client

pytestmark = [pytest.mark.invariant("I-04"), pytest.mark.standard("16.5.4")]


ABOUT: dict[str, Any] = {
    "realm": "main",
    "at": datetime(2026, 3, 1, tzinfo=UTC),
    "user_id": "nobody",
    "email": ADA,
    "by_themselves": False,
}


async def test_hooks_run_in_the_order_of_registration_async_or_not(sqlite_url: str) -> None:
    async with telling(sqlite_url) as story:
        called: list[str] = []
        loop_thread = threading.get_ident()

        @story.auth.on(SessionStarted)
        async def first(event: SessionStarted) -> None:
            assert threading.get_ident() == loop_thread
            called.append("first")

        @story.auth.on(SessionStarted)
        def second(event: SessionStarted) -> None:
            assert threading.get_ident() != loop_thread, "a plain function never runs on the loop"
            called.append("second")

        @story.auth.on(Event)
        async def third(event: Event) -> None:
            if isinstance(event, SessionStarted):
                called.append("third")

        await story.join()
        await story.log_in()
        assert called == ["first", "second", "third"]


class Odd:
    """An object whose call is async."""

    called = False

    async def __call__(self, event: Event) -> None:
        self.called = True


async def test_whatever_can_be_called_is_called_as_what_it_is(sqlite_url: str) -> None:
    async with telling(sqlite_url) as story:
        odd, other = Odd(), Odd()
        story.auth.on(UserRegistered)(odd)
        story.auth.on(UserRegistered)(lambda event: other(event))  # noqa: PLW0108  # pyright: ignore[reportArgumentType, reportCallIssue]
        await story.auth.users.create(email=ADA)
        assert odd.called
        assert other.called


def raising(error: BaseException) -> Callable[[Any], None]:
    def hook(_: Any) -> None:
        raise error

    return hook


def raising_async(error: BaseException) -> Callable[[Any], Coroutine[Any, Any, None]]:
    async def hook(_: Any) -> None:
        raise error

    return hook


ERRORS: list[BaseException] = [
    ValueError("a bug"),
    SystemExit(3),
    StopIteration(),
    asyncio.CancelledError(),
    ExceptionGroup("both", [ValueError(), OSError()]),
    RefusedByHook("not a gate"),
]


@pytest.mark.capability("S1-39")
async def test_what_hooks_raise_breaks_no_sign_in_and_stops_no_other_hook(
    sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with telling(sqlite_url) as story:
        await story.join()
        called: list[str] = []
        for error in ERRORS:
            story.auth.on(SessionStarted)(raising(error))
            story.auth.on(SessionStarted)(raising_async(error))

        @story.auth.on(SessionStarted)
        async def after(event: SessionStarted) -> None:
            called.append(event.session_id)

        pair = await story.log_in()
        assert (await story.me(pair["access_token"])).status_code == 200
        assert len(called) == 1
        said = [record for record in caplog.records if record.name == "watchword.events"]
        assert [record.levelno for record in said] == [logging.ERROR] * 2 * len(ERRORS)


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_hook_that_hangs_is_given_up(
    is_async: bool, sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    over = threading.Event()
    async with telling(sqlite_url, hook_timeout="100ms") as story:
        await story.join()

        async def hangs(_: SessionStarted) -> None:
            await asyncio.Event().wait()

        def sits(_: SessionStarted) -> None:
            over.wait(60)

        story.auth.on(SessionStarted)(hangs if is_async else sits)
        try:
            async with asyncio.timeout(30):
                await story.log_in()
        finally:
            over.set()
    assert "too slow" in caplog.text


async def test_a_request_that_is_cancelled_stays_cancelled() -> None:
    events = Events()
    hooks = Hooks(events, timeout=timedelta(seconds=30))
    waiting = asyncio.Event()

    @hooks.on(Event, gate=False)
    async def hangs(_: Event) -> None:
        waiting.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(events.committed(UserRegistered(**ABOUT)))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_hook_runs_after_the_commit_and_not_after_a_rollback(
    sql_database_url: str,
) -> None:
    async with telling(sql_database_url) as story:
        seen: list[bool] = []

        @story.auth.on(UserRegistered)
        async def look(event: UserRegistered) -> None:
            seen.append(await story.auth.users.get(event.user_id) is not None)

        async def undone() -> None:
            async with story.auth.store.transaction() as tx:
                await tx.announce(UserRegistered(**ABOUT))
                raise LookupError

        with pytest.raises(LookupError):
            await undone()
        assert seen == []
        await story.auth.users.create(email=ADA)
        assert seen == [True]


async def test_a_hook_in_a_thread_knows_the_request(sqlite_url: str) -> None:
    async with telling(sqlite_url) as story:
        await story.join()
        paths: list[str] = []

        @story.auth.on(SessionStarted)
        def note(_: SessionStarted) -> None:
            now = occasion()
            paths.append("" if now is None else now.path)

        await story.log_in()
        assert paths == ["/auth/login"]


def typed(auth: Watchword) -> None:
    """What an editor sees: a hook comes out as it went in."""

    @auth.on(SessionStarted)
    def plain(event: SessionStarted) -> None: ...

    @auth.on(SignInProven, gate=True)
    async def gate(event: SignInProven) -> None: ...

    assert_type(plain, Callable[[SessionStarted], None])
    assert_type(gate, Callable[[SignInProven], Coroutine[Any, Any, None]])


# Gates


async def sessions_of(story: Story) -> int:
    return await story.auth.store.count(Session)


async def refused(story: Story) -> dict[str, Any]:
    answer = await story.client.post("/auth/login", json={"email": ADA, "password": PASSWORD})
    assert "set-cookie" not in answer.headers
    return problem(answer, 403, "refused_by_hook")


async def test_a_gate_refuses_before_there_is_a_session(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.join()
        asked: list[SignInProven] = []
        heard: list[Event] = []

        @story.auth.on(SignInProven, gate=True)
        async def tenants(event: SignInProven) -> None:
            asked.append(event)
            if event.email == ADA:
                raise RefusedByHook("This account is suspended")

        @story.auth.on(Event)
        async def hear(event: Event) -> None:
            heard.append(event)

        assert (await refused(story))["detail"] == "This account is suspended"
        assert await sessions_of(story) == 0
        (event,) = asked
        assert event.amr == ("pwd",)
        assert event.address == "127.0.0.1"
        failed = [each.reason for each in heard if isinstance(each, SignInFailed)]
        assert failed == ["refused_by_hook"]
        assert not any(isinstance(each, SessionStarted | SignInProven) for each in heard)
        # A wrong password is told apart from nothing: no gate is asked.
        body = {"email": ADA, "password": "wrong horse battery staple"}
        problem(await story.client.post("/auth/login", json=body), 401, "invalid_credentials")
        assert len(asked) == 1


async def test_a_gate_that_fails_refuses(sqlite_url: str) -> None:
    async with telling(sqlite_url) as story:
        await story.join()
        failing = [make(error) for error in ERRORS[:-1] for make in (raising, raising_async)]

        @story.auth.on(SignInProven, gate=True)
        def one_by_one(event: SignInProven) -> Any:
            return failing[0](event)

        while failing:
            assert "a bug" not in str(await refused(story))
            failing.pop(0)
        assert await sessions_of(story) == 0


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_gate_that_hangs_refuses(is_async: bool, sqlite_url: str) -> None:
    over = threading.Event()
    async with telling(sqlite_url, hook_timeout="100ms") as story:
        await story.join()

        async def hangs(_: SignInProven) -> None:
            await asyncio.Event().wait()

        def sits(_: SignInProven) -> None:
            over.wait(60)

        story.auth.on(SignInProven, gate=True)(hangs if is_async else sits)
        try:
            async with asyncio.timeout(30):
                for _ in range(10):  # more than there are threads
                    await refused(story)
        finally:
            over.set()
        assert await sessions_of(story) == 0


async def test_all_gates_must_agree(sqlite_url: str) -> None:
    async with telling(sqlite_url) as story:
        await story.join()
        asked: list[str] = []

        @story.auth.on(SignInProven, gate=True)
        def yes(_: SignInProven) -> None:
            asked.append("yes")

        pair = await story.log_in()
        assert pair["access_token"]

        @story.auth.on(SignInProven, gate=True)
        def no(_: SignInProven) -> None:
            asked.append("no")
            raise RefusedByHook

        await refused(story)
        assert asked == ["yes", "yes", "no"]


async def test_whoever_starts_a_session_passes_the_gates(sqlite_url: str) -> None:
    """Not only the sign-in route: a session is refused wherever it would begin."""
    async with telling(sqlite_url) as story:
        user = await story.auth.users.create(email=ADA)

        @story.auth.on(SignInProven, gate=True)
        def no(_: SignInProven) -> None:
            raise RefusedByHook

        with pytest.raises(RefusedByHook):
            await story.auth.sessions.start(
                user,
                amr=("pwd",),
                transport=story.auth.sessions.transport("cookie"),
                client=Client(address=None, user_agent=""),
            )
        async with story.auth.store.transaction():
            with pytest.raises(RuntimeError, match="transaction"):
                await story.auth.store.events.ask(proven(story))


def proven(story: Story) -> SignInProven:
    return SignInProven(
        realm="main",
        at=story.clock.now(),
        user_id="x",
        email=ADA,
        amr=(),
        transport="cookie",
        address=None,
        user_agent="",
    )


async def test_what_cannot_be_refused_takes_no_gate(sqlite_url: str) -> None:
    async with telling(sqlite_url) as story:
        with pytest.raises(TypeError, match="SessionStarted tells of what is done"):
            story.auth.on(SessionStarted, gate=True)
        with pytest.raises(TypeError, match="gate=True"):
            story.auth.on(SignInProven)
