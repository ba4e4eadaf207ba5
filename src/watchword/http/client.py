"""What a request says of the device behind it, and what of it a session may be bound to."""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from starlette.requests import Request
from starlette.types import Scope

from watchword.crypto.signing import Signer
from watchword.http.cookies import Cookie, read_cookie
from watchword.kernel.errors import ConfigurationError
from watchword.kernel.principal import Binding, Client
from watchword.kernel.secrets import Digest, Secret, digest_of, new_secret
from watchword.kernel.settings import BindingSettings

MAX_USER_AGENT = 256  # letters kept
DEVICE_PREFIX = "wwd_"

_DEVICE_LETTERS = len(DEVICE_PREFIX) + 43
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
        device: Digest | None = None
        fingerprinted = dict.fromkeys(_FINGERPRINTED, b"")
        for name, value in scope["headers"]:
            if name in fingerprinted and not fingerprinted[name]:
                fingerprinted[name] = value[:1024]
        agent = fingerprinted[b"user-agent"].decode("latin-1")[:MAX_USER_AGENT]
        printable = "".join(letter if letter.isprintable() else "\ufffd" for letter in agent)
        values = read_cookie(scope["headers"], self.device.name.encode())
        if len(values) == 1 and len(values[0]) == _DEVICE_LETTERS and values[0].isascii():
            device = device_digest(values[0].decode("ascii"))
        joined = b"\x00".join(fingerprinted.values()).decode("latin-1")
        return Client(
            address=self.address_of(scope),
            user_agent=printable,
            device=device,
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
        hops: list[bytes] = []
        for name, value in scope["headers"]:
            if name == b"x-forwarded-for":
                hops.extend(value.split(b","))
        for hop in reversed(hops[-_MOST_HOPS:]):
            further = _address(hop.decode("latin-1").strip())
            if further is None:
                break
            address = further
            if not self._is_trusted(address):
                break
        return str(address)

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
            network = ip_network(text)
        except ValueError:
            faults.append(f"trusted_proxies (WATCHWORD_TRUSTED_PROXIES): {text!r} is no network")
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


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    # ::ffff:192.0.2.1 is the same peer on a socket of both families.
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
