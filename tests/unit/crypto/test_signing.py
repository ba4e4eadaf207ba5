from datetime import UTC, datetime, timedelta, timezone

import pytest

from watchword.crypto.keys import RootSecrets, generate_secret
from watchword.crypto.signing import SignatureRefused, Signer

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SECRETS = RootSecrets(generate_secret())


def test_a_signed_value_comes_back_as_it_was() -> None:
    signer = Signer(SECRETS, "state")
    for value in ("", "plain", "with.dots.", "ünïcode ✓", "line\nbreak\x00", '{"json": true}'):
        assert signer.check(signer.sign(value), now=NOW) == value
        assert signer.check(signer.sign(value, context="c"), now=NOW, context="c") == value


def test_a_signed_value_ends_at_its_expiry() -> None:
    signer = Signer(SECRETS, "state")
    until = NOW + timedelta(minutes=5)
    signed = signer.sign("value", expires_at=until)
    assert signer.check(signed, now=until - timedelta(milliseconds=1)) == "value"
    for late in (until, until + timedelta(days=1)):
        with pytest.raises(SignatureRefused):
            signer.check(signed, now=late)
    elsewhere = until.astimezone(timezone(timedelta(hours=-7)))
    assert signer.sign("value", expires_at=elsewhere) == signed


def test_an_expiry_cannot_be_moved_or_removed() -> None:
    signer = Signer(SECRETS, "state")
    body, until, mac = signer.sign("value", expires_at=NOW).split(".")
    for other in ("", "9" * 15, "9" * 16, until + "0", "0" + until, "-" + until, "１"):
        with pytest.raises(SignatureRefused):
            signer.check(f"{body}.{other}.{mac}", now=NOW - timedelta(days=1))


def test_what_another_purpose_context_or_secret_signed_is_refused() -> None:
    signed = Signer(SECRETS, "state").sign("value", context="session 1")
    refusing = [
        (Signer(SECRETS, "csrf"), "session 1"),
        (Signer(SECRETS, "state"), "session 2"),
        (Signer(SECRETS, "state"), ""),
        (Signer(RootSecrets(generate_secret()), "state"), "session 1"),
    ]
    for signer, context in refusing:
        with pytest.raises(SignatureRefused):
            signer.check(signed, now=NOW, context=context)


def test_value_and_context_lend_each_other_no_letters() -> None:
    signer = Signer(SECRETS, "state")
    mac = signer.sign("ab", context="c").split(".")[2]
    other = signer.sign("a", context="bc").split(".")
    with pytest.raises(SignatureRefused):
        signer.check(f"{other[0]}..{mac}", now=NOW, context="bc")


def test_an_old_secret_still_checks_and_the_new_one_signs() -> None:
    old, new = generate_secret(), generate_secret()
    signed, mac = Signer(RootSecrets(old), "p").sign("v"), Signer(RootSecrets(old), "p").mac(b"m")
    rotated = Signer(RootSecrets(new, [old]), "p")
    assert rotated.check(signed, now=NOW) == "v"
    assert rotated.mac_ok(b"m", mac)
    assert Signer(RootSecrets(new), "p").check(rotated.sign("v"), now=NOW) == "v"
    assert not Signer(RootSecrets(new), "p").mac_ok(b"m", mac)


@pytest.mark.parametrize(
    "text", ["", ".", "..", "a.b.c", "é..", "dg..", "\ud800", "x" * 10_000_000, "dg.." + "A" * 44]
)
def test_what_was_never_signed_is_refused(text: str) -> None:
    with pytest.raises(SignatureRefused):
        Signer(SECRETS, "state").check(text, now=NOW)


def test_what_could_not_be_checked_is_not_signed() -> None:
    with pytest.raises(ValueError, match="8192"):
        Signer(SECRETS, "state").sign("x" * 8192)


@pytest.mark.capability("S4-17", "DEF-35")
def test_a_mac_is_bound_to_its_message_and_purpose_and_never_raises() -> None:
    signer = Signer(SECRETS, "csrf")
    mac = signer.mac(b"session")
    assert len(mac) == 43
    assert signer.mac_ok(b"session", mac)
    for wrong in ("", "é", mac[:-1], mac + "A", mac + "=", mac.swapcase(), "\ud800", "é" * 43):
        assert not signer.mac_ok(b"session", wrong)
    assert not signer.mac_ok(b"another", mac)
    assert not Signer(SECRETS, "state").mac_ok(b"session", mac)


def test_a_mac_and_a_signed_value_are_never_the_same_thing() -> None:
    signer = Signer(SECRETS, "state")
    body, _, mac = signer.sign("v").partition("..")
    assert not signer.mac_ok(body.encode(), mac)
    assert not signer.mac_ok(b"v", mac)
