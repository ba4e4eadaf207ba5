"""What a request says of the device behind it, and what of it a session may be bound to."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

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

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Clients:
    """Reads clients of one App."""

    trusted: tuple[Network, ...]
    device: Cookie
    settings: BindingSettings
    signer: Signer  # the key that addresses are hashed with

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
        peer = scope.get("client")
        if not peer:
            return None
        address = _address(str(peer[0]))
        if address is None or not self._is_trusted(address):
            return str(peer[0])[:64] if address is None else str(address)
        for hop in _hops(scope["headers"]):
            further = _address(_without_port(hop.decode("latin-1").strip()))
            if further is None:
                break
            address = further
            if not self._is_trusted(address):
                break
        return str(address)

    def request_id_of(self, scope: Scope) -> str | None:
        """The id that a trusted proxy gave this request; a stranger's would forge log lines."""
        peer = scope.get("client")
        address = _address(str(peer[0])) if peer else None
        if address is None or not self._is_trusted(address):
            return None
        given = [value for name, value in scope["headers"] if name == b"x-request-id"]
        if len(given) != 1 or not _REQUEST_ID.fullmatch(given[0]):
            return None
        return given[0].decode("ascii")

    def _is_trusted(self, address: IPv4Address | IPv6Address) -> bool:
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
    """Read `trusted_proxies`.

    Raises:
        ConfigurationError: one is no network, or is all of them.
    """
    faults: list[str] = []
    networks: list[Network] = []
    for text in texts:
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
