"""Webhooks from end to end: what happens here is heard there, signed, once or more, or given up."""

import asyncio
import json
import logging
from datetime import timedelta
from typing import Any

import pytest
from standardwebhooks.webhooks import WebhookVerificationError

from tests.features.webhooks.conftest import Serve, rows, told_of
from tests.told import ADA, PASSWORD, neighbour, telling
from watchword import Watchword
from watchword.crypto.keys import generate_secret
from watchword.features.users.events import UserDisabled
from watchword.features.webhooks import (
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEndpointDisabled,
    WebhookUndeliverable,
    webhooks,
)
from watchword.features.webhooks.errors import (
    WebhookEndpointNotFound,
    WebhookEndpointsLimited,
    WebhooksUnsealable,
)
from watchword.features.webhooks.kinds import KINDS
from watchword.features.webhooks.known import READ_EVERY
from watchword.features.webhooks.signing import new_signing_secret
from watchword.kernel.errors import InvalidInput
from watchword.kernel.events import Event
from watchword.presets import standard
from watchword.resealing import Resealing, reseal
from watchword.storage.record import schema_of
from watchword.testing.story import bearer

pytestmark = [pytest.mark.invariant("I-12"), pytest.mark.slow]


@pytest.mark.capability("DEF-31")
async def test_an_endpoint_hears_of_a_sign_in_in_a_form_that_others_verify(
    database_url: str, endpoint: Serve
) -> None:
    async with (
        endpoint() as theirs,
        told_of(database_url, theirs, "session.*") as (story, made),
    ):
        await story.join()
        pair = await story.log_in()
        await story.client.post("/auth/logout", headers=bearer(pair["access_token"]))
        assert len(await rows(story)) == 2
        assert await story.auth.webhooks.deliver_due() is False
        started, ended = sorted(
            (each.verified(made.secret.reveal()) for each in theirs.received),
            key=lambda message: message["type"],
            reverse=True,
        )
        user = await story.auth.users.find(ADA)
        assert started["type"] == "session.started"
        assert started["timestamp"].endswith("Z")
        assert set(started) == {"type", "timestamp", "data"}
        assert started["data"] == {
            "session_id": ended["data"]["session_id"],
            "user_id": user.id,
            "amr": ["pwd"],
            "transport": "bearer",
        }
        assert ended["type"] == "session.ended"
        assert ended["data"]["why"] == "logout"
        assert await rows(story) == (), "erased on delivery"
        assert theirs.received[0].path == "/hooks?of=ours"
        headers = theirs.received[0].headers
        assert headers["content-type"] == "application/json"
        assert headers["host"] == f"127.0.0.1:{theirs.port}"
        assert story.auth.webhooks.counts.delivered == 2
        with pytest.raises(WebhookVerificationError):
            theirs.received[0].verified(new_signing_secret().reveal())


@pytest.mark.invariant("I-04", "I-12")
async def test_what_is_rolled_back_is_never_heard_of(
    sql_database_url: str, endpoint: Serve
) -> None:
    async with endpoint() as theirs, told_of(sql_database_url, theirs) as (story, _):
        user = await story.auth.users.create(email=ADA)
        before = len(await rows(story))

        async def undone() -> None:
            async with story.auth.store.transaction() as tx:
                await tx.announce(UserDisabled(realm="main", at=story.clock.now(), user_id=user.id))
                assert await tx.count(WebhookDelivery) == before + 1
                raise LookupError

        with pytest.raises(LookupError):
            await undone()
        assert len(await rows(story)) == before


async def test_the_body_is_sealed_at_rest_and_opens_under_a_fresh_secret_too(
    database_url: str, endpoint: Serve
) -> None:
    async with (
        endpoint() as theirs,
        told_of(database_url, theirs, "user.created", with_email=True) as (story, made),
    ):
        await story.register()
        (row,) = await rows(story)
        assert row.body is not None
        assert row.body.startswith("v1.")
        assert ADA not in repr(row)
        stored = await story.auth.webhooks.get(made.endpoint.id)
        assert made.secret.reveal() not in repr(stored)
        for kind in (WebhookEndpoint, WebhookDelivery):
            assert schema_of(kind).sealed
        old = story.auth.core.secret
        fresh = generate_secret()
        async with neighbour(
            story, database_url, secret=fresh, old_secrets=[old], background=False
        ) as after:
            progress = Resealing()
            async for _ in reseal(
                after.auth.store,
                (WebhookEndpoint, WebhookDelivery),
                after.auth.webhooks.sealer,
                progress,
            ):
                pass
            assert (progress.resealed, progress.unreadable) == (2, [])
            await after.auth.webhooks.deliver_due()
        message = theirs.received[0].verified(made.secret.reveal())
        assert message["data"]["email"] == ADA


