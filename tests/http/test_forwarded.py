"""What proxies say: from those that are named, in one form, read strictly and from the right."""

from typing import Any

import pytest

from tests.http.test_clients import clients
from watchword.http.client import Clients

OURS = ("10.0.0.0/8", "2001:db8:ffff::/48")


def read(text: str | list[str], peer: str | None = "10.0.0.1", scheme: str = "http") -> Any:
    """The address and whether it is https, as `Forwarded` has it."""
    lines = [text] if isinstance(text, str) else text
    scope: dict[str, Any] = {
        "type": "http",
        "scheme": scheme,
        "client": None if peer is None else (peer, 1),
        "headers": [(b"forwarded", line.encode("latin-1")) for line in lines],
    }
    ours = clients(*OURS)
    made = Clients(
        trusted=ours.trusted,
        device=ours.device,
        settings=ours.settings,
        signer=ours.signer,
        forwarded="forwarded",
    )
    return made.address_of(scope), made.is_https(scope)


@pytest.mark.invariant("I-22")
@pytest.mark.capability("DEF-09", "DEF-10")
@pytest.mark.standard("CVE row 15")
@pytest.mark.parametrize(
    ("text", "address", "is_https"),
    [
        ("for=203.0.113.9;proto=https", "203.0.113.9", True),
        ("For=203.0.113.9; Proto=HTTPS", "203.0.113.9", True),
        ("for=203.0.113.9 ;proto=http", "203.0.113.9", False),
        ('for="203.0.113.9:4711";proto="https"', "203.0.113.9", True),
        ('for="[2001:db8::1]:4711";proto=https;host=x.example;by=_p', "2001:db8::1", True),
        ('for="[2001:db8::1]"', "2001:db8::1", False),
        ("proto=https", "10.0.0.1", True),
        # What stands left was there before, and anybody may have written it.
        ("for=198.51.100.1;proto=https, for=203.0.113.9;proto=http", "203.0.113.9", False),
        ("for=198.51.100.1;proto=http, for=203.0.113.9;proto=https", "203.0.113.9", True),
        (["for=198.51.100.1;proto=https", "for=203.0.113.9"], "203.0.113.9", False),
        # Through two of ours: the one further out saw how it came.
        ("for=203.0.113.9;proto=https, for=10.0.0.2;proto=http", "203.0.113.9", True),
        ("for=203.0.113.9;proto=http, for=10.0.0.2;proto=https", "203.0.113.9", False),
        # Names that are no address: the proxy that said so counts.
        ("for=unknown;proto=https", "10.0.0.1", True),
        ("for=_hidden;proto=https", "10.0.0.1", True),
        ("for=198.51.100.1, for=_hidden, for=10.0.0.2", "10.0.0.2", False),
        ('for="_gazonk"', "10.0.0.1", False),
        ("", "10.0.0.1", False),
    ],
)
def test_forwarded_is_read_from_the_right(text: Any, address: str, is_https: bool) -> None:
    assert read(text) == (address, is_https)


@pytest.mark.invariant("I-22")
@pytest.mark.standard("CVE row 15")
@pytest.mark.parametrize(
    "text",
    [
        "for=203.0.113.9;proto=https,",
        "for=203.0.113.9;",
        ",for=203.0.113.9",
        "for=203.0.113.9,,for=203.0.113.8",
        "for=203.0.113.9;for=198.51.100.1",
        "for=203.0.113.9;FOR=198.51.100.1;proto=https",
        "for",
        "for=",
        "=203.0.113.9",
        "for=2001:db8::1",
        "for=[2001:db8::1]",
        "for=203.0.113.9:80",
        'for="203.0.113.9',
        'for="203.0.113.9\\"";proto=https',
        'for="x", for="203.0.113.9"; proto="https',
        'x=", for=203.0.113.9;proto=https',
        "for = 203.0.113.9",
        "for=203.0.113.9 proto=https",
        "for=203.0.113.9\x00",
        "for=203.0.113.9\u00e4;proto=https",
        "for=203.0.113.9;proto=https" + ", for=203.0.113.9" * 500,
    ],
)
def test_what_is_malformed_is_believed_in_no_part(text: str) -> None:
    assert read(text) == ("10.0.0.1", False)
    assert read(["for=198.51.100.1;proto=https", text]) == ("10.0.0.1", False)


@pytest.mark.invariant("I-22")
@pytest.mark.parametrize(
    ("text", "address"),
    [
        ('for="2001:db8::1"', "10.0.0.1"),  # no brackets
        ('for="[203.0.113.9]"', "203.0.113.9"),
        ('for="[fe80::1%eth0]"', "fe80::1"),
        ("for=203.0.113.09", "10.0.0.1"),
        ("for=3405803785", "10.0.0.1"),
        ("for=0xCB.0.113.9", "10.0.0.1"),
        ('for="203.0.113.9:x"', "10.0.0.1"),
        ('for="203.0.113.9:_port"', "10.0.0.1"),
        ('for="::ffff:203.0.113.9"', "10.0.0.1"),
        ('for="[::ffff:203.0.113.9]"', "203.0.113.9"),
    ],
)
def test_a_node_is_an_address_as_the_rfc_writes_it(text: str, address: str) -> None:
    assert read(text)[0] == address


@pytest.mark.invariant("I-22")
@pytest.mark.capability("DEF-09")
def test_whoever_is_no_proxy_of_ours_may_say_what_he_likes() -> None:
    text = "for=203.0.113.9;proto=https"
    assert read(text, peer="198.51.100.7") == ("198.51.100.7", False)
    assert read("for=203.0.113.9;proto=http", "198.51.100.7", "https") == ("198.51.100.7", True)
    assert read(text, peer=None) == (None, False)


@pytest.mark.invariant("I-22")
@pytest.mark.capability("DEF-09")
def test_one_form_is_read_and_the_other_is_not() -> None:
    headers = [
        (b"forwarded", b"for=203.0.113.1;proto=https"),
        (b"x-forwarded-for", b"203.0.113.2"),
        (b"x-forwarded-proto", b"http"),
        (b"x-real-ip", b"203.0.113.3"),
        (b"x-forwarded-host", b"evil.example"),
        (b"x-forwarded-port", b"99"),
        (b"x-client-ip", b"203.0.113.4"),
    ]
    scope: dict[str, Any] = {
        "type": "http",
        "scheme": "http",
        "client": ("10.0.0.1", 1),
        "headers": headers,
    }
    assert clients(*OURS).address_of(scope) == "203.0.113.2"
    assert clients(*OURS).is_https(scope) is False
    scope["headers"] = [(b"forwarded", b"for=203.0.113.1;proto=https")]
    assert clients(*OURS).address_of(scope) == "10.0.0.1"
    assert clients(*OURS).is_https(scope) is False
    scope["headers"] = headers[3:]
    assert clients(*OURS).address_of(scope) == "10.0.0.1"
    scope["scheme"] = "https"
    assert clients(*OURS).is_https(scope) is True  # nothing was said of it
    scope["headers"] = [(b"x-forwarded-proto", b"https"), (b"x-forwarded-proto", b"http")]
    assert clients(*OURS).is_https(scope) is False
