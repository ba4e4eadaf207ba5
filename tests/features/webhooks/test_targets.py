"""Where nothing is sent to: our own network, whatever it is called, and whatever a name says."""

import ssl
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from tests.features.mail.conftest import Authority
from tests.features.webhooks.conftest import Endpoint, Serve
from tests.told import PRODUCTION, telling
from watchword.features.webhooks.errors import DeliveryFailed, TargetRefused
from watchword.features.webhooks.sender import HttpSender, Resolver
from watchword.features.webhooks.settings import WebhookSettings
from watchword.features.webhooks.targets import Address, refusal_of, target_of
from watchword.kernel.errors import InvalidInput
from watchword.kernel.settings import parse_duration

pytestmark = [pytest.mark.standard("ASVS 1.3.6")]

NO_ADDRESS = [
    "http://hooks.example.com/",
    "ftp://hooks.example.com/",
    "file:///etc/passwd",
    "https:///path",
    "https://",
    "hooks.example.com/",
    "//hooks.example.com/",
    "https://user@hooks.example.com/",
    "https://user:pw@hooks.example.com/",
    "https://hooks.example.com#frag",
    "https://hooks.example.com/#",
    "https://hooks.example.com:22/",
    "https://hooks.example.com:0/",
    "https://hooks.example.com:99999/",
    "https://hooks.example.com:4 43/",
    "https://hooks.example.com\\@127.0.0.1/",
    "https://hooks.example.com/\r\nHost: other",
    "https://hooks.exam\tple.com/",
    "https://hooks.example.com/\x00",
    "https://hööks.example.com/",
    "https://ex。ample.com/",
    "https://[fe80::1%25eth0]/",
    "https://[::1/",
    "https://hooks..example.com/",
    "https://.example.com/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://127.1/",
    "https://0177.0.0.1/",
    "https://127.0.0.1.:8443/",
    "https://hooks.example.com/" + "x" * 2000,
]

# What every resolver may answer, or an operator may write.
INSIDE = [
    *("127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255"),
    *("192.168.1.1", "169.254.169.254", "169.254.0.1", "100.64.0.1", "100.100.100.200"),
    *("192.0.0.192", "198.18.0.1", "192.0.2.1", "203.0.113.9", "224.0.0.1", "239.1.1.1"),
    *("240.0.0.1", "255.255.255.255", "168.63.129.16", "192.88.99.1"),
    *("::", "::1", "fe80::1", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "ff0e::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1"),
    *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1", "2002:7f00:1::1"),
    *("2002:a9fe:a9fe::", "2001:0:7f00:1::1", "2001:db8::1", "100::1"),
]
OUTSIDE = ["1.1.1.1", "8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8"]


@pytest.mark.parametrize("url", NO_ADDRESS, ids=range(len(NO_ADDRESS)))
async def test_what_is_no_plain_https_address_is_refused(url: str) -> None:
    with pytest.raises(TargetRefused):
        target_of(url, development=False)


def test_what_is_taken_apart_is_what_is_connected_to() -> None:
    target = target_of("https://Hooks.Example.com:8443/a/b?c=d%20e&f", development=False)
    assert (target.host, target.port, target.path) == ("hooks.example.com", 8443, "/a/b?c=d%20e&f")
    assert target.host_header == "hooks.example.com:8443"
    six = target_of("https://[2606:4700:4700::1111]", development=False)
    assert (six.host_header, six.path) == ("[2606:4700:4700::1111]", "/")
    assert target_of("http://localhost:9000/x", development=True).port == 9000
    for url in ("http://localhost.example.com/", "http://10.0.0.1/"):
        with pytest.raises(TargetRefused):
            target_of(url, development=True)


@pytest.mark.parametrize("address", INSIDE)
def test_an_address_of_the_inside_is_refused(address: str) -> None:
    assert refusal_of(ip_address(address)) is not None


@pytest.mark.parametrize("address", OUTSIDE)
def test_an_address_of_the_outside_is_fine(address: str) -> None:
    assert refusal_of(ip_address(address)) is None


def test_an_operators_own_network_is_fine_and_its_neighbours_are_not() -> None:
    allowed = (ip_network("10.1.0.0/16"),)
    assert refusal_of(ip_address("10.1.2.3"), allowed=allowed) is None
    assert refusal_of(ip_address("::ffff:10.1.2.3"), allowed=allowed) is None
    assert refusal_of(ip_address("10.2.0.1"), allowed=allowed) is not None
    for networks in (["0.0.0.0/0"], ["::/0"], ["10.1.2.3/8"], ["inside"]):
        with pytest.raises(ValueError, match="allow_networks"):
            WebhookSettings(allow_networks=tuple(networks))


@pytest.mark.parametrize("url", ["https://127.0.0.1:8443/", "https://[::1]:8443/", NO_ADDRESS[0]])
async def test_production_adds_no_such_endpoint(sqlite_url: str, url: str) -> None:
    async with telling(sqlite_url, **PRODUCTION) as story:
        with pytest.raises(InvalidInput) as refused:
            await story.auth.webhooks.add(url, events=["*"])
        assert [fault.field for fault in refused.value.faults] == ["url"]


