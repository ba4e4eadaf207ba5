"""Redis: the contract, and what hints, expiry and a server that goes away must not break."""

import asyncio
import logging
import random
import signal
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis.asyncio import Redis as AsyncRedis

from tests.servers import Redis, in_thread
from tests.stores.opened import store_of
from watchword.kernel.errors import ConfigurationError, StoreUnavailable
from watchword.storage.errors import Conflict, SchemaNewer
from watchword.storage.record import record
from watchword.storage.store import (
    Comparison,
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
from watchword.stores.redis import RedisDriver, driver, hints, target, waker
from watchword.stores.redis.layout import layout_of
from watchword.stores.redis.scripts import INSERT
from watchword.stores.redis.values import raw_of
from watchword.testing.contract import StoreContract
from watchword.testing.racer import RECORDS, Appointment, Tally, Ticket, ticket

HOUR = timedelta(hours=1)
SOON = timedelta(seconds=1.2)


@pytest.mark.capability("S2-21", "S4-18")
class TestRedis(StoreContract):
    """The contract on a real server."""

    factory = "watchword.stores.redis:driver"

    @pytest.fixture
    def driver_url(self, redis_url: str) -> str:
        return redis_url


@record(
    name="badge",
    key=("id",),
    unique=(("code",),),
    indexes=(("owner", "is_worn", "id"), ("renew_at",)),
    expires="ends_at",
)
class Badge:
    """What is found by its owner, by its code and by an instant, as a session is."""

    realm: str
    id: str
    owner: str
    code: str | None = None
    is_worn: bool = True
    renew_at: datetime | None = None
    ends_at: datetime


def badge(name: str, *, lasts: timedelta = HOUR, **fields: object) -> Badge:
    """A badge that ends soon by the server's clock."""
    plain = Badge(realm="main", id=name, owner="o", code=f"c-{name}", ends_at=now() + lasts)
    return replace(plain, **fields)  # type: ignore[arg-type]


def now() -> datetime:
    return datetime.now(UTC)


@asynccontextmanager
async def opened(
    url: str, records: Sequence[type] = (*RECORDS, Badge), **options: object
) -> AsyncGenerator[RedisDriver, None]:
    """Open a driver and close it at the end."""
    made = driver(url, **options)
    try:
        await made.open(records)
        yield made
    finally:
        await made.close()


@pytest.fixture
async def made(redis_url: str) -> AsyncGenerator[RedisDriver, None]:
    """A driver on the shared server, whose clock nobody mistrusts."""
    async with opened(redis_url, clock_skew=0) as made:
        yield made


@pytest.fixture
def store(made: RedisDriver) -> Store:
    return store_of(made)


@pytest.fixture
async def admin(redis_server: Redis) -> AsyncGenerator[AsyncRedis, None]:
    """A client of somebody else."""
    async with redis_server.client() as client:
        yield client


@pytest.fixture
def own_redis() -> Iterator[Redis]:
    """A server of this test alone, which it may stop."""
    server = Redis.start(shared=False)
    yield server
    server.stop()


def prefix_of(made: RedisDriver) -> str:
    return made._target.prefix


async def keys(client: AsyncRedis, made: RedisDriver) -> set[bytes]:
    return {key async for key in client.scan_iter(match=f"{prefix_of(made)}:*", count=1000)}


async def listed(store: Store, owner: str = "o") -> list[str]:
    page = await store.find(Badge, Paging(order=("id",), limit=1000), owner=owner)
    return [one.id for one in page.items]


# The URL


@pytest.mark.parametrize(
    "url",
    [
        "mysql://u:hidden@h/0",
        "redis://u:hidden@h:port/0",
        "redis://u:hid#den@h/0",
        "redis://u:hidden@h/name",
        "redis://u:hidden@h/0?nonsense=1",
        "redis://u:hidden@h/0?pool_size=0",
        "redis://u:hidden@h/0?command_timeout=soon",
        "redis://u:hidden@h/0?command_timeout=nan",
        "redis://u:hidden@h/0?prefix=a{b}",
        "redis://u:hidden@h/0?prefix=",
        "redis://u:hidden@h/0?ssl_ca_certs=x",
        "redis:///0",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        driver(url)
    assert "hid" not in str(caught.value)


def test_a_url_may_name_a_user_a_database_and_tls() -> None:
    parsed = target.parse("rediss://u:p%40ss%23@[::1]:7000/3?prefix=app&ssl_ca_certs=/ca", {})
    assert (parsed.username, parsed.password, parsed.host) == ("u", "p@ss#", "::1")
    assert (parsed.port, parsed.database, parsed.tls, parsed.prefix) == (7000, 3, True, "app")
    assert parsed.tls_files == {"ssl_ca_certs": "/ca"}
    assert "p@ss" not in repr(parsed)


@pytest.mark.capability("S2-33")
def test_a_missing_package_is_named_with_its_remedy() -> None:
    with pytest.raises(ConfigurationError) as caught:
        target.require("no_such_client")
    assert 'pip install "watchword[redis]"' in str(caught.value)


# Which server will do


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_server_that_evicts_is_refused_with_the_remedy(policy: str) -> None:
    server = Redis.start("--maxmemory-policy", policy, shared=False)
    try:
        made = driver(server.url)
        with pytest.raises(ConfigurationError) as caught:
            await made.open([Badge])
        await made.close()
    finally:
        server.stop()
    assert policy in str(caught.value)
    assert "maxmemory-policy noeviction" in str(caught.value)


async def test_a_server_whose_settings_cannot_be_seen_is_refused(own_redis: Redis) -> None:
    async with own_redis.client() as client:
        await client.execute_command("ACL", "SETUSER", "blind", "on", ">p", "~*", "+@all", "-info")
        await client.execute_command("ACL", "SETUSER", "half", "on", ">p", "~*", "+@all", "-config")
    blind = driver(own_redis.url.replace("//", "//blind:p@"))
    with pytest.raises(ConfigurationError, match="INFO"):
        await blind.open([Badge])
    await blind.close()
    async with opened(own_redis.url.replace("//", "//half:p@")) as made:
        await store_of(made).insert(badge("a"))


async def test_a_wrong_password_is_unavailable_and_not_told(own_redis: Redis) -> None:
    made = driver(own_redis.url.replace("//", "//nobody:hidden@"))
    with pytest.raises(StoreUnavailable) as caught:
        await made.open([Badge])
    assert "hidden" not in repr(caught.value.note)
    await made.close()


@pytest.mark.invariant("I-19")
async def test_a_replica_is_refused_and_so_is_a_primary_that_becomes_one(own_redis: Redis) -> None:
    async with own_redis.client() as client, opened(own_redis.url) as made:
        store = store_of(made)
        await store.insert(badge("a"))
        await client.replicaof("127.0.0.1", "1")  # type: ignore[arg-type]
        late = driver(own_redis.url)
        with pytest.raises(StoreUnavailable) as caught:
            await late.open([Badge])
        assert "replica" in (caught.value.note or "")
        await late.close()
        for ask in (
            lambda: store.get(Badge, id="a"),
            lambda: store.get(Badge, code="c-a"),
            lambda: store.count(Badge, owner="o"),
            lambda: store.update(Badge, where(id="a"), is_worn=False),
            lambda: store.take(Badge, id="a"),
            lambda: store.insert(badge("b")),
            made.ping,
        ):
            with pytest.raises(StoreUnavailable) as caught:
                await ask()
            assert "read" in (caught.value.note or "").lower()  # READONLY, ReadOnlyError
        await client.replicaof("NO", "ONE")  # type: ignore[arg-type]
        assert await store.get(Badge, id="a")


async def test_a_newer_layout_is_refused(made: RedisDriver, admin: AsyncRedis) -> None:
    assert await admin.get(f"{prefix_of(made)}:schema") == b"1"
    await admin.set(f"{prefix_of(made)}:schema", 2)
    with pytest.raises(SchemaNewer):
        await made.open([Badge])


async def test_what_never_expires_is_refused(redis_url: str) -> None:
    @record(name="forever", key=("id",))
    class Forever:
        realm: str
        id: str

    made = driver(redis_url)
    with pytest.raises(ConfigurationError, match="forever never expires"):
        await made.open([Badge, Forever])
    with pytest.raises(TypeError):
        await made.verbs.insert(Forever(realm="main", id="a"))
    await made.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--appendonly", "no"), "signs everybody out"),
        (("--appendonly", "no", "--save", "60", "1"), "last snapshot"),
        (("--appendfsync", "everysec"), "last second"),
        ((), None),
    ],
)
async def test_what_a_restart_would_cost_is_logged(
    options: tuple[str, ...], said: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "watchword.stores.redis")
    server = Redis.start(*options, shared=False)
    try:
        async with opened(server.url):
            pass
    finally:
        server.stop()
    told = [entry.getMessage() for entry in caplog.records if entry.name.startswith("watchword")]
    assert len(told) == (said is not None)
    assert said is None or said in told[0]


async def test_there_is_no_transaction_to_join(made: RedisDriver) -> None:
    assert not made.is_transactional
    assert made.feed is None
    assert await made.plan([Badge]) == await made.migrate([Badge]) == ()
    with pytest.raises(TypeError):
        made.joined(object())
    with pytest.raises(TypeError):
        made.savepoint(object())
    with pytest.raises(TypeError):
        await made.after_commit(object(), lambda: None, asyncio.Event().wait)  # type: ignore[arg-type]


# Conditions: the script's answer is the list's


def one_of_two(value: object) -> Comparison:
    return one_of([value, value])


@pytest.mark.capability("DEF-33")
async def test_the_script_decides_as_a_list_does(store: Store) -> None:
    edge = 2**63
    numbers: list[object] = [
        None,
        0,
        1,
        -1,
        -2,
        9,
        10,
        -10,
        2**53,
        2**53 + 1,
        edge - 2,
        edge - 1,
        -edge,
    ]
    texts: list[object] = [
        None,
        "",
        "a",
        "A",
        "b",
        "aa",
        "é",
        "z",
        "\U0001f600",
        "\uffee",
        "10",
        "9",
        "-",
    ]
    for name, values in (("row", numbers), ("seat", texts)):
        for held in values:
            await store.insert(replace(ticket("t"), **{name: held}))  # type: ignore[arg-type]
            for given in values:
                for compare in (lt, le, gt, ge, other_than, one_of_two):
                    wanted = compare(given)
                    listed = await store.count(Ticket, id="t", **{name: wanted})
                    changed = await store.update(Ticket, where(id="t", **{name: wanted}), rank=1)
                    assert listed == (changed is not None), (held, wanted)
            assert await store.take(Ticket, id="t", **{name: held})


async def test_a_raise_past_64_bits_changes_nothing(store: Store) -> None:
    await store.insert(ticket("a", rank=2**63 - 1, row=5))
    with pytest.raises(ValueError, match=r"."):
        await store.update(Ticket, where(id="a"), row=plus(1), rank=plus(1), is_open=False)
    found = await store.get(Ticket, id="a")
    assert found == ticket("a", rank=2**63 - 1, row=5)


async def test_what_an_older_worker_did_not_write_holds_its_default(store: Store) -> None:
    @record(name="badge", key=("id",), unique=(("code",),), expires="ends_at")
    class Newer(Badge):
        uses: int = 3
        colour: str = "red"

    await store.insert(badge("a"))
    found = await store.get(Newer, id="a", uses=3, colour=other_than("blue"))
    assert found is not None
    assert found.colour == "red"
    assert await store.count(Newer, uses=ge(3), colour="red") == 1
    assert await store.update(Newer, where(id="a", uses=4), uses=0) is None
    raised = await store.update(Newer, where(id="a", uses=lt(4), colour="red"), uses=plus(2))
    assert raised is not None
    assert raised.uses == 5
    assert await store.get(Badge, id="a")
    assert await store.take(Newer, id="a", uses=5, colour="red")


HOSTILE = [
    *("a:b", "a", "b:a", "{x}", "}{", "a}b{c", "{", "}", "{}", "%7B", "=abc", "!", "~", "|", " "),
    *("a b", "a|b", "\n", "\r\n$3\r\n", "*", "é", "e\u0301", "k", "x" * 5000, "x" * 5001, "\x01"),
]


async def test_hostile_names_are_names(store: Store, admin: AsyncRedis, made: RedisDriver) -> None:
    for number, name in enumerate(HOSTILE):
        await store.insert(badge(name, owner=name, code=name, is_worn=bool(number % 2)))
    for number, name in enumerate(HOSTILE):
        by_id, by_code = await store.get(Badge, id=name), await store.get(Badge, code=name)
        assert by_id is not None
        assert by_id == by_code
        assert by_id.is_worn == bool(number % 2)
        assert await listed(store, owner=name) == [name]
    assert await store.count(Badge) == len(HOSTILE)
    for key in await keys(admin, made):
        assert key.count(b"{") == key.count(b"}") <= 1
    for name in HOSTILE:
        assert await store.erase(Badge, owner=name) == 1


async def test_every_script_keeps_to_one_hash_tag(
    redis_server: Redis, made: RedisDriver, store: Store
) -> None:
    declared = ""
    seen = 0
    async with redis_server.client() as client, client.monitor() as monitor:
        await monitor.connect()
        await every_verb(store)
        await client.echo("end")
        while True:
            entry = await monitor.next_command()
            words = entry["command"].split(" ")
            if words[0] == "ECHO":
                break
            if words[0] == "EVALSHA":
                assert words[2] == "1"
                declared, seen = words[3], seen + 1
            elif entry["client_type"] == "lua" and words[0] != "TIME":
                assert words[1] == declared
    assert seen > 20


async def every_verb(store: Store) -> None:
    """Each verb, each way it can go."""
    for name in ("a", "b", "c"):
        await store.insert(badge(name, renew_at=now()))
    with pytest.raises(Conflict):
        await store.insert(badge("d", code="c-a"))
    await store.update(Badge, where(id="a", is_worn=True), is_worn=False)
    await store.update(Badge, where(code="c-a"), code="new", owner="p", renew_at=None)
    await store.update(Badge, where(id="a"), ends_at=now() + 2 * HOUR)
    await store.update(Badge, where(id="a"), ends_at=now() + HOUR / 2, code=None)
    counter = Tally(realm="main", subject="s", kind="k", expires_at=now() + HOUR)
    await store.increment(counter, field="tries", now=now())
    await store.increment(counter, field="tries", now=now())
    await store.increment(
        replace(counter, expires_at=now() + 2 * HOUR), field="tries", now=now() + HOUR
    )
    assert await listed(store) == ["b", "c"]
    assert await store.count(Badge, renew_at=le(now())) == 2
    await store.take(Badge, id="b")
    assert await store.erase(Badge) == 2
    assert await store.expire(Badge, now=now()) == 0


# Expiry


@pytest.mark.capability("S0-33", "S4-19")
async def test_nothing_stays_for_ever_and_size_returns_to_baseline(
    store: Store, admin: AsyncRedis, made: RedisDriver
) -> None:
    baseline = await keys(admin, made)
    assert baseline == {f"{prefix_of(made)}:schema".encode()}
    await every_verb(store)
    for number in range(20):
        await store.insert(badge(f"{number}", lasts=SOON, renew_at=now(), owner=f"o{number % 3}"))
    await store.update(Badge, where(id="1"), ends_at=now() + SOON, code="other")
    counter = Tally(realm="main", subject="s2", kind="k", expires_at=now() + SOON)
    await store.increment(counter, field="tries", now=now())
    for key in await keys(admin, made) - baseline:
        assert await admin.pttl(key) > 0, key
    mine = [key for key in await keys(admin, made) - baseline if await admin.pttl(key) < 2000]
    assert len(mine) > 40
    await asyncio.sleep(SOON.total_seconds() + 0.2)
    assert not await admin.exists(*mine)


@pytest.mark.capability("S0-33")
async def test_a_store_of_what_is_over_is_empty(
    store: Store, admin: AsyncRedis, made: RedisDriver
) -> None:
    baseline = await keys(admin, made)
    for number in range(10):
        await store.insert(badge(f"{number}", renew_at=now(), lasts=SOON))
    assert len(await keys(admin, made)) == 1 + 10 + 10 + 4
    await asyncio.sleep(SOON.total_seconds() + 0.2)
    assert await keys(admin, made) == baseline
    assert await store.count(Badge) == 0
    assert await listed(store) == []


@pytest.mark.capability("S4-19")
async def test_a_record_lives_as_long_as_it_was_moved_to_and_its_hints_with_it(
    store: Store,
) -> None:
    await store.insert(badge("longer", lasts=SOON))
    await store.insert(badge("shorter", lasts=HOUR))
    assert await store.update(Badge, where(id="longer"), ends_at=now() + HOUR)
    assert await store.update(Badge, where(id="shorter"), ends_at=now() + SOON)
    assert await listed(store) == ["longer", "shorter"]
    await asyncio.sleep(SOON.total_seconds() + 0.2)
    assert await listed(store) == ["longer"]
    assert await store.get(Badge, code="c-longer")
    assert await store.get(Badge, code="c-shorter") is None
    await store.insert(badge("after", code="c-shorter"))  # its pointer went with it


async def test_a_server_whose_clock_is_ahead_does_not_forget_too_soon(redis_url: str) -> None:
    async with opened(redis_url, clock_skew=30) as made:
        store = store_of(made)
        counter = Tally(
            realm="main", subject="s", kind="k", expires_at=now() - timedelta(seconds=20)
        )
        ours = now() - timedelta(seconds=25)
        assert await store.increment(counter, field="tries", now=ours) == 1
        assert await store.increment(counter, field="tries", now=ours) == 2


async def test_expiry_by_our_clock_reaches_every_realm_and_passes_strays(
    store: Store, admin: AsyncRedis, made: RedisDriver
) -> None:
    for realm in ("main", "other"):
        for number in range(3):
            await store.in_realm(realm).insert(
                Appointment(realm=realm, id=f"{number}", ends_at=now() + HOUR)
            )
    layout = layout_of(prefix_of(made), Appointment)
    strays = {f"{int(time.time() * 1000):x}-x{n}|nowhere": 1.0 for n in range(5)}
    await admin.zadd(layout.everything(b"main"), strays)  # pyright: ignore[reportArgumentType]
    assert await store.expire(Appointment, now=now() + 2 * HOUR, limit=4) == 4
    assert await store.expire(Appointment, now=now() + 2 * HOUR, limit=4) == 2


# Hints


def old(made: RedisDriver, seconds: float) -> bytes:
    """A stamp of some time ago."""
    return b"%x-stray" % int((time.time() - seconds) * 1000)


async def test_a_pointer_to_nowhere_is_taken_over(
    store: Store, admin: AsyncRedis, made: RedisDriver
) -> None:
    layout = layout_of(prefix_of(made), Badge)
    await store.insert(badge("moved", code="elsewhere"))
    for owner in (b"nowhere", layout.record_key(raw_of(layout.schema, badge("moved")))):
        raw = raw_of(layout.schema, badge("a"))
        pointer = layout.pointer(("realm", "code"), raw)
        await admin.set(pointer, old(made, 60) + b" " + owner)
        assert await store.get(Badge, code="c-a") is None
        started = time.monotonic()
        await store.insert(badge("a"))
        assert time.monotonic() - started < 5
        assert await store.get(Badge, code="c-a")
        assert await store.take(Badge, code="c-a")
        assert not await admin.exists(pointer)


async def test_a_pointer_whose_writer_may_not_be_done_is_waited_for(
    store: Store, admin: AsyncRedis, made: RedisDriver
) -> None:
    layout = layout_of(prefix_of(made), Badge)
    pointer = layout.pointer(("realm", "code"), raw_of(layout.schema, badge("a")))
    await admin.set(pointer, old(made, hints.GRACE / 1000 - 1.5) + b" nowhere")
    started = time.monotonic()
    await store.insert(badge("a"))
    assert 1 < time.monotonic() - started < 6
    assert await store.get(Badge, code="c-a")


@pytest.mark.slow
@pytest.mark.invariant("I-05")
async def test_a_writer_that_stopped_after_its_claim_blocks_nobody_and_cannot_go_on(
    store: Store, made: RedisDriver
) -> None:
    verbs: Any = made.verbs
    layout = layout_of(prefix_of(made), Badge)
    raw = raw_of(layout.schema, badge("stopped", code="c"))
    key = layout.record_key(raw)
    (when,) = await verbs._link.read(("TIME",))
    write = verbs._begin(layout, key, raw, when)
    await hints.place(verbs._link, write, list(layout.hints(raw)))
    assert await listed(store) == []  # a young hint is left alone
    await store.insert(badge("next", code="c"))
    fields = [b"1", b"id", b"stopped"]
    assert await verbs._run(INSERT, key, write.fence, layout, fields) == b"late"
    found = await store.get(Badge, code="c")
    assert found is not None
    assert found.id == "next"
    assert await listed(store) == ["next"]


async def test_members_that_lead_nowhere_are_removed_once_their_writer_has_given_up(
    store: Store, admin: AsyncRedis, made: RedisDriver
) -> None:
    layout = layout_of(prefix_of(made), Badge)
    await store.insert(badge("a", renew_at=now()))
    raw = raw_of(layout.schema, badge("a", renew_at=now()))
    far = (time.time() + 3600) * 1000
    record_key = layout.record_key(raw)
    for hint in layout.hints(raw):
        if hint.slot.kind == "unique":
            continue
        for stamp in (old(made, 60), old(made, 1)):
            for key in (record_key, b"nowhere"):
                score = far if hint.score is None else float(hint.score)
                await admin.zadd(hint.key, {stamp + b"|" + key: score})
        assert await admin.zcard(hint.key) == 5
    assert await listed(store) == ["a"]
    assert await store.count(Badge) == 1
    assert await store.count(Badge, renew_at=le(now())) == 1
    for hint in layout.hints(raw):
        if hint.slot.kind != "unique":
            assert await admin.zcard(hint.key) == 3  # its own and the two young ones


@pytest.mark.invariant("I-11")
async def test_an_index_leads_to_its_own_only(store: Store) -> None:
    start = now()
    for number in range(30):
        await store.insert(
            badge(
                f"{number:02}",
                owner=f"o{number % 3}",
                renew_at=start + number * HOUR if number % 2 else None,
            )
        )
    assert await store.count(Badge, owner="o1") == 10
    assert await store.count(Badge, owner="o1", is_worn=False) == 0
    assert await store.count(Badge, renew_at=lt(start + 5 * HOUR)) == 2
    assert await store.count(Badge, renew_at=le(start + 5 * HOUR)) == 3
    assert await store.count(Badge, renew_at=gt(start + 5 * HOUR)) == 12
    assert await store.count(Badge, renew_at=start + 5 * HOUR) == 1
    assert await store.count(Badge, renew_at=None) == 15
    assert await store.count(Badge, owner="o1", renew_at=None) == 5
    assert await store.in_realm("other").count(Badge, owner="o1") == 0
    await store.update(Badge, where(id="01"), owner="o2", renew_at=start + 50 * HOUR)
    assert await store.count(Badge, owner="o1") == 9
    assert await store.count(Badge, owner="o2") == 11
    assert await store.count(Badge, renew_at=lt(start + 5 * HOUR)) == 1
    assert await store.count(Badge, renew_at=gt(start + 40 * HOUR)) == 1


@pytest.mark.slow
async def test_a_list_reads_its_own_records_and_never_the_keyspace(own_redis: Redis) -> None:
    async with own_redis.client() as client, opened(own_redis.url) as made:
        store = store_of(made)
        await asyncio.gather(
            *(
                store.insert(badge(f"{n:03}", owner=f"o{n % 70}", renew_at=now() + n * HOUR))
                for n in range(700)
            )
        )
        await client.config_resetstat()
        assert len(await listed(store, "o7")) == 10
        assert await store.count(Badge, renew_at=lt(now() + 4.5 * HOUR)) == 5
        used = await client.info("commandstats")
        assert used["cmdstat_hgetall"]["calls"] == 15
        assert not {"cmdstat_keys", "cmdstat_scan"} & used.keys()
        seen: list[str] = []
        paging = Paging(order=("owner", "id"), limit=300, descending=True)
        while True:
            page = await store.find(Badge, paging, is_worn=True)
            seen += [one.id for one in page.items]
            if page.next is None:
                break
            paging = replace(paging, after=page.next)
        assert len(seen) == len(set(seen)) == 700
        assert await store.erase(Badge) == 700
        assert await client.dbsize() == 2  # the version, and the realms, which expire


@pytest.mark.invariant("I-05")
@pytest.mark.parametrize("seed", range(3))
async def test_whatever_races_no_two_hold_one_key_and_every_record_is_found(
    store: Store, seed: int
) -> None:
    chance = random.Random(seed)

    async def one() -> None:
        name, code = chance.choice("abc"), chance.choice(["x", "y", "z", None])
        what = chance.randrange(6)
        lasts = chance.choice([HOUR, 2 * HOUR, HOUR / 2])
        try:
            if what <= 1:
                await store.insert(badge(name, code=code, owner=chance.choice("op")))
            elif what == 2:
                await store.update(Badge, where(id=name), code=code, owner=chance.choice("op"))
            elif what == 3:
                await store.update(Badge, where(id=name), ends_at=now() + lasts, renew_at=now())
            elif what == 4:
                await store.take(Badge, id=name)
            else:
                await store.put(badge(name, code=code))
        except Conflict:
            pass

    for _ in range(15):
        await asyncio.gather(*(one() for _ in range(20)))
        there = [found for name in "abc" if (found := await store.get(Badge, id=name))]
        codes = [found.code for found in there if found.code]
        assert len(codes) == len(set(codes))
        for found in there:
            assert found.code is None or await store.get(Badge, code=found.code) == found
            assert found.id in await listed(store, owner=found.owner)
            if found.renew_at is not None:
                assert await store.count(Badge, id=found.id, renew_at=found.renew_at) == 1
        assert await store.count(Badge) == len(there)
        assert len(await listed(store, "o")) + len(await listed(store, "p")) == len(there)


# A server that comes and goes


async def away(store: Store, made: RedisDriver) -> None:
    """Everything says that the store is away, and no more."""
    for ask in (
        lambda: store.get(Badge, id="a"),
        lambda: store.find(Badge, Paging(order=("id",)), owner="o"),
        lambda: store.update(Badge, where(id="a"), is_worn=False),
        lambda: store.insert(badge("lost")),
        made.ping,
    ):
        with pytest.raises(StoreUnavailable) as caught:
            await ask()
        assert caught.value.note
        assert "main" not in caught.value.note


@pytest.mark.capability("S4-18")
async def test_a_restart_keeps_what_was_there_and_the_driver_goes_on(own_redis: Redis) -> None:
    async with opened(own_redis.url) as made:
        store = store_of(made)
        await store.insert(badge("a"))
        await in_thread(own_redis.halt)
        await away(store, made)
        await in_thread(own_redis.resume)
        assert await store.get(Badge, code="c-a")
        assert await listed(store) == ["a"]
        await store.insert(badge("b"))
        await made.ping()
        assert await store.get(Badge, id="lost") is None


async def test_what_was_acknowledged_survives_a_crash_of_the_server(own_redis: Redis) -> None:
    async with opened(own_redis.url) as made:
        store = store_of(made)
        for number in range(20):
            await store.insert(badge(f"{number}"))
            assert await store.update(Badge, where(id=f"{number}", is_worn=True), is_worn=False)
            if number % 5 == 4:
                await in_thread(lambda: own_redis.halt(signal.SIGKILL))
                await in_thread(own_redis.resume)
                for past in range(number + 1):
                    found = await store.get(Badge, id=f"{past}")
                    assert found is not None
                    assert not found.is_worn


async def test_a_server_that_hangs_is_unavailable_in_time(own_redis: Redis) -> None:
    async with opened(own_redis.url, command_timeout=0.5, pool_size=1, pool_timeout=0.3) as made:
        store = store_of(made)
        await store.insert(badge("a"))
        process = own_redis.pid
        try:
            own_redis.tell(signal.SIGSTOP)
            started = time.monotonic()
            tries = [store.get(Badge, id="a") for _ in range(4)]
            said = await asyncio.gather(*tries, return_exceptions=True)
            assert time.monotonic() - started < 3
            notes = {error.note for error in said if isinstance(error, StoreUnavailable)}
            assert len(said) == sum(isinstance(error, StoreUnavailable) for error in said)
            assert notes <= {"TimeoutError", "PoolTimeout"}
            assert "PoolTimeout" in notes
            with pytest.raises(StoreUnavailable):
                await store.update(Badge, where(id="a"), is_worn=False)
        finally:
            own_redis.tell(signal.SIGCONT)
        assert own_redis.pid == process
        assert await store.get(Badge, id="a")


async def test_a_full_server_is_unavailable_and_still_ends_things(own_redis: Redis) -> None:
    async with own_redis.client() as client, opened(own_redis.url) as made:
        store = store_of(made)
        await store.insert(badge("a"))
        await client.config_set("maxmemory", 1)
        for ask in (
            lambda: store.insert(badge("b")),
            lambda: store.update(Badge, where(id="a"), is_worn=False),
        ):
            with pytest.raises(StoreUnavailable) as caught:
                await ask()
            assert "OOM" in (caught.value.note or "") or "Memory" in (caught.value.note or "")
        found = await store.get(Badge, id="a")
        assert found is not None
        assert found.is_worn
        assert await store.take(Badge, id="a")


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    made = driver("redis://u:hidden@127.0.0.1:1/0")
    with pytest.raises(StoreUnavailable) as caught:
        await made.open([Badge])
    assert "hidden" not in repr(caught.value.note)
    await made.close()


async def test_scripts_that_the_server_forgot_are_told_again(
    store: Store, admin: AsyncRedis
) -> None:
    await store.insert(badge("a"))
    await admin.script_flush()
    assert await store.take(Badge, id="a")
    await admin.script_flush()
    await store.insert(badge("b"))
    assert await listed(store) == ["b"]


async def test_connections_that_were_cut_are_replaced(
    store: Store, admin: AsyncRedis, own_redis: Redis
) -> None:
    async with own_redis.client() as client, opened(own_redis.url) as made:
        store = store_of(made)
        await store.insert(badge("a"))
        for number in range(3):
            await asyncio.gather(*(store.get(Badge, id="a") for _ in range(20)))
            await client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            assert await store.get(Badge, id="a")
            await store.insert(badge(f"after-{number}"))


class Cutting:
    """A wire to the server that loses answers: all commands arrive."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.is_cutting = False
        self.cut = 0

    @asynccontextmanager
    async def url(self) -> AsyncGenerator[str, None]:
        """Where it listens."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"

    async def _serve(self, near: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
        far, onward = await asyncio.open_connection("127.0.0.1", self._to)

        async def commands() -> None:
            while data := await near.read(65536):
                onward.write(data)
            onward.close()

        forward = asyncio.create_task(commands())
        try:
            while data := await far.read(65536):
                if self.is_cutting:
                    self.cut += 1
                    break
                out.write(data)
        except OSError:
            pass
        finally:
            out.close()
            onward.close()
            forward.cancel()
            await asyncio.wait([forward])


async def test_a_write_whose_answer_was_lost_is_never_sent_again(own_redis: Redis) -> None:
    wire = Cutting(own_redis.port)
    counter = Tally(realm="main", subject="s", kind="k", expires_at=now() + HOUR)
    async with wire.url() as url, opened(url) as made, opened(own_redis.url) as direct:
        store = store_of(made)
        assert await store.increment(counter, field="tries", now=now()) == 1
        wire.is_cutting = True
        with pytest.raises(StoreUnavailable):
            await store.increment(counter, field="tries", now=now())
        assert wire.cut == 1
        found = await store_of(direct).get(Tally, subject="s", kind="k")
        assert found is not None
        assert found.tries == 2
        with pytest.raises(StoreUnavailable):  # a read is asked once more, not for ever
            await store.get(Tally, subject="s", kind="k")
        wire.is_cutting = False
        assert await store.increment(counter, field="tries", now=now()) == 3


async def test_a_cancelled_question_never_answers_the_next_one(store: Store) -> None:
    for number in range(30):
        await store.insert(badge(f"{number}"))

    async def ask(number: int) -> Any:
        found = await store.get(Badge, id=f"{number}")
        assert found is not None
        assert found.id == f"{number}"

    for round_ in range(10):
        tasks = [asyncio.create_task(ask(number)) for number in range(30)]
        await asyncio.sleep(0.001 * round_)
        for task in tasks[::2]:
            task.cancel()
        for said in await asyncio.gather(*tasks, return_exceptions=True):
            assert said is None or isinstance(said, asyncio.CancelledError)


async def test_a_cancelled_write_leaves_all_of_it_or_nothing(store: Store) -> None:
    for number in range(40):
        task = asyncio.create_task(store.insert(badge(f"{number}")))
        await asyncio.sleep(0.0005 * (number % 8))
        task.cancel()
        await asyncio.wait([task])
        found = await store.get(Badge, id=f"{number}")
        assert (found is not None) == (f"{number}" in await listed(store))
        if found is None:
            await store.insert(badge(f"{number}"))  # nothing is in the way


def test_another_event_loop_may_use_it(redis_server: Redis) -> None:
    prefix = f"w-loops-{time.time_ns()}"
    made = driver(f"{redis_server.url}?prefix={prefix}")

    async def once() -> None:
        await made.ping()
        await made.close()

    for _ in range(2):
        asyncio.run(once())


# Wake-ups


async def within(step: Callable[[], Awaitable[object]], seconds: float = 5) -> None:
    async with asyncio.timeout(seconds):
        await step()


@pytest.mark.invariant("I-08")
async def test_a_hint_wakes_everybody_of_its_realm(redis_url: str, made: RedisDriver) -> None:
    one, two, other = waker(redis_url), made.waker(), waker(redis_url, "other")
    for each in (one, two, other):
        assert await each.open()
        assert each.name == "redis"
    one.hint()
    await within(one.wait)
    await within(two.wait)
    with pytest.raises(TimeoutError):
        await within(other.wait, 0.2)
    with pytest.raises(TimeoutError):  # a wait that was given up does not make it deaf
        await within(two.wait, 0.1)
    two.hint()
    await within(one.wait)
    for each in (one, two, other):
        await each.close()


async def test_many_hints_at_once_are_said_together(redis_url: str, admin: AsyncRedis) -> None:
    one = waker(redis_url)
    assert await one.open()
    async with admin.pubsub() as ear:
        await ear.subscribe(one._channel)
        for _ in range(500):
            one.hint()
        heard = 0
        while await ear.get_message(timeout=0.5):
            heard += 1
    assert 1 <= heard - 1 <= 5  # the first is that of the subscription
    await one.close()


async def test_a_waker_says_that_it_hears_nothing_and_opens_again(own_redis: Redis) -> None:
    ear = waker(own_redis.url)
    assert await ear.open()
    waiting = asyncio.create_task(ear.wait())
    await asyncio.sleep(0.05)
    await in_thread(own_redis.halt)
    with pytest.raises(StoreUnavailable):
        await within(lambda: waiting)
    with pytest.raises(StoreUnavailable):
        await ear.wait()
    ear.hint()  # nobody hears it, and nothing is raised
    with pytest.raises(StoreUnavailable):
        await ear.open()
    await in_thread(own_redis.resume)
    assert await ear.open()
    ear.hint()
    await within(ear.wait)
    await ear.close()
    with pytest.raises(StoreUnavailable):
        await ear.wait()


def test_a_hint_without_a_loop_is_lost_quietly() -> None:
    waker("redis://127.0.0.1:1").hint()
