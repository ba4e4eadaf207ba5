"""MongoDB: the contract, and what only its driver can get wrong."""

import asyncio
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from pymongo import monitoring

from tests.servers import Mongo, in_thread
from watchword.kernel.errors import ConfigurationError, StoreUnavailable
from watchword.kernel.events import Events
from watchword.storage.errors import Conflict, SchemaBehind, SchemaNewer
from watchword.storage.record import record
from watchword.storage.store import Driver, Paging, Store, ge, gt, one_of, other_than, plus, where
from watchword.stores.mongo import driver
from watchword.stores.mongo.target import parse
from watchword.testing.contract import StoreContract
from watchword.testing.contract_verbs import HOUR
from watchword.testing.feed_contract import FeedContract, LocalFeedContract, following, said
from watchword.testing.feed_writer import FEED_RECORDS, change
from watchword.testing.racer import NOW, RECORDS, Tally, Ticket, load, ticket


@pytest.mark.capability("S2-21", "S2-22")
class TestMongo(StoreContract):
    """The contract on a server that speaks MongoDB's protocol."""

    factory = "watchword.stores.mongo:driver"

    @pytest.fixture
    def driver_url(self, mongo_url: str) -> str:
        return mongo_url

    @pytest.fixture(autouse=True)
    def order_of_texts(self, mongo: Mongo, request: pytest.FixtureRequest) -> None:
        if "ordered_by_code_point" in request.node.name and not mongo.is_real:
            why = "the test server orders texts by UTF-16 units, as Java does, MongoDB by bytes"
            request.applymarker(pytest.mark.xfail(strict=True, reason=why))


class TestMongoFeed(LocalFeedContract):
    """The feed's contract; there are no hints, and rows do not commit with the state."""

    factory = "watchword.stores.mongo:driver"

    @pytest.fixture
    def driver_url(self, mongo_url: str) -> str:
        return mongo_url

    @pytest.fixture
    async def other(self, driver: Driver, driver_url: str) -> AsyncGenerator[Driver, None]:
        """The driver that follows: another one, on the same database."""
        other = load(self.factory)(driver_url)
        await other.open(FEED_RECORDS)
        yield other
        await other.close()

    test_fifty_writers = pytest.mark.slow(
        FeedContract.test_fifty_writers_in_five_processes_and_a_reader_lose_and_repeat_nothing
    )

    @pytest.mark.invariant("I-06")
    async def test_it_promises_no_more_than_it_can(self, driver: Driver) -> None:
        assert driver.feed is not None
        assert driver.feed.is_coherent is False
        assert driver.feed.waker() is None

    @pytest.mark.invariant("I-07")
    async def test_a_row_that_appears_late_with_an_older_time_is_given_once(
        self, store: Store, other: Driver, driver_url: str, mongo: Mongo
    ) -> None:
        async with following(other) as follower, mongo.client(driver_url) as client:
            rows = client.get_default_database()["watchword_change"]
            await store.insert(change("ann"))
            assert await said(follower) == ["ann"]
            for seconds, expected in ((50, ["late"]), (70, [])):
                await store.insert(change("late"))
                newest = await rows.find_one({"subject": "ann"})
                assert newest is not None
                older = newest["feed:written"] - timedelta(seconds=seconds)
                await rows.update_one({"subject": "late"}, {"$set": {"feed:written": older}})
                assert await said(follower) == expected
                assert await said(follower) == []
                await rows.delete_one({"subject": "late"})


@asynccontextmanager
async def opened(
    url: str, records: Sequence[type] = RECORDS, **options: object
) -> AsyncGenerator[Store, None]:
    """A store on a database that is open for a while."""
    made = driver(url, **options)
    try:
        await made.open(records)
        yield Store(driver=made, events=Events(), realm="main")
    finally:
        await made.close()


# what a value may not do

HOSTILE = ({"$gt": ""}, {"$ne": None}, {"$exists": True}, {"$where": "1"}, ["$gt", ""])


