"""Where a database has no transactions: what a stop between two writes leaves, and who mends it."""

import asyncio
from contextvars import Context
from datetime import timedelta
from typing import Any

import pytest

from tests.told import ADA, ANOTHER, PASSWORD, problem, telling
from watchword.features.passwords.records import Password
from watchword.features.sessions import Session
from watchword.features.users import User, UserDeleted
from watchword.features.users.records import UserIntent
from watchword.kernel.errors import InvalidCredentials
from watchword.storage.store import Store
from watchword.testing.story import bearer

LATER = timedelta(seconds=31)


class Stopped(BaseException):
    """The process stops here. Not an Exception: nothing of ours may catch it."""


@pytest.mark.invariant("I-01")
async def test_a_deletion_that_was_interrupted_is_completed(mongo_url: str) -> None:
    async with telling(mongo_url) as story:
        await story.join()
        token = (await story.log_in())["access_token"]
        user = await story.auth.users.find(ADA)
        stops = [True]

        async def stop(_: Store, __: UserDeleted) -> None:
            if stops.pop():
                stops.append(False)
                raise Stopped

        story.auth.events.join(UserDeleted, stop)
        with pytest.raises(Stopped):
            await story.auth.users.delete(user.id)
        problem(await story.me(token), 401, "revoked_token")
        assert await story.auth.store.count(User) == 1
        assert not await story.auth.users.finish(), "too early: perhaps it is still at it"
        assert await story.auth.store.count(User) == 1
        story.clock.advance(LATER)
        await story.auth.users.finish()
        for kind in (User, Password, Session, UserIntent):
            assert await story.auth.store.count(kind) == 0
        assert (await story.register()).status_code == 201


@pytest.mark.invariant("I-01")
async def test_a_session_from_the_middle_of_a_change_dies_with_its_end(mongo_url: str) -> None:
    """Whoever signs in with the old password after the first raise begins under that epoch."""
    async with telling(mongo_url) as story:
        await story.join()
        user = await story.auth.users.find(ADA)
        async with story.auth.users.ending(user.id, why="tested") as ending:
            # Another request: none of ours is in a transaction while it hashes.
            signing_in = asyncio.create_task(story.log_in(), context=Context())
            between = (await signing_in)["access_token"]
            assert (await story.me(between)).status_code == 200
            assert await story.auth.store.count(UserIntent) == 1
        assert ending.raises == 2
        assert ending.epoch == user.epoch + 2
        assert await story.auth.store.count(UserIntent) == 0
        story.move(seconds=2)
        problem(await story.me(between), 401, "revoked_token")


@pytest.mark.invariant("I-01")
async def test_a_worker_raises_the_epoch_for_whoever_stopped_in_the_middle(
    mongo_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
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
        between = (await story.log_in())["access_token"]
        story.clock.advance(LATER)
        await story.auth.users.finish()
        problem(await story.me(between), 401, "revoked_token")
        assert await story.auth.store.count(UserIntent) == 0


@pytest.mark.invariant("I-01")
async def test_with_transactions_one_raise_is_enough_and_no_intent_is_left(
    sql_database_url: str,
) -> None:
    async with telling(sql_database_url) as story:
        await story.join()
        user = await story.auth.users.find(ADA)
        async with story.auth.users.ending(user.id, why="tested") as ending:
            pass
        assert (ending.raises, ending.epoch) == (1, user.epoch + 1)
        assert await story.auth.store.count(UserIntent) == 0


@pytest.mark.invariant("I-05")
async def test_of_two_changes_one_finds_the_epoch_it_rests_on(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.join()
        user = await story.auth.users.find(ADA)
        await story.auth.users.end_all(user.id, why="tested")
        stale: dict[str, Any] = {"current": PASSWORD, "new": ANOTHER, "keep_session": None}
        with pytest.raises(InvalidCredentials):
            await story.auth.passwords.change(user, **stale)
        now = await story.auth.users.find(ADA)
        assert now.epoch == user.epoch + 1, "a change that was not made ended what is alive"
        assert await story.auth.store.count(UserIntent) == 0


async def test_a_registration_that_is_refused_leaves_nothing(database_url: str) -> None:
    async with telling(database_url) as story:
        await story.join()
        pair = await story.log_in()
        body = {"new_email": "countess@example.com", "current_password": PASSWORD}
        own = bearer(pair["access_token"])
        (await story.client.post("/auth/email/change", json=body, headers=own)).raise_for_status()
        await story.mails()
        token = {"token": story.outbox.token("countess@example.com", "wwe")}
        answer = await story.client.post("/auth/email/confirm", json=token, headers=own)
        answer.raise_for_status()
        # Her former address is kept for the undo: a partner of the registration refuses it.
        problem(await story.register(ADA), 409, "user_already_exists")
        assert await story.auth.store.count(User) == 1
        assert await story.auth.store.count(Password) == 1
