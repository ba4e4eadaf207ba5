import asyncio
import string
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from watchword.crypto import jose
from watchword.crypto.base64url import decoded
from watchword.crypto.hashing import Hasher, HashPool
from watchword.crypto.keys import RootSecrets, generate_secret
from watchword.crypto.sealing import SealBroken, Sealer
from watchword.crypto.signatures import SigningKey
from watchword.crypto.signing import SignatureRefused, Signer
from watchword.kernel.errors import InvalidInput, InvalidToken
from watchword.kernel.secrets import same, unpadded
from watchword.testing.cost import cheap_hashing

SECRETS = RootSecrets(generate_secret())
SEALER = Sealer(SECRETS)
SIGNER = Signer(SECRETS, "property")
KEYS = {key.kid: key for key in (SigningKey.generate("HS256"), SigningKey.generate("ES256"))}
NOW = datetime(2026, 11, 21, tzinfo=UTC)

plain_text = st.text(st.characters(exclude_categories=["Cs"]))
any_text = st.text(st.characters())  # lone surrogates too
base64url_like = st.text(string.ascii_letters + string.digits + "-_=+/ .\n", max_size=40)
places = st.fixed_dictionaries(dict.fromkeys(("realm", "record", "key", "field"), any_text))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


@given(st.binary())
def test_bytes_come_back_from_base64url(data: bytes) -> None:
    assert decoded(unpadded(data)) == data


@given(base64url_like)
def test_a_text_is_the_only_spelling_of_its_bytes_or_none(text: str) -> None:
    try:
        data = decoded(text)
    except ValueError:
        return
    assert unpadded(data) == text


@pytest.mark.invariant("I-17")
@given(st.binary(max_size=200), places)
def test_what_is_sealed_opens_at_its_place(data: bytes, place: dict[str, str]) -> None:
    assert SEALER.open(SEALER.seal(data, **place), **place) == data


@pytest.mark.invariant("I-17")
@given(st.binary(max_size=50), places, places)
def test_what_is_sealed_opens_at_no_other_place(
    data: bytes, place: dict[str, str], other: dict[str, str]
) -> None:
    assume(place != other)
    with pytest.raises(SealBroken):
        SEALER.open(SEALER.seal(data, **place), **other)


@pytest.mark.invariant("I-17")
@given(any_text)
def test_no_text_opens_by_chance(text: str) -> None:
    with pytest.raises(SealBroken):
        SEALER.open(text, realm="", record="", key="", field="")


@given(plain_text, any_text, st.timedeltas(timedelta(milliseconds=1), timedelta(days=400)))
def test_what_is_signed_is_read_until_it_expires(
    value: str, context: str, lasting: timedelta
) -> None:
    signed = SIGNER.sign(value, context=context, expires_at=NOW + lasting)
    assert SIGNER.check(signed, now=NOW, context=context) == value
    with pytest.raises(SignatureRefused):
        SIGNER.check(signed, now=NOW + lasting, context=context)
    with pytest.raises(SignatureRefused):
        SIGNER.check(signed, now=NOW, context=context + "x")


@given(plain_text, st.data())
def test_a_signed_value_with_one_letter_changed_is_refused(value: str, data: st.DataObject) -> None:
    signed = SIGNER.sign(value, expires_at=NOW + timedelta(hours=1))
    at = data.draw(st.integers(0, len(signed) - 1))
    letter = data.draw(st.characters(codec="ascii").filter(lambda one: one != signed[at]))
    with pytest.raises(SignatureRefused):
        SIGNER.check(signed[:at] + letter + signed[at + 1 :], now=NOW)


@given(any_text)
def test_no_text_is_signed_by_chance(text: str) -> None:
    with pytest.raises(SignatureRefused):
        SIGNER.check(text, now=NOW)
    assert not SIGNER.mac_ok(b"", text)


@pytest.mark.capability("S4-17", "DEF-35")
@given(any_text, any_text)
def test_texts_are_the_same_exactly_when_they_are_equal(one: str, other: str) -> None:
    assert same(one, one)
    assert same(one, other) == (one == other)


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=8), json_values, max_size=5), st.sampled_from([*KEYS]))
def test_claims_come_back_from_a_token(claims: dict[str, object], kid: str) -> None:
    token = jose.sign(claims, key=KEYS[kid], typ="at+jwt")
    assert jose.verify(token, keys=KEYS.get, typ="at+jwt") == claims


@settings(deadline=None)
@given(st.sampled_from([*KEYS]), st.data())
def test_a_token_with_one_letter_changed_is_an_invalid_token(kid: str, data: st.DataObject) -> None:
    token = jose.sign({"sub": "user"}, key=KEYS[kid], typ="at+jwt")
    at = data.draw(st.integers(0, len(token) - 1))
    letter = data.draw(st.characters().filter(lambda one: one != token[at]))
    with pytest.raises(InvalidToken):
        jose.verify(token[:at] + letter + token[at + 1 :], keys=KEYS.get, typ="at+jwt")


@given(any_text | st.lists(base64url_like, min_size=3, max_size=3).map(".".join))
def test_no_text_is_a_token_by_chance_and_none_is_more_than_invalid(text: str) -> None:
    for look in (
        lambda: jose.verify(text, keys=KEYS.get, typ="at+jwt"),
        lambda: jose.peek_kid(text),
    ):
        with pytest.raises(InvalidToken):
            look()


@given(st.dictionaries(st.sampled_from([*jose.USER_TOKEN, "nbf"]), json_values))
def test_claims_of_any_shape_are_refused_and_nothing_worse(claims: dict[str, object]) -> None:
    with pytest.raises(InvalidToken):
        jose.check_claims(claims, issuer="https://a", audience="https://a", now=NOW)


@pytest.mark.capability("S1-07")
@settings(deadline=None, max_examples=60)
@given(
    any_text,
    any_text
    | st.from_regex(r"\$2[aby]\$0[4-6]\$[./A-Za-z0-9]{53}", fullmatch=True)
    | st.from_regex(
        r"\$argon2(id|i|d)\$v=(16|19)\$m=[1-9]{1,3},t=[1-3],p=[1-9]"
        r"\$[A-Za-z0-9+/]{11,24}\$[A-Za-z0-9+/]{16,44}",
        fullmatch=True,
    ),
    st.sampled_from(["argon2id", "bcrypt"]),
)
def test_no_row_makes_checking_a_password_raise(password: str, stored: str, scheme: str) -> None:
    async def check() -> None:
        with cheap_hashing():
            hasher = Hasher(pool=pool, scheme="bcrypt" if scheme == "bcrypt" else "argon2id")
        assert not (await hasher.verify(password, stored)).ok
        try:
            made = await hasher.hash(password)
        except InvalidInput:
            return
        assert (await hasher.verify(password, made)).ok

    pool = HashPool(threads=1, queue=1)
    try:
        asyncio.run(check())
    finally:
        pool.close()
