"""Attacks on the stores: what one user can make dear, and what a stop in between leaves."""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis as AsyncRedis

from tests.servers import Redis
from tests.stores.opened import store_of
from watchword.features.sessions import Session
from watchword.kernel.secrets import Digest
from watchword.storage.store import Paging, Store, gt, where
from watchword.stores.redis import RedisDriver, driver

NOW = datetime.now(UTC)
MANY = 600


def session(name: str, *, user: str = "mallory") -> Session:
    return Session(
        realm="main",
        id=name,
        user_id=user,
        epoch=0,
        amr=("pwd",),
        auth_time=NOW,
        transport="cookie",
        app="main",
        agent_digest=Digest("a" * 43),
        started_at=NOW,
        seen_at=NOW,
        idle_expires_at=NOW + timedelta(hours=1),
        expires_at=NOW + timedelta(hours=8),
        delete_at=NOW + timedelta(hours=9),
        cookie_digest=Digest(f"c-{name}"),
    )


@pytest.fixture
async def made(redis_url: str) -> AsyncGenerator[RedisDriver, None]:
    opened = driver(redis_url)
    await opened.open([Session])
    yield opened
    await opened.close()


async def end(store: Store, name: str) -> None:
    """As `Sessions.end` does."""
    ended = await store.update(
        Session,
        where(id=name, ended_at=None),
        ended_at=NOW,
        delete_at=NOW + timedelta(days=1),
        refresh_grace_until=None,
    )
    assert ended is not None


async def live(store: Store) -> list[str]:
    """As the cap looks for them."""
    paging = Paging(order=("started_at", "id"), descending=True, limit=60)
    page = await store.find(Session, paging, user_id="mallory", ended_at=None, expires_at=gt(NOW))
    return [each.id for each in page.items]


async def looks(admin: AsyncRedis) -> int:
    """How many records the server has read out so far."""
    said = await admin.info("commandstats")
    return int(said.get("cmdstat_hgetall", {}).get("calls", 0))


@pytest.mark.invariant("I-18")
async def test_who_signs_in_again_and_again_makes_no_sign_in_dearer(
    made: RedisDriver, redis_server: Redis
) -> None:
    """Each read all that had ended since yesterday: one account took seconds of a worker."""
    store = store_of(made)
    for number in range(MANY):
        await store.insert(session(f"s{number}"))
        if number:
            await end(store, f"s{number}")
    async with redis_server.client() as admin:
        before = await looks(admin)
        assert await live(store) == ["s0"]
        assert await looks(admin) - before <= 5
    assert await store.count(Session, user_id="mallory") == MANY
    assert await store.erase(Session, user_id="mallory") == MANY


async def test_a_session_is_among_the_live_ones_until_it_ends_and_no_longer(
    made: RedisDriver, redis_server: Redis
) -> None:
    """What the list of live ones lacks, the cap would never end."""
    store = store_of(made)
    await store.insert(session("a"))
    await store.insert(session("b"))
    await store.update(Session, where(id="a", ended_at=None), refresh_grace_until=NOW, seen_at=NOW)
    await store.update(Session, where(id="b"), cookie_digest=Digest("c-new"))
    await store.update(Session, where(id="b"), delete_at=NOW + timedelta(hours=20))
    assert await live(store) == ["b", "a"]
    await end(store, "a")
    assert await live(store) == ["b"]
    await store.update(Session, where(id="b"), ended_at=NOW)  # and no hint is renewed
    assert await live(store) == []
    await store.update(Session, where(id="b"), ended_at=None)
    assert await live(store) == ["b"]
    async with redis_server.client() as admin:
        prefix = made._link.target.prefix  # pyright: ignore[reportPrivateUsage]
        key = f"{prefix}:i:{{main:session:user_id-ended_at:mallory}}"
        assert await admin.zcard(key) == 1
    assert await store.erase(Session, user_id="mallory") == 2
