"""What a hostile look at audit, seals and logs found: each of these went unseen, or leaked."""

import asyncio
import gc
import io
import json
import logging
import socket
import threading
import weakref
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import watchword.logs
from tests.features.audit.test_entries import with_audit
from tests.features.audit.test_seals import QUIET, anew, entries, faults, happen, sealed, seals
from tests.told import ADA, ANOTHER, Story, browser, cookie_session, neighbour, problem, telling
from watchword.features.audit import AuditBatch, AuditEntry, AuditSeal
from watchword.features.audit.records import AuditErasure
from watchword.features.audit.seals import Seals
from watchword.features.webhooks import DeliveryFailed
from watchword.features.webhooks.sender import HttpSender
from watchword.kernel.events import Event, Events
from watchword.kernel.hooks import Hooks
from watchword.kernel.ids import new_id
from watchword.storage.store import Paging, Store, where


@pytest.mark.invariant("I-23")
async def test_an_entry_put_into_a_batch_that_nobody_compares_is_found(database_url: str) -> None:
    async with telling(database_url, **QUIET) as story:
        store = story.auth.store
        await happen(story, 3)
        await sealed(story)
        forged = replace((await entries(story))[-1], action="login_success", place=1)
        await store.insert(replace(forged, id="put in", seal=-1))
        assert await faults(story) == {("entry_inserted", -1, "put in")}
        await store.take(AuditEntry, id="put in")

        story.move(days=91)
        assert await faults(story) == set(), "expired, and not yet deleted"
        await store.expire(AuditEntry, now=story.clock.now())
        await store.expire(AuditBatch, now=story.clock.now())
        await happen(story, 3)
        assert (await sealed(story)).faults == ()
        fresh = (await entries(story))[-1]
        await store.insert(replace(fresh, id="put in", seal=1, action="login_success"))
        assert await faults(story) == {("entry_inserted", 1, "put in")}


