"""Seals: whoever changes what was kept is found out, and which entry it was (I-23)."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar

import pytest

from tests.told import ADA, PASSWORD, Story, neighbour, telling
from watchword.crypto.keys import generate_secret
from watchword.features.audit import (
    Audit,
    AuditBatch,
    AuditEntry,
    AuditSeal,
    Verified,
    audit,
    head_of,
)
from watchword.features.audit.seals import BATCH, Seals
from watchword.kernel.events import Event
from watchword.storage.store import Paging, where
from watchword.testing.story import without_limits

QUIET: dict[str, Any] = {"background": False}  # nobody else seals


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen(Event):
    """Something happened."""

    audited: ClassVar[tuple[str, ...]] = ("number",)

    number: int


async def happen(story: Story, many: int) -> list[AuditEntry]:
    """So many things, a millisecond apart; all entries there are."""
    async with story.auth.store.transaction() as tx:
        for number in range(many):
            story.move(seconds=0.001)
            await tx.announce(Seen(realm=tx.realm, at=story.clock.now(), number=number))
    story.move(minutes=2)
    return await entries(story)


async def entries(story: Story) -> list[AuditEntry]:
    found: list[AuditEntry] = []
    after: str | None = None
    while True:
        paging = Paging(order=("at", "id"), limit=500, after=after)
        page = await story.auth.store.find(AuditEntry, paging)
        found += page.items
        after = page.next
        if after is None:
            return found


async def sealed(story: Story) -> Verified:
    """Seal what waits; what a look at it finds."""
    while await story.auth.audit.seal():
        pass
    return await anew(story).verify()


def anew(story: Story) -> Audit:
    """As a process that has just started knows it."""
    found = story.auth.audit
    return Audit(
        store=found.store,
        settings=found.settings,
        clock=found.clock,
        users=found.users,
        writer=found.writer,
        seals=Seals(
            store=found.store,
            settings=found.settings,
            clock=found.clock,
            secrets=found.seals.secrets,
        ),
    )


async def faults(story: Story, *heads: str) -> set[tuple[str, int | None, str | None]]:
    found = await story.auth.audit.verify(heads=heads)
    assert found.is_whole is (not found.faults)
    return {(fault.what, fault.seal, fault.entry_id) for fault in found.faults}


async def seals(story: Story) -> list[AuditSeal]:
    return list((await story.auth.store.find(AuditSeal, Paging(order=("n",)))).items)


@pytest.mark.invariant("I-23")
@pytest.mark.capability("S3-22", "DEF-31")
@pytest.mark.standard("14: 16.4.2-3")
async def test_each_kind_of_change_is_found_and_the_entry_named(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "watchword.audit")
    async with telling(database_url, **QUIET) as story:
        store = story.auth.store
        for _ in range(3):
            await happen(story, 5)
            await sealed(story)
        verified = await anew(story).verify()
        assert (verified.seals, verified.unsealed, verified.faults) == (3, 0, ())
        assert verified.entries == len(await entries(story))
        assert verified.head == head_of((await seals(story))[-1])
        assert f"head {verified.head}" in caplog.text, "kept where the database's owner is not"

        async def restoring(record: Any, key: str, change: Mapping[str, object] | None) -> set[Any]:
            """What is found after this change, or removal; then all is as it was."""
            pinned = {key: getattr(record, key)}
            if change is None:
                await store.take(type(record), **pinned)
            else:
                assert await store.update(type(record), where(**pinned), **change)
            found = await faults(story)
            await store.take(type(record), **pinned)
            await store.insert(record)
            assert await faults(story) == set()
            return found

        first, second, third = [
            [each for each in await entries(story) if each.seal == n] for n in (1, 2, 3)
        ]
        victim = second[2]
        for change in (
            {"action": "login_success"},
            {"result": "failure"},
            {"user_id": "someone"},
            {"actor": "user:eve"},
            {"details": {"number": 7}},
            {"at": victim.at + timedelta(microseconds=1)},
            {"address": "198.51.100.1"},
            {"personal": first[0].personal},
            {"salt": None, "user_agent": "what is erased is empty"},
        ):
            found = await restoring(victim, "id", change)
            assert ("entry_edited", 2, victim.id) in found, change
            assert {each[2] for each in found} == {victim.id}, change
        missing = ("entry_missing", 2, victim.id)
        assert await restoring(victim, "id", None) == {missing}
        moved = ("entry_reordered", 2, victim.id)
        assert await restoring(victim, "id", {"place": 1}) == {moved}
        assert await restoring(victim, "id", {"seal": 0, "place": 0}) == {moved}
        assert moved in await restoring(victim, "id", {"seal": 3})

        one, other = second[0], second[1]
        await store.update(AuditEntry, where(id=one.id), place=other.place)
        await store.update(AuditEntry, where(id=other.id), place=one.place)
        assert await faults(story) == {("entry_reordered", 2, each.id) for each in (one, other)}
        await store.update(AuditEntry, where(id=one.id), place=one.place)
        await store.update(AuditEntry, where(id=other.id), place=other.place)

        await happen(story, 1)
        stranger = next(each for each in await entries(story) if each.seal == 0)
        await store.update(AuditEntry, where(id=stranger.id), seal=2, place=3)
        assert await faults(story) == {("entry_inserted", 2, stranger.id)}
        await store.take(AuditEntry, id=stranger.id)

        chain = await seals(story)
        for change in (
            {"count": 1},
            {"entries_until": story.clock.now()},  # so that its entries seem to have expired
            {"signature": chain[0].signature},
            {"kid": "another"},
            {"previous": ""},
        ):
            found = await restoring(chain[1], "n", change)
            assert ("seal_edited", 2, None) in found, change
        assert ("seal_missing", 2, None) in await restoring(chain[1], "n", None)
        assert ("seal_missing", 1, None) in await restoring(chain[0], "n", None)
        batch = await store.get(AuditBatch, root=chain[1].root)
        assert batch is not None
        swapped = {"ids": (batch.ids[1], batch.ids[0], *batch.ids[2:])}
        assert await restoring(batch, "root", swapped) == {("list_edited", 2, None)}
        assert await restoring(batch, "root", None) == {("list_missing", 2, None)}

        # The end is cut off: the seal alone, then its entries too.
        cut = ("tail_cut", 3, third[0].id)
        assert cut in await restoring(chain[2], "n", None)
        await store.take(AuditSeal, n=3)
        for entry in third:
            await store.take(AuditEntry, id=entry.id)
        assert await faults(story) == set(), "nothing in the database tells"
        assert await faults(story, verified.head) == {("tail_cut", None, None)}
        assert await faults(story, head_of(chain[1])) == set()


@pytest.mark.invariant("I-23", "I-24")
async def test_of_two_sealers_at_once_each_entry_gets_one_seal(database_url: str) -> None:
    async with (
        telling(database_url, **QUIET) as story,
        neighbour(story, database_url, **QUIET) as other,
    ):
        many = len(await happen(story, BATCH + 30))

        async def all_of_it(audit: Audit) -> None:
            while await audit.seal():
                pass

        others = anew(story), anew(story), story.auth.audit
        await asyncio.gather(*(all_of_it(each) for each in others))
        verified = await other.auth.audit.verify()
        assert verified.faults == ()
        assert (verified.entries, verified.unsealed) == (many, 0)
        assert sum(seal.count for seal in await seals(story)) == many
        assert [seal.n for seal in await seals(story)] == [1, 2]


@pytest.mark.invariant("I-23", "I-24")
async def test_what_a_sealer_left_half_done_is_completed(database_url: str) -> None:
    async with telling(database_url, **QUIET) as story:
        await happen(story, 20)
        await sealed(story)
        found = await entries(story)
        for entry in found[10:]:  # it stopped here
            await story.auth.store.update(AuditEntry, where(id=entry.id), seal=0, place=0)
        assert await faults(story) == set()
        await happen(story, 3)
        while await anew(story).seal():
            pass
        verified = await story.auth.audit.verify()
        assert (verified.faults, verified.seals, verified.unsealed) == ((), 2, 0)
        assert [each.seal for each in await entries(story)] == [1] * len(found) + [2] * 3


@pytest.mark.invariant("I-07", "I-23")
async def test_an_entry_that_is_committed_late_is_in_a_later_batch(postgres_url: str) -> None:
    async with telling(postgres_url, **QUIET) as story:
        store = story.auth.store
        async with store.transaction() as tx:
            await tx.announce(Seen(realm=tx.realm, at=story.clock.now(), number=-1))
            await asyncio.create_task(_others(story))
            assert (await sealed(story)).seals == 1
        late = [each for each in await entries(story) if each.seal == 0]
        assert [each.details["number"] for each in late] == [-1]
        verified = await sealed(story)
        assert (verified.faults, verified.seals, verified.unsealed) == ((), 2, 0)


async def _others(story: Story) -> None:
    await happen(story, 10)


@pytest.mark.invariant("I-23")
async def test_the_last_minute_is_not_sealed_yet(database_url: str) -> None:
    async with telling(database_url, **QUIET) as story:
        await happen(story, 3)
        await sealed(story)
        await story.auth.store.announce(Seen(realm="main", at=story.clock.now(), number=1))
        story.move(seconds=59)
        assert (await sealed(story)).unsealed == 1
        story.move(seconds=1)
        assert (await sealed(story)).unsealed == 0
        await story.auth.store.announce(Seen(realm="main", at=story.clock.now(), number=1))
        story.move(minutes=11)
        verified = await story.auth.audit.verify()
        assert (verified.overdue, verified.is_whole) == (True, True)


@pytest.mark.invariant("I-23")
@pytest.mark.capability("S0-92")
async def test_whole_batches_expire_and_their_seals_stay(database_url: str) -> None:
    features = [*(f for f in without_limits() if f.name != "audit"), audit(retention="1d")]
    async with telling(database_url, features=features, **QUIET) as story:
        await happen(story, 5)
        first = await sealed(story)
        story.move(hours=20)
        await happen(story, 4)
        await sealed(story)
        story.move(hours=5)
        found = await entries(story)
        assert len({each.expires_at for each in found if each.seal == 1}) == 1
        await story.auth.store.take(AuditEntry, id=found[0].id)  # in the middle of tidying up
        assert (await story.auth.audit.verify()).is_whole
        while await story.auth._tidy():
            pass
        assert {each.seal for each in await entries(story)} == {2}
        verified = await story.auth.audit.verify(heads=[first.head])
        assert (verified.faults, verified.seals) == ((), 2)
        assert verified.expired == first.entries
        assert [seal.n for seal in await seals(story)] == [1, 2]
        assert await story.auth.store.count(AuditBatch) == 1


@pytest.mark.invariant("I-23")
async def test_seals_of_an_old_secret_still_verify_and_those_of_a_strange_one_do_not(
    sqlite_url: str,
) -> None:
    old, new = generate_secret(), generate_secret()
    async with telling(sqlite_url, secret=old, **QUIET) as story:
        await happen(story, 3)
        await story.client.post("/auth/login", json={"email": ADA, "password": PASSWORD})
        await sealed(story)
        keys = [key.public_jwk() for key in story.auth.audit.seals.ring()]
    async with telling(sqlite_url, secret=new, old_secrets=(old,), **QUIET) as story:
        await happen(story, 3)
        verified = await sealed(story)
        assert (verified.faults, verified.seals) == ((), 2)
        first, second = await seals(story)
        assert first.kid != second.kid
        shown = [key.public_jwk() for key in story.auth.audit.seals.ring()]
        assert keys[0] in shown
        assert keys[0] is not None
        assert keys[0]["crv"] == "Ed25519"
        assert "d" not in keys[0]
        failed = await story.auth.audit.failed_logins(email=ADA)
        assert len(failed.items) == 1, "its hash is of the old secret"
        strange = Seals(
            store=story.auth.store,
            settings=story.auth.audit.settings,
            clock=story.clock,
            secrets=type(story.auth.secrets)(generate_secret()),
        )
        found = await strange.verify()
        assert {fault.what for fault in found.faults} == {"seal_edited"}