@pytest.mark.capability("DEF-36")
@pytest.mark.parametrize("hostile", HOSTILE, ids=str)
async def test_an_object_is_a_value_and_never_an_operator(mongo_url: str, hostile: object) -> None:
    async with opened(mongo_url) as store:
        await store.insert(ticket("a", seat="x"))
        for condition in (hostile, other_than(hostile), gt(hostile), one_of([hostile])):
            for call in (
                store.get(Ticket, id="a", seat=condition),
                store.count(Ticket, seat=condition),
                store.erase(Ticket, seat=condition),
                store.update(Ticket, where(id="a", seat=condition), rank=9),
            ):
                with pytest.raises(ValueError, match=r"not a text|cannot hold"):
                    await call
        with pytest.raises(ValueError, match=r"not a text|cannot hold"):
            await store.get(Ticket, id=hostile)
        with pytest.raises(ValueError, match=r"not a text|cannot hold"):
            await store.update(Ticket, where(id="a"), seat=hostile)
        with pytest.raises(ValueError, match=r"not a whole number|cannot hold"):
            await store.update(Ticket, where(id="a"), rank=hostile)
        assert await store.get(Ticket, id="a") == ticket("a", seat="x")


@pytest.mark.capability("DEF-36")
async def test_keys_with_dots_and_dollars_come_back_as_they_were(mongo_url: str) -> None:
    extra = {"a.b": {"$set": {"x.y": 1}}, "$where": "1", "": [{"$gt": ""}], "\x00": "\x00"}
    async with opened(mongo_url) as store:
        await store.insert(ticket("a", extra=extra))
        found = await store.get(Ticket, id="a", extra=extra)
        assert found is not None
        assert json.loads(json.dumps(found.extra)) == extra
        changed = await store.update(Ticket, where(id="a"), extra={"$inc": {"rank": 1}})
        assert changed is not None
        assert (changed.extra, changed.rank) == ({"$inc": {"rank": 1}}, 0)


async def test_no_two_keys_are_one_text(mongo_url: str) -> None:
    tricky = ['a","b', "a", '","', "a\\", "null", "[]", "ä", "\u2028"]
    async with opened(mongo_url) as store:
        for one in tricky:
            for other in tricky:
                counter = Tally(realm="main", subject=one, kind=other, expires_at=NOW + HOUR)
                assert await store.increment(counter, field="tries", now=NOW) == 1
        assert await store.count(Tally) == len(tricky) ** 2


# unique keys


async def test_a_unique_key_follows_each_of_its_fields(mongo_url: str) -> None:
    async with opened(mongo_url) as store:
        await store.insert(ticket("a", seat="window", row=1))
        await store.insert(ticket("b", seat="window", row=2))
        with pytest.raises(Conflict) as caught:
            await store.update(Ticket, where(id="b"), row=1)  # the other field is only read
        assert caught.value.field == "row"
        with pytest.raises(Conflict) as caught:
            await store.update(Ticket, where(id="b"), row=plus(-1))
        assert caught.value.field == "row"
        with pytest.raises(Conflict) as caught:
            await store.update(Ticket, where(id="b"), email="a@example.com", rank=3)
        assert caught.value.field == "email"
        assert await store.update(Ticket, where(id="a"), row=None)
        assert await store.get(Ticket, seat="window", row=1) is None
        assert await store.update(Ticket, where(id="b", row=2), row=plus(-1))
        found = await store.get(Ticket, seat="window", row=1)
        assert found is not None
        assert found.id == "b"
        with pytest.raises(Conflict):
            await store.update(Ticket, where(id="a"), row=1)


@pytest.mark.invariant("I-05")
async def test_a_unique_key_is_that_of_the_record_even_when_its_fields_race(mongo_url: str) -> None:
    async with opened(mongo_url) as store:
        await store.insert(ticket("a", seat="s-0", row=0))
        seats = (store.update(Ticket, where(id="a"), seat=f"s-{n}") for n in range(1, 15))
        rows = (store.update(Ticket, where(id="a"), row=n) for n in range(1, 15))
        await asyncio.gather(*seats, *rows)
        found = await store.get(Ticket, id="a")
        assert found is not None
        assert await store.get(Ticket, seat=found.seat, row=found.row) == found
        await store.insert(ticket("b", seat="s-0", row=0))  # what it was is free


# an older worker's documents


@record(name="note", key=("id",), indexes=(("author",),))
class Note:
    """As it was released."""

    realm: str
    id: str
    author: str


@record(
    name="note",
    key=("id",),
    unique=(("author", "id"), ("slug",)),
    indexes=(("author",), ("stars", "id")),
)
class LaterNote:
    """As a later minor version knows it."""

    realm: str
    id: str
    author: str
    slug: str | None = None
    stars: int = 3
    is_public: bool = True
    tags: tuple[str, ...] = ("it's", "new")
    seen_at: datetime | None = None


