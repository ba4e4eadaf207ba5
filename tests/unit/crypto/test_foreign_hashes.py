"""Passwords as other systems keep them: each verifies, none at a cost that would stop us."""

import base64
import hashlib
import re
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.hashes import (
    FIREBASE_HASH,
    FIREBASE_KEY,
    FIREBASE_MEM_COST,
    FIREBASE_PASSWORD,
    FIREBASE_ROUNDS,
    FIREBASE_SALT,
    FIREBASE_SEPARATOR,
    FOREIGN,
    MADE_BY_OTHERS,
    REFUSED,
)
from watchword.crypto import foreign
from watchword.crypto.foreign import FirebaseScrypt, TooDear, read_base64, signer_id
from watchword.crypto.hashing import Hasher, HashPool, Verdict, kind_of
from watchword.kernel.secrets import Secret
from watchword.testing.cost import cheap_hashing

RIGHT_BUT_OLD = Verdict(ok=True, upgrade=True)
WRONG = Verdict(ok=False, upgrade=False)
KEY = Secret(FIREBASE_KEY)
OTHER_KEY = Secret(base64.b64encode(b"k" * 64).decode())


def firebase(signer: Secret = KEY, salt: str = FIREBASE_SALT) -> str:
    return str(
        FirebaseScrypt(
            signer=signer_id(signer),
            memory=FIREBASE_MEM_COST,
            rounds=FIREBASE_ROUNDS,
            salt=read_base64(salt) or b"",
            separator=read_base64(FIREBASE_SEPARATOR) or b"",
            result=read_base64(FIREBASE_HASH) or b"",
        )
    )


@pytest.fixture(autouse=True)
def _cost() -> Iterator[None]:
    with cheap_hashing():
        yield


@pytest.fixture
async def hasher() -> AsyncIterator[Hasher]:
    pool = HashPool(threads=2, queue=8)
    yield Hasher(pool=pool, firebase_signer_keys=[OTHER_KEY, KEY])
    pool.close()


@pytest.mark.capability("S1-02", "S4-14")
@pytest.mark.parametrize("name", FOREIGN)
async def test_what_others_made_verifies_and_asks_for_a_hash_of_ours(
    hasher: Hasher, name: str
) -> None:
    kind, stored = FOREIGN[name]
    assert kind_of(stored) == kind
    assert await hasher.verify(MADE_BY_OTHERS, stored) == RIGHT_BUT_OLD
    for other in ("", MADE_BY_OTHERS + " ", MADE_BY_OTHERS.upper(), stored):
        assert await hasher.verify(other, stored) == WRONG


async def test_the_example_of_firebase_verifies(hasher: Hasher) -> None:
    stored = firebase()
    assert kind_of(stored) == "firebase-scrypt"
    assert await hasher.verify(FIREBASE_PASSWORD, stored) == RIGHT_BUT_OLD
    assert await hasher.verify("user1Password", stored) == WRONG
    assert await hasher.verify(FIREBASE_PASSWORD, firebase(signer=OTHER_KEY)) == WRONG
    assert await hasher.verify(FIREBASE_PASSWORD, firebase(salt="AAAA")) == WRONG


async def test_the_signer_key_is_nowhere_in_the_row_and_without_it_nobody_signs_in(
    hasher: Hasher, caplog: pytest.LogCaptureFixture
) -> None:
    stored = firebase()
    assert FIREBASE_KEY[:10] not in stored
    assert (read_base64(FIREBASE_KEY) or b"").hex() not in stored
    pool = HashPool(threads=1, queue=8)
    without = Hasher(pool=pool)
    assert await without.verify(FIREBASE_PASSWORD, stored) == WRONG
    assert "signer key is not set" in caplog.text
    assert FIREBASE_PASSWORD not in caplog.text
    assert stored not in caplog.text
    pool.close()


@pytest.mark.parametrize("text", ["", "short", "!" * 90, base64.b64encode(b"x" * 31).decode()])
def test_what_is_no_signer_key_is_refused_without_its_text(text: str) -> None:
    with pytest.raises(ValueError, match="is no base64") as refused:
        signer_id(Secret(text))
    assert not text or text not in str(refused.value)


