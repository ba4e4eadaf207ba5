"""Passwords in their stored form, made and checked away from the event loop."""

import contextlib
import logging
import math
import os
import re
import secrets
import sys
import threading
import time
from asyncio import wrap_future
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock
from typing import Any, Final, Literal, TypeVar, final

from watchword.crypto import foreign
from watchword.kernel.attempts import Floor
from watchword.kernel.errors import Busy, ConfigurationError, Fault, InvalidInput
from watchword.kernel.moment import refuse_in_transaction
from watchword.kernel.secrets import Secret, unpadded
from watchword.kernel.tally import Durations
from watchword.kernel.tracing import OFF, Tracing

Scheme = Literal["argon2id", "bcrypt"]
T = TypeVar("T")

_log = logging.getLogger("watchword.hashing")

# More than this is refused in settings and in stored rows alike: one row must not be able to
# take all memory, or a thread for minutes.
_MOST_MEMORY: Final = 1024 * 1024  # KiB
_MOST_PASSES: Final = 16
_MOST_LANES: Final = 16
_MOST_ROUNDS: Final = 16
_NICER: Final = 5  # a third of the loop's weight; more would let a busy neighbour stop sign-ins
_EDGES: Final = (0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0)  # seconds
_BCRYPT_LIMIT: Final = 72  # bytes; bcrypt does not see what comes after

_ARGON2 = re.compile(
    r"\$argon2(?P<kind>id|i|d)(?:\$v=(?P<version>16|19))?"
    r"\$m=(?P<memory>[1-9][0-9]{0,6}),t=(?P<passes>[1-9][0-9]?),p=(?P<lanes>[1-9][0-9]?)"
    r"\$[A-Za-z0-9+/]{11,128}\$[A-Za-z0-9+/]{16,128}"
)
_BCRYPT = re.compile(r"\$2[aby]\$(?P<rounds>[0-9]{2})\$[./A-Za-z0-9]{53}")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the password was right, and whether its stored form should be made anew."""

    ok: bool
    upgrade: bool  # scheme or cost are not those configured; only ever true with `ok`


@dataclass(frozen=True, slots=True)
class _Cost:
    scheme: Scheme
    time_cost: int
    memory_cost: int  # KiB
    parallelism: int
    bcrypt_rounds: int


_CHEAPEST: Final = _Cost("argon2id", 1, 8, 1, 4)


class _Job(Future[Any]):
    """A call that waits for its thread."""

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__()
        self.call = call


@final
class HashPool:
    """Threads of our own for hashing: `threads` at work, `queue` waiting, the rest refused.

    The event loop's own threads serve files and name look-ups; hashing would starve them. Memory
    is bounded by threads times what one hash takes.
    """

    def __init__(self, *, threads: int, queue: int, tracing: Tracing = OFF) -> None:
        self._threads = threads or _cores()
        self._places = queue
        self._tracing = tracing
        self.refused = 0
        self.times = Durations(_EDGES)  # of the calls, without their waiting
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._lock = Lock()
        self._executor: ThreadPoolExecutor | None = None
        self._queue: dict[_Job, None] = {}  # in order; a dictionary forgets from its middle
        self._lasts = 0.1  # seconds one call takes, smoothed
        self.running = 0

    @property
    def waiting(self) -> int:
        """How many calls have no thread yet."""
        return len(self._queue)

    async def run(self, fn: Callable[..., T], *args: object) -> T:
        """Call `fn(*args)` on a thread and wait for what it returns.

        Cancelling gives the place in the queue back; a call at work is left to finish.

        Raises:
            Busy: all threads are at work and the queue is full. Raised at once.
            RuntimeError: a transaction is open (I-04).
        """
        refuse_in_transaction("hashing")
        if self._process != os.getpid():  # forked: our threads stayed in the parent
            self._reset()
        job = _Job(partial(fn, *args))
        with self._lock:
            if self.running < self._threads:
                self._start(job)
                self.running += 1
            elif len(self._queue) < self._places:
                self._queue[job] = None
            else:
                self.refused += 1
                raise Busy(retry_after=self._drained_after())
        try:
            with self._tracing.span("hash", waiting=len(self._queue)):
                return await wrap_future(job)
        finally:  # still in the queue if whoever asked went away
            with self._lock:
                self._queue.pop(job, None)

    def close(self) -> None:
        """Refuse what waits and let the threads go. The next call starts new ones."""
        with self._lock:
            waiting, self._queue = self._queue, {}
            executor, self._executor = self._executor, None
        for job in waiting:
            if job.set_running_or_notify_cancel():
                job.set_exception(Busy(retry_after=1))
        if executor is not None:
            executor.shutdown(wait=False)

    def _start(self, job: _Job) -> None:
        if self._executor is None:
            self._executor = ThreadPoolExecutor(
                self._threads, thread_name_prefix="watchword-hash", initializer=step_back
            )
        self._executor.submit(self._work, job)

    def _work(self, job: _Job | None) -> None:
        """Do one job, then whichever waited longest, until none waits."""
        while job is not None:
            if job.set_running_or_notify_cancel():
                began = time.monotonic()
                try:
                    job.set_result(job.call())
                except BaseException as error:  # noqa: BLE001  whoever waits must hear of it
                    job.set_exception(error)
                lasted = time.monotonic() - began
                self._lasts += (lasted - self._lasts) / 8
                with self._lock:
                    self.times.add(lasted)
            with self._lock:
                job = next(iter(self._queue), None)
                if job is None:
                    self.running -= 1
                else:
                    del self._queue[job]

    def _drained_after(self) -> int:
        return max(1, math.ceil(len(self._queue) / self._threads * self._lasts))


def step_back() -> None:
    """Let this thread, and those it starts, run after others that want the core.

    A hash keeps every core busy with lanes of its own, and the event loop would queue among them
    for each request. On Linux niceness belongs to a thread and argon2's lanes inherit it; nothing
    is lost where no other work is waiting.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # a sandbox may forbid it: then hashing is as before
            thread = threading.get_native_id()
            nice = os.getpriority(os.PRIO_PROCESS, thread) + _NICER
            os.setpriority(os.PRIO_PROCESS, thread, min(nice, 19))