@record(name="note", key=("id",))
class ImpossibleNote:
    """A change that is no addition."""

    realm: str
    id: str
    author: str
    required: str


async def test_a_database_that_lacks_something_stops_the_start_with_a_plan(mongo_url: str) -> None:
    async with opened(mongo_url, [Note]) as store:
        await store.insert(Note(realm="main", id="old", author="me"))
    later = driver(mongo_url)
    with pytest.raises(SchemaBehind) as caught:
        await later.open([LaterNote])
    assert caught.value.plan == await later.plan([LaterNote])
    assert "add field stars = 3 to watchword_note" in str(caught.value.plan)
    assert await later.migrate([LaterNote]) == caught.value.plan
    assert await later.plan([LaterNote]) == ()
    assert await later.migrate([LaterNote]) == ()
    await later.open([LaterNote])
    store = Store(driver=later, events=Events(), realm="main")
    old = LaterNote(realm="main", id="old", author="me")
    assert await store.get(LaterNote, id="old", stars=3) == old
    assert await store.get(LaterNote, author="me", id="old") == old  # its unique key was filled in
    await later.close()
    async with opened(mongo_url, [Note]) as store:  # and the old program goes on
        assert await store.get(Note, id="old")


async def test_an_index_that_somebody_dropped_is_missed(mongo_url: str, mongo: Mongo) -> None:
    async with opened(mongo_url) as store, mongo.client(mongo_url) as client:
        collection = client.get_default_database()["watchword_contract_ticket"]
        await collection.drop_index("uq_email")
        with pytest.raises(SchemaBehind) as caught:
            await store.driver.open(RECORDS)
        assert "uq_email" in str(caught.value.plan)
        await store.driver.migrate(RECORDS)
        await store.driver.open(RECORDS)
        await store.insert(ticket("a"))
        with pytest.raises(Conflict):
            await store.insert(ticket("b", email="a@example.com"))


async def test_old_and_new_workers_run_side_by_side(mongo_url: str) -> None:
    """What an old worker writes lacks the new fields and stands for their defaults."""
    async with opened(mongo_url, [LaterNote]) as new, opened(mongo_url, [Note]) as old:
        await old.insert(Note(realm="main", id="a", author="me"))
        note = LaterNote(realm="main", id="a", author="me")
        for holds in ({"stars": 3}, {"stars": ge(3)}, {"stars": one_of([3])}, {"slug": None}):
            assert await new.get(LaterNote, id="a", **holds) == note, holds
        for fails in (
            {"stars": None},
            {"stars": 4},
            {"stars": other_than(3)},
            {"stars": gt(3)},
            {"slug": other_than(None)},
            {"is_public": False},
        ):
            assert await new.get(LaterNote, id="a", **fails) is None, fails
        raised = await new.update(LaterNote, where(id="a", stars=3), stars=plus(1))
        assert raised == replace(note, stars=4)
        assert await old.driver.plan([Note]) == ()


async def test_a_feature_added_later_needs_a_migration(mongo_url: str) -> None:
    async with opened(mongo_url, [Ticket]):
        pass
    made = driver(mongo_url)
    with pytest.raises(SchemaBehind) as caught:
        await made.open([Ticket, Tally])
    assert "create collection watchword_contract_tally" in caught.value.plan
    await made.migrate([Ticket, Tally])
    await made.open([Ticket, Tally])
    await made.open([Tally])  # and one that is switched off leaves its collection
    await made.close()


async def test_a_database_of_a_newer_major_version_is_refused(mongo_url: str, mongo: Mongo) -> None:
    async with opened(mongo_url, [Note]) as store, mongo.client(mongo_url) as client:
        kept = client.get_default_database()["watchword_schema"]
        await kept.update_one({"_id": "schema"}, {"$inc": {"major": 1}})
        made = store.driver
        for step in (made.open([Note]), made.plan([Note]), made.migrate([Note])):
            with pytest.raises(SchemaNewer):
                await step


async def test_a_field_that_old_documents_cannot_have_is_no_addition(mongo_url: str) -> None:
    async with opened(mongo_url, [Note]) as store:
        with pytest.raises(TypeError, match="give it a default"):
            await store.driver.plan([ImpossibleNote])


