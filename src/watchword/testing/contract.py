"""What every store promises, as tests: a driver's author subclasses `StoreContract`.

    class TestOurStore(StoreContract):
        factory = "our_package:driver"

        @pytest.fixture
        def driver_url(self) -> str:
            return "ours://an-empty-database"

Runs under pytest with pytest-asyncio in auto mode.
"""

import asyncio
import base64
import json
import os
import sys
import unicodedata
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any, ClassVar

import pytest

from watchword.kernel.errors import InvalidInput
from watchword.kernel.events import Event, Events
from watchword.kernel.secrets import Digest
from watchword.storage.errors import Conflict
from watchword.storage.store import (
    Driver,
    Paging,
    Store,
    ge,
    gt,
    le,
    lt,
    one_of,
    other_than,
    plus,
    where,
)
from watchword.testing.racer import (
    NOW,
    RECORDS,
    Appointment,
    Tally,
    Ticket,
    attempt,
    load,
    ticket,
)

HOUR = timedelta(hours=1)
MICROSECOND = timedelta(microseconds=1)
BY_RANK = Paging(order=("rank", "id"), limit=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketSold(Event):
    """An event of these tests."""


class StoreContract:
    """Every promise of the table of verbs. Subclass it and say how the driver is made."""

    factory: ClassVar[str]
    has_transactions: ClassVar[bool] = True

    @pytest.fixture
    def driver_url(self) -> str:
        """The URL of an empty database: a subclass says which."""
        raise NotImplementedError("override driver_url")

    @pytest.fixture
    async def driver(self, driver_url: str) -> AsyncGenerator[Driver, None]:
        """The driver under test, open."""
        driver = load(self.factory)(driver_url)
        await driver.open(RECORDS)
        yield driver
        await driver.close()

    @pytest.fixture
    def store(self, driver: Driver) -> Store:
        """A store of the realm "main"."""
        return Store(driver=driver, events=Events(), realm="main")

    # insert and get

    async def test_what_was_inserted_comes_back_whole(self, store: Store) -> None:
        full = ticket(
            "full",
            digest=Digest("d" * 43),
            seat="aisle",
            row=-(2**63),
            rank=2**63 - 1,
            is_open=False,
            expires_at=NOW + MICROSECOND,
            lasts_for=timedelta(days=3, microseconds=1),
            labels=("b", "ä", ""),
            extra={"nested": {"list": [1, None, True, "\x00"]}, "é": 1.5},
            picture=bytes(range(256)),
        )
        await store.insert(full)
        found = await store.get(Ticket, id="full")
        assert found is not None
        assert found.digest == full.digest
        assert type(found.digest) is type(full.digest)
        assert found.extra == {"nested": {"list": (1, None, True, "\x00")}, "é": 1.5}
        assert replace(found, extra=full.extra) == full

    async def test_empty_fields_come_back_as_none(self, store: Store) -> None:
        bare = ticket("bare")
        await store.insert(bare)
        assert await store.get(Ticket, id="bare") == bare

    async def test_get_finds_by_every_unique_key_and_nothing_else(self, store: Store) -> None:
        await store.insert(ticket("a", seat="window", row=3))
        assert await store.get(Ticket, email="a@example.com")
        assert await store.get(Ticket, seat="window", row=3)
        assert await store.get(Ticket, id="b") is None
        with pytest.raises(TypeError):
            await store.get(Ticket, rank=0)
        with pytest.raises(TypeError):
            await store.get(Ticket, seat="window")
        with pytest.raises(TypeError):
            await store.take(Ticket, id=one_of(["a"]))
        with pytest.raises(TypeError):
            await store.update(Ticket, where(email=gt("")), rank=1)

    async def test_get_holds_further_conditions_too(self, store: Store) -> None:
        await store.insert(ticket("a", expires_at=NOW, rank=5))
        held = {"expires_at": gt(NOW - MICROSECOND), "rank": one_of([4, 5]), "seat": None}
        assert await store.get(Ticket, id="a", **held)
        assert await store.get(Ticket, id="a", expires_at=gt(NOW)) is None
        assert await store.get(Ticket, id="a", expires_at=ge(NOW))
        assert await store.get(Ticket, id="a", rank=other_than(5)) is None
        assert await store.get(Ticket, id="a", seat="window") is None

    async def test_a_conflict_names_the_last_field_of_the_key(self, store: Store) -> None:
        await store.insert(ticket("a", seat="window", row=3))
        for second, field in (
            (ticket("a", email="other@example.com"), "id"),
            (ticket("b", email="a@example.com"), "email"),
            (ticket("b", seat="window", row=3), "row"),
        ):
            with pytest.raises(Conflict) as caught:
                await store.insert(second)
            assert caught.value.field == field
        assert await store.count(Ticket) == 1

    async def test_an_update_into_a_taken_key_is_a_conflict(self, store: Store) -> None:
        await store.insert(ticket("a"))
        await store.insert(ticket("b"))
        with pytest.raises(Conflict) as caught:
            await store.update(Ticket, where(id="b"), email="a@example.com")
        assert caught.value.field == "email"

    async def test_nothing_conflicts_with_nothing(self, store: Store) -> None:
        await store.insert(ticket("a", seat="window"))
        await store.insert(ticket("b", seat="window"))
        assert await store.count(Ticket, seat="window", row=None) == 2

    @pytest.mark.invariant("I-11")
    async def test_two_realms_with_the_same_everything_never_meet(self, store: Store) -> None:
        other = store.in_realm("other")
        await store.insert(ticket("a", rank=1))
        await other.insert(ticket("a", realm="other", rank=2))
        assert (await other.update(Ticket, where(id="a"), rank=plus(10))) is not None
        mine = await store.get(Ticket, id="a")
        assert mine is not None
        assert mine.rank == 1
        assert await other.erase(Ticket) == 1
        assert await store.take(Ticket, email="a@example.com") == mine
        with pytest.raises(ValueError, match="realm"):
            await store.insert(ticket("b", realm="other"))
        with pytest.raises(TypeError):
            await store.get(Ticket, id="a", realm="other")
        with pytest.raises(ValueError, match="realm"):
            await store.increment(tally(realm="other"), field="tries", now=NOW)

    # what a text, an instant, a number is

    @pytest.mark.capability("DEF-33")
    async def test_texts_are_compared_byte_by_byte(self, store: Store) -> None:
        composed = unicodedata.normalize("NFC", "é")
        names = ("Abc", "abc", "abc ", composed, unicodedata.normalize("NFD", "é"), "ß", "ss", "")
        for name in names:
            await store.insert(ticket(name))
        for name in names:
            found = await store.get(Ticket, id=name)
            assert found is not None
            assert found.id == name
        assert await store.count(Ticket, id=composed) == 1

    async def test_texts_are_ordered_by_code_point(self, store: Store) -> None:
        names = ["B", "a", "Z", "b", "ä", "_", "10", "9", "\U0001f600", "\uffee"]
        for name in names:
            await store.insert(ticket(name))
        page = await store.find(Ticket, Paging(order=("id",)))
        assert [item.id for item in page.items] == sorted(names)

    async def test_an_instant_keeps_its_microseconds_whatever_its_zone(self, store: Store) -> None:
        elsewhere = (NOW + MICROSECOND).astimezone(timezone(timedelta(hours=5, minutes=45)))
        await store.insert(ticket("a", made_at=elsewhere))
        found = await store.get(Ticket, id="a", made_at=gt(NOW))
        assert found is not None
        assert found.made_at == NOW + MICROSECOND
        assert found.made_at.utcoffset() == timedelta(0)
        assert await store.get(Ticket, id="a", made_at=gt(elsewhere)) is None
        assert await store.get(Ticket, id="a", made_at=elsewhere)

    @pytest.mark.parametrize(
        "fields",
        [
            {"seat": "nul\x00"},
            {"seat": "half \ud83d"},
            {"rank": 2**63},
            {"rank": -(2**63) - 1},
            {"made_at": datetime(2030, 1, 1)},  # noqa: DTZ001 that is the point
        ],
        ids=["nul", "surrogate", "large", "small", "naive"],
    )
    async def test_what_cannot_be_stored_is_a_value_error(
        self, store: Store, fields: dict[str, Any]
    ) -> None:
        with pytest.raises(ValueError, match=r"."):
            await store.insert(ticket("a", **fields))
        with pytest.raises(ValueError, match=r"."):
            await store.get(Ticket, id="a", **fields)
        assert await store.count(Ticket) == 0
        await store.insert(ticket("a"))

    # conditions

    async def test_none_is_a_value_for_equality_and_never_for_an_order(self, store: Store) -> None:
        await store.insert(ticket("none"))
        await store.insert(ticket("past", spent_at=NOW))
        assert await ids(store, spent_at=None) == {"none"}
        assert await ids(store, spent_at=other_than(None)) == {"past"}
        assert await ids(store, spent_at=other_than(NOW)) == {"none"}
        assert await ids(store, spent_at=other_than(NOW + HOUR)) == {"none", "past"}
        assert await ids(store, spent_at=lt(NOW + HOUR)) == {"past"}
        assert await ids(store, spent_at=gt(NOW - HOUR)) == {"past"}
        assert await ids(store, spent_at=le(NOW)) == {"past"}
        assert await ids(store, spent_at=lt(NOW)) == set()
        assert await ids(store, spent_at=ge(None)) == set()
        assert await ids(store, seat=one_of(["x", None])) == {"none", "past"}

    async def test_one_of_nothing_matches_nothing(self, store: Store) -> None:
        await store.insert(ticket("a"))
        assert await ids(store, id=one_of([])) == set()
        assert await store.erase(Ticket, id=one_of([])) == 0
        assert await ids(store, id=one_of(["a", "b"])) == {"a"}

    async def test_values_are_never_read_as_sql(self, store: Store) -> None:
        nasty = "'; DROP TABLE watchword_contract_ticket; -- %s :x $1 ? \\ \" {}"
        await store.insert(ticket(nasty, seat=nasty))
        assert await ids(store, seat=nasty) == {nasty}
        assert await store.count(Ticket, seat=one_of([nasty, "' OR 1=1 --"])) == 1
        assert await store.get(Ticket, id="' OR '1'='1") is None

    # update, take, erase

    @pytest.mark.invariant("I-05")
    async def test_an_update_returns_the_record_after_or_nothing(self, store: Store) -> None:
        await store.insert(ticket("a", rank=1))
        after = await store.update(
            Ticket, where(id="a", spent_at=None), spent_at=NOW, rank=plus(2), labels=("x",)
        )
        assert after == replace(ticket("a", rank=3), spent_at=NOW, labels=("x",))
        assert await store.get(Ticket, id="a") == after
        assert await store.update(Ticket, where(id="a", spent_at=None), rank=9) is None
        assert await store.update(Ticket, where(id="b"), rank=9) is None
        assert await store.get(Ticket, id="a") == after
        cleared = await store.update(Ticket, where(id="a"), spent_at=None)
        assert cleared is not None
        assert cleared.spent_at is None

    async def test_an_update_cannot_change_the_key(self, store: Store) -> None:
        await store.insert(ticket("a"))
        for change in ({"id": "b"}, {"realm": "other"}, {"nothing": 1}):
            with pytest.raises(TypeError):
                await store.update(Ticket, where(id="a"), **change)

    async def test_no_raise_of_a_number_is_lost(self, store: Store) -> None:
        await store.insert(ticket("a"))
        raises = (store.update(Ticket, where(id="a"), rank=plus(1)) for _ in range(50))
        seen = [after.rank for after in await asyncio.gather(*raises) if after]
        assert sorted(seen) == list(range(1, 51))

    @pytest.mark.invariant("I-05")
    async def test_take_gives_a_thing_once(self, store: Store) -> None:
        await store.insert(ticket("a", expires_at=NOW))
        assert await store.take(Ticket, id="a", expires_at=gt(NOW)) is None
        taken = await store.take(Ticket, id="a", expires_at=gt(NOW - MICROSECOND))
        assert taken == ticket("a", expires_at=NOW)
        assert await store.take(Ticket, id="a") is None

    async def test_erase_deletes_what_matches_and_counts_it(self, store: Store) -> None:
        for number in range(5):
            await store.insert(ticket(f"t{number}", rank=number))
        assert await store.count(Ticket, rank=ge(2)) == 3
        assert await store.erase(Ticket, rank=ge(2)) == 3
        assert await store.erase(Ticket, rank=ge(2)) == 0
        assert await ids(store) == {"t0", "t1"}

    # increment, expire

    async def test_a_counter_counts_until_its_time_and_then_starts_anew(self, store: Store) -> None:
        async def count(*, now: datetime, by: int = 1) -> int:
            counter = tally(tries=by, expires_at=now + HOUR)
            return await store.increment(counter, field="tries", now=now)

        assert await count(now=NOW) == 1
        assert await count(now=NOW + HOUR / 2, by=3) == 4
        kept = await store.get(Tally, subject="s", kind="login")
        assert kept is not None
        assert kept.expires_at == NOW + HOUR
        assert await count(now=NOW + HOUR) == 1
        renewed = await store.get(Tally, subject="s", kind="login")
        assert renewed is not None
        assert renewed.expires_at == NOW + 2 * HOUR
        assert await store.count(Tally) == 1

    async def test_counters_of_other_keys_are_others(self, store: Store) -> None:
        await store.increment(tally(), field="tries", now=NOW)
        assert await store.increment(tally(kind="mail"), field="tries", now=NOW) == 1
        other = store.in_realm("other")
        assert await other.increment(tally(realm="other"), field="tries", now=NOW) == 1
        with pytest.raises(TypeError):
            await store.increment(tally(), field="kind", now=NOW)

    async def test_fifty_tasks_count_to_fifty(self, store: Store) -> None:
        counts = (store.increment(tally(), field="tries", now=NOW) for _ in range(50))
        assert sorted(await asyncio.gather(*counts)) == list(range(1, 51))

    async def test_expire_deletes_a_bounded_batch_of_every_realm(self, store: Store) -> None:
        for number in range(10):
            realm = "main" if number % 2 else "other"
            ends = NOW + number * MICROSECOND
            await store.in_realm(realm).insert(
                Appointment(realm=realm, id=f"{number}", ends_at=ends)
            )
        await store.insert(ticket("forever"))
        past = NOW + 6 * MICROSECOND
        assert await store.expire(Appointment, now=past, limit=5) == 5
        assert await store.expire(Appointment, now=past, limit=5) == 2
        assert await store.expire(Appointment, now=past, limit=5) == 0
        assert (
            await store.count(Appointment) + await store.in_realm("other").count(Appointment) == 3
        )
        assert await store.expire(Ticket, now=NOW + HOUR) == 0

    # find

    @pytest.mark.parametrize("descending", [False, True])
    async def test_paging_reaches_everything_once_ties_included(
        self, store: Store, descending: bool
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
        self.need_transactions()
        with pytest.raises(ZeroDivisionError):
            await sell(store, "a", then=lambda: 1 // 0)
        assert await store.count(Ticket) == 0
        await sell(store, "a", then=lambda: None)
        assert await ids(store) == {"a", "a-2"}

    async def test_a_conflict_leaves_the_transaction_usable(self, store: Store) -> None:
        self.need_transactions()
        await store.insert(ticket("a"))
        async with store.transaction() as transaction:
            await transaction.insert(ticket("b"))
            with pytest.raises(Conflict):
                await transaction.insert(ticket("a"))
            assert await transaction.get(Ticket, id="b")
            await transaction.insert(ticket("c"))
        assert await ids(store) == {"a", "b", "c"}

    async def test_what_is_not_committed_is_not_seen_elsewhere(self, store: Store) -> None:
        self.need_transactions()
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
        if answered_early:  # a store in memory may let a reader wait instead
            assert await asking is None
        assert await store.get(Ticket, id="a")

    @pytest.mark.invariant("I-04")
    async def test_hooks_run_after_the_commit_and_never_after_a_rollback(
        self, driver: Driver
    ) -> None:
        self.need_transactions()
        events = Events()
        store = Store(driver=driver, events=events, realm="main")
        seen: list[object] = []

        async def hook(event: TicketSold) -> None:
            seen.append((event.at, await store.count(Ticket)))

        events.on(TicketSold, hook)
        with pytest.raises(ZeroDivisionError):
            await sell(store, "a", then=lambda: 1 // 0)
        assert seen == []
        await sell(store, "a", then=lambda: seen.append("inside"))
        assert seen == ["inside", (NOW, 2)]

    async def test_a_cancelled_task_leaves_nothing_open(self, store: Store) -> None:
        self.need_transactions()
        tasks = [asyncio.create_task(slow(store, f"t{number}")) for number in range(20)]
        for number, task in enumerate(tasks):
            await asyncio.sleep(0.003 * (number % 3))
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with asyncio.timeout(10):
            before = await store.count(Ticket)
            assert before % 2 == 0
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

    def need_transactions(self) -> None:
        """Leave out what a database without transactions does not promise."""
        if not self.has_transactions:
            pytest.skip("this database has no transactions")


def tally(*, realm: str = "main", **fields: Any) -> Tally:
    """A counter of one subject."""
    plain = Tally(realm=realm, subject="s", kind="login", expires_at=NOW + HOUR)
    return replace(plain, **fields)


async def ids(store: Store, **conditions: object) -> set[str]:
    """The names of the tickets that match."""
    page = await store.find(Ticket, Paging(order=("id",)), **conditions)
    assert await store.count(Ticket, **conditions) == len(page.items)
    return {one.id for one in page.items}


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
