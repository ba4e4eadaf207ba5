"""Attacks that once worked on stores: the feed, writes without transactions, adopted tables."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from contextvars import Context
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from tests.features.users.test_adoption import ROWS, TABLES, adopted, by_reset, with_members
from tests.stores.opened import store_of
from tests.stores.test_adoption import Person, driving, host, rows, run
from tests.told import ADA, ANOTHER, EVE, PASSWORD, PRODUCTION, Story, problem, telling
from watchword.background import Background
from watchword.features.email_change.records import EmailUndo
from watchword.features.email_change.service import EmailChanges
from watchword.features.keys.records import StoredKey
from watchword.features.passwords.events import PasswordChanged
from watchword.features.passwords.records import Password
from watchword.features.users import User, UserDeleted
from watchword.features.users.records import UserIntent
from watchword.kernel.clock import SystemClock
from watchword.kernel.errors import InvalidToken, StoreUnavailable, UserAlreadyExists
from watchword.kernel.feature import Job
from watchword.kernel.secrets import digest_of
from watchword.server.metrics import metrics
from watchword.starting import driver_of
from watchword.storage.feed import Change, Feed, Follower, Waker
from watchword.storage.following import Following
from watchword.storage.leases import Lease, Leases
from watchword.storage.store import Paging, Store, where
from watchword.testing.story import bearer

VICTIM, THIEF = "victim@corp.example", "thief@evil.example"
LATER = timedelta(seconds=31)


class Stopped(BaseException):
    """The process stops here. Not an Exception: nothing of ours may catch it."""


async def asks_to_move(story: Story, token: str, new_email: str) -> None:
    body = {"new_email": new_email, "current_password": PASSWORD}
    asked = await story.client.post("/auth/email/change", json=body, headers=bearer(token))
    assert asked.status_code == 202
    await story.mails()


async def confirms(story: Story, token: str, new_email: str) -> httpx.Response:
    body = {"token": story.outbox.token(new_email, "wwe")}
    return await story.client.post("/auth/email/confirm", json=body, headers=bearer(token))


# Without transactions


@pytest.mark.invariant("I-13", "I-19")
async def test_a_move_that_is_taken_back_proves_no_address(database_url: str) -> None:
    """The compensation gave the former address back as proven, which it never had been."""
    async with telling(database_url) as story:
        await story.join(THIEF)
        held = (await story.log_in(THIEF))["access_token"]
        await asks_to_move(story, held, "other@evil.example")
        (await confirms(story, held, "other@evil.example")).raise_for_status()
        # Now THIEF is kept for an undo. A second account has the victim's address, unproven.
        (await story.register(VICTIM)).raise_for_status()
        squatting = (await story.log_in(VICTIM))["access_token"]
        await asks_to_move(story, squatting, THIEF)
        problem(await confirms(story, squatting, THIEF), 401, "invalid_token")
        squatter = await story.auth.users.find(VICTIM)
        assert not squatter.is_verified


async def undo_of(story: Story, user: User) -> EmailUndo:
    """An address that may be taken back, and a token for it."""
    now = story.clock.now()
    undo = EmailUndo(
        realm="main",
        id="undo",
        user_id=user.id,
        digest=digest_of("wwu_token", purpose="undo_email"),
        email=VICTIM,
        email_key=VICTIM,
        epoch=user.epoch,
        expires_at=now + timedelta(hours=1),
    )
    await story.auth.store.insert(undo)
    return undo


@pytest.mark.invariant("I-15", "I-19")
@pytest.mark.parametrize("step", ["hold", "_end"])
async def test_a_reset_that_an_undo_overtakes_leaves_no_password(
    mongo_url: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever had taken the account reset its password while its owner took it back."""
    async with telling(mongo_url) as story:
        await story.join(THIEF)  # the address that the account was moved to
        user = await story.auth.users.find(THIEF)
        await undo_of(story, user)
        body = {"email": THIEF}
        (await story.client.post("/auth/password-reset-request", json=body)).raise_for_status()
        await story.mails()
        token = story.outbox.token(THIEF, "wwp")
        real = getattr(type(story.auth.users), step)
        done: list[bool] = []

        async def overtaken(self: Any, *args: Any, **named: Any) -> Any:
            answer = await real(self, *args, **named)
            if not done:
                done.append(True)
                undoing = story.auth.feature(EmailChanges).undo("wwu_token")
                await asyncio.create_task(undoing, context=Context())
            return answer

        put: list[PasswordChanged] = []

        async def notice(_: Store, event: PasswordChanged) -> None:
            put.append(event)

        story.auth.events.join(PasswordChanged, notice)
        monkeypatch.setattr(type(story.auth.users), step, overtaken)
        with pytest.raises(InvalidToken):
            await story.auth.recovery.reset(token, new_password=ANOTHER)
        assert done
        assert len(put) == (step == "_end"), "not even for a moment, where it can be known"
        restored = await story.auth.users.find(VICTIM)
        assert restored.id == user.id
        assert await story.auth.store.get(Password, user_id=user.id) is None
        answer = await story.client.post("/auth/login", json={"email": VICTIM, "password": ANOTHER})
        assert answer.status_code == 401