@final
class Hasher:
    """Makes and checks the stored form of passwords.

    Passwords arrive normalised (NFC) and are taken verbatim as UTF-8.

    Source: RFC 9106 §4, argon2id with t=3 and 64 MiB; OWASP ASVS 11.4.2.
    """

    def __init__(
        self,
        *,
        pool: HashPool,
        scheme: Scheme = "argon2id",
        time_cost: int = 3,
        memory_cost: int = 65536,
        parallelism: int = 4,
        bcrypt_rounds: int = 12,
        firebase_signer_keys: Sequence[Secret] = (),
        floor: Floor | None = None,
    ) -> None:
        """Take the cost of new hashes; `memory_cost` is in KiB.

        `firebase_signer_keys` open the passwords that came from Firebase. `floor` is raised to
        what the slowest kind of stored password takes, as far as one was met (I-20).

        Raises:
            ConfigurationError: what `cost_fault` says.
        """
        self._pool = pool
        self._cost = _allowed(
            _Cost(scheme, time_cost, memory_cost, parallelism, bcrypt_rounds),
        )
        self._nobody = _unmatched(self._cost)
        self._signers = foreign.signers(firebase_signer_keys)
        self._floor = Floor() if floor is None else floor
        self._takes: float | None = None  # seconds, a hash of the configured cost; once measured

    async def measure(self) -> None:
        """Find out what a hash of the configured cost takes; the floor is that at least.

        Raises:
            Busy: too much hashing is asked for.
        """
        if not self._floor.is_set:
            self._takes = await self._pool.run(self._measured)
            self._floor.raise_to(self._takes)

    def _measured(self) -> float:
        data, _ = _encoded("measured", scheme=self._cost.scheme)
        # The first hash of a process loads the libraries, which is none of its cost.
        _matches(data, _unmatched(_CHEAPEST))
        began, worked = time.monotonic(), time.process_time()
        _matches(data, self._nobody)
        took, worked = time.monotonic() - began, time.process_time() - worked
        # Workers that all start at once make one another slow, once; the floor is for good.
        lanes = self._cost.parallelism if self._cost.scheme == "argon2id" else 1
        return min(took, worked * 1.25 / min(lanes, _cores()))

    async def hash(self, password: str) -> str:
        """The stored form of a password: a PHC string, or `$2b$…`.

        Raises:
            InvalidInput: bcrypt would not see all of it, or it is no text at all.
            Busy: too much hashing is asked for.
        """
        data, fault = _encoded(password, scheme=self._cost.scheme)
        if fault is not None:
            raise InvalidInput([fault])
        return await self._pool.run(_hash, data, self._cost)

    async def verify(self, password: str, stored: str | None) -> Verdict:
        """Tell whether `stored` was made from the password.

        No user (`None`), garbage, and forms that are not ours to trust (plain, MD5, SHA) take one
        hash at the configured cost like everyone else, and are never right.

        Raises:
            Busy: too much hashing is asked for.
        """
        return await self._pool.run(self._check, password, stored)

    def _check(self, password: str, stored: str | None) -> Verdict:
        verdict = None if stored is None else self._tried(password, stored)
        if verdict is not None:
            return verdict
        # One hash as well, and nothing that could match.
        _matches(_encoded(password, scheme=self._cost.scheme)[0], self._nobody)
        return Verdict(ok=False, upgrade=False)

    def _tried(self, password: str, stored: str) -> Verdict | None:
        """Run the hash that `stored` asks for; None if there is none to run."""
        inner = foreign.unwrapped(stored)
        made_at = _cost_of(inner)
        if made_at is not None:
            data, fault = _encoded(password, scheme=made_at.scheme)
            began = time.thread_time()
            right = _matches(data, inner)
            if right is None:
                return None
            if made_at != self._cost:
                self._meet(made_at, time.thread_time() - began)
            ok = right and fault is None
            return Verdict(ok, ok and self._outdated(made_at, stored, password))
        try:
            recipe = foreign.recipe_of(stored, self._signers)
        except foreign.TooDear:
            recipe = None
        if recipe is None:
            _log.warning("a stored password is in no form that is accepted: refused")
            return None
        if foreign.is_without_signer(stored, self._signers):
            _log.warning("a stored password is Firebase's and its signer key is not set: refused")
            return None
        data, fault = _encoded(password, scheme="argon2id")
        began = time.thread_time()
        right = recipe.matches(data)
        if right is None:
            return None
        self._floor.raise_to(time.thread_time() - began)
        ok = right and fault is None
        return Verdict(ok, ok and _encoded(password, scheme=self._cost.scheme)[1] is None)

    def _meet(self, made_at: _Cost, took: float) -> None:
        """A stored password of another cost than ours was checked; let the floor know.

        Counted is the thread's own time, which a busy machine does not stretch. The lanes of
        argon2 are threads of their own: that is reckoned from what our own cost takes.
        """
        ours = self._cost
        if made_at.scheme == ours.scheme == "argon2id" and self._takes is not None:
            work = made_at.time_cost * made_at.memory_cost / (ours.time_cost * ours.memory_cost)
            took = self._takes * work * max(1.0, ours.parallelism / made_at.parallelism)
        self._floor.raise_to(took)

    def _outdated(self, made_at: _Cost, stored: str, password: str) -> bool:
        configured = self._cost
        if made_at.scheme != configured.scheme:
            # A password that the configured scheme cannot take stays as it is, and signs in.
            return _encoded(password, scheme=configured.scheme)[1] is None
        if made_at.scheme == "bcrypt":
            return not stored.startswith("$2") or made_at.bcrypt_rounds != configured.bcrypt_rounds
        return not stored.startswith("$argon2id$v=19$") or (
            (made_at.time_cost, made_at.memory_cost, made_at.parallelism)
            != (configured.time_cost, configured.memory_cost, configured.parallelism)
        )


