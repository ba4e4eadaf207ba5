"""Several workers behave as one: what ends at one is refused at the others (I-06 to I-10)."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import httpx
import pytest

from tests.told import ADA, ANOTHER, PASSWORD, Story, neighbour, telling
from watchword import Watchword
from watchword.features.sessions import sessions
from watchword.kernel.errors import ConfigurationError
from watchword.server.metrics import metrics
from watchword.storage.feed import Change
from watchword.storage.following import Following
from watchword.testing.story import bearer, without_limits

HEARD_WITHIN = 5.0  # seconds of real time; milliseconds as a rule


@pytest.fixture(params=["sqlite", "postgresql"])
def fed_url(request: pytest.FixtureRequest) -> str:
    """A store whose change rows commit with the state they report."""
    name = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    url: str = request.getfixturevalue(name)
    return url


def following_of(story: Story) -> Following:
    following = story.auth.following
    assert following is not None
    return following


async def kept_at(other: Story, token: str) -> None:
    """Ask twice: the second answer comes from the cache."""
    for _ in range(2):
        assert (await other.me(token)).status_code == 200
    assert len(other.auth.cache) > 0
    hits = other.auth.cache.hits
    assert (await other.me(token)).status_code == 200
    assert other.auth.cache.hits == hits + 1


async def refused(other: Story, token: str) -> float:
    """Wait until it is, though this worker's clock stands still; the seconds it took."""
    began = time.monotonic()
    while (await other.me(token)).status_code == 200:
        assert time.monotonic() - began < HEARD_WITHIN, "still believed"
        await asyncio.sleep(0.001)
    return time.monotonic() - began


async def log_out(story: Story, token: str) -> None:
    (await story.client.post("/auth/logout", headers=bearer(token))).raise_for_status()


async def disable(story: Story, _: str) -> None:
    await story.auth.users.disable((await story.auth.users.find(ADA)).id)


async def delete(story: Story, _: str) -> None:
    await story.auth.users.delete((await story.auth.users.find(ADA)).id)


async def change_password(story: Story, token: str) -> None:
    body = {"current_password": PASSWORD, "new_password": ANOTHER}
    another = await story.log_in()
    answer = await story.client.post(
        "/auth/password/change", json=body, headers=bearer(another["access_token"])
    )
    answer.raise_for_status()
    assert token != another["access_token"]


@pytest.mark.invariant("I-01", "I-06", "I-07")
@pytest.mark.capability("DEF-02")
@pytest.mark.parametrize("ending", [log_out, disable, delete, change_password])
async def test_what_ends_at_one_worker_is_refused_at_the_others_without_waiting(
    fed_url: str, ending: Callable[[Story, str], Awaitable[None]]
) -> None:
    async with telling(fed_url) as story, neighbour(story, fed_url) as other:
        await story.join()
        token = (await story.log_in())["access_token"]
        await kept_at(other, token)
        await ending(story, token)
        await refused(other, token)
        lags = following_of(other).status.lags
        assert lags.count > 0


async def test_a_change_of_a_user_is_seen_at_the_others(fed_url: str) -> None:
    async with telling(fed_url) as story, neighbour(story, fed_url) as other:
        await story.join()
        token = (await story.log_in())["access_token"]
        await kept_at(other, token)
        user = await story.auth.users.find(ADA)
        await story.auth.users.change(user.id, username="Countess")
        until = time.monotonic() + HEARD_WITHIN
        while (await other.me(token)).json()["username"] != "Countess":
            assert time.monotonic() < until
            await asyncio.sleep(0.001)


@pytest.mark.invariant("I-07")
async def test_what_was_rolled_back_evicts_nobody(fed_url: str) -> None:
    async with telling(fed_url) as story, neighbour(story, fed_url) as other:
        await story.join()
        token = (await story.log_in())["access_token"]
        user = await story.auth.users.find(ADA)
        await kept_at(other, token)

        async def undone() -> None:
            async with story.auth.store.transaction() as tx:
                await story.auth.users.within(tx).end_all(user.id, why="tried")
                raise ZeroDivisionError

        await asyncio.sleep(0.7)  # longer than a quarter of the bound: all before was heard
        heard = following_of(other).status.lags.count
        with pytest.raises(ZeroDivisionError):
            await undone()
        await asyncio.sleep(0.7)
        assert following_of(other).status.lags.count == heard
        assert (await other.me(token)).status_code == 200


@pytest.mark.invariant("I-08")
async def test_a_worker_that_no_longer_reads_believes_nothing_after_the_bound(
    fed_url: str,
) -> None:
    async with telling(fed_url) as story, neighbour(story, fed_url) as other:
        await story.join()
        token = (await story.log_in())["access_token"]
        await kept_at(other, token)
        await silence(other)
        await log_out(story, token)
        await asyncio.sleep(0.7)
        assert (await other.me(token)).status_code == 200, "the test means nothing: it heard"
        other.clock.advance(other.auth.core.feed_bound)
        assert (await other.me(token)).status_code == 401
        assert not following_of(other).status.is_fresh
        assert (await story.log_in(client=other.client))["access_token"]
        assert len(other.auth.cache) == 0, "kept by a worker that hears nothing"


