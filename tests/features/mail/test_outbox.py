"""The outbox: in the caller's transaction, at least once, and nothing in it that opens anything."""

import asyncio
import logging
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.features.mail.conftest import CANARY, Kept, Letters, Outbox, ask, rows
from watchword.features.mail import Mail, MailUndeliverable, Message, OutboxMail, SendFailed
from watchword.features.mail.errors import AddressRefused
from watchword.features.mail.events import MailQueued
from watchword.kernel.bell import Bell
from watchword.kernel.errors import MailUnavailable
from watchword.kernel.events import Events
from watchword.starting import driver_of as open_driver
from watchword.storage.store import Driver, Paging, Store
from watchword.testing.clock import MovableClock

pytestmark = [pytest.mark.invariant("I-12")]

LEASE = timedelta(seconds=61)
NOT_ONE_ADDRESS = [
    "a@x.example,b@y.example",
    "a@x.example;b@y.example",
    "a@x.example b@y.example",
    "a@x.example\r\nBcc: b@y.example",
    "a@x.example\nb@y.example",
    "a@x.example\x00",
    "Ada <a@x.example>",
    "<a@x.example>",
    '"a@x.example,b"@y.example',
    "a@x.example(comment)",
    "group:a@x.example;",
    "a@@x.example",
    "a@x.example，b@y.example",
    "a＠x.example",
    "a@x.example\u2028b@y.example",
    "a\u202e@x.example",
    "a\u200b@x.example",
    "a@[127.0.0.1]",
    ".a@x.example",
    "a..b@x.example",
    "a@x..example",
    "@x.example",
    "a@",
    "",
    "a" * 65 + "@x.example",
    "a@" + "x" * 254,
]


async def all_rows(mail: Mail) -> tuple[OutboxMail, ...]:
    page = await mail.store.find(OutboxMail, Paging(order=("id",), limit=1000))
    return page.items


@pytest.mark.capability("S2-28")
async def test_a_queued_mail_reaches_a_sender_of_ones_own(outbox: Outbox) -> None:
    sender = Kept()
    mail = outbox(sender)
    await ask(mail)
    assert await mail.deliver_due() is False
    (message,) = sender.messages
    assert message.recipient == "ada@example.org"
    assert message.sender == "no-reply@app.example"
    assert message.subject == "A letter for Ada"
    assert f"{CANARY}0" in message.text
    assert f"{CANARY}0" in message.html
    assert await rows(mail) == 0


async def test_a_rolled_back_request_is_never_sent(outbox: Outbox, announced: list[Any]) -> None:
    sender = Kept()
    mail = outbox(sender)

    async def sign_up() -> None:
        async with mail.store.transaction() as transaction:
            await mail.queue(transaction, purpose="letter", address="ada@example.org")
            raise LookupError

    with pytest.raises(LookupError):
        await sign_up()
    await mail.deliver_due()
    # Without transactions what was queued stands, whatever the rest came to.
    sent = 0 if mail.store.driver.is_transactional else 1
    assert (await rows(mail), len(sender.messages), announced) == (0, sent, [])


async def test_the_purpose_gets_what_was_asked(
    outbox: Outbox, letters: Letters, clock: MovableClock
) -> None:
    mail = outbox(Kept())
    await ask(mail, challenge="c1", locale="de_AT")
    await mail.deliver_due()
    (request,) = letters.asked
    assert (request.realm, request.purpose, request.address) == (
        "main",
        "letter",
        "ada@example.org",
    )
    assert (request.challenge, request.locale) == ("c1", "de-at")
    assert request.requested_at == clock.now()


async def test_an_unknown_address_takes_the_same_row_and_gets_nothing(outbox: Outbox) -> None:
    sender = Kept()
    mail = outbox(sender)
    await ask(mail, "ada@example.org")
    await ask(mail, "eve@nowhere.example")
    known, unknown = sorted(await all_rows(mail), key=lambda row: row.address)
    assert known.due_at == unknown.due_at
    assert known.attempts == unknown.attempts == 0
    await mail.deliver_due()
    assert [message.recipient for message in sender.messages] == ["ada@example.org"]
    assert await rows(mail) == 0


async def test_the_worker_wakes_when_a_mail_is_queued(outbox: Outbox) -> None:
    mail = outbox(Kept())
    mail.store.events.on(MailQueued, mail.notice)
    waiting = asyncio.create_task(mail.bell.wait())
    await asyncio.sleep(0)
    await ask(mail)
    await asyncio.wait_for(waiting, 5)