async def test_plan_on_an_empty_database_is_everything_and_changes_nothing(
    mongo_url: str, mongo: Mongo
) -> None:
    made = driver(mongo_url)
    plan = await made.plan(RECORDS)
    assert plan == await made.plan(RECORDS)
    assert len([step for step in plan if step.startswith("create collection")]) == len(RECORDS)
    async with mongo.client(mongo_url) as client:
        assert await client.get_default_database().list_collection_names() == []
        assert await made.migrate(RECORDS) == plan
        await made.open(RECORDS)
        ticket_indexes = await client.get_default_database()[
            "watchword_contract_ticket"
        ].index_information()
    assert ticket_indexes["uq_email"]["unique"]
    assert ticket_indexes["uq_email"]["sparse"]
    assert ticket_indexes["ttl_expires_at"]["expireAfterSeconds"] == 6 * 3600
    await made.close()


PROGRAM = """
import asyncio, sys
from watchword.stores.mongo import driver
from watchword.testing.racer import RECORDS
async def main():
    made = driver(sys.argv[1])
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await made.open(RECORDS)
    print(await made.plan(RECORDS) == (), flush=True)
    await made.close()
asyncio.run(main())
"""


async def test_four_processes_may_start_at_once_on_an_empty_database(mongo_url: str) -> None:
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROGRAM, mongo_url),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )
        for _ in range(4)
    ]
    async with asyncio.timeout(60):
        for process in processes:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
        said = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    assert [one for one, _ in said] == [b"True\n"] * 4
    assert [process.returncode for process in processes] == [0] * 4


# expiry


async def test_the_date_for_mongodbs_own_expiry_follows_the_record(
    mongo_url: str, mongo: Mongo
) -> None:
    async with opened(mongo_url) as store, mongo.client(mongo_url) as client:
        rows = client.get_default_database()["watchword_contract_ticket"]

        async def date() -> object:
            found = await rows.find_one({"id": "a"})
            assert found is not None
            return found.get("ttl:expires_at")

        await store.insert(ticket("a"))
        assert await date() is None
        await store.update(Ticket, where(id="a"), expires_at=NOW)
        here = NOW.replace(microsecond=678000, tzinfo=None)
        assert await date() == here
        await store.update(Ticket, where(id="a"), rank=1)
        assert await date() == here
        await store.update(Ticket, where(id="a"), expires_at=None)
        assert await date() is None


@pytest.mark.invariant("I-05")
async def test_counters_that_start_anew_at_once_lose_nothing(mongo_url: str) -> None:
    async with opened(mongo_url) as store:

        def counter(now: datetime) -> Tally:
            return Tally(realm="main", subject="s", kind="k", expires_at=now + HOUR)

        for now in (NOW, NOW + HOUR, NOW + 2 * HOUR):
            tries = (store.increment(counter(now), field="tries", now=now) for _ in range(40))
            assert sorted(await asyncio.gather(*tries)) == list(range(1, 41))


# the primary and a majority, whatever the URL says

PINNED = (
    "?w=0&journal=false&readConcernLevel=local&readPreference=secondary&wTimeoutMS=1",
    "?W=1&ReadPreference=nearest&maxStalenessSeconds=120&readPreferenceTags=dc:east",
    "?w=1&j=false",
    "",
)


@pytest.mark.invariant("I-19")
@pytest.mark.parametrize("query", PINNED)
async def test_the_primary_and_a_majority_decide_whatever_the_url_says(
    mongo_url: str, query: str
) -> None:
    heard = Heard()
    monitoring.register(heard)
    try:
        async with opened(mongo_url + query) as store:
            await store.insert(ticket("a"))
            assert await store.get(Ticket, id="a")
            await store.find(Ticket, Paging(order=("id",)))
            await store.count(Ticket)
            await store.update(Ticket, where(id="a"), rank=1)
            await store.increment(
                Tally(realm="main", subject="s", kind="k", expires_at=NOW), field="tries", now=NOW
            )
            await store.expire(Tally, now=NOW)
            await store.take(Ticket, id="a")
            await store.erase(Ticket)
    finally:
        heard.is_listening = False
    writes = [one for name, one in heard.commands if name in WRITES]
    reads = [one for name, one in heard.commands if name in READS]
    assert {name for name, _ in heard.commands} >= {*WRITES, *READS}
    for one in writes:
        assert (one["writeConcern"]["w"], one["writeConcern"]["j"]) == ("majority", True)
        assert one["writeConcern"]["wtimeout"] in (10_000, 3_600_000)  # an index takes its time
    for one in reads:
        assert one["readConcern"] == {"level": "majority"}
    for _, one in heard.commands:
        assert one.get("$readPreference", {"mode": "primary"}) == {"mode": "primary"}