async def silence(other: Story) -> None:
    """Stop its following, as if its loop never came to it."""
    task = other.auth._listening
    assert task is not None
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.invariant("I-08")
async def test_a_deaf_listener_is_found_out_and_rows_are_polled(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Through a pooler LISTEN succeeds and hears nothing."""
    listen = asyncpg.Connection.add_listener

    async def deaf(self: Any, channel: str, callback: Any) -> None:
        await listen(self, f"{channel}_of_another_server", callback)

    async with telling(postgres_url) as story:
        await story.join()
        token = (await story.log_in())["access_token"]
        monkeypatch.setattr(asyncpg.Connection, "add_listener", deaf)
        async with neighbour(story, postgres_url) as other:
            status = following_of(other).status
            assert status.wakers == ()
            assert status.deaf == ("notify",)
            assert "does not wake this worker" in caplog.text
            await kept_at(other, token)
            await log_out(story, token)
            assert await refused(other, token) < 2


@pytest.mark.invariant("I-07", "I-08")
async def test_what_was_missed_while_the_feed_was_lost_is_not_believed(
    postgres_url: str,
) -> None:
    async with telling(postgres_url) as story, neighbour(story, postgres_url) as other:
        await story.join()
        token = (await story.log_in())["access_token"]
        await kept_at(other, token)
        await silence(other)
        await log_out(story, token)
        # Its rows are gone before it reads again: only the empty cache saves it.
        assert await story.auth.store.erase(Change) > 0
        connection = await asyncpg.connect(postgres_url)
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await connection.close()
        following = following_of(other)
        running = asyncio.create_task(following.run())
        try:
            await refused(other, token)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@pytest.mark.invariant("I-06")
async def test_how_long_an_identity_is_believed_follows_from_the_store(
    database_url: str,
) -> None:
    async with telling(database_url) as story:
        feed = story.auth.driver.feed
        longest = 30 if feed is not None and feed.is_coherent else 2
        await story.join()
        token = (await story.log_in())["access_token"]
        await story.me(token)
        await silence(story)
        story.auth.cache.fresh(float("inf"))  # whatever the feed says
        misses = story.auth.cache.misses
        story.move(seconds=longest - 0.01)
        assert (await story.me(token)).status_code == 200
        assert story.auth.cache.misses == misses
        story.move(seconds=0.01)
        assert (await story.me(token)).status_code == 200
        assert story.auth.cache.misses == misses + 1
    with pytest.raises(ConfigurationError, match="cache_max_age"):
        async with telling(database_url, cache_max_age=f"{longest + 1}s"):
            pass


@pytest.mark.capability("S4-19")
async def test_use_of_a_cached_cookie_still_moves_its_idle_end(database_url: str) -> None:
    """Ten seconds idle, asked every second: what the cache answers must not look like idleness."""
    features = _with_sessions(idle_timeout="10s")
    async with telling(database_url, features=features) as story:
        await story.join()
        await story.log_in(transport="cookie")
        for _ in range(40):
            story.move(seconds=0.9)
            assert (await story.client.get("/auth/me")).status_code == 200
        story.move(seconds=11)
        assert (await story.client.get("/auth/me")).status_code == 401


def _with_sessions(**options: Any) -> list[Any]:
    return [sessions(**options), *(each for each in without_limits() if each.name != "sessions")]


@pytest.mark.invariant("I-22")
async def test_metrics_tell_of_the_feed_and_the_gate(fed_url: str) -> None:
    async with telling(fed_url) as story:
        story.app.include_router(metrics(story.auth))
        await story.join()
        token = (await story.log_in())["access_token"]
        await kept_at(story, token)
        await log_out(story, token)
        local = httpx.ASGITransport(app=story.app, client=("127.0.0.1", 1))
        async with httpx.AsyncClient(transport=local, base_url="http://localhost") as near:
            text = (await near.get("/metrics")).text
        for name in (
            "watchword_gate_hits_total 3.0",
            "watchword_feed_fresh 1.0",
            'watchword_feed_lag_seconds_bucket{le="+Inf"}',
        ):
            assert name in text, text
        assert token not in text
        far = httpx.ASGITransport(app=story.app, client=("203.0.113.7", 1))
        async with httpx.AsyncClient(transport=far, base_url="http://localhost") as stranger:
            assert (await stranger.get("/metrics")).status_code == 404


@pytest.mark.invariant("I-08")
async def test_redis_wakes_workers_where_the_databases_own_word_is_lost(
    postgres_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    listen = asyncpg.Connection.add_listener

    async def deaf(self: Any, channel: str, callback: Any) -> None:
        await listen(self, f"{channel}_of_another_server", callback)

    monkeypatch.setattr(asyncpg.Connection, "add_listener", deaf)
    # Polled every seven seconds: only a hint can be as quick as this.
    options: dict[str, Any] = {"wake": redis_url, "feed_bound": "28s"}
    async with (
        telling(postgres_url, **options) as story,
        neighbour(story, postgres_url, **options) as other,
    ):
        assert following_of(other).status.wakers == ("redis",)
        await story.join()
        token = (await story.log_in())["access_token"]
        await kept_at(other, token)
        await log_out(story, token)
        assert await refused(other, token) < 3


def test_only_redis_wakes_workers(sqlite_url: str) -> None:
    with pytest.raises(ConfigurationError, match="only redis"):
        Watchword(sqlite_url, environment="development", environ={}, wake="sqlite://")