async def test_a_bell_that_rang_while_the_worker_began_is_not_missed() -> None:
    bell = Bell()
    bell.ring()
    await asyncio.wait_for(bell.wait(), 5)
    waiting = asyncio.create_task(bell.wait())
    await asyncio.sleep(0.01)
    assert not waiting.done(), "once is enough"
    bell.ring()
    await asyncio.wait_for(waiting, 5)


async def test_the_bell_is_heard_from_another_thread(outbox: Outbox) -> None:
    mail = outbox(Kept())
    waiting = asyncio.create_task(mail.bell.wait())
    await asyncio.sleep(0)
    await asyncio.to_thread(mail.bell.ring)
    await asyncio.wait_for(waiting, 5)


async def test_a_failure_waits_longer_each_time_and_a_retry_mints_anew(
    outbox: Outbox, letters: Letters, clock: MovableClock
) -> None:
    sender = Kept(raising=[SendFailed(permanent=False, note="421")])
    mail = outbox(sender)
    await ask(mail)
    waits: list[float] = []
    for _ in range(12):
        await mail.deliver_due()
        (row,) = await all_rows(mail)
        waits.append((row.due_at - clock.now()).total_seconds())
        assert row.last_error == "SendFailed"
        clock.advance(row.due_at - clock.now() - timedelta(milliseconds=1))
        before = len(letters.minted)
        await mail.deliver_due()
        assert len(letters.minted) == before, "too early"
        clock.advance(timedelta(milliseconds=1))
    for n, wait in enumerate(waits):
        expected = min(5 * 2**n, 1800)
        assert expected * 0.79 <= wait <= expected * 1.21
    sender.raising.clear()
    await mail.deliver_due()
    (message,) = sender.messages
    assert letters.minted[-1] in message.text
    assert len(set(letters.minted)) == 13
    assert await rows(mail) == 0


async def test_a_permanent_failure_becomes_a_dead_letter_without_a_body(
    outbox: Outbox, clock: MovableClock, announced: list[Any]
) -> None:
    mail = outbox(Kept(raising=[SendFailed(permanent=True, note="550")]))
    await ask(mail, challenge="c1")
    await mail.deliver_due()
    (dead,) = (await mail.undeliverable()).items
    assert (dead.purpose, dead.address, dead.attempts) == ("letter", "ada@example.org", 1)
    assert (dead.is_given_up, dead.challenge, dead.last_error) == (True, None, "SendFailed")
    event = announced[-1]
    assert isinstance(event, MailUndeliverable)
    assert (event.outbox_id, event.purpose, event.attempts) == (dead.id, "letter", 1)
    clock.advance(timedelta(hours=1))
    await mail.deliver_due()
    assert (await mail.undeliverable()).items[0].attempts == 1, "never tried again"


async def test_a_mail_is_given_up_when_its_time_is_over(
    outbox: Outbox, clock: MovableClock
) -> None:
    mail = outbox(Kept(raising=[OSError("down")]), retry_for="1h")
    await ask(mail)
    for _ in range(100):
        await mail.deliver_due()
        if (await mail.undeliverable()).items:
            break
        clock.advance(timedelta(minutes=1))
    (dead,) = (await mail.undeliverable()).items
    assert clock.now() <= dead.requested_at + timedelta(hours=1)
    assert dead.last_error == "OSError"


async def test_a_mail_nobody_fetched_in_time_is_not_sent_late(
    outbox: Outbox, clock: MovableClock
) -> None:
    sender = Kept()
    mail = outbox(sender)
    await ask(mail)
    clock.advance(timedelta(hours=25))
    await mail.deliver_due()
    assert sender.messages == []
    assert (await mail.undeliverable()).items[0].last_error == "TooOld"


async def test_attempts_are_counted_before_the_try_so_that_a_mail_cannot_kill_forever(
    outbox: Outbox, clock: MovableClock
) -> None:
    class Dying:
        async def send(self, message: Message) -> None:
            raise asyncio.CancelledError  # nothing catches it: as if the process were gone

    dying = outbox(Dying(), attempts=3)
    await ask(dying)
    for _ in range(3):
        (row,) = await all_rows(dying)
        with pytest.raises(asyncio.CancelledError):
            await dying._deliver(row)
        clock.advance(LEASE)
    sender = Kept()
    await outbox(sender, attempts=3).deliver_due()
    (dead,) = (await dying.undeliverable()).items
    assert (dead.last_error, dead.attempts, sender.messages) == ("TooManyAttempts", 4, [])