def cost_fault(
    scheme: Scheme,
    *,
    time_cost: int = 3,
    memory_cost: int = 65536,
    parallelism: int = 4,
    bcrypt_rounds: int = 12,
) -> str | None:
    """Say what is wrong with a cost and what to set instead; None if it will do.

    Source: OWASP ASVS 5.0 appendix C, argon2id t=1 with 46 MiB or t=2 with 19 MiB; bcrypt 10.
    """
    cost = _Cost(scheme, time_cost, memory_cost, parallelism, bcrypt_rounds)
    return _too_dear(cost) or _too_cheap(cost)


def kind_of(stored: str) -> str | None:
    """What kind of stored password this is; None if it is in no form that is accepted.

    `argon2id`, `bcrypt`, `scrypt`, `pbkdf2-sha256`, `bcrypt-sha256`, `firebase-scrypt`, ….

    Raises:
        TooDear: a form that is known, at a cost that is not run.
    """
    inner = foreign.unwrapped(stored)
    argon, blowfish = _ARGON2.fullmatch(inner), _BCRYPT.fullmatch(inner)
    if argon is None and blowfish is None:
        recipe = foreign.recipe_of(stored, {})
        return recipe.kind if recipe is not None else None
    if _cost_of(inner) is None:
        raise foreign.TooDear
    return f"argon2{argon['kind']}" if argon is not None else "bcrypt"


def set_test_cost(*, enabled: bool) -> bool:
    """Let Hashers made from now on be as cheap as tests need; tells what it was before.

    For `watchword.testing.cost` and nobody else: no setting leads here.
    """
    before, _switch.tests = _switch.tests, enabled
    return before


class _Switch:
    tests = False


_switch = _Switch()


def _allowed(cost: _Cost) -> _Cost:
    """The cost itself, or in tests the test cost in its place.

    What production would refuse as too cheap stands in tests as given, so that tests of a
    change of cost are cheap too.
    """
    if fault := _too_dear(cost):
        raise ConfigurationError([fault])
    fault = _too_cheap(cost)
    if _switch.tests:
        return cost if fault else replace(_CHEAPEST, scheme=cost.scheme)
    if fault:
        raise ConfigurationError([fault])
    return cost


