"""Who fails too often waits; the owner gets in from elsewhere, or from a device of theirs."""

import asyncio
import sqlite3
import threading
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.features.lockout.guessing import (
    HERE,
    THERE,
    WRONG,
    attempt,
    fail,
    features,
    guarded,
    lock,
    right,
)
from tests.told import (
    ADA,
    ANOTHER,
    EVE,
    PASSWORD,
    Story,
    Work,
    browser,
    neighbour,
    plain,
    problem,
    telling,
)
from watchword.features.lockout import (
    AccountLocked,
    AccountUnlocked,
    SuspiciousActivity,
)
from watchword.kernel.events import Event

pytestmark = pytest.mark.slow  # scripts/test runs them

NEEDS_MAIL = {"verification", "recovery", "email_change"}


def heard(story: Story) -> list[Event]:
    """Collects what happens to failures from here on."""
    events: list[Event] = []

    async def hear(event: Event) -> None:
        events.append(event)

    for kind in (AccountLocked, AccountUnlocked, SuspiciousActivity):
        story.auth.on(kind)(hear)
    return events


@pytest.mark.capability("DEF-04", "S3-05", "S0-17")
async def test_five_failures_lock_and_after_retry_after_the_right_password_works(
    database_url: str,
) -> None:
    async with guarded(database_url) as story:
        await fail(story, 5)
        refused = await attempt(story)
        body = problem(refused, 429, "too_many_attempts")
        assert refused.headers["retry-after"] == "30"
        assert body["retry_after"] == 30
        assert "locked" not in refused.text, "only logs and audit know why"
        assert await right(story) == 429, "locked: even with the right password"
        story.move(seconds=29)
        assert (await attempt(story, PASSWORD)).headers["retry-after"] == "1"
        story.move(seconds=1)
        assert await right(story) == 200
        await fail(story, 5)  # and all is forgotten


@pytest.mark.capability("S3-03", "DEF-04")
async def test_each_further_failure_doubles_the_wait_up_to_an_hour(database_url: str) -> None:
    async with guarded(database_url) as story:
        await fail(story, 4)
        waits: list[int] = []
        for _ in range(9):
            await fail(story, 1)
            refused = [await attempt(story) for _ in range(2)]  # which makes it no longer: it ends
            waits += [int(answer.headers["retry-after"]) for answer in refused]
            story.move(seconds=waits[-1])
        assert waits[::2] == [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]
        assert waits[::2] == waits[1::2]
        assert await right(story) == 200


@pytest.mark.capability("S0-17")
async def test_a_fixed_strategy_waits_as_long_each_time() -> None:
    options: dict[str, Any] = {"strategy": "fixed", "threshold": 3, "duration": "15m"}
    async with guarded("sqlite://", **options) as story:
        await fail(story, 3)
        assert (await attempt(story)).headers["retry-after"] == "900"
        story.move(minutes=15)
        await fail(story, 1)
        assert (await attempt(story)).headers["retry-after"] == "900"
    async with guarded("sqlite://", threshold=1, base="1h", window="1m") as story:
        await fail(story, 1)
        story.move(minutes=2)
        await story.auth.purge()
        assert (await attempt(story)).headers["retry-after"] == str(58 * 60)


async def test_failures_are_forgotten_after_a_pause_but_not_while_one_waits() -> None:
    async with guarded("sqlite://") as story:
        await fail(story, 4)
        story.move(minutes=15)
        await fail(story, 4)
        story.move(minutes=14)
        await fail(story, 1)
        assert (await attempt(story)).status_code == 429
        story.move(seconds=30, minutes=14)
        await fail(story, 1)
        assert (await attempt(story)).headers["retry-after"] == "60"


@pytest.mark.capability("S0-17")
async def test_success_clears_the_count_unless_it_is_not_to() -> None:
    async with guarded("sqlite://") as story:
        await fail(story, 4)
        assert await right(story) == 200
        await fail(story, 4)
        assert await right(story) == 200
    async with guarded("sqlite://", reset_on_success=False) as story:
        await fail(story, 4)
        assert await right(story) == 200
        await fail(story, 1)
        assert await right(story) == 429
    async with guarded("sqlite://", enabled=False) as story:
        await fail(story, 7)


@pytest.mark.standard("2: 6.1.1")
@pytest.mark.capability("DEF-04")
async def test_the_owner_gets_in_from_elsewhere_and_from_a_device_of_theirs(
    database_url: str,
) -> None:
    async with guarded(database_url) as story, browser(story.app) as theirs:
        assert await right(story, client=theirs, at=HERE, transport="cookie") == 200
        await lock(story, at=HERE)
        assert await right(story, at=THERE) == 200
        await lock(story, at=THERE)
        # At the attacker's own address, such as a company's: the device is known.
        assert await right(story, client=theirs, at=HERE, transport="cookie") == 200


