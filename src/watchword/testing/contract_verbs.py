"""The half of the store contract that is about single verbs; see `watchword.testing.contract`."""

import asyncio
import unicodedata
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any, ClassVar

import pytest

from watchword.kernel.events import Events
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
    load,
    ticket,
)

HOUR = timedelta(hours=1)
MICROSECOND = timedelta(microseconds=1)


class VerbContract:
    """What each verb promises by itself."""

    factory: ClassVar[str]

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

    async def test_what_may_hold_nothing_orders_a_list_only_where_it_is_compared(
        self, store: Store
    ) -> None:
        for name, at in (("none", None), ("late", NOW + HOUR), ("soon", NOW)):
            await store.insert(ticket(name, spent_at=at))
        paging = Paging(order=("spent_at", "id"))
        with pytest.raises(TypeError, match="spent_at"):
            await store.find(Ticket, paging)
        page = await store.find(Ticket, paging, spent_at=ge(NOW))
        assert [each.id for each in page.items] == ["soon", "late"]

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
    async def test_put_leaves_the_last_one_whole(self, store: Store) -> None:
        await store.put(ticket("one", rank=1, labels=("old",)))
        await store.put(ticket("one", rank=2))
        found = await store.get(Ticket, id="one")
        assert found is not None
        assert (found.rank, found.labels) == (2, ())
        await asyncio.gather(*(store.put(ticket("two", rank=rank)) for rank in range(20)))
        assert await store.count(Ticket) == 2
        with pytest.raises(Conflict):
            await store.put(ticket("three", email=found.email))

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


def tally(*, realm: str = "main", **fields: Any) -> Tally:
    """A counter of one subject."""
    plain = Tally(realm=realm, subject="s", kind="login", expires_at=NOW + HOUR)
    return replace(plain, **fields)


async def ids(store: Store, **conditions: object) -> set[str]:
    """The names of the tickets that match."""
    page = await store.find(Ticket, Paging(order=("id",)), **conditions)
    assert await store.count(Ticket, **conditions) == len(page.items)
    return {one.id for one in page.items}