async def test_only_what_was_asked_for_is_kept_and_the_address_only_on_request(
    sqlite_url: str, endpoint: Serve
) -> None:
    async with endpoint() as theirs, told_of(sqlite_url, theirs, "user.created") as (story, _):
        await story.join()
        await story.log_in()
        await story.auth.webhooks.deliver_due()
        assert theirs.kinds == ["user.created"]
        assert b"ada@" not in theirs.received[0].body


async def test_an_event_that_nobody_waits_for_costs_no_query(sqlite_url: str, work: Any) -> None:
    async with telling(sqlite_url, background=False) as story:
        user = await story.auth.users.create(email=ADA)
        await story.auth.users.disable(user.id)
        with work.watched() as counter:
            await story.auth.users.enable(user.id)
        asked = [name for name in counter if "Webhook" in name]
        assert asked == []


async def test_another_worker_hears_of_a_new_endpoint(database_url: str, endpoint: Serve) -> None:
    async with endpoint() as theirs, telling(database_url, background=False) as story:
        await story.auth.users.create(email="first@example.com")  # the list is read, and empty
        async with neighbour(story, database_url, background=False) as other:
            made = await other.auth.webhooks.add(theirs.url, events=["user.*"])
        story.clock.advance(READ_EVERY)  # at the latest; the change feed is sooner
        await story.auth.users.create(email=ADA)
        await story.auth.webhooks.deliver_due()
        (received,) = theirs.received
        assert received.verified(made.secret.reveal())["type"] == "user.created"


async def test_a_failure_is_tried_again_later_each_time_under_the_same_id(
    sqlite_url: str, endpoint: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        endpoint(status="500 Oops") as theirs,
        told_of(sqlite_url, theirs, "user.created") as (story, _),
    ):
        await story.register()
        waits: list[float] = []
        for _ in range(6):
            await story.auth.webhooks.deliver_due()
            (row,) = await rows(story)
            assert row.last_error == "status 500"
            waits.append((row.due_at - story.clock.now()).total_seconds())
            story.clock.advance(row.due_at - story.clock.now() - timedelta(milliseconds=1))
            before = len(theirs.received)
            await story.auth.webhooks.deliver_due()
            assert len(theirs.received) == before, "too early"
            story.clock.advance(timedelta(milliseconds=1))
        for n, wait in enumerate(waits):
            assert 5 * 4**n * 0.79 <= wait <= 5 * 4**n * 1.21
        theirs.status = "200 OK"
        await story.auth.webhooks.deliver_due()
        assert await rows(story) == ()
        assert len({each.headers["webhook-id"] for each in theirs.received}) == 1
        assert theirs.received[-1].headers["webhook-timestamp"] == str(
            int(story.clock.now().timestamp())
        )
        counts = story.auth.webhooks.counts
        assert (counts.delivered, counts.failed, counts.dead) == (1, 6, 0)
        assert "/hooks" not in caplog.text, "an address may hold what opens something"


async def test_what_a_worker_was_at_when_it_died_is_sent_again_under_the_same_id(
    database_url: str, endpoint: Serve
) -> None:
    async with (
        endpoint(hangs=True) as theirs,
        told_of(database_url, theirs, "user.created") as (story, made),
    ):
        await story.auth.users.create(email=ADA)
        dying = asyncio.create_task(story.auth.webhooks.deliver_due())
        await theirs.has_received(1)
        dying.cancel()
        await asyncio.gather(dying, return_exceptions=True)
        theirs.hangs = False
        await story.auth.webhooks.deliver_due()
        assert len(theirs.received) == 1, "its lease is not over"
        story.move(seconds=61)
        await story.auth.webhooks.deliver_due()
        first, second = theirs.received
        assert first.headers["webhook-id"] == second.headers["webhook-id"]
        assert second.verified(made.secret.reveal())["type"] == "user.created"
        assert await rows(story) == ()


@pytest.mark.capability("S1-39")
async def test_an_operator_hears_of_a_refresh_token_that_came_twice(
    sqlite_url: str, endpoint: Serve
) -> None:
    async with (
        endpoint() as theirs,
        told_of(sqlite_url, theirs, "session.refresh_token_reused") as (story, _),
    ):
        await story.join()
        first = (await story.log_in())["refresh_token"]
        for status in (200, 401):
            answer = await story.client.post("/auth/refresh", json={"refresh_token": first})
            assert answer.status_code == status
            story.move(minutes=1)
        await story.auth.webhooks.deliver_due()
        assert theirs.kinds == ["session.refresh_token_reused"]
        assert first not in repr(theirs.received)