@pytest.mark.invariant("I-19", "I-24")
@pytest.mark.parametrize("purpose", ["delete", "end"])
async def test_what_was_left_is_completed_on_nobody_who_came_later(
    mongo_url: str, purpose: str
) -> None:
    """An application used the id once more, and a worker deleted the new user."""
    async with telling(mongo_url) as story:
        await story.auth.users.create(email=ADA, id="42")
        real_take = Store.take

        async def stop(self: Store, kind: type, /, **conditions: object) -> Any:
            if kind is UserIntent:
                raise Stopped
            return await real_take(self, kind, **conditions)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Store, "take", stop)
            with pytest.raises(Stopped):
                await story.auth.users.delete("42")
        [left] = (await story.auth.store.find(UserIntent, Paging(order=("id",)))).items
        await story.auth.store.update(UserIntent, where(id=left.id), purpose=purpose)
        story.move(seconds=1)
        eve = await story.auth.users.create(email=EVE, id="42")
        story.clock.advance(LATER)
        await story.auth.users.finish()
        assert await story.auth.store.count(UserIntent) == 0
        assert (await story.auth.users.find(EVE)).epoch == eve.epoch


@pytest.mark.invariant("I-01", "I-24")
async def test_what_cannot_be_completed_holds_up_nothing_else(
    mongo_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One deletion that fails for ever kept epochs from being raised, and grew at every turn."""
    async with telling(mongo_url) as story:
        await story.join(EVE)
        await story.join(ADA)
        eve, ada = [await story.auth.users.find(each) for each in (EVE, ADA)]

        async def refuse(_: Store, event: UserDeleted) -> None:
            raise RuntimeError("a partner of the application's own")

        story.auth.events.join(UserDeleted, refuse)
        with pytest.raises(RuntimeError):
            await story.auth.users.delete(eve.id)
        story.move(seconds=1)

        async def stop(*_: object, **__: object) -> int:
            raise Stopped

        async def half() -> None:
            async with story.auth.users.ending(ada.id, why="tested"):
                pass

        with monkeypatch.context() as patched:
            patched.setattr(type(story.auth.users), "_raise", stop)
            with pytest.raises(Stopped):
                await half()
        between = (await story.log_in(ADA))["access_token"]
        for _ in range(3):
            story.clock.advance(LATER)
            await story.auth.users.finish()
        problem(await story.me(between), 401, "revoked_token")
        assert await story.auth.store.count(UserIntent) == 1


@pytest.mark.invariant("I-24")
async def test_of_two_workers_one_completes_what_was_left(
    mongo_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slower one ended sessions that had begun since."""
    async with telling(mongo_url) as story:
        await story.join()
        user = await story.auth.users.find(ADA)

        async def stop(*_: object, **__: object) -> int:
            raise Stopped

        async def half() -> None:
            async with story.auth.users.ending(user.id, why="tested"):
                pass

        with monkeypatch.context() as patched:
            patched.setattr(type(story.auth.users), "_raise", stop)
            with pytest.raises(Stopped):
                await half()
        story.clock.advance(LATER)
        before = (await story.auth.users.find(ADA)).epoch
        real = Store.find

        async def slow(self: Store, kind: type, paging: Paging, /, **conditions: object) -> Any:
            found = await real(self, kind, paging, **conditions)
            if kind is UserIntent:
                await asyncio.sleep(0.2)  # until all have seen it
            return found

        monkeypatch.setattr(Store, "find", slow)
        await asyncio.gather(*(story.auth.users.finish() for _ in range(5)))
        assert (await story.auth.users.find(ADA)).epoch == before + 1


async def test_a_user_that_is_there_gets_no_password_from_one_who_is_refused(
    mongo_url: str,
) -> None:
    """Another's id was given: their account had the stranger's password for a moment."""
    async with telling(mongo_url) as story:
        await story.auth.users.create(email=ADA, id="42", is_verified=True)
        seen: list[object] = []
        real = Store.insert

        async def spied(self: Store, record: Any) -> Any:
            if isinstance(record, Password):
                seen.append(record)
            return await real(self, record)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Store, "insert", spied)
            with pytest.raises(UserAlreadyExists):
                await story.auth.passwords.create_user(email=EVE, password=ANOTHER, id="42")
        assert not seen
        await story.auth.passwords.set("42", PASSWORD)
        with pytest.raises(UserAlreadyExists):
            await story.auth.passwords.create_user(email=EVE, password=ANOTHER, id="42")
        await story.auth.passwords.withdraw(story.auth.store, "42", "what was set before")
        await story.log_in(ADA)