def sender(authority: Authority | None = None, **options: Any) -> HttpSender:
    made: dict[str, Any] = {"timeout": parse_duration("5s"), **options}
    return HttpSender(ca=None if authority is None else authority.file, **made)


def resolving(*addresses: str) -> Any:
    """A resolver that gives one answer after the other, as a name that moves does."""
    answers = list(addresses)
    asked: list[str] = []

    async def ask(host: str, port: int) -> list[Address]:
        asked.append(host)
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        return [ip_address(each) for each in answer.split()]

    ask.asked = asked  # pyright: ignore[reportFunctionMemberAccess]
    return ask


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "1.1.1.1 127.0.0.1", "::1"])
async def test_a_name_that_leads_inside_is_never_connected_to(
    endpoint: Serve, authority: Authority, address: str
) -> None:
    tls = authority.server_context("hooks.example.com")
    async with endpoint(tls=tls, host="hooks.example.com") as theirs:
        with pytest.raises(TargetRefused):
            await sender(authority, resolve=resolving(address)).send(theirs.url, b"{}", {})
        assert theirs.connections == 0


LOCAL = (ip_network("127.0.0.0/8"),)


async def test_the_address_that_was_checked_is_the_one_that_is_connected_to(
    endpoint: Serve, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name is looked up once: what it resolves to a moment later is nobody's concern."""
    tls = authority.server_context("hooks.example.com")
    async with endpoint(tls=tls, host="hooks.example.com") as theirs:
        rebinding = resolving("127.0.0.1", "127.0.0.2")
        status = await sender(authority, allowed=LOCAL, resolve=rebinding).send(
            theirs.url, b"{}", {}
        )
        assert status == 204
        assert rebinding.asked == ["hooks.example.com"]
        (received,) = theirs.received
        assert received.headers["host"] == f"hooks.example.com:{theirs.port}"


async def test_the_certificate_is_checked_against_the_name(
    endpoint: Serve, authority: Authority, tmp_path: Path
) -> None:
    for tls, ca in (
        (authority.server_context("other.example.com"), authority),  # of another name,
        (authority.server_context("127.0.0.1"), authority),  # of the address,
        (Authority(tmp_path / "evil").server_context("hooks.example.com"), authority),
        (authority.server_context("hooks.example.com"), None),  # of nobody whom the system knows
    ):
        async with endpoint(tls=tls, host="hooks.example.com") as theirs:
            with pytest.raises(DeliveryFailed, match="certificate"):
                await sender(ca, allowed=LOCAL, resolve=resolving("127.0.0.1")).send(
                    theirs.url, b"{}", {}
                )
            assert theirs.received == []


def local(theirs: Endpoint) -> HttpSender:
    return sender(development=True)


async def test_a_redirect_is_not_followed(endpoint: Serve) -> None:
    async with endpoint() as inside:
        extra = f"Location: {inside.url}\r\n"
        for status in ("301 Moved", "302 Found", "307 Temporary", "308 Permanent"):
            async with endpoint(status=status, extra=extra) as theirs:
                with pytest.raises(DeliveryFailed, match=status[:3]):
                    await local(theirs).send(theirs.url, b"{}", {})
        assert inside.connections == 0


async def test_an_answer_without_end_is_not_read(endpoint: Serve) -> None:
    async with endpoint(status="200 OK", endless=True) as theirs:
        assert await local(theirs).send(theirs.url, b"{}", {}) == 200


async def test_one_that_says_nothing_is_left_in_time(endpoint: Serve) -> None:
    async with endpoint(hangs=True) as theirs:
        impatient = sender(development=True)
        impatient.timeout = parse_duration("200ms")
        with pytest.raises(DeliveryFailed, match="timeout"):
            await impatient.send(theirs.url, b"{}", {})


async def test_no_proxy_of_the_environment_is_used(
    endpoint: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with endpoint() as theirs, endpoint() as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert await local(theirs).send(theirs.url, b"{}", {}) == 204
        assert proxy.connections == 0


@pytest.mark.parametrize("numeric", ["2130706433", "0x7f000001", "127.1", "0177.0.0.1"])
async def test_what_the_systems_resolver_makes_of_odd_addresses_is_checked_too(
    numeric: str,
) -> None:
    try:
        found = await Resolver()(numeric, 443)
    except OSError:
        return  # this system's takes none
    assert all(refusal_of(each) is not None for each in found)


async def test_a_send_inside_a_transaction_is_a_mistake_of_ours(
    sqlite_url: str, endpoint: Serve
) -> None:
    async with endpoint() as theirs, telling(sqlite_url) as story:
        made = await story.auth.webhooks.add(theirs.url, events=["*"])
        async with story.auth.store.transaction():
            with pytest.raises(RuntimeError, match="transaction"):
                await story.auth.webhooks.sender.send(made.endpoint.url, b"", {})
        assert theirs.connections == 0


def test_tls_is_checked_by_default() -> None:
    context = sender()._tls()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname is True
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
