import pytest

from watchword.crypto.keys import RootSecrets, generate_secret
from watchword.crypto.sealing import (
    SealBroken,
    Sealer,
    SealKeyMissing,
    derive,
    key_id_of,
    open_with_key,
    seal_with_key,
)

PLACE = {"realm": "main", "record": "SigningKey", "key": "abc", "field": "private"}
ELSEWHERE = [
    {**PLACE, "realm": "other"},
    {**PLACE, "record": "Totp"},
    {**PLACE, "key": "abd"},
    {**PLACE, "field": "public"},
    {**PLACE, "record": "SigningKeyabc", "key": ""},
    {**PLACE, "record": "SigningKe", "key": "yabc"},
    {**PLACE, "key": "SigningKey", "record": "abc"},
]


@pytest.mark.invariant("I-17")
def test_a_value_opens_where_it_was_sealed_and_nowhere_else() -> None:
    sealer = Sealer(RootSecrets(generate_secret()))
    sealed = sealer.seal(b"private", **PLACE)
    assert sealer.open(sealed, **PLACE) == b"private"
    for place in ELSEWHERE:
        with pytest.raises(SealBroken):
            sealer.open(sealed, **place)


@pytest.mark.invariant("I-17")
def test_a_sealed_value_carries_version_key_id_nonce_and_ciphertext() -> None:
    secrets = RootSecrets(generate_secret())
    sealer = Sealer(secrets)
    one, two = (sealer.seal(b"private", **PLACE) for _ in range(2))
    version, key_id, nonce, ciphertext = one.split(".")
    assert (version, key_id) == ("v1", secrets.current_id)
    assert (len(nonce), len(ciphertext)) == (16, 31)  # 12 bytes; 7 and a tag of 16
    assert key_id_of(one) == secrets.current_id
    assert nonce != two.split(".")[2]


@pytest.mark.invariant("I-17")
def test_values_sealed_under_an_old_secret_open_while_it_is_configured() -> None:
    old, new = generate_secret(), generate_secret()
    sealed = Sealer(RootSecrets(old)).seal(b"private", **PLACE)
    assert Sealer(RootSecrets(new, [old])).open(sealed, **PLACE) == b"private"
    with pytest.raises(SealKeyMissing) as missing:
        Sealer(RootSecrets(new)).open(sealed, **PLACE)
    assert missing.value.key_id == key_id_of(sealed)
    assert missing.value.status == 503


@pytest.mark.invariant("I-17")
@pytest.mark.parametrize("part", [1, 2, 3])
def test_a_sealed_value_altered_anywhere_does_not_open(part: int) -> None:
    old, new = generate_secret(), generate_secret()
    secrets = RootSecrets(new, [old])
    sealer = Sealer(secrets)
    parts = sealer.seal(b"private", **PLACE).split(".")
    parts[part] = (
        secrets.ids[1] if part == 1 else ("A" if parts[part][0] != "A" else "B") + (parts[part][1:])
    )
    with pytest.raises(SealBroken):
        sealer.open(".".join(parts), **PLACE)


@pytest.mark.parametrize(
    "text", ["", "v1", "v1...", "v2.00000000.AAAAAAAAAAAAAAAA.AAAA", "private"]
)
def test_what_was_never_sealed_is_broken(text: str) -> None:
    with pytest.raises(SealBroken):
        Sealer(RootSecrets(generate_secret())).open(text, **PLACE)
    with pytest.raises(SealBroken):
        key_id_of(text)


def test_a_second_spelling_of_the_same_bytes_does_not_open() -> None:
    sealer = Sealer(RootSecrets(generate_secret()))
    sealed = sealer.seal(b"1", **PLACE)  # 17 bytes: 23 letters, two bits unused
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".index(sealed[-1])
    other = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[last + 1]
    for respelled in (sealed[:-1] + other, sealed + "=", sealed + "\n", " " + sealed):
        with pytest.raises(SealBroken):
            sealer.open(respelled, **PLACE)


@pytest.mark.invariant("I-14", "I-17")
def test_a_successor_opens_only_for_who_holds_the_token_it_was_sealed_under() -> None:
    subkey = RootSecrets(generate_secret()).subkey("refresh grace")
    key = derive(subkey, b"the token", "successor")
    sealed = seal_with_key(key, b"the successor", **PLACE)
    assert open_with_key(key, sealed, **PLACE) == b"the successor"
    others = [
        derive(subkey, b"another token", "successor"),
        derive(subkey, b"the token", "another purpose"),
        derive(RootSecrets(generate_secret()).subkey("refresh grace"), b"the token", "successor"),
    ]
    for other in others:
        with pytest.raises(SealBroken):
            open_with_key(other, sealed, **PLACE)
    for place in ELSEWHERE:
        with pytest.raises(SealBroken):
            open_with_key(key, sealed, **place)
    with pytest.raises(SealBroken):
        key_id_of(sealed)