async def test_a_reset_that_a_deletion_overtakes_leaves_no_password(
    mongo_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deleted user's password waited for whoever got their id next."""
    async with telling(mongo_url) as story:
        await story.join()
        user = await story.auth.users.find(ADA)
        body = {"email": ADA}
        (await story.client.post("/auth/password-reset-request", json=body)).raise_for_status()
        await story.mails()
        token = story.outbox.token(ADA, "wwp")
        real = type(story.auth.users)._end
        done: list[bool] = []

        async def overtaken(self: Any, *args: Any, **named: Any) -> Any:
            answer = await real(self, *args, **named)
            if not done:
                done.append(True)
                deleting = story.auth.users.delete(user.id)
                await asyncio.create_task(deleting, context=Context())
            return answer

        monkeypatch.setattr(type(story.auth.users), "_end", overtaken)
        reset = {"token": token, "new_password": ANOTHER}
        answer = await story.client.post("/auth/password-reset", json=reset)
        problem(answer, 401, "invalid_token")
        for kind in (User, Password, UserIntent):
            assert await story.auth.store.count(kind) == 0


# The change feed


class Counted:
    """A follower whose reads are counted."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        self.reads = 0

    async def begin(self) -> None:
        await self._follower.begin()

    async def read(self) -> Sequence[Change]:
        self.reads += 1
        return await self._follower.read()

    async def close(self) -> None:
        await self._follower.close()


class CountedFeed:
    """A driver's feed, with one follower."""

    is_coherent = True

    def __init__(self, feed: Feed) -> None:
        self.follower = Counted(feed.follow("main"))

    def follow(self, realm: str) -> Follower:
        assert realm == "main"
        return self.follower

    def waker(self) -> Waker | None:
        return None


class Odd:
    """A waker of somebody else's."""

    name = "odd"

    def __init__(self, opens: Sequence[bool | Exception], waits: Exception | None) -> None:
        self._opens, self._waits = list(opens), waits

    async def open(self) -> bool:
        answer = self._opens.pop(0) if len(self._opens) > 1 else self._opens[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def hint(self) -> None:
        """Nobody hears."""

    async def wait(self) -> None:
        if self._waits is not None:
            raise self._waits

    async def close(self) -> None:
        """Nothing is held."""


@asynccontextmanager
async def followed(url: str, waker: Odd) -> AsyncGenerator[tuple[Following, Counted]]:
    """A feed that is followed by a worker with this waker."""
    driver = driver_of(url)
    await driver.open((Change,))
    assert driver.feed is not None
    feed = CountedFeed(driver.feed)
    following = Following(
        clock=SystemClock(),
        feed=feed,
        realm="main",
        bound=timedelta(seconds=2),
        wakers=[waker],
        evict=lambda _: None,
        empty=lambda: None,
        fresh=lambda _: None,
    )
    await following.begin()
    running = asyncio.create_task(following.run())
    try:
        yield following, feed.follower
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await following.close()
        await driver.close()


@pytest.mark.invariant("I-08")
async def test_a_waker_that_fails_otherwise_is_deaf_too(sqlite_url: str) -> None:
    """It was asked again at once, for ever: every worker read the feed as fast as it could."""
    async with followed(sqlite_url, Odd([True], RuntimeError())) as (following, follower):
        await asyncio.sleep(0.4)
        assert follower.reads <= 2
        assert following.status.deaf == ("odd",)


@pytest.mark.invariant("I-08")
async def test_a_waker_that_cannot_be_opened_is_tried_again_whatever_it_raised(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was not said by a store ended the trying without a word, for all wakers."""
    monkeypatch.setattr("watchword.storage.following._TRIED_AGAIN", 0.01)
    waker = Odd([False, RuntimeError(), StoreUnavailable(), True], None)
    async with followed(sqlite_url, waker) as (following, _), asyncio.timeout(5):
        while following.status.wakers != ("odd",):  # noqa: ASYNC110  it tells nobody
            await asyncio.sleep(0.01)


async def test_many_hints_do_not_make_every_worker_read_as_often(sqlite_url: str) -> None:
    """One user who changed their settings in a loop kept all workers reading without a pause."""
    async with followed(sqlite_url, Odd([True], None)) as (_, follower):
        await asyncio.sleep(0.5)
        assert 10 < follower.reads <= 100


@pytest.mark.invariant("I-08", "I-16", "I-25")
async def test_what_was_missed_in_a_gap_of_the_feed_is_kept_by_nobody(fed_url: str) -> None:
    """The cache was emptied; the ring of keys, which hears of changes too, was left as it was."""
    async with telling(fed_url) as story:
        await story.join()
        token = (await story.log_in())["access_token"]
        assert (await story.me(token)).status_code == 200
        [key] = (await story.auth.store.find(StoredKey, Paging(order=("kid",)))).items
        # As if its change row had come in the gap: state without a word.
        await story.auth.store.update(StoredKey, where(kid=key.kid), state="revoked")
        following = story.auth.following
        assert following is not None
        await following._follower.close()
        until = time.monotonic() + 5
        while (await story.me(token)).status_code == 200:
            assert time.monotonic() < until, "still believed"
            await asyncio.sleep(0.02)


@pytest.mark.invariant("I-09", "I-16")
async def test_a_read_of_the_keys_that_a_change_overtook_is_read_again(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change was noticed, and forgotten when the older read came back: for 30 s."""
    async with telling(sqlite_url) as story:
        await story.join()
        token = (await story.log_in())["access_token"]
        [key] = (await story.auth.store.find(StoredKey, Paging(order=("kid",)))).items
        has_read, go_on = asyncio.Event(), asyncio.Event()
        real = Store.find

        async def slow(self: Store, kind: type, paging: Paging, /, **conditions: object) -> Any:
            found = await real(self, kind, paging, **conditions)
            if kind is StoredKey and not has_read.is_set():
                has_read.set()
                await go_on.wait()
            return found

        monkeypatch.setattr(Store, "find", slow)
        story.move(seconds=31)  # the ring is due
        asking = asyncio.create_task(story.me(token))
        await has_read.wait()
        await story.auth.store.update(StoredKey, where(kid=key.kid), state="revoked")
        story.auth.events.evict_subjects((("key", key.kid),))
        go_on.set()
        await asking
        problem(await story.me(token), 401, "invalid_token")


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def fed_url(request: pytest.FixtureRequest) -> str:
    """A store whose change rows commit with the state they report."""
    url: str = request.getfixturevalue(request.param)
    return url


async def test_work_that_fails_at_its_holder_is_done_by_another(sqlite_url: str) -> None:
    """One worker that cannot reach the mail server kept the lease, and nobody sent anything."""
    failed, ran = asyncio.Event(), asyncio.Event()

    async def fail() -> bool:
        failed.set()
        raise OSError

    async def work() -> bool:
        ran.set()
        return False

    driver = driver_of(sqlite_url)
    await driver.open((Lease,))
    store, every = store_of(driver), timedelta(seconds=0.1)
    crew: list[Background] = []
    for run_ in (fail, work):
        leases = Leases(store=store, clock=SystemClock())
        crew.append(Background([Job(name="outbox", every=every, run=run_)], leases))
    try:
        async with asyncio.timeout(10):
            crew[0].start()
            await failed.wait()
            await asyncio.sleep(0.05)
            crew[1].start()
            await ran.wait()
    finally:
        for each in crew:
            await each.stop()
        await driver.close()


# Tables of the application's own


@pytest.mark.parametrize("mail", ["a\x00b@example.com", b"ada@example.com", 5])
async def test_a_row_that_holds_no_text_holds_up_nobody(sqlite_url: str, mail: object) -> None:
    """One sign-up at the application's own form, and no migration went through any more."""
    people = "CREATE TABLE people (id VARCHAR(40) PRIMARY KEY, email NVARCHAR BLOB)"
    async with host(sqlite_url, people) as engine, driving(sqlite_url) as made:
        await run(engine, "INSERT INTO people VALUES ('good', 'good@example.com')")
        async with engine.begin() as connection:
            put = text("INSERT INTO people VALUES ('odd', :mail)")
            await connection.execute(put, {"mail": mail})
        [told] = [step for step in await made.plan([Person]) if "cannot be users" in step]
        assert "odd" in told
        await made.migrate([Person], skip_faulty=True)
        assert await made.plan([Person]) == ()
        keys = await rows(engine, "SELECT watchword_email_key FROM people ORDER BY id")
        assert keys == [("good@example.com",), ("faulty: odd",)]
        store = store_of(made)
        odd = await store.get(Person, id="odd")
        assert odd is not None
        await store.find(Person, Paging(order=("created_at", "id")))


@pytest.mark.invariant("I-01")
@pytest.mark.parametrize("what", ["password", "undo"])
async def test_whoever_gets_a_used_id_gets_no_credential_of_its_last_bearer(
    sql_database_url: str, what: str
) -> None:
    """The application deleted a row itself; the next of that number had the old password."""
    async with host(sql_database_url, TABLES, ROWS) as engine:
        await adopted(sql_database_url)
        async with telling(sql_database_url, features=with_members()) as story:
            await by_reset(story, EVE, PASSWORD)
            eve = await story.auth.users.find(EVE)
            await undo_of(story, eve)
            await run(engine, "DELETE FROM members WHERE id = 2")
            await run(engine, "INSERT INTO members (id, mail) VALUES (2, 'bob@example.com')")
            await story.auth.driver.migrate(story.auth.records)
            assert (await story.auth.users.find("bob@example.com")).id == "2"
            if what == "password":
                body = {"email": "bob@example.com", "password": PASSWORD}
                assert (await story.client.post("/auth/login", json=body)).status_code == 401
            else:
                with pytest.raises(InvalidToken):
                    await story.auth.feature(EmailChanges).undo("wwu_token")


# Who may know


@pytest.mark.invariant("I-22")
@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "accounts.example.com"},
        {"X-Forwarded-Proto": "https"},
        {"X-Forwarded-Host": "accounts.example.com"},
        {"X-Client-IP": "203.0.113.7"},
        {"CF-Connecting-IP": "203.0.113.7"},
    ],
)
async def test_a_proxy_on_this_machine_that_forwards_little_is_known_all_the_same(
    headers: dict[str, str],
) -> None:
    """nginx as it comes, and most lines of it in the wild, send no X-Forwarded-For."""
    async with telling(**PRODUCTION) as story:
        story.app.include_router(metrics(story.auth))
        local = httpx.ASGITransport(app=story.app, client=("127.0.0.1", 1))
        async with httpx.AsyncClient(transport=local, base_url="http://localhost") as near:
            assert (await near.get("/metrics")).status_code == 200
            assert (await near.get("/metrics", headers=headers)).status_code == 404
