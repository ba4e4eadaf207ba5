import asyncio
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import argon2.low_level
import bcrypt
import pytest

from watchword.crypto import hashing, schemes
from watchword.crypto.hashing import Hasher, HashPool, Scheme, Verdict, cost_fault
from watchword.kernel.errors import Busy, ConfigurationError, InvalidInput
from watchword.kernel.moment import transaction_open
from watchword.testing.cost import cheap_hashing

PASSWORD = "correct horse battery staple"
RIGHT = Verdict(ok=True, upgrade=False)
RIGHT_BUT_OLD = Verdict(ok=True, upgrade=True)
WRONG = Verdict(ok=False, upgrade=False)
SCHEMES: tuple[Scheme, ...] = ("argon2id", "bcrypt")

GARBAGE = [
    "",
    "garbage",
    PASSWORD,  # a plain one in the row
    "5f4dcc3b5aa765d61d8327deb882cf99",  # MD5
    "$1$salt$qJH7.N4xYta3aEG/dfqo/0",  # md5-crypt
    "{SSHA}0c0blFTXXNuAMHECS4uxrj3ZieMoWImr",
    "$2b$12$tooshort",
    "$2b$99$" + "a" * 53,
    "$2b$31$" + "a" * 53,  # days of work
    "$2x$12$" + "a" * 53,
    "$argon2id$v=19$m=65536,t=3,p=4$",
    "$argon2id$v=19$m=99999999,t=3,p=4$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
    "$argon2id$v=19$m=2097152,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
    "$argon2id$v=19$m=8,t=17,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
    "$argon2id$v=19$m=512,t=1,p=17$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
    "$argon2id$v=19$m=8,t=1,p=4$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
    "$argon2id$v=19$m=8,t=1,p=1$AAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAA",  # no base64
    "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc\n",
    "\x00\ud800",
]