WRITES = ("insert", "update", "delete", "findAndModify", "createIndexes")
READS = ("find", "aggregate")  # `aggregate` counts


class Heard(monitoring.CommandListener):
    """The commands that were sent while somebody listens."""

    def __init__(self) -> None:
        self.commands: list[tuple[str, dict[str, Any]]] = []
        self.is_listening = True

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if self.is_listening:
            self.commands.append((event.command_name, dict(event.command)))

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        pass

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        pass


# URLs and errors


@pytest.mark.parametrize(
    "url",
    [
        "mongodb://u:hidden@h/x?nonsense=1",
        "mongodb://u:hidden@h/x?maxPoolSize=many",
        "mongodb://u:hid/den@h/x",
        "mongodb://u:hid:den@h/x",
        "mongodb://u:hidden@h:port/x",
        "mongodb://u:hidden@h/x?pool_size=0",
        "mongodb://u:hidden@h/x?socketTimeoutMS=0",
        "mongodb://u:hidden@h/x?serverSelectionTimeoutMS=-1",
        "mongodb://u:hidden@h/x?directConnection=true",
        "mongodb://u:hidden@h/a.b",
        "mongodb://u:hidden@/x",
        "mongodb://u:hidden@[h/x",
        "postgresql://u:hidden@h/d",
        "mongodb+srv://u:hidden@h,i/d",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        driver(url)
    assert "hid" not in str(caught.value)
    assert "den" not in "".join(traceback.format_exception(caught.value)).replace(url, "")
    with pytest.raises(ConfigurationError, match="no option"):
        driver("mongodb://h/x", nonsense=1)


def test_the_databases_name_is_that_of_the_path() -> None:
    assert parse("mongodb://h/mine?pool_size=3", {"pool_timeout": 1}).name == "mine"
    assert parse("mongodb://h1:1,h2:2", {}).name == "watchword"
    assert parse("mongodb://h?appName=x&w=0", {}).url == "mongodb://h/?appName=x"
    assert "hidden" not in repr(parse("mongodb://u:hidden@h/x", {}))


async def test_a_server_that_is_not_there_is_unavailable_within_its_bound() -> None:
    made = driver("mongodb://u:hidden@127.0.0.1:1/d?selection_timeout=0.3")
    assert made.feed is not None
    follower = made.feed.follow("main")
    began = time.monotonic()
    for step in (
        made.ping(),
        made.open(RECORDS),
        made.verbs.get(Ticket, {"realm": "main", "id": "a"}),
        made.verbs.insert(ticket("a")),
        follower.begin(),
    ):
        with pytest.raises(StoreUnavailable) as caught:
            await step
        assert caught.value.note == "ServerSelectionTimeoutError"
        assert "hidden" not in "".join(traceback.format_exception(caught.value))
    assert time.monotonic() - began < 8
    await follower.close()
    await made.close()


async def test_waiting_for_a_free_connection_ends(mongo_url: str) -> None:
    async with opened(mongo_url, pool_size=1, pool_timeout=0.001) as store:
        await store.insert(ticket("a"))
        tries = (store.update(Ticket, where(id="a"), rank=plus(1)) for _ in range(200))
        answers = await asyncio.gather(*tries, return_exceptions=True)
        refused = [one for one in answers if isinstance(one, BaseException)]
        assert refused
        for one in refused:
            assert isinstance(one, StoreUnavailable)
            assert one.note == "WaitQueueTimeoutError"
        found = await store.get(Ticket, id="a")
        assert found is not None
        assert found.rank == 200 - len(refused)


async def test_no_value_reaches_an_error_or_the_log(
    mongo_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with opened(mongo_url) as store:
        await store.insert(ticket("canary"))
        with pytest.raises(Conflict) as caught:
            await store.insert(ticket("canary"))
        assert "canary" not in "".join(traceback.format_exception(caught.value)).replace(
            'ticket("canary")', ""
        )
        assert await store.get(Ticket, id="canary")
    assert "canary" not in caplog.text


async def test_there_is_nothing_to_join(mongo_url: str) -> None:
    made = driver(mongo_url)
    assert made.is_transactional is False

    async def told() -> None:
        raise AssertionError

    with pytest.raises(TypeError, match="one by one"):
        made.joined(object())
    with pytest.raises(TypeError, match="one by one"):
        made.savepoint(object())
    with pytest.raises(TypeError, match="one by one"):
        await made.after_commit(object(), lambda: None, told)


def test_a_driver_serves_one_loop_after_another_and_a_forked_child(
    mongo: Mongo,
) -> None:
    url = mongo.make_database()
    made = driver(url)

    async def use(name: str) -> int:
        await made.open(RECORDS)
        store = Store(driver=made, events=Events(), realm="main")
        await store.insert(ticket(name))
        count = await store.count(Ticket)
        await made.close()
        return count

    assert asyncio.run(use("first")) == 1
    assert asyncio.run(use("second")) == 2
    asyncio.run(mongo.drop_database(url))


FORKING = """
import asyncio, os, sys
from watchword.kernel.events import Events
from watchword.storage.store import Store
from watchword.stores.mongo import driver
from watchword.testing.racer import RECORDS, Ticket, ticket

made = driver(sys.argv[1])
store = Store(driver=made, events=Events(), realm="main")

async def before():
    await made.open(RECORDS)
    await store.insert(ticket("parent"))
    return os.fork()

async def child():
    assert await store.count(Ticket) == 1
    await store.insert(ticket("child"))
    await made.close()

loop = asyncio.new_event_loop()
number = loop.run_until_complete(before())
if number == 0:
    asyncio.run(child())
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) == 0
assert loop.run_until_complete(store.count(Ticket)) == 2
loop.run_until_complete(made.close())
print("done")
"""


async def test_a_child_that_was_forked_connects_anew(mongo_url: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", FORKING, mongo_url),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    async with asyncio.timeout(60):
        answer, _ = await process.communicate()
    assert answer == b"done\n"


@pytest.mark.capability("S2-33")
async def test_a_missing_package_is_named_with_its_remedy() -> None:
    code = (
        "import sys; sys.modules['pymongo'] = None\n"
        "from watchword.stores.mongo import driver\n"
        "from watchword.kernel.errors import ConfigurationError\n"
        "try: driver('mongodb://h/d')\n"
        "except ConfigurationError as error: print(error)\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    answer, _ = await process.communicate()
    assert b'pip install "watchword[mongo]"' in answer


# a server that comes and goes


@pytest.fixture
def own_mongo() -> Iterator[Mongo]:
    """A server of this test alone, with a file, which it may stop."""
    server = Mongo.start(shared=False)
    yield server
    server.stop()


@pytest.mark.slow
async def test_it_goes_on_after_the_server_was_stopped_and_started(own_mongo: Mongo) -> None:
    async with opened(own_mongo.make_database(), selection_timeout=1) as store:
        made = store.driver
        assert made.feed is not None
        await store.insert(ticket("first", seat="window", row=1))
        follower = made.feed.follow("main")
        await in_thread(own_mongo.halt)
        for step in (
            store.get(Ticket, id="first"),
            store.insert(ticket("away")),
            store.count(Ticket),
            store.take(Ticket, id="first"),
            made.ping(),
            follower.begin(),
        ):
            with pytest.raises(StoreUnavailable) as caught:
                await step
            assert caught.value.note
            assert "127.0.0.1" not in caught.value.note
        await in_thread(own_mongo.resume)
        assert await recovered(store) < 5
        found = await store.get(Ticket, seat="window", row=1)  # what it kept, its indexes too
        assert found is not None
        assert found.id == "first"
        with pytest.raises(Conflict):
            await store.insert(ticket("second", email="first@example.com"))
        await made.open(RECORDS)
        assert await store.get(Ticket, id="away") is None
        await follower.close()


async def recovered(store: Store) -> float:
    """Ask until there is an answer; how many seconds that took."""
    began = time.monotonic()
    while time.monotonic() - began < 20:
        try:
            await store.count(Ticket)
        except StoreUnavailable:
            await asyncio.sleep(0.05)
        else:
            break
    return time.monotonic() - began