def _too_dear(cost: _Cost) -> str | None:
    if cost.scheme == "bcrypt":
        if cost.bcrypt_rounds > _MOST_ROUNDS:
            return f"bcrypt_rounds={cost.bcrypt_rounds} takes seconds: set at most {_MOST_ROUNDS}"
        return None
    if cost.memory_cost > _MOST_MEMORY:
        return f"memory_cost={cost.memory_cost} KiB is too much: set at most {_MOST_MEMORY}"
    if cost.time_cost > _MOST_PASSES:
        return f"time_cost={cost.time_cost} is too much: set at most {_MOST_PASSES}"
    if not 1 <= cost.parallelism <= _MOST_LANES:
        return f"parallelism={cost.parallelism} is out of range: set 1 to {_MOST_LANES}"
    return None


def _too_cheap(cost: _Cost) -> str | None:
    if cost.scheme == "bcrypt":
        if cost.bcrypt_rounds < 10:
            return f"bcrypt_rounds={cost.bcrypt_rounds} is too cheap: set at least 10"
        return None
    least = 19 if cost.time_cost >= 2 else 46
    if cost.time_cost < 1 or cost.memory_cost < least * 1024:
        return (
            f"argon2id with time_cost={cost.time_cost}, memory_cost={cost.memory_cost} KiB is too "
            "cheap: set time_cost=1 with at least 47104, or 2 and more with at least 19456"
        )
    return None


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))  # in a container, less than the machine has
    return os.cpu_count() or 1


def _cost_of(stored: str | None) -> _Cost | None:
    """The cost at which a stored password was made; None if it is in no form we would run."""
    if stored is None:
        return None
    if found := _BCRYPT.fullmatch(stored):
        rounds = int(found["rounds"])
        return _Cost("bcrypt", 0, 0, 0, rounds) if 4 <= rounds <= _MOST_ROUNDS else None
    if found := _ARGON2.fullmatch(stored):
        memory, passes, lanes = int(found["memory"]), int(found["passes"]), int(found["lanes"])
        if memory <= _MOST_MEMORY and passes <= _MOST_PASSES and lanes <= _MOST_LANES:
            return _Cost("argon2id", passes, memory, lanes, 0)
    return None


def _encoded(password: str, *, scheme: Scheme) -> tuple[bytes, Fault | None]:
    """The bytes to hash, and what forbids setting or accepting them.

    Bytes come back in either case: refusing must not be quicker than a wrong password.
    """
    try:
        data = password.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return b"\x01", Fault("password", "password_invalid", "This is not a text.")
    if scheme == "bcrypt" and len(data) > _BCRYPT_LIMIT:
        detail = f"At most {_BCRYPT_LIMIT} bytes."
        return b"\x01", Fault("password", "password_too_long", detail)
    if scheme == "bcrypt" and b"\x00" in data:
        return b"\x01", Fault("password", "password_invalid", "NUL characters are not possible.")
    return data, None


def _hash(password: bytes, cost: _Cost) -> str:
    from watchword.crypto import schemes  # noqa: PLC0415  two libraries, needed at the first hash

    if cost.scheme == "bcrypt":
        return schemes.bcrypt_hash(password, rounds=cost.bcrypt_rounds)
    return schemes.argon2_hash(
        password,
        time_cost=cost.time_cost,
        memory_cost=cost.memory_cost,
        parallelism=cost.parallelism,
    )


def _matches(password: bytes, stored: str) -> bool | None:
    """Run one hash and compare; None if the library finds nothing to run."""
    from watchword.crypto import schemes  # noqa: PLC0415  as above

    if found := _ARGON2.fullmatch(stored):
        return schemes.argon2_matches(password, stored, kind=found["kind"])
    return schemes.bcrypt_matches(password, stored)


def _unmatched(cost: _Cost) -> str:
    """A stored form that no password has: its result is random, so it need not be computed."""
    if cost.scheme == "bcrypt":
        from watchword.crypto import schemes  # noqa: PLC0415  as above

        alphabet = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
        result = "".join(secrets.choice(alphabet) for _ in range(30)) + "."
        return schemes.bcrypt_salt(rounds=cost.bcrypt_rounds) + result
    salt, result = (
        unpadded(secrets.token_bytes(size)).replace("-", "+").replace("_", "/") for size in (16, 32)
    )
    cost_text = f"m={cost.memory_cost},t={cost.time_cost},p={cost.parallelism}"
    return f"$argon2id$v=19${cost_text}${salt}${result}"