@pytest.mark.capability("DEF-04")
async def test_a_known_device_is_not_without_bounds_nor_known_to_other_accounts(
    database_url: str,
) -> None:
    async with guarded(database_url) as story, browser(story.app) as theirs:
        await story.join(EVE)
        assert await right(story, client=theirs, at=THERE, transport="cookie") == 200
        await lock(story, at=HERE)
        await fail(story, 5, client=theirs)
        refused = await attempt(story, PASSWORD, client=theirs)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "30")
        story.move(seconds=30)
        assert await right(story, client=theirs, transport="cookie") == 200
        await lock(story, email=EVE)
        assert await right(story, email=EVE, client=theirs) == 429


async def test_a_cookie_that_nobody_signed_in_with_is_no_device() -> None:
    async with guarded("sqlite://") as story:
        await lock(story)
        headers = {"Cookie": f"device=wwd_{'A' * 43}", "X-Forwarded-For": HERE}
        body = {"email": ADA, "password": PASSWORD}
        answer = await story.client.post("/auth/login", json=body, headers=headers)
        assert answer.status_code == 429


@pytest.mark.capability("S3-05")
async def test_an_address_that_fails_at_many_accounts_waits_everywhere(database_url: str) -> None:
    async with guarded(database_url, address_threshold=6) as story, browser(story.app) as theirs:
        assert await right(story, client=theirs, at=THERE, transport="cookie") == 200
        events = heard(story)
        for number in range(6):
            await fail(story, 1, email=f"person{number}@example.com")
            if number == 2:
                assert await right(story) == 200, "success of their own clears no address"
        assert (await attempt(story, email="another@example.com")).status_code == 429
        assert await right(story) == 429
        assert await right(story, at=THERE) == 200
        assert await right(story, client=theirs) == 200, "in the same house, on their own device"
        assert [type(each) for each in events] == [AccountLocked, SuspiciousActivity]
        assert HERE not in repr(events)
        story.move(seconds=30)
        assert await right(story) == 200


async def test_a_network_of_ipv6_is_one_address() -> None:
    async with guarded("sqlite://") as story:
        for number in range(5):
            await fail(story, 1, at=f"2001:db8:1:2::{number}")
        assert (await attempt(story, at="2001:db8:1:2:3::4")).status_code == 429
        await fail(story, 1, at="2001:db8:1:3::4")


@pytest.mark.standard("2: 6.3.1", "NIST §3.2.2")
async def test_failures_in_a_row_lock_the_account_for_all_but_its_devices(
    database_url: str,
) -> None:
    async with guarded(database_url, account_threshold=12) as story, browser(story.app) as theirs:
        assert await right(story, client=theirs, at=THERE, transport="cookie") == 200
        for number in range(12):  # however slowly they come, and from however many addresses
            await fail(story, 1, at=f"203.0.113.{number}")
            story.move(hours=1)
        await fail(story, 1, at="203.0.113.99")
        assert (await attempt(story, at=THERE)).headers["retry-after"] == "60"
        assert await right(story, at=THERE) == 429
        assert await right(story, client=theirs, at=THERE) == 200
        assert await right(story, at=THERE) == 200, "and the count starts anew"


@pytest.mark.invariant("I-20")
@pytest.mark.standard("2: 6.3.8")
async def test_an_unknown_account_is_locked_like_a_known_one_at_the_same_cost(
    database_url: str, work: Work
) -> None:
    async with guarded(database_url) as story:
        told: list[list[tuple[Any, ...]]] = [[], []]
        whose = ((ADA, HERE), ("nobody@example.com", THERE))
        for said, (email, at) in zip(told, whose, strict=True):
            device = {"Cookie": f"device=wwd_{'A' * 43}", "X-Forwarded-For": at}
            for _ in range(7):
                with work.watched() as done:
                    answer = await story.client.post(
                        "/auth/login", json={"email": email, "password": WRONG}, headers=device
                    )
                said.append((plain(answer), dict(done)))
        known, unknown = told
        for known_one, unknown_one in zip(known, unknown, strict=True):
            assert known_one == unknown_one
        assert [each[0][0] for each in known] == [401] * 5 + [429] * 2


@pytest.mark.invariant("I-20")
@pytest.mark.standard("2: 6.3.1")
async def test_guesses_at_the_same_moment_count_each(database_url: str) -> None:
    async with guarded(database_url) as story:
        options = {"features": features(), "trusted_proxies": ["127.0.0.1"]}
        async with neighbour(story, database_url, **options) as other:
            answers = await asyncio.gather(
                *(attempt((story, other)[turn % 2], f"guess {turn}") for turn in range(30))
            )
            statuses = sorted(answer.status_code for answer in answers)
            assert statuses == [401] * 5 + [429] * 25
            story.move(minutes=1)
            other.move(minutes=1)
            answers = await asyncio.gather(*(attempt(story, f"guess {n}") for n in range(10)))
            statuses = sorted(answer.status_code for answer in answers)
            assert statuses == [401] + [429] * 9, "after a wait it is one try"


async def test_the_right_password_at_the_same_moment_is_no_failure() -> None:
    async with guarded("sqlite://") as story:
        for _ in range(3):
            answers = await asyncio.gather(*(right(story) for _ in range(4)))
            assert answers == [200] * 4