async def test_dead_letters_are_forgotten_in_the_end(outbox: Outbox, clock: MovableClock) -> None:
    mail = outbox(Kept(raising=[SendFailed(permanent=True)]), keep_failed_for="1d")
    await ask(mail)
    await mail.deliver_due()
    clock.advance(timedelta(hours=47))
    assert await mail.store.expire(OutboxMail, now=clock.now()) == 0
    clock.advance(timedelta(hours=1, seconds=1))
    assert await mail.store.expire(OutboxMail, now=clock.now()) == 1


async def test_a_purpose_that_only_newer_workers_know_waits_for_them(
    outbox: Outbox, clock: MovableClock
) -> None:
    sender = Kept()
    mail = outbox(sender)
    async with mail.store.transaction() as transaction:
        await mail.queue(transaction, purpose="newer", address="ada@example.org")
    await mail.deliver_due()
    (row,) = await all_rows(mail)
    assert row.last_error == "UnknownPurpose"
    assert not row.is_given_up


async def test_one_bad_mail_does_not_hold_up_the_others(outbox: Outbox, letters: Letters) -> None:
    class Picky(Kept):
        async def send(self, message: Message) -> None:
            if message.recipient.startswith("bad"):
                raise ValueError(message.recipient)
            await super().send(message)

    sender = Picky()
    mail = outbox(sender)
    for n in range(5):
        await ask(mail, f"bad{n}@example.org")
        await ask(mail, f"good{n}@example.org")
    await mail.deliver_due()
    assert len(sender.messages) == 5
    assert await rows(mail) == 5


async def test_a_sender_that_hangs_is_cut_off(outbox: Outbox) -> None:
    class Hanging:
        async def send(self, message: Message) -> None:
            await asyncio.sleep(3600)

    mail = outbox(Hanging(), timeout="1s")
    await ask(mail)
    await asyncio.wait_for(mail.deliver_due(), 10)
    (row,) = await all_rows(mail)
    assert row.last_error == "TimeoutError"


@pytest.mark.capability("S2-30")
async def test_without_a_sender_everybody_is_told_and_nothing_crashes(outbox: Outbox) -> None:
    mail = outbox(None)
    with pytest.raises(MailUnavailable) as refused:
        mail.ensure_available()
    assert (refused.value.status, refused.value.code) == (503, "mail_unavailable")
    await ask(mail)
    assert await mail.deliver_due() is False
    sender = Kept()
    await outbox(sender).deliver_due()  # set up within the day: nothing was lost
    assert len(sender.messages) == 1


@pytest.mark.invariant("I-24")
async def test_two_workers_at_once_lose_no_mail(
    outbox: Outbox, database_url: str, driver: Driver
) -> None:
    other = open_driver(database_url)
    await other.open((OutboxMail,))
    try:
        sender = Kept()
        one = outbox(sender)
        two = outbox(sender, on=Store(driver=other, events=Events(), realm="main"))
        addresses = {f"user{n}@example.org" for n in range(60)}
        for address in addresses:
            await ask(one, address)

        async def work(mail: Mail) -> None:
            while await mail.deliver_due():
                pass

        for _ in range(3):
            await asyncio.gather(work(one), work(two))
        assert {message.recipient for message in sender.messages} == addresses
        assert len(sender.messages) == len(addresses), "a lease saves the second sending"
        assert await rows(one) == 0
    finally:
        await other.close()