@pytest.mark.parametrize("name", FOREIGN)
async def test_a_form_cut_short_or_bent_never_matches_and_never_raises(
    hasher: Hasher, name: str
) -> None:
    _, stored = FOREIGN[name]
    bent = [
        stored.rstrip("=")[:-1],
        stored[: len(stored) // 2],
        stored[1:],
        stored + "\n",
        stored + "=",
        stored + "é",
        stored.replace("$", "", 1),
        stored.replace("$", "$$", 1),
        re.sub(r"\d+", "0", stored, count=1),
        stored[:-4] + "****",
    ]
    for each in bent:
        verdict = await hasher.verify("wrong", each)
        assert verdict == WRONG, each
        if each != stored + "=":  # padding that is not needed changes nothing
            assert await hasher.verify(MADE_BY_OTHERS, each) == WRONG, each


@pytest.mark.parametrize("stored", REFUSED.values(), ids=list(REFUSED))
async def test_fast_hashes_and_those_of_nobody_are_refused(hasher: Hasher, stored: str) -> None:
    assert kind_of(stored) is None
    assert await hasher.verify(MADE_BY_OTHERS, stored) == WRONG


B64 = base64.b64encode(b"x" * 32).decode()
HEX = "ab" * 32
TOO_DEAR = [
    f"$scrypt$ln=24,r=8,p=1$c2FsdA${B64}",
    f"$scrypt$ln=999999999,r=8,p=1$c2FsdA${B64}",
    f"$scrypt$ln=10,r=999999,p=1$c2FsdA${B64}",
    f"$scrypt$ln=10,r=8,p=999999$c2FsdA${B64}",
    f"scrypt:1048576:16:1$salt${HEX}",
    f"scrypt$67108864$salt$8$1${B64}",
    f"$pbkdf2-sha256$999999999$c2FsdA${B64.rstrip('=')}",
    f"pbkdf2:sha256:5000001$salt${HEX}",
    f"pbkdf2_sha256$99999999$salt${B64}",
    "bcrypt_sha256$$2b$31$" + "a" * 53,
    "$bcrypt-sha256$v=2,t=2b,r=31$" + "a" * 22 + "$" + "a" * 31,
    f"$firebase-scrypt$k=abcdefghij,m=30,r=8$c2FsdA$$Bw==${B64}".replace("$$", "$"),
    f"$firebase-scrypt$k=abcdefghij,m=14,r=99999999$c2FsdA$Bw${B64}",
    "$2b$31$" + "a" * 53,
    "bcrypt$$2b$31$" + "a" * 53,
    "argon2$argon2id$v=19$m=8,t=99,p=1$c29tZXNhbHQ$" + "A" * 43,
]


@pytest.mark.parametrize("stored", TOO_DEAR)
async def test_an_absurd_cost_is_told_apart_and_never_run(hasher: Hasher, stored: str) -> None:
    with pytest.raises(TooDear):
        kind_of(stored)
    began = time.process_time()
    assert await hasher.verify(MADE_BY_OTHERS, stored) == WRONG
    assert time.process_time() - began < 1


UNKNOWN = [
    f"$scrypt$ln=4,r=8,p=1$*$${B64}",
    f"$scrypt$ln=0,r=8,p=1$c2FsdA${B64}",
    "$scrypt$ln=4,r=8,p=1$c2FsdA$AAAA",  # eight bytes are guessed
    f"scrypt:1000:8:1$salt${HEX}",  # no power of two
    f"scrypt:0:8:1$salt${HEX}",
    f"pbkdf2:md5:1000$salt${HEX}",
    f"pbkdf2:sha256:1000$salt${HEX[:-2]}",
    f"pbkdf2:sha256$salt${HEX}",
    f"pbkdf2_sha256$0$salt${B64}",
    f"pbkdf2_sha256$10$salt${B64}A",
    f"pbkdf2_sha256$10$sa$lt${B64}",
    f"sha256$salt${HEX}",
    "bcrypt_sha256$$2b$03$" + "a" * 53,
]


@pytest.mark.parametrize("stored", UNKNOWN)
async def test_what_is_in_no_known_form_is_in_none(hasher: Hasher, stored: str) -> None:
    assert kind_of(stored) is None
    assert await hasher.verify(MADE_BY_OTHERS, stored) == WRONG


async def test_digests_of_a_long_password_see_all_of_it_and_plain_bcrypt_stays_refused(
    hasher: Hasher,
) -> None:
    """Django's `bcrypt_sha256`: what bcrypt gets is a digest, so 72 bytes are no limit."""
    import bcrypt  # noqa: PLC0415

    long = "x" * 72 + "a"
    digest = hashlib.sha256(long.encode()).hexdigest().encode()
    stored = "bcrypt_sha256$" + bcrypt.hashpw(digest, bcrypt.gensalt(4)).decode()
    assert await hasher.verify(long, stored) == RIGHT_BUT_OLD
    assert await hasher.verify("x" * 72 + "b", stored) == WRONG
    plain = "bcrypt$" + bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)).decode()
    assert await hasher.verify("x" * 72, plain) == RIGHT_BUT_OLD
    assert await hasher.verify(long, plain) == WRONG


@given(st.text(max_size=80))
def test_no_text_makes_the_reader_raise(text: str) -> None:
    for stored in (text, f"$scrypt${text}", f"pbkdf2:{text}", f"scrypt:{text}"):
        foreign.recipe_of(stored, {})
        kind_of(stored)
