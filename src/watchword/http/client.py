"""What a request says of the device behind it, and what of it a session may be bound to."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Literal

from starlette.requests import Request
from starlette.types import Scope

from watchword.crypto.signing import Signer
from watchword.http.cookies import Cookie, read_cookie
from watchword.kernel.errors import BrowserChanged, ConfigurationError, SessionBoundElsewhere
from watchword.kernel.principal import Binding, Client
from watchword.kernel.secrets import Digest, Secret, digest_of, new_secret
from watchword.kernel.settings import BindingSettings

MAX_USER_AGENT = 256  # letters kept
DEVICE_PREFIX = "wwd_"

_DEVICE_FORM = re.compile(DEVICE_PREFIX.encode() + rb"[\w-]{43}")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{8,64}")
_FINGERPRINTED = (b"user-agent", b"accept-language", b"accept-encoding")
_MOST_HOPS = 20  # of a forwarding header; more are nobody's proxies
_LONGEST_FORWARDED = 4096  # bytes
SOCKET = "unix"  # in `trusted_proxies`: whoever comes through a Unix socket

# RFC 7239 §4: pairs of one element; the value a token or a quoted string.
_PAIR = re.compile(
    r"""(?P<name>[\w!#$%&'*+.^`|~-]+)=(?:(?P<token>[\w!#$%&'*+.^`|~-]+)|"(?P<text>[^"\\\x00-\x08"""
    r"""\x0a-\x1f\x7f-\xff]*)")[ \t]*(?P<end>;|,|$)[ \t]*""",
    re.ASCII,
)
_FORWARDING = frozenset(
    {
        *(b"forwarded", b"via", b"x-real-ip", b"x-client-ip", b"true-client-ip"),
        *(b"cf-connecting-ip", b"cf-visitor", b"front-end-https", b"x-url-scheme"),
    }
)

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address


@dataclass(frozen=True, kw_only=True)
class Clients:
    """Reads clients of one App."""

    trusted: tuple[Network, ...]
    device: Cookie
    settings: BindingSettings
    signer: Signer  # the key that addresses are hashed with
    forwarded: Literal["x-forwarded", "forwarded"] = "x-forwarded"
    trusts_socket: bool = False

    @cached_property
    def trusts_somebody(self) -> bool:
        """Is anybody's word on whom he speaks for believed?"""
        return bool(self.trusted) or self.trusts_socket

    def of(self, scope: Scope) -> Client:
        """Who sends this request, as far as anybody can say."""
        agent = ""
        device_cookie: Secret | None = None
        fingerprinted = dict.fromkeys(_FINGERPRINTED, b"")
        for name, value in scope["headers"]:
            if name in fingerprinted and not fingerprinted[name]:
                fingerprinted[name] = value[:1024]
        agent = fingerprinted[b"user-agent"].decode("latin-1")[:MAX_USER_AGENT]
        printable = "".join(letter if letter.isprintable() else "\ufffd" for letter in agent)
        values = read_cookie(scope["headers"], self.device.name.encode())
        if len(values) == 1 and _DEVICE_FORM.fullmatch(values[0]):
            device_cookie = Secret(values[0].decode("ascii"))
        joined = b"\x00".join(fingerprinted.values()).decode("latin-1")
        return Client(
            address=self.address_of(scope),
            user_agent=printable,
            device=None if device_cookie is None else device_digest(device_cookie),
            device_cookie=device_cookie,
            fingerprint=digest_of(joined, purpose="fingerprint"),
        )

    def address_of(self, scope: Scope) -> str | None:
        """The peer's address; behind proxies that are trusted, that of whom they speak for.

        Read from the right: what stands left of the first address that is not a trusted proxy's
        was written by whoever wanted to (I-22).
        """
        if not self.trusts(scope):
            peer = scope.get("client")
            if not peer:
                return None
            address = _address(str(peer[0]))
            return str(peer[0])[:64] if address is None else str(address)
        if self.forwarded == "forwarded":
            address, _ = self._forwarded(scope)
        else:
            address = _peer(scope)
            for hop in _hops(scope["headers"]):
                further = _address(_without_port(hop.decode("latin-1").strip()))
                if further is None:
                    break
                address = further
                if not self._is_trusted(address):
                    break
        return None if address is None else str(address)

    def is_https(self, scope: Scope) -> bool:
        """Did whoever sends this come by https, as far as the peer, if it is trusted, says?

        What it says in no form that is known counts as plain http.
        """
        is_https = scope.get("scheme") in ("https", "wss")
        if not self.trusts_somebody or not self.trusts(scope):
            return is_https
        said = self.said_scheme(scope)
        return is_https if said is None else said in ("https", "wss")

    def said_scheme(self, scope: Scope) -> str | None:
        """What a trusted proxy said of the scheme; empty for what is none, None for nothing.

        X-Forwarded-Proto counts by what stands last: the peer wrote that.
        """
        if self.forwarded == "forwarded":
            return self._forwarded(scope)[1]
        values = [value for name, value in scope["headers"] if name == b"x-forwarded-proto"]
        if not values:
            return None
        said = values[-1].rpartition(b",")[2].strip().lower().decode("latin-1")
        return said if said in ("http", "https", "ws", "wss") else ""

    def trusts(self, scope: Scope) -> bool:
        """Is the peer a proxy of ours?"""
        if not self.trusts_somebody:
            return False
        if not scope.get("client"):
            return self.trusts_socket
        peer = _peer(scope)
        return peer is not None and self._is_trusted(peer)

    def _forwarded(self, scope: Scope) -> tuple[Address | None, str | None]:
        """Whom the trusted proxies name in `Forwarded`, and the scheme that one came by."""
        address, scheme = _peer(scope), None
        for element in _elements(scope["headers"]):
            said = element.get("proto")
            if said is not None:
                scheme = said.lower() if said.lower() in ("http", "https", "ws", "wss") else ""
            further = _address(_node(element.get("for", "")))
            if further is None:
                break
            address = further
            if not self._is_trusted(address):
                break
        return address, scheme

    def request_id_of(self, scope: Scope) -> str | None:
        """The id that a trusted proxy gave this request; a stranger's would forge log lines."""
        if not self.trusts(scope):
            return None
        given = [value for name, value in scope["headers"] if name == b"x-request-id"]
        if len(given) != 1 or not _REQUEST_ID.fullmatch(given[0]):
            return None
        return given[0].decode("ascii")

    def _is_trusted(self, address: Address) -> bool:
        return any(address.version == each.version and address in each for each in self.trusted)

    def hashed(self, address: str) -> str:
        """An address as it is kept: a keyed hash, since there are few enough to try them all."""
        return self.signer.mac(address.encode())

    def binding_of(self, client: Client) -> Binding:
        """What a session that this client begins is bound to."""
        address = None
        if self.settings.address != "off":
            address = self.hashed(self._bound(client.address))
        fingerprint = None if self.settings.fingerprint == "off" else client.fingerprint
        return Binding(address=address, fingerprint=fingerprint)

    def refusal(self, wanted: Binding, client: Client) -> SessionBoundElsewhere | None:
        """Why a request of this client is not the session's; None if it is.

        A hash that was made under an old secret counts for as long as that one is configured.
        """
        if wanted.address is not None and not self.signer.mac_ok(
            self._bound(client.address).encode(), wanted.address
        ):
            return SessionBoundElsewhere(note="address")
        if wanted.fingerprint not in (None, client.fingerprint):
            return BrowserChanged(note="fingerprint")
        return None

    def _bound(self, address: str | None) -> str:
        known = None if address is None else _address(address)
        if known is None:
            return address or ""
        if self.settings.address == "network":
            bits = 24 if known.version == 4 else 64
            return str(ip_network(f"{known}/{bits}", strict=False))
        return str(known)

    def new_device(self) -> Secret:
        """A fresh value of the device cookie."""
        return new_secret(DEVICE_PREFIX)


def device_digest(value: Secret | str) -> Digest:
    """The stored form of a device cookie's value."""
    return digest_of(value, purpose="device")


def trusted_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Read `trusted_proxies`; `unix` is no network.

    Raises:
        ConfigurationError: one is no network, or is all of them.
    """
    faults: list[str] = []
    networks: list[Network] = []
    for text in texts:
        if text == SOCKET:
            continue
        try:
            network = _network(text)
        except ValueError:
            faults.append(
                f"trusted_proxies (WATCHWORD_TRUSTED_PROXIES): {text!r} is no network: write "
                "10.0.0.0/8 or one address"
            )
            continue
        if network.prefixlen == 0:
            faults.append(
                f"trusted_proxies (WATCHWORD_TRUSTED_PROXIES): {text} is everybody: name your own"
            )
        networks.append(network)
    if faults:
        raise ConfigurationError(faults)
    return tuple(networks)


def client_of(request: Request) -> Client:
    """Who sends this request. The gate reads it once."""
    return request.scope["watchword.gate"].client_of(request.scope)  # type: ignore[no-any-return]


def _hops(headers: list[tuple[bytes, bytes]]) -> list[bytes]:
    """The nearest hops of the forwarding headers, from the right; however long they are."""
    hops: list[bytes] = []
    for name, value in reversed(headers):
        if name == b"x-forwarded-for":
            # What is left over on the left, in one piece, is no address.
            hops.extend(reversed(value.rsplit(b",", _MOST_HOPS)))
            if len(hops) >= _MOST_HOPS:
                break
    return hops[:_MOST_HOPS]


def speaks_for_others(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Does a request bear the marks of a proxy, trusted or not?"""
    return any(name in _FORWARDING or name.startswith(b"x-forwarded") for name, _ in headers)


def _peer(scope: Scope) -> Address | None:
    peer = scope.get("client")
    return _address(str(peer[0])) if peer else None


def _elements(headers: Sequence[tuple[bytes, bytes]]) -> list[dict[str, str]]:
    """The nearest elements of `Forwarded`, from the right; none if any of it is no such thing.

    A quote that a stranger opened would swallow what the proxy wrote after it: then nothing of it
    is believed.

    Source: RFC 7239 §4. A quoted pair (a backslash) is in none of its values, and is refused.
    """
    text = b", ".join(value for name, value in headers if name == b"forwarded").decode("latin-1")
    text = text.strip(" \t")
    if len(text) > _LONGEST_FORWARDED:
        return []
    elements: list[dict[str, str]] = []
    pairs: dict[str, str] = {}
    at = 0
    while at < len(text):
        found = _PAIR.match(text, at)
        name = "" if found is None else found["name"].lower()
        if found is None or name in pairs:
            return []
        pairs[name] = found["token"] if found["text"] is None else found["text"]
        at = found.end()
        if found["end"] != ";":
            elements.append(pairs)
            pairs = {}
        if found["end"] and at == len(text):
            return []  # a comma or a semicolon with nothing after it
    return elements[: -_MOST_HOPS - 1 : -1]


def _node(node: str) -> str:
    """The address of a node (RFC 7239 §6); empty for `unknown`, for a name, and for what is none.

    An IPv6 address stands in brackets.
    """
    if node.startswith("["):
        return _without_port(node)
    return _without_port(node) if "." in node and node[0].isdecimal() else ""


def _without_port(hop: str) -> str:
    """Some proxies write `203.0.113.9:4711` or `[2001:db8::1]:4711`."""
    if hop.startswith("["):
        address, bracket, port = hop[1:].partition("]")
        return address if bracket and _is_port(port) else ""
    address, colon, port = hop.partition(":")
    return address if _is_port(colon + port) and "." in address else hop


def _is_port(text: str) -> bool:
    return not text or (text[0] == ":" and text[1:].isdecimal() and len(text) <= 6)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.partition("%")[0])  # fe80::1%eth0: the zone is only ours
    except ValueError:
        return None
    # ::ffff:192.0.2.1 is the same peer on a socket of both families.
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _network(text: str) -> Network:
    network = ip_network(text)
    if isinstance(network, IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, network.prefixlen - 96))
    return network