async def test_what_is_never_taken_becomes_a_dead_letter_without_a_body(
    database_url: str, endpoint: Serve
) -> None:
    async with (
        endpoint(status="503 Away", extra="Retry-After: 86400\r\n") as theirs,
        told_of(database_url, theirs, "user.created") as (story, made),
    ):
        heard: list[WebhookUndeliverable] = []

        @story.auth.on(WebhookUndeliverable)
        async def hear(event: WebhookUndeliverable) -> None:
            heard.append(event)

        await story.register()
        await story.auth.webhooks.deliver_due()
        (row,) = await rows(story)
        assert row.due_at - story.clock.now() == timedelta(hours=6), "what it asked for, bounded"
        while not row.is_given_up:
            story.clock.advance(row.due_at - story.clock.now())
            await story.auth.webhooks.deliver_due()
            (row,) = await rows(story)
        (dead,) = (await story.auth.webhooks.undeliverable()).items
        assert (dead.body, dead.is_given_up, dead.kind) == (None, True, "user.created")
        assert dead.last_error == "status 503"
        assert 9 <= dead.attempts <= 13, "six hours apart, more or less, for three days"
        assert [event.delivery_id for event in heard] == [dead.id]
        assert await story.auth.webhooks.retry(made.endpoint.id) == 0
        story.move(days=31)
        await story.auth.purge()
        assert await rows(story) == ()


async def test_gone_switches_an_endpoint_off(sqlite_url: str, endpoint: Serve) -> None:
    async with endpoint(status="410 Gone") as theirs, told_of(sqlite_url, theirs) as (story, made):
        heard: list[str] = []

        @story.auth.on(WebhookEndpointDisabled)
        def hear(event: WebhookEndpointDisabled) -> None:
            heard.append(event.why)

        await story.register()
        await story.auth.users.create(email="eve@example.com")
        await story.auth.webhooks.deliver_due()
        found = await story.auth.webhooks.get(made.endpoint.id)
        assert (found.is_active, found.disabled_why) == (False, "gone")
        assert heard == ["gone"]
        assert all(row.is_given_up and row.body is None for row in await rows(story))
        before = len(await rows(story))
        await story.auth.users.create(email="bob@example.com")
        assert len(await rows(story)) == before, "nothing more is kept for it"
        theirs.status = "200 OK"
        await story.auth.webhooks.enable(made.endpoint.id)
        await story.auth.users.create(email="ann@example.com")
        await story.auth.webhooks.deliver_due()
        assert theirs.kinds[-1] == "user.created"


async def test_an_endpoint_that_hangs_holds_up_no_other(sqlite_url: str, endpoint: Serve) -> None:
    async with (
        endpoint(hangs=True) as slow,
        endpoint() as quick,
        told_of(sqlite_url, slow, "user.*") as (story, _),
    ):
        await story.auth.webhooks.add(quick.url, events=["user.*"])
        for n in range(30):  # more than a batch waits for the one that hangs
            await story.auth.users.create(email=f"user{n}@example.com")
        delivering = asyncio.create_task(story.auth.webhooks.deliver_due())
        await quick.has_received(30)
        assert not delivering.done()
        assert 1 <= slow.connections <= 4, "and no more connections than it may take"
        late = await story.auth.users.create(email="late@example.com")
        await quick.has_received(31)  # while the other still hangs
        assert json.loads(quick.received[-1].body)["data"]["user_id"] == late.id
        delivering.cancel()
        await asyncio.gather(delivering, return_exceptions=True)


@pytest.mark.invariant("I-24")
async def test_two_workers_at_once_send_each_once(database_url: str, endpoint: Serve) -> None:
    async with endpoint() as theirs, told_of(database_url, theirs, "user.*") as (story, _):
        for n in range(10):
            await story.auth.users.create(email=f"user{n}@example.com")
        async with neighbour(story, database_url, background=False) as other:
            await asyncio.gather(
                story.auth.webhooks.deliver_due(), other.auth.webhooks.deliver_due()
            )
        assert len(theirs.received) == 10
        assert await rows(story) == ()


async def test_after_a_rotation_both_secrets_verify_until_the_overlap_is_over(
    sqlite_url: str, endpoint: Serve
) -> None:
    async with endpoint() as theirs, told_of(sqlite_url, theirs, "user.*") as (story, made):
        renewed = await story.auth.webhooks.rotate(made.endpoint.id)
        await story.register()
        await story.auth.webhooks.deliver_due()
        for secret in (made.secret, renewed.secret):
            assert theirs.received[-1].verified(secret.reveal())
        story.move(hours=25)
        await story.auth.users.create(email="late@example.com")
        await story.auth.webhooks.deliver_due()
        last = theirs.received[-1]
        assert len(last.headers["webhook-signature"].split()) == 1
        assert await story.auth.webhooks.test(made.endpoint.id) == 204