async def test_what_nobody_looked_at_is_no_failure(database_url: str) -> None:
    async with guarded(database_url, core={"hash_threads": 1, "hash_queue": 1}) as story:
        await fail(story, 3)
        held = threading.Event()
        full = [asyncio.create_task(story.auth.hash_pool.run(held.wait)) for _ in range(2)]
        await asyncio.sleep(0)
        try:
            for _ in range(4):
                problem(await attempt(story), 503, "busy")
        finally:
            held.set()
            await asyncio.gather(*full)
        await fail(story, 2)
        assert (await attempt(story)).status_code == 429


@pytest.mark.capability("S3-06")
async def test_an_operator_sees_and_clears_failures(database_url: str) -> None:
    async with guarded(database_url) as story:
        service, events = story.auth.lockout, heard(story)
        await lock(story)
        await fail(story, 1, email=EVE)
        shown = {each.what: each for each in await service.show(email=ADA.upper())}
        assert {name: each.failures for name, each in shown.items()} == {"pair": 5, "account": 5}
        assert shown["pair"].until == story.clock.now() + timedelta(seconds=30)
        assert shown["account"].until is None
        assert sorted(each.what for each in await service.show(address=HERE)) == [
            *("address", "pair", "pair")
        ]
        assert await service.show(address=THERE) == []
        assert len((await service.locks()).items) == 5
        assert await service.clear(email=ADA, by="operator") == 2
        assert await right(story) == 200
        assert await service.clear(address=HERE) == 2
        assert await service.clear(email="nobody@example.com") == 0
        with pytest.raises(TypeError):
            await service.clear()
        whom = (await story.auth.users.find(ADA)).id
        assert [(type(each), getattr(each, "user_id", None)) for each in events] == [
            (AccountLocked, whom),
            (AccountUnlocked, whom),
            (AccountUnlocked, None),
            (AccountUnlocked, None),  # what an operator does is audited, whatever came of it
        ]
        assert service.counts == {"locked": 1, "refused": 1, "unlocked": 4}


async def test_who_resets_the_password_need_not_wait(database_url: str) -> None:
    async with guarded(database_url) as story:
        await lock(story)
        await story.client.post("/auth/password-reset-request", json={"email": ADA})
        await story.mails()
        token = story.outbox.token(ADA, "wwp")
        body = {"token": token, "new_password": ANOTHER}
        assert (await story.client.post("/auth/password-reset", json=body)).status_code == 204
        assert (await attempt(story, ANOTHER)).status_code == 200


@pytest.mark.standard("2: 6.3.5, 6.3.7")
async def test_the_owner_hears_of_it_once_a_day(database_url: str) -> None:
    async with guarded(database_url) as story:
        subjects = ("failed to sign in", "after many failures")

        async def told(address: str = ADA) -> list[int]:
            await story.mails()
            sent = [message.subject for message in story.outbox.to(address)]
            return [sum(words in each for each in sent) for words in subjects]

        for at in (HERE, THERE):
            await lock(story, at=at)
        assert await told() == [1, 0]
        assert HERE not in story.outbox.to(ADA)[-1].text
        assert await right(story, at="192.0.2.1") == 200
        assert await told() == [1, 1]
        story.move(minutes=20)
        await lock(story)
        assert await right(story, at=THERE) == 200
        assert await told() == [1, 1]
        story.move(hours=24)
        await lock(story)
        assert await right(story, at=THERE) == 200
        assert await told() == [2, 2]
        await lock(story, email="nobody@example.com")
        assert await told("nobody@example.com") == [0, 0]
        await story.register(EVE)
        await lock(story, email=EVE)
        assert await told(EVE) == [0, 0], "an address that nobody has proven"


async def test_mails_may_be_switched_off() -> None:
    async with guarded("sqlite://", mail=False) as story:
        await lock(story)
        assert await right(story, at=THERE) == 200
        await story.mails()
        assert len(story.outbox.to(ADA)) == 1


async def test_mail_that_cannot_leave_stops_nobody(sqlite_url: str) -> None:
    chosen = [each for each in features() if each.name != "mail"]
    kept = [each for each in chosen if each.name not in NEEDS_MAIL]
    async with telling(sqlite_url, features=kept, trusted_proxies=["127.0.0.1"]) as story:
        (await story.register()).raise_for_status()
        await lock(story)
        assert await right(story, at=THERE) == 200


@pytest.mark.capability("S3-04")
@pytest.mark.invariant("I-20")
async def test_no_address_stands_in_the_database(tmp_path: Path) -> None:
    path = tmp_path / "watchword.db"
    async with guarded(f"sqlite:///{path}") as story, browser(story.app) as theirs:
        assert await right(story, client=theirs, transport="cookie") == 200
        for email in (ADA, "nobody@example.com"):
            await lock(story, email=email)
        await story.mails()
        rows = (await story.auth.lockout.locks()).items
        assert len(rows) == 5
    with closing(sqlite3.connect(path)) as database:
        dump = "\n".join(database.iterdump())
    assert "lockout" in dump
    assert HERE not in dump
    assert "nobody@" not in dump
