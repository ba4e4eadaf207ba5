"""What every store promises, as tests: a driver's author subclasses `StoreContract`.

    class TestOurStore(StoreContract):
        factory = "our_package:driver"

        @pytest.fixture
        def driver_url(self) -> str:
            return "ours://an-empty-database"

Runs under pytest with pytest-asyncio in auto mode and `-p watchword.testing.plugin`; the page
docs/stores/own.md says more. `factory` makes the driver of a URL; it is a name, `module:function`,
because other processes import it.
"""

import asyncio
import base64
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from watchword.kernel.errors import InvalidInput
from watchword.kernel.events import Event, Events
from watchword.storage.errors import Conflict
from watchword.storage.store import (
    Driver,
    Paging,
    Store,
    le,
)
from watchword.testing.contract_verbs import HOUR, MICROSECOND, VerbContract, ids
from watchword.testing.racer import (
    NOW,
    RECORDS,
    Ticket,
    attempt,
    load,
    ticket,
)

BY_RANK = Paging(order=("rank", "id"), limit=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketSold(Event):
    """An event of these tests."""


class LocalStoreContract(VerbContract):
    """All that a database of one process promises. `StoreContract` adds the other processes."""

    # find

    @pytest.mark.parametrize("descending", [False, True])
    async def test_paging_reaches_everything_once_ties_included(
        self, store: Store, *, descending: bool
    ) -> None:
        for number in range(40):
            await store.insert(ticket(f"{number:02}", rank=number % 3, made_at=NOW))
        paging = replace(BY_RANK, descending=descending)
        seen: list[Ticket] = []
        while True:
            page = await store.find(Ticket, paging)
            assert len(page.items) <= paging.limit
            seen += page.items
            if page.next is None:
                break
            paging = replace(paging, after=page.next)
        expected = sorted(seen, key=lambda one: (one.rank, one.id), reverse=descending)
        assert seen == expected
        assert len({one.id for one in seen}) == 40

    async def test_paging_is_not_moved_by_what_comes_and_goes(self, store: Store) -> None:
        for number in range(20):
            await store.insert(ticket(f"{number:02}", rank=number))
        first = await store.find(Ticket, BY_RANK)
        await store.insert(ticket("early", rank=0))
        await store.insert(ticket("late", rank=99))
        assert await store.take(Ticket, id=first.items[-1].id)
        rest = await store.find(Ticket, replace(BY_RANK, after=first.next, limit=100))
        assert [one.rank for one in rest.items] == [*range(7, 20), 99]
        assert rest.next is None

    async def test_paging_by_time_keeps_microseconds(self, store: Store) -> None:
        for number in range(9):
            await store.insert(ticket(f"{number}", made_at=NOW + (number // 3) * MICROSECOND))
        paging = Paging(order=("made_at", "id"), limit=2)
        seen: list[str] = []
        while True:
            page = await store.find(Ticket, paging)
            seen += [one.id for one in page.items]
            if page.next is None:
                break
            paging = replace(paging, after=page.next)
        assert seen == [f"{number}" for number in range(9)]

    async def test_what_may_hold_nothing_orders_a_list_that_asks_for_something(
        self, store: Store
    ) -> None:
        for number in range(9):
            at = None if number % 3 == 0 else NOW + number * MICROSECOND
            await store.insert(ticket(f"{number}", expires_at=at))
        paging = Paging(order=("expires_at", "id"), limit=2)
        seen: list[str] = []
        while True:
            page = await store.find(Ticket, paging, expires_at=le(NOW + 7 * MICROSECOND))
            seen += [one.id for one in page.items]
            if page.next is None:
                break
            paging = replace(paging, after=page.next)
        assert seen == ["1", "2", "4", "5", "7"]

    async def test_paging_crosses_names_of_any_letters(self, store: Store) -> None:
        names = sorted(["a\u200db", "tab\t", "\u202eabc", "'quote", "\U0001f469\u200d\U0001f680"])
        for name in names:
            await store.insert(ticket(name))
        paging = Paging(order=("id",), limit=1)
        for name in names:
            page = await store.find(Ticket, paging)
            assert [one.id for one in page.items] == [name]
            paging = replace(paging, after=page.next)

    async def test_a_forged_cursor_is_refused(self, store: Store) -> None:
        await store.insert(ticket("a"))

        def cursor(value: object) -> str:
            packed = json.dumps(value).encode()
            return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()

        for forged in (
            "",
            "é",
            "not base64!",
            cursor(None),
            cursor([["id", "rank"], ["a", 1]]),
            cursor([["rank", "id"], ["a", 1]]),
            cursor([["rank", "id"], [1]]),
            cursor([["rank", "id"], [2**63, "a"]]),
            cursor([["rank", "id"], [True, "a"]]),
            cursor([["rank", "id"], [1, None]]),
            cursor([["rank", "id"], [1, "nul\x00"]]),
            cursor([["rank", "id"], [1, "half \ud83d"]]),
            cursor([["rank", "id"], [1, {"a": 1}]]),
        ):
            with pytest.raises(InvalidInput):
                await store.find(Ticket, replace(BY_RANK, after=forged))

    # transactions and events

    @pytest.mark.invariant("I-04")
    async def test_a_transaction_commits_together_or_not_at_all(self, store: Store) -> None:
        with pytest.raises(ZeroDivisionError):
            await sell(store, "a", then=lambda: 1 // 0)
        # Without transactions each write stands at once, and services know it.
        left = set[str]() if store.driver.is_transactional else {"a", "a-2"}
        assert await ids(store) == left
        await sell(store, "b", then=lambda: None)
        assert await ids(store) == {*left, "b", "b-2"}

    async def test_a_conflict_leaves_the_transaction_usable(self, store: Store) -> None:
        await store.insert(ticket("a"))
        async with store.transaction() as transaction:
            await transaction.insert(ticket("b"))
            with pytest.raises(Conflict):
                await transaction.insert(ticket("a"))
            assert await transaction.get(Ticket, id="b")
            await transaction.insert(ticket("c"))
        assert await ids(store) == {"a", "b", "c"}

    async def test_what_is_not_committed_is_not_seen_elsewhere(self, store: Store) -> None:
        inside, done = asyncio.Event(), asyncio.Event()

        async def write() -> None:
            async with store.transaction() as transaction:
                await transaction.insert(ticket("a"))
                assert await transaction.count(Ticket) == 1
                inside.set()
                await done.wait()

        writing = asyncio.create_task(write())
        await inside.wait()
        asking = asyncio.create_task(store.get(Ticket, id="a"))
        await asyncio.wait([asking], timeout=0.3)
        answered_early = asking.done()
        done.set()
        await writing
        if not store.driver.is_transactional:
            assert answered_early
            assert await asking == ticket("a")
        elif answered_early:  # a store in memory may let a reader wait instead
            assert await asking is None
        assert await store.get(Ticket, id="a")

    @pytest.mark.invariant("I-04")
    async def test_hooks_run_after_the_commit_and_never_after_a_rollback(
        self, driver: Driver
    ) -> None:
        events = Events()
        store = Store(driver=driver, events=events, realm="main")
        seen: list[object] = []

        async def hook(event: TicketSold) -> None:
            seen.append((event.at, await store.count(Ticket)))

        events.on(TicketSold, hook)
        with pytest.raises(ZeroDivisionError):
            await sell(store, "a", then=lambda: 1 // 0)
        assert seen == []
        left = await store.count(Ticket)
        await sell(store, "b", then=lambda: seen.append("inside"))
        assert seen == ["inside", (NOW, left + 2)]

    async def test_a_cancelled_task_leaves_nothing_open(self, store: Store) -> None:
        tasks = [asyncio.create_task(slow(store, f"t{number}")) for number in range(20)]
        for number, task in enumerate(tasks):
            await asyncio.sleep(0.003 * (number % 3))
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with asyncio.timeout(10):
            before = await store.count(Ticket)
            assert before % 2 == 0 or not store.driver.is_transactional
            await sell(store, "after", then=lambda: None)
            assert await store.count(Ticket) == before + 2

    # races

    @pytest.mark.invariant("I-05")
    @pytest.mark.parametrize("verb", ["take", "update", "insert"])
    async def test_of_fifty_tasks_after_one_thing_one_wins(self, store: Store, verb: str) -> None:
        if verb != "insert":
            await store.insert(ticket("thing-0", expires_at=NOW + HOUR))
        tries = (attempt(store, verb, "thing-0", who=f"task-{n}") for n in range(50))
        assert sorted(await asyncio.gather(*tries)) == [False] * 49 + [True]


class StoreContract(LocalStoreContract):
    """Every promise of the table of verbs. Subclass it and say how the driver is made."""

    async def test_what_was_written_is_there_for_whoever_opens_it_next(
        self, store: Store, driver_url: str
    ) -> None:
        await store.insert(ticket("a", rank=1))
        again = load(self.factory)(driver_url)
        await again.open(RECORDS)
        try:
            await again.ping()
            other = replace(store, driver=again)
            assert await other.get(Ticket, id="a") == ticket("a", rank=1)
            assert await again.plan(RECORDS) == ()
        finally:
            await again.close()
        assert await store.get(Ticket, id="a")  # what is closed there is not closed here

    @pytest.mark.invariant("I-05")
    @pytest.mark.parametrize("verb", ["take", "update", "insert"])
    async def test_of_four_processes_after_one_thing_one_wins(
        self, store: Store, driver_url: str, verb: str
    ) -> None:
        things = 25
        for number in range(things if verb != "insert" else 0):
            await store.insert(ticket(f"thing-{number}", expires_at=NOW + HOUR))
        won = await self.race(driver_url, verb, things)
        assert sorted(won) == list(range(things))

    async def race(self, url: str, verb: str, things: int) -> list[int]:
        """Let four processes race; everything that was won, in any order."""
        racers = [
            await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "watchword.testing.racer",
                *(self.factory, url, verb, str(things), f"racer-{number}"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            )
            for number in range(4)
        ]
        won: list[int] = []
        async with asyncio.timeout(60):
            for racer in racers:
                assert racer.stdout is not None
                assert await racer.stdout.readline() == b"ready\n"
            for racer in racers:
                assert racer.stdin is not None
                racer.stdin.write(b"go\n")
            for racer in racers:
                assert racer.stdout is not None
                won += json.loads(await racer.stdout.readline())
                await racer.communicate()
                assert racer.returncode == 0
        return won


async def sell(store: Store, name: str, *, then: Callable[[], object]) -> None:
    """Two tickets and an event in one transaction."""
    async with store.transaction() as transaction:
        await transaction.insert(ticket(name))
        await transaction.announce(TicketSold(realm="main", at=NOW))
        await transaction.insert(ticket(f"{name}-2"))
        then()


async def slow(store: Store, name: str) -> None:
    """A transaction that takes its time."""
    async with store.transaction() as transaction:
        await transaction.insert(ticket(name))
        await asyncio.sleep(0.005)
        await transaction.insert(ticket(f"{name}-2"))