async def test_a_removed_endpoint_takes_what_waits_with_it(
    database_url: str, endpoint: Serve
) -> None:
    async with endpoint() as theirs, told_of(database_url, theirs) as (story, made):
        await story.register()
        await story.auth.webhooks.remove(made.endpoint.id)
        assert await rows(story) == ()
        await story.auth.webhooks.deliver_due()
        assert theirs.received == []
        for verb in (
            story.auth.webhooks.remove,
            story.auth.webhooks.rotate,
            story.auth.webhooks.test,
            story.auth.webhooks.retry,
            story.auth.webhooks.disable,
        ):
            with pytest.raises(WebhookEndpointNotFound):
                await verb(made.endpoint.id)


async def test_without_the_servers_secret_nothing_that_endpoints_wait_for_is_done(
    sqlite_url: str, endpoint: Serve
) -> None:
    async with endpoint() as theirs, told_of(sqlite_url, theirs, "user.*") as (story, _):
        user = await story.auth.users.create(email=ADA)
        kept = len(await rows(story))
        # As a command that was run without the secret: its App is wired and never started.
        other = Watchword(
            sqlite_url, environment="development", secret=generate_secret(), environ={}
        )
        await other.connect()
        try:
            with pytest.raises(WebhooksUnsealable):
                await other.users.disable(user.id)
        finally:
            await other.disconnect()
        assert (await story.auth.users.find(ADA)).is_active
        assert len(await rows(story)) == kept


async def test_there_are_never_more_endpoints_than_may_be(sqlite_url: str, endpoint: Serve) -> None:
    features = [each for each in standard() if each.name not in {"webhooks", "limits", "lockout"}]
    async with (
        endpoint() as theirs,
        telling(sqlite_url, features=[*features, webhooks(max_endpoints=2)]) as story,
    ):
        tries = [story.auth.webhooks.add(theirs.url, events=["*"]) for _ in range(4)]
        ends = await asyncio.gather(*tries, return_exceptions=True)
        assert any(isinstance(end, WebhookEndpointsLimited) for end in ends)
        assert await story.auth.store.count(WebhookEndpoint) <= 2


@pytest.mark.parametrize("events", [[], ["user"], ["users.*"], ["user.*.x"], ["session.begun"]])
async def test_kinds_that_there_are_not_are_refused(sqlite_url: str, events: list[str]) -> None:
    async with telling(sqlite_url) as story:
        with pytest.raises(InvalidInput) as refused:
            await story.auth.webhooks.add("https://hooks.example.com/", events=events)
        assert {fault.field for fault in refused.value.faults} == {"events"}


NOT_SENT = {
    # Of strangers' making, without end:
    "RequestRefused",
    "RegistrationRepeated",
    "LimitReached",
    "PasswordResetRequested",
    "VerificationRequested",
    # Every few minutes of every session:
    "TokenRefreshed",
    "TokenExpired",
    # Ours alone:
    "MailQueued",
    "SessionCarried",
    "SignInProven",  # a question, not an event
}


def test_of_every_event_it_is_said_whether_it_leaves_and_which_fields_do() -> None:
    def below(kind: type[Event]) -> set[type[Event]]:
        return {kind}.union(*map(below, kind.__subclasses__()))

    found = below(Event)
    bases = {base.__name__ for each in found for base in each.__bases__}
    ours = {
        each.__name__: each
        for each in found
        if each.__module__.startswith("watchword.")
        and each.__module__ != "watchword.features.webhooks.events"
        and each.__name__ not in bases
    }
    unsaid = set(ours) - set(KINDS) - NOT_SENT
    assert not unsaid, f"say in kinds.py what is sent of {sorted(unsaid)}, or here that nothing is"
    for name, kind in KINDS.items():
        fields = set(ours[name].__dataclass_fields__)
        assert set(kind.fields) <= fields, name
        assert not {"email", "user_agent", "address", "note"} & set(kind.fields)
    assert len({kind.name for kind in KINDS.values()}) == len(KINDS)


async def test_nothing_of_it_is_logged_but_ids(
    sqlite_url: str, endpoint: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with (
        endpoint(status="418 wwr_canary-of-the-server-0123456789") as theirs,
        told_of(sqlite_url, theirs, with_email=True) as (story, made),
    ):
        await story.register()
        await story.auth.webhooks.deliver_due()
        said = [
            record.getMessage() for record in caplog.records if record.name.startswith("watchword")
        ]
        assert any("status 418" in line for line in said)
        for canary in (made.secret.reveal(), ADA, PASSWORD, "canary-of-the-server"):
            assert not any(canary in line for line in said)
