import pickle

import pytest

from watchword.crypto import keys
from watchword.crypto.keys import RootSecrets, derived, generate_secret, secret_fault
from watchword.kernel.secrets import Secret, same

STRONG = "a8f7d6s5a4f3g2h1j0k9l8z7x6c5v4b3"  # 32 characters somebody typed

WEAK = [
    "",
    "secret",
    "supersecret",
    "changeme",
    "demo123",
    "x" * 40,
    "ab" * 20,
    "supersecret" * 4,
    "Super-Secret!" * 3,
    "change-me-change-me-change-me-change-me",
    "your-super-secret-jwt-key-change-this-in-production",
    "your-256-bit-secret-your-256-bit-secret",
    "a-string-secret-at-least-256-bits-long",
    "dev-only-8fj3k2l1m9d8f7g6h5j4k3l2",
    "DEV_ONLY_8fj3k2l1m9d8f7g6h5j4k3l2",
    "django-insecure-8fj3k2l1m9d8f7g6h5j4k3l2",
    "abcdefghijklmnopqrstuvwxyz0123456789",
    "0123456789abcdef0123456789abcdef",
    "12345678901234567890123456789012",
    "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",  # FastAPI's tutorial
    "192b9bdd22ab9ed4d12e236c78afcb9a393ec15f71bbf5dc987d54727823bcbf",  # Flask's
    STRONG[:29],
]


@pytest.mark.invariant("I-17")
def test_a_generated_secret_is_always_good_enough() -> None:
    for _ in range(200):
        secret = generate_secret()
        assert secret.reveal().startswith("wws_")
        assert len(secret.reveal()) == 53
        assert secret_fault(secret, development=False) is None
        assert secret_fault(secret, development=True) is None


@pytest.mark.invariant("I-17")
@pytest.mark.parametrize("text", [*WEAK, STRONG])
def test_production_takes_no_secret_but_a_generated_one(text: str) -> None:
    fault = secret_fault(Secret(text), development=False)
    assert fault is not None
    assert "watchword secret generate" in fault
    assert len(text) < 8 or text not in fault


@pytest.mark.invariant("I-17")
@pytest.mark.parametrize("text", WEAK)
def test_development_refuses_what_is_on_a_list_or_short(text: str) -> None:
    fault = secret_fault(Secret(text), development=True)
    assert fault is not None
    assert "watchword secret generate" in fault


@pytest.mark.invariant("I-17")
def test_development_takes_thirty_characters_on_no_list() -> None:
    assert secret_fault(Secret(STRONG), development=True) is None
    assert secret_fault(Secret(STRONG[:30]), development=True) is None


@pytest.mark.invariant("I-17")
def test_a_generated_secret_that_was_damaged_is_refused_everywhere() -> None:
    text = generate_secret().reveal()
    swapped = text[:10] + ("A" if text[10] != "A" else "B") + text[11:]
    for damaged in (text[:-1], text + "x", swapped, text + "\n", "wws_", "wws_" + "é" * 49):
        for development in (True, False):
            fault = secret_fault(Secret(damaged), development=development)
            assert fault is not None
            assert "not whole" in fault


@pytest.mark.invariant("I-17")
def test_a_secret_of_zeros_with_the_right_checksum_was_not_generated() -> None:
    body = "A" * 43
    forged = Secret("wws_" + body + keys._checksum(body))
    assert secret_fault(forged, development=False) is not None


def test_hkdf_is_that_of_its_rfc() -> None:
    # RFC 5869 appendix A.1
    okm = derived(
        bytes.fromhex("0b" * 22),
        salt=bytes.fromhex("000102030405060708090a0b0c"),
        info=bytes.fromhex("f0f1f2f3f4f5f6f7f8f9"),
        length=42,
    )
    assert okm.hex() == (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )


def test_every_purpose_and_every_secret_has_its_own_key() -> None:
    current, old = generate_secret(), generate_secret()
    secrets = RootSecrets(current, [old])
    drawn = {
        *secrets.subkeys("one"),
        *secrets.subkeys("two"),
        secrets.subkey("one", length=16),
        *(bytes.fromhex(key_id) for key_id in secrets.ids),
    }
    assert len(drawn) == 7
    assert secrets.subkey("one") == secrets.subkeys("one")[0]
    assert secrets.subkey("one", key_id=secrets.ids[1]) == secrets.subkeys("one")[1]
    assert secrets.subkey("one") == RootSecrets(old, [current]).subkeys("one")[1]


def test_key_ids_are_short_stable_and_tell_the_current_one() -> None:
    current, old = generate_secret(), generate_secret()
    secrets = RootSecrets(current, [old, current, old])
    assert secrets.ids == (secrets.current_id, RootSecrets(old).current_id)
    assert all(len(key_id) == 8 and int(key_id, 16) >= 0 for key_id in secrets.ids)
    with pytest.raises(KeyError):
        secrets.subkey("one", key_id="00000000")


def test_root_secrets_are_neither_shown_nor_pickled() -> None:
    secret = generate_secret()
    secrets = RootSecrets(secret)
    assert secret.reveal()[4:20] not in repr(secrets) + str(secrets) + f"{secrets}"
    with pytest.raises(TypeError):
        pickle.dumps(secrets)


@pytest.mark.capability("S4-17", "DEF-35")
def test_texts_of_any_alphabet_and_length_compare_without_an_error() -> None:
    assert same("é", "é")
    assert same("", "")
    assert same("\ud800", "\ud800")
    for one, other in (("é", "e"), ("é", "\xe9\x00"), ("a", "aa"), ("", "a"), ("abc", "abd")):
        assert not same(one, other)
        assert not same(other, one)