@pytest.fixture(autouse=True)
def _cost(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.node.get_closest_marker("real_cost"):
        yield
    else:
        with cheap_hashing():
            yield


@pytest.fixture
async def pool() -> AsyncIterator[HashPool]:
    pool = HashPool(threads=2, queue=8)
    yield pool
    pool.close()


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every hash that the libraries are asked for."""
    seen: list[str] = []

    def counted(name: str, call: Callable[..., object]) -> Callable[..., object]:
        def run(*args: object, **more: object) -> object:
            seen.append(name)
            return call(*args, **more)

        return run

    monkeypatch.setattr(schemes, "verify_secret", counted("argon2", argon2.low_level.verify_secret))
    monkeypatch.setattr(schemes, "hash_secret", counted("argon2", argon2.low_level.hash_secret))
    monkeypatch.setattr(bcrypt, "checkpw", counted("bcrypt", bcrypt.checkpw))
    monkeypatch.setattr(bcrypt, "hashpw", counted("bcrypt", bcrypt.hashpw))
    return seen


@pytest.mark.capability("S1-07", "S4-13", "S4-14")
@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_password_verifies_against_its_hash_and_another_does_not(
    pool: HashPool, scheme: Scheme
) -> None:
    hasher = Hasher(pool=pool, scheme=scheme)
    stored = await hasher.hash(PASSWORD)
    assert await hasher.verify(PASSWORD, stored) == RIGHT
    for other in ("", PASSWORD + " ", PASSWORD.upper(), PASSWORD[:-1]):
        assert await hasher.verify(other, stored) == WRONG
    assert await hasher.hash(PASSWORD) != stored


@pytest.mark.real_cost
@pytest.mark.capability("S4-13", "S4-14", "S2-16")
async def test_the_default_cost_stands_in_the_hash(pool: HashPool) -> None:
    argon = await Hasher(pool=pool).hash(PASSWORD)
    assert argon.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert await Hasher(pool=pool).verify(PASSWORD, argon) == RIGHT
    assert (await Hasher(pool=pool, scheme="bcrypt").hash(PASSWORD)).startswith("$2b$12$")
    assert (await Hasher(pool=pool, scheme="bcrypt", bcrypt_rounds=10).hash("x")).startswith(
        "$2b$10$"
    )


@pytest.mark.capability("S4-14")
async def test_hashes_made_by_others_verify_and_ask_for_an_upgrade(pool: HashPool) -> None:
    hasher = Hasher(pool=pool)
    # The reference implementation's own test vector.
    argon = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
    assert await hasher.verify("password", argon) == RIGHT_BUT_OLD
    argon_i = argon2.low_level.hash_secret(
        b"password", b"somesalt", 1, 8, 1, 32, argon2.low_level.Type.I
    ).decode()
    assert await hasher.verify("password", argon_i) == RIGHT_BUT_OLD
    for letter in "aby":  # Openwall's vector, under each of its names
        blowfish = f"$2{letter}$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"
        assert await hasher.verify("U*U", blowfish) == RIGHT_BUT_OLD
        assert await hasher.verify("U*V", blowfish) == WRONG


@pytest.mark.capability("S4-13", "S4-14", "S2-16")
async def test_a_change_of_scheme_or_cost_asks_for_an_upgrade_in_both_directions(
    pool: HashPool,
) -> None:
    dear, cheap = (Hasher(pool=pool, time_cost=t, memory_cost=8, parallelism=1) for t in (2, 1))
    many, few = (Hasher(pool=pool, scheme="bcrypt", bcrypt_rounds=r) for r in (5, 4))
    hashers = (dear, cheap, many, few)
    for made_by in hashers:
        stored = await made_by.hash(PASSWORD)
        for checked_by in hashers:
            expected = RIGHT if made_by is checked_by else RIGHT_BUT_OLD
            assert await checked_by.verify(PASSWORD, stored) == expected
            assert await checked_by.verify("wrong", stored) == WRONG


async def test_a_password_that_the_new_scheme_cannot_take_keeps_its_hash(pool: HashPool) -> None:
    long = "x" * 73
    stored = await Hasher(pool=pool).hash(long)
    assert await Hasher(pool=pool, scheme="bcrypt").verify(long, stored) == RIGHT


@pytest.mark.capability("S1-07", "S0-72", "S4-15")
@pytest.mark.parametrize("scheme", SCHEMES)
async def test_garbage_and_plain_or_fast_hashes_never_verify_and_take_one_hash_all_the_same(
    pool: HashPool, scheme: Scheme, runs: list[str]
) -> None:
    hasher = Hasher(pool=pool, scheme=scheme)
    own = scheme.removesuffix("id")
    for stored in GARBAGE:
        for password in (PASSWORD, stored, "password"):
            runs.clear()
            assert await hasher.verify(password, stored) == WRONG
            assert runs[-1] == own, stored
            assert len(runs) <= 2  # at most one that the library gave up before it began


@pytest.mark.capability("S0-72")
async def test_a_refused_form_is_logged_without_its_text(
    pool: HashPool, caplog: pytest.LogCaptureFixture
) -> None:
    assert await Hasher(pool=pool).verify(PASSWORD, PASSWORD) == WRONG
    assert len(caplog.records) == 1
    assert PASSWORD not in caplog.text
    assert await Hasher(pool=pool).verify(PASSWORD, None) == WRONG
    assert len(caplog.records) == 1


@pytest.mark.invariant("I-20")
@pytest.mark.parametrize("scheme", SCHEMES)
async def test_an_unknown_user_costs_exactly_the_one_hash_that_a_known_one_costs(
    pool: HashPool, scheme: Scheme, runs: list[str]
) -> None:
    hasher = Hasher(pool=pool, scheme=scheme)
    stored = await hasher.hash(PASSWORD)
    for row in (None, stored):
        runs.clear()
        assert await hasher.verify("wrong", row) == WRONG
        assert len(runs) == 1


@pytest.mark.real_cost
@pytest.mark.invariant("I-20")
async def test_an_unknown_user_takes_as_long_as_a_known_one(pool: HashPool) -> None:
    hasher = Hasher(pool=pool)
    stored = await hasher.hash(PASSWORD)
    took: dict[str | None, list[float]] = {None: [], stored: []}
    for _ in range(4):
        for row, times in took.items():
            began = time.process_time()
            await hasher.verify("wrong", row)
            times.append(time.process_time() - began)
    assert 0.5 < min(took[None]) / min(took[stored]) < 2


@pytest.mark.capability("DEF-23")
@pytest.mark.invariant("I-20")
async def test_bcrypt_neither_sets_nor_accepts_what_it_would_not_see(
    pool: HashPool, runs: list[str]
) -> None:
    hasher = Hasher(pool=pool, scheme="bcrypt")
    seen = "é" * 36  # 72 bytes
    stored = await hasher.hash(seen)
    assert await hasher.verify(seen, stored) == RIGHT
    for unseen, code in (
        (seen + "x", "password_too_long"),
        ("x" * 73, "password_too_long"),
        ("a\x00b", "password_invalid"),
    ):
        with pytest.raises(InvalidInput) as refused:
            await hasher.hash(unseen)
        assert [(f.field, f.code) for f in refused.value.faults] == [("password", code)]
        runs.clear()
        assert await hasher.verify(unseen, stored) == WRONG
        assert runs == ["bcrypt"]
    truncated = bcrypt.hashpw(b"a", bcrypt.gensalt(4)).decode()
    assert await hasher.verify("a\x00b", truncated) == WRONG


@pytest.mark.capability("DEF-23")
async def test_argon2_tells_passwords_apart_after_72_bytes_and_takes_nul(pool: HashPool) -> None:
    hasher = Hasher(pool=pool)
    stored = await hasher.hash("x" * 72 + "a\x00b")
    assert await hasher.verify("x" * 72 + "a\x00b", stored) == RIGHT
    for other in ("x" * 72 + "a\x00c", "x" * 72 + "a", "x" * 72):
        assert await hasher.verify(other, stored) == WRONG


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_half_a_surrogate_pair_is_refused_and_never_verifies(
    pool: HashPool, scheme: Scheme
) -> None:
    hasher = Hasher(pool=pool, scheme=scheme)
    with pytest.raises(InvalidInput):
        await hasher.hash("abc\ud800")
    assert await hasher.verify("abc\ud800", await hasher.hash("\x01")) == WRONG


class Gate:
    """Calls that last until they are let go."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.ran: list[int] = []
        self.now = self.most = 0
        self._lock = threading.Lock()

    def __call__(self, number: int) -> int:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        self.opened.wait(20)
        with self._lock:
            self.now -= 1
            self.ran.append(number)
        return number


@pytest.mark.capability("S4-13")
@pytest.mark.invariant("I-20")
async def test_past_threads_and_queue_the_pool_says_busy_at_once() -> None:
    pool, gate = HashPool(threads=2, queue=3), Gate()
    calls = [asyncio.create_task(pool.run(gate, number)) for number in range(5)]
    await asyncio.sleep(0)
    assert (pool.running, pool.waiting) == (2, 3)
    with pytest.raises(Busy) as busy:
        await pool.run(gate, 99)
    assert int(busy.value.headers["Retry-After"]) >= 1
    gate.opened.set()
    assert await asyncio.gather(*calls) == [0, 1, 2, 3, 4]
    assert gate.most == 2
    assert await pool.run(gate, 7) == 7
    assert 99 not in gate.ran
    pool.close()


async def test_whoever_goes_away_frees_the_place_and_is_not_hashed_for() -> None:
    pool, gate = HashPool(threads=1, queue=1), Gate()
    first = asyncio.create_task(pool.run(gate, 1))
    for number in range(2, 200):
        gone = asyncio.create_task(pool.run(gate, number))
        await asyncio.sleep(0)
        assert pool.waiting == 1
        gone.cancel()
        with suppress(asyncio.CancelledError):
            await gone
        assert pool.waiting == 0
    last = asyncio.create_task(pool.run(gate, 200))
    await asyncio.sleep(0)
    gate.opened.set()
    assert await asyncio.gather(first, last) == [1, 200]
    assert gate.ran == [1, 200]
    pool.close()


async def test_a_cancelled_call_that_runs_keeps_its_thread_until_it_is_done() -> None:
    pool, gate = HashPool(threads=1, queue=1), Gate()
    running = asyncio.create_task(pool.run(gate, 1))
    await asyncio.sleep(0.05)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert pool.running == 1
    waiting = asyncio.create_task(pool.run(gate, 2))
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await pool.run(gate, 3)
    gate.opened.set()
    assert await waiting == 2
    pool.close()


async def test_what_a_call_raises_reaches_its_caller_and_leaves_the_pool_working() -> None:
    pool = HashPool(threads=1, queue=1)
    with pytest.raises(ZeroDivisionError):
        await pool.run(divmod, 1, 0)
    assert await pool.run(divmod, 7, 2) == (3, 1)
    pool.close()


async def test_closing_refuses_what_waits_and_the_pool_can_be_used_again() -> None:
    pool, gate = HashPool(threads=1, queue=2), Gate()
    running = asyncio.create_task(pool.run(gate, 1))
    waiting = asyncio.create_task(pool.run(gate, 2))
    await asyncio.sleep(0.05)
    pool.close()
    gate.opened.set()
    with pytest.raises(Busy):
        await waiting
    assert await running == 1
    assert await pool.run(gate, 3) == 3
    pool.close()


@pytest.mark.invariant("I-04")
async def test_nothing_is_hashed_while_a_transaction_is_open(
    pool: HashPool, runs: list[str]
) -> None:
    hasher = Hasher(pool=pool)
    within = transaction_open.set(True)
    try:
        for call in (hasher.hash(PASSWORD), hasher.verify(PASSWORD, None)):
            with pytest.raises(RuntimeError, match="transaction"):
                await call
    finally:
        transaction_open.reset(within)
    assert runs == []
    assert (pool.running, pool.waiting) == (0, 0)


async def test_no_thread_is_started_before_the_first_hash() -> None:
    pool = HashPool(threads=4, queue=1)
    Hasher(pool=pool)
    assert pool._executor is None
    ran_on = await pool.run(threading.current_thread)
    assert ran_on is not threading.current_thread()
    assert ran_on.name.startswith("watchword-hash")
    pool.close()


def test_a_pool_that_was_used_before_a_fork_works_in_the_child() -> None:
    pool = HashPool(threads=1, queue=1)
    assert asyncio.run(pool.run(divmod, 7, 2)) == (3, 1)
    child = os.fork()
    if child == 0:
        try:
            result = asyncio.run(asyncio.wait_for(pool.run(divmod, 7, 2), 20))
            os._exit(0 if result == (3, 1) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    pool.close()


def test_without_a_number_there_is_a_thread_a_core() -> None:
    assert HashPool(threads=0, queue=1)._threads == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("scheme", "cost", "named"),
    [
        ("argon2id", {"time_cost": 1, "memory_cost": 47103}, "47104"),
        ("argon2id", {"time_cost": 2, "memory_cost": 19455}, "19456"),
        ("argon2id", {"time_cost": 0}, "time_cost=1"),
        ("argon2id", {"time_cost": 1, "memory_cost": 8, "parallelism": 1}, "47104"),
        ("argon2id", {"time_cost": 17}, "at most 16"),
        ("argon2id", {"memory_cost": 2**20 + 1}, "at most 1048576"),
        ("argon2id", {"parallelism": 0}, "1 to 16"),
        ("argon2id", {"parallelism": 17}, "1 to 16"),
        ("bcrypt", {"bcrypt_rounds": 9}, "at least 10"),
        ("bcrypt", {"bcrypt_rounds": 17}, "at most 16"),
    ],
)
@pytest.mark.real_cost
@pytest.mark.capability("S2-16")
def test_a_cost_out_of_range_is_refused_with_its_remedy(
    scheme: Scheme, cost: dict[str, Any], named: str
) -> None:
    fault = cost_fault(scheme, **cost)
    assert fault is not None
    assert named in fault
    with pytest.raises(ConfigurationError):
        Hasher(pool=HashPool(threads=1, queue=1), scheme=scheme, **cost)


@pytest.mark.parametrize(
    ("scheme", "cost"),
    [
        ("argon2id", {}),
        ("argon2id", {"time_cost": 1, "memory_cost": 47104, "parallelism": 1}),
        ("argon2id", {"time_cost": 2, "memory_cost": 19456, "parallelism": 1}),
        ("bcrypt", {}),
        ("bcrypt", {"bcrypt_rounds": 10}),
    ],
)
def test_a_cost_that_the_standards_allow_is_taken(scheme: Scheme, cost: dict[str, int]) -> None:
    assert cost_fault(scheme, **cost) is None


async def test_the_test_cost_holds_inside_its_block_only(pool: HashPool) -> None:
    assert (await Hasher(pool=pool).hash("x")).startswith("$argon2id$v=19$m=8,t=1,p=1$")
    assert (await Hasher(pool=pool, scheme="bcrypt").hash("x")).startswith("$2b$04$")
    before = hashing.set_test_cost(enabled=False)
    try:
        with cheap_hashing():
            Hasher(pool=pool, time_cost=1, memory_cost=8, parallelism=1)
        with pytest.raises(ConfigurationError):
            Hasher(pool=pool, time_cost=1, memory_cost=8, parallelism=1)
    finally:
        hashing.set_test_cost(enabled=before)


def test_nothing_but_watchword_testing_names_the_test_cost() -> None:
    source = Path(hashing.__file__).parents[1]
    naming = {
        str(path.relative_to(source))
        for path in source.rglob("*.py")
        if "set_test_cost" in path.read_text()
    }
    assert naming == {"crypto/hashing.py", "testing/cost.py"}


@pytest.mark.skipif(sys.platform != "linux", reason="only there has a thread a niceness of its own")
async def test_hashing_steps_back_behind_the_event_loop(pool: HashPool) -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def of_a_lane() -> int:
        with ThreadPoolExecutor(1) as lanes:  # argon2's own threads are started like this one
            return lanes.submit(niceness).result()

    ours = niceness()
    assert await pool.run(niceness) == min(19, ours + 5)
    assert await pool.run(of_a_lane) == min(19, ours + 5)
    assert niceness() == ours


@pytest.mark.skipif(sys.platform != "linux", reason="only there has a thread a niceness of its own")
async def test_where_niceness_is_forbidden_hashing_goes_on(
    pool: HashPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", forbidden)
    assert await pool.run(lambda: "hashed") == "hashed"