@pytest.mark.invariant("I-23")
async def test_whoever_has_changed_entries_sealed_anew_is_seen(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with telling(database_url, **QUIET) as story:
        store = story.auth.store
        for _ in range(3):
            await happen(story, 3)
            await sealed(story)
        head = (await story.auth.audit.verify()).head
        # With the database alone: the two newest seals go, and the marks of their batches.
        for each in (await seals(story))[1:]:
            await store.take(AuditSeal, n=each.n)
        newer = [each for each in await entries(story) if each.seal > 1]
        for entry in newer:
            await store.update(AuditEntry, where(id=entry.id), seal=0, place=0)
        assert await store.update(AuditEntry, where(id=newer[0].id), actor="user:nobody")

        story.move(hours=2)
        await story.auth.audit.seal()
        assert "audit seal 3 is gone or is another" in caplog.text
        assert head in caplog.text
        caplog.clear()
        await story.auth.audit.seal()
        assert "is gone" not in caplog.text, "once"
        found = await anew(story).verify()
        assert (found.faults, found.seals, found.unsealed) == ((), 2, 0), "marked all the same"
        assert found.late == 1, "which no server that ran meanwhile makes"
        assert ("tail_cut", None, None) in await faults(story, head)


@pytest.mark.invariant("I-23", "I-24")
async def test_a_look_while_a_sealer_is_at_it_finds_no_fault(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with telling(database_url, **QUIET) as story:
        await happen(story, 5)
        await sealed(story)
        found = [each for each in await entries(story) if each.seal == 1]
        for entry in found:  # a sealer is about to mark them
            await story.auth.store.update(AuditEntry, where(id=entry.id), seal=0, place=0)
        other = anew(story)
        get, compare = Store.get, Seals._compare
        reads: list[type] = []

        async def marking(self: Store, kind: type[Any], /, **named: object) -> Any:
            if kind is AuditEntry and kind not in reads:
                reads.append(kind)
                await other.seal()
            return await get(self, kind, **named)

        async def sealing(self: Seals, *given: Any, **named: Any) -> Any:
            if Seals not in reads:
                reads.append(Seals)
                await happen(story, 2)
                await other.seal()
            return await compare(self, *given, **named)

        monkeypatch.setattr(Store, "get", marking)
        assert await faults(story) == set()
        monkeypatch.setattr(Seals, "_compare", sealing)
        assert await faults(story) == set()
        assert reads == [AuditEntry, Seals]
        assert (await other.verify()).seals == 2


async def test_however_many_are_deleted_all_are_forgotten_at_once(database_url: str) -> None:
    async with telling(database_url, **QUIET) as story:
        await story.join()
        store, now = story.auth.store, story.clock.now()
        entry = (await entries(story))[-1]
        for number in range(30):
            gone = f"user {number}"
            await store.insert(replace(entry, id=new_id(now), user_id=gone))
            await store.insert(AuditErasure(realm=store.realm, user_id=gone, at=now))
        while await story.auth.audit.erase():
            pass
        left = [each for each in await entries(story) if each.salt is not None]
        assert not [each for each in left if (each.user_id or "").startswith("user ")]
        story.move(minutes=6)
        await story.auth.audit.erase()
        assert not (await store.find(AuditErasure, Paging(order=("at", "user_id")))).items


@pytest.mark.standard("14: 16.3.2")
async def test_whoever_makes_up_paths_hides_nobody_elses_refusal() -> None:
    async with telling(trusted_proxies=["127.0.0.1"]) as story, browser(story.app) as client:
        await story.join()
        await cookie_session(story, client)
        for number in range(310):  # from as many addresses as any house has
            client.headers["X-Forwarded-For"] = f"2001:db8::{number:x}"
            await client.delete(f"/auth/sessions/{number}")
        client.headers["X-Forwarded-For"] = "203.0.113.7"
        body = problem(await client.post("/auth/logout-all"), 403, "csrf_refused")
        page = await story.auth.audit.recent(action="request_refused", limit=1000)
        assert body["request_id"] in {each.request_id for each in page.items}
        assert len(page.items) == 31


async def test_addresses_that_were_kept_plain_go_in_time_though_the_setting_changed(
    database_url: str,
) -> None:
    proxy: dict[str, Any] = {"trusted_proxies": ["127.0.0.1"], **QUIET}
    plain = with_audit(ip_mode="plain", ip_retention="7d")
    body = {"email": ADA, "password": ANOTHER}
    async with telling(database_url, features=plain, **proxy) as story:
        for address in ("203.0.113.7", "2001:db8::a", "::1"):
            headers = {"X-Forwarded-For": address}
            await story.client.post("/auth/login", json=body, headers=headers)
        hashed = with_audit(ip_retention="7d")
        async with neighbour(story, database_url, features=hashed, **proxy) as later:
            await later.client.post("/auth/login", json=body)
            assert len(await addresses(story)) == 4
            await later.auth.audit.erase()
            assert len(await addresses(story)) == 4
            later.move(days=8)
            while await later.auth.audit.erase():
                pass
            (left,) = await addresses(story)
            assert left.startswith("hmac:")


async def addresses(story: Story) -> list[str]:
    return [each.address for each in await entries(story) if each.address is not None]


@pytest.mark.capability("S0-95")
async def test_what_was_tried_with_an_address_is_among_what_is_about_its_owner(
    database_url: str,
) -> None:
    async with telling(database_url, trusted_proxies=["127.0.0.1"]) as story:
        await story.join()
        headers = {"X-Forwarded-For": "2001:db8::a"}
        for path, body in (
            ("password-reset-request", {"email": ADA}),
            ("login", {"email": ADA, "password": ANOTHER}),
        ):
            story.move(seconds=1)
            await story.client.post(f"/auth/{path}", json=body, headers=headers)
        audit = story.auth.audit
        tried = ["login_failed", "password_reset_requested"]
        page = await audit.user_activity(ADA)
        assert [each.action for each in page.items][:2] == tried
        assert len({each.id for each in page.items}) == len(page.items)
        found: list[str] = []
        after: str | None = None
        while True:
            page = await audit.user_activity(ADA, limit=1, after=after)
            found += [each.action for each in page.items]
            after = page.next
            if after is None:
                break
        assert found == [each.action for each in (await audit.user_activity(ADA)).items]
        for typed in ("2001:DB8:0:0::A", " 2001:0db8::000a "):
            page = await audit.address_activity(typed)
            assert [each.action for each in page.items] == tried


class Mute:
    def __str__(self) -> str:
        raise RuntimeError("says nothing")

    __repr__ = __str__


PASSED = "correct horse's \"battery"


@pytest.mark.standard("14: 16.2.5")
@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize(
    ("message", "given"),
    [
        ("%s", ({"password": PASSED.encode()},)),
        ("%s", ({"password": PASSED},)),
        ("%s", (json.dumps({"password": PASSED, "otp": 123456}),)),
        ("password = %r", (PASSED,)),
        ("GET /sign-in?next=%%2Freset%%3Fx%%3Dwwr_%s", ("battery1" * 4,)),
        ("postgresql://ada:p@battery@db.example/app %s", ("",)),
        ("password=%s", ("battery",)),
        ("password=%s %s", ("battery",)),
    ],
)
def test_no_form_of_a_secret_gets_past_the_redaction(
    form: watchword.logs.Format, message: str, given: tuple[Any, ...]
) -> None:
    written: list[str] = []
    for msg, args, extra in (
        (message, given, {}),
        (message, given, {"thing": Mute(), "much": float("nan")}),
        (Mute(), (), {}),
    ):
        record = logging.makeLogRecord({"name": "watchword.x", "msg": msg, "args": args, **extra})
        # What a formatter raises has `logging` write the record out as it is.
        written.append(watchword.logs.FORMATTERS[form]().format(record))
    assert "Mute without words" in written[1]
    assert "battery" not in "".join(written)
    assert "123456" not in "".join(written)
    if form == "json":
        for line in written:
            assert json.loads(line, parse_constant=pytest.fail)["logger"] == "watchword.x"


def test_a_formatter_of_others_finds_no_secret_in_a_traceback() -> None:
    class Anew(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            trace = self.formatException(record.exc_info) if record.exc_info else record.exc_text
            return f"{record.getMessage()} {trace}"

    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Anew())
    handler.addFilter(watchword.logs.Redaction())
    record = logging.makeLogRecord({"msg": "bad"})
    try:
        raise ValueError("password='battery'")
    except ValueError as error:
        record.exc_info = (type(error), error, error.__traceback__)
    handler.handle(record)
    assert "ValueError: password=***" in stream.getvalue()
    assert "battery" not in stream.getvalue()


async def test_a_name_whose_servers_never_answer_keeps_one_thread_and_none_of_the_loops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, answer = [], threading.Event()

    def never(host: str, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        assert threading.current_thread().name.startswith("watchword")
        answer.wait(30)
        raise socket.gaierror("nobody answers")

    sender = HttpSender(timeout=timedelta(milliseconds=100))

    async def send(host: str) -> str:
        with pytest.raises(DeliveryFailed) as failed:
            await sender.send(f"https://{host}/", b"{}", {})
        return failed.value.note

    monkeypatch.setattr(socket, "getaddrinfo", never)
    try:
        for _ in range(3):
            notes = await asyncio.gather(*(send("tarpit.example") for _ in range(20)))
            assert set(notes) == {"timeout"}
        assert asked == ["tarpit.example"]
    finally:
        answer.set()
    assert await send("nobody.example") == "gaierror"
    assert asked == ["tarpit.example", "nobody.example"]


@dataclass(frozen=True, kw_only=True)
class Told(Event):
    """Something that hooks hear of."""


@dataclass(frozen=True, kw_only=True)
class ToldOddly(Told):
    """What a hook of a kind of its own hears of."""


class Unusual(BaseException):
    """No exception as others are."""


@pytest.mark.invariant("I-04")
async def test_hooks_that_hang_or_raise_odd_things_keep_nothing_and_stop_no_other() -> None:
    events = Events()
    hooks, go_on = Hooks(events, timeout=timedelta(milliseconds=50)), threading.Event()
    heard: list[int] = []

    @hooks.on(Told, gate=False)
    def hang(_: Told) -> None:
        go_on.wait(30)

    @hooks.on(ToldOddly, gate=False)
    async def odd(_: ToldOddly) -> None:
        raise Unusual

    @hooks.on(Told, gate=False)
    async def hear(_: Told) -> None:
        heard.append(1)

    async def happen() -> "weakref.ref[Told]":
        told = Told(realm="main", at=datetime.now(UTC))
        await events.committed(told)
        return weakref.ref(told)

    try:
        told = await asyncio.gather(*(happen() for _ in range(100)))
        gc.collect()
        assert len([each for each in told if each() is not None]) <= 8, "those of hung threads"
        await events.committed(ToldOddly(realm="main", at=datetime.now(UTC)))
        assert len(heard) == 101
    finally:
        go_on.set()
    hooks.close()
    assert [hang, odd, hear]