@pytest.mark.invariant("I-24")
async def test_a_worker_slower_than_its_lease_only_costs_a_second_valid_mail(
    outbox: Outbox, clock: MovableClock, letters: Letters
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    class Slow(Kept):
        async def send(self, message: Message) -> None:
            begun.set()
            await go_on.wait()
            await super().send(message)

    slow, quick = Slow(), Kept()
    await ask(outbox(None))
    first = asyncio.create_task(outbox(slow).deliver_due())
    await begun.wait()
    clock.advance(LEASE)
    mail = outbox(quick)
    await mail.deliver_due()
    go_on.set()
    await first
    assert (len(slow.messages), len(quick.messages)) == (1, 1)
    assert slow.messages[0].text != quick.messages[0].text
    assert await rows(mail) == 0


CRASH = """
import asyncio, os, sys
from datetime import UTC, datetime
from watchword.features.mail import Mail, MailSettings, OutboxMail
from watchword.kernel.events import Events
from watchword.kernel.ports import ComposedMail
from watchword.storage.store import Store
from watchword.starting import driver_of as open_driver
from watchword.testing.clock import MovableClock

url, package, sent, now = sys.argv[1:]

class Letters:
    purpose = "letter"
    async def compose(self, request):
        return ComposedMail(recipient=request.address, template="letter", package=package,
                            context={"name": "Ada", "link": "https://app.example/"})

class Fatal:
    async def send(self, message):
        with open(sent, "w") as file:
            file.write(message.recipient)
        os._exit(9)

async def main():
    driver = open_driver(url)
    await driver.open((OutboxMail,))
    mail = Mail(store=Store(driver=driver, events=Events(), realm="main"), sender=Fatal(),
                settings=MailSettings(), clock=MovableClock(datetime.fromisoformat(now)),
                sender_address="no-reply@app.example", purposes=[Letters()])
    await mail.deliver_due()

asyncio.run(main())
"""


@pytest.mark.invariant("I-24")
async def test_a_crash_between_sending_and_noting_it_sends_again(
    outbox: Outbox, database_url: str, package: str, clock: MovableClock, tmp_path: Path
) -> None:
    sender = Kept()
    mail = outbox(sender)
    await ask(mail)
    sent = tmp_path / "sent"
    path = os.pathsep.join(entry for entry in sys.path if entry)
    crashed = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", CRASH, database_url, package, str(sent), clock.now().isoformat()],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert crashed.returncode == 9, crashed.stderr
    assert sent.read_text() == "ada@example.org"
    await mail.deliver_due()
    assert sender.messages == [], "the lease of the dead worker still runs"
    clock.advance(LEASE)
    await mail.deliver_due()
    assert len(sender.messages) == 1
    assert await rows(mail) == 0


@pytest.mark.standard("ASVS 16.2.5", "DEF-16")
async def test_neither_database_nor_log_ever_holds_a_token(
    outbox: Outbox,
    letters: Letters,
    clock: MovableClock,
    database_url: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)

    class Blurting:
        async def send(self, message: Message) -> None:
            raise RuntimeError(f"could not send {message.text} to {message.recipient}")

    mail = outbox(Blurting(), attempts=3)
    await ask(mail)
    for _ in range(3):
        await mail.deliver_due()
        clock.advance(timedelta(minutes=5))
    assert len(letters.minted) == 3
    kept = await all_rows(mail)
    assert kept[0].is_given_up
    assert CANARY not in repr(kept)
    path = Path("/" + database_url.partition(":///")[2].lstrip("/"))
    if database_url.startswith("sqlite"):
        files = list(path.parent.glob(f"{path.name}*"))
        assert files
        for file in files:
            assert CANARY.encode() not in file.read_bytes()
    said = "\n".join(r.getMessage() for r in caplog.records if r.name.startswith("watchword"))
    assert CANARY not in caplog.text
    assert "ada@example.org" not in said
    assert kept[0].id in said
    assert "RuntimeError" in said


def test_a_message_shows_neither_address_nor_body() -> None:
    message = Message(
        recipient="ada@example.org",
        subject="code 123456",
        text=CANARY,
        html=CANARY,
        sender="no-reply@app.example",
    )
    assert CANARY not in repr(message)
    assert "ada@" not in repr(message)
    assert "123456" not in repr(message)


@pytest.mark.standard("CVE 33")
async def test_what_is_not_one_plain_address_gets_no_row(outbox: Outbox) -> None:
    mail = outbox(Kept())
    for address in NOT_ONE_ADDRESS:
        with pytest.raises(AddressRefused) as refused:
            await ask(mail, address)
        assert refused.value.status == 422
    assert await rows(mail) == 0


async def test_plain_addresses_of_all_scripts_are_taken(outbox: Outbox) -> None:
    sender = Kept()
    mail = outbox(sender)
    addresses = {"a@x.example", "a.b+c@x.example", "o'hara@x.example", "jürgen@straße.example"}
    for address in addresses:
        await ask(mail, address)
    await mail.deliver_due()
    assert {message.recipient for message in sender.messages} == addresses


async def test_a_purpose_that_names_two_recipients_mails_nobody(
    outbox: Outbox, letters: Letters, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender = Kept()
    mail = outbox(sender)
    compose = letters.compose

    async def forged(request: Any) -> Any:
        made = await compose(request)
        assert made is not None
        return type(made)(
            recipient="a@x.example,b@y.example",
            template=made.template,
            package=made.package,
            context=made.context,
        )

    monkeypatch.setattr(letters, "compose", forged)
    await ask(mail)
    await mail.deliver_due()
    assert sender.messages == []
    assert (await mail.undeliverable()).items[0].last_error == "AddressRefused"


async def test_realms_do_not_deliver_for_one_another(outbox: Outbox, store: Store) -> None:
    sender = Kept()
    other = outbox(sender, on=store.in_realm("other"))
    await ask(outbox(None))
    await other.deliver_due()
    assert sender.messages == []
