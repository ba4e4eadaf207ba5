"""What the slowest kind of stored password takes, as far as one was met (I-20)."""

import hashlib
from base64 import b64encode

import pytest

from watchword.crypto.hashing import Hasher, HashPool
from watchword.kernel.attempts import Floor
from watchword.testing import cheap_hashing

PASSWORD = "correct horse battery staple"
SLOW = 200_000  # iterations


def hasher(floor: Floor, *, time_cost: int = 1, memory_cost: int = 64) -> Hasher:
    with cheap_hashing():
        return Hasher(
            pool=HashPool(threads=1, queue=1),
            time_cost=time_cost,
            memory_cost=memory_cost,
            parallelism=1,
            floor=floor,
        )


@pytest.mark.invariant("I-20")
async def test_a_dearer_hash_of_our_own_scheme_raises_the_floor_by_its_cost() -> None:
    floor = Floor()
    ours = hasher(floor)
    await ours.measure()
    measured = floor.seconds
    assert measured > 0
    await ours.verify(PASSWORD, await ours.hash(PASSWORD))
    assert floor.seconds == measured, "what is made now was measured"
    dearer = await hasher(Floor(), time_cost=2, memory_cost=256).hash(PASSWORD)
    await ours.verify("wrong", dearer)
    assert floor.seconds == pytest.approx(measured * 8)
    await ours.verify("wrong", await hasher(Floor(), memory_cost=8).hash(PASSWORD))
    assert floor.seconds == pytest.approx(measured * 8), "it never sinks"


@pytest.mark.invariant("I-20")
async def test_a_slow_hash_from_elsewhere_raises_the_floor_even_if_it_is_wrong() -> None:
    floor = Floor()
    ours = hasher(floor)
    await ours.measure()
    measured = floor.seconds
    digest = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), b"salt", SLOW)
    stored = f"pbkdf2_sha256${SLOW}$salt${b64encode(digest).decode()}"
    assert not (await ours.verify("wrong", stored)).ok
    assert floor.seconds > measured
    assert (await ours.verify(PASSWORD, stored)).ok


async def test_a_floor_that_is_set_is_not_measured() -> None:
    floor = Floor()
    floor.set_to(0.25)
    await hasher(floor).measure()
    assert floor.seconds == 0.25
