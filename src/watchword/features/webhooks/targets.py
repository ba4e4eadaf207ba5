"""Where may something be sent? Not into our own network, whatever a name resolves to (SSRF)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final
from urllib.parse import urlsplit

from watchword.features.webhooks.errors import TargetRefused

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_LONGEST: Final = 2000
_NAME: Final = re.compile(
    r"(?=.{1,253}\Z)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)(\.[a-z0-9_-]{1,63})*"
)
_PATH: Final = re.compile(r"[A-Za-z0-9\-._~!$&'()*+,;=:@/%?]*")
_NEVER: Final = tuple(
    ip_network(each)
    for each in (
        "168.63.129.16/32",  # looks public: what a machine in Azure asks for its secrets
        "192.0.0.0/24",  # of protocols; older Pythons call it public
        "192.88.99.0/24",  # relays of 6to4
        "2002::/16",  # 6to4: an IPv4 address in other clothes,
        "2001::/23",  # as in Teredo
    )
)

# Others of IPv6 are of links, sites, translators (NAT64) or nobody.
_UNICAST: Final = ip_network("2000::/3")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An endpoint's address, taken apart once: what was checked is what is connected to."""

    is_https: bool
    host: str  # a name in its ASCII form (xn--…), or an address
    port: int
    path: str  # with its query

    @property
    def host_header(self) -> str:
        """As the endpoint is called."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.is_https else 80) else f"{host}:{self.port}"


def target_of(url: str, *, development: bool) -> Target:
    """Take an address apart.

    Args:
        url: `https://host[:port]/path`; port 443, or one from 1024 on.
        development: plain http to this machine is fine.

    Raises:
        TargetRefused: why, in words that follow "url".
    """
    if len(url) > _LONGEST:
        raise TargetRefused("is too long")
    if not url.isascii() or not url.isprintable() or set(url) & set(' "<>\\^`{|}'):
        raise TargetRefused("holds letters that no address holds: write them with %")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise TargetRefused("is no address") from None
    if parts.scheme not in {"https", "http"} or not host:
        raise TargetRefused("is not https://host/path")
    if "@" in parts.netloc:
        raise TargetRefused("names a user: what signs in to the endpoint is the signature")
    if parts.fragment or url.endswith("#"):
        raise TargetRefused("has a fragment, which is never sent")
    host = _host(host)
    if parts.scheme == "http" and not (development and _is_this_machine(host)):
        raise TargetRefused("is not https")
    if port is None:
        port = 443 if parts.scheme == "https" else 80
    if parts.scheme == "https" and port != 443 and port < 1024:
        raise TargetRefused("has a port below 1024 that is not 443")
    path = parts.path or "/"
    if parts.query:
        path += f"?{parts.query}"
    if not _PATH.fullmatch(path):
        raise TargetRefused("is no address")
    return Target(is_https=parts.scheme == "https", host=host, port=port, path=path)


def refusal_of(
    address: Address, *, allowed: Sequence[Network] = (), development: bool = False
) -> str | None:
    """Why nothing is sent to this address; None if it may be.

    Args:
        address: that a name resolved to.
        allowed: the operator's own networks.
        development: this machine is fine.
    """
    if any(address in each for each in allowed):
        return None
    inner = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    if inner is not None:
        return refusal_of(inner, allowed=allowed, development=development)
    if development and address.is_loopback:
        return None
    is_public = address.is_global and not (
        address.is_multicast
        or address.is_reserved
        or address.is_unspecified
        or address.is_loopback
        or address.is_link_local
        or (isinstance(address, IPv6Address) and address not in _UNICAST)
        or any(address in each for each in _NEVER)
    )
    return None if is_public else "is not an address of the public internet"


def literal(host: str) -> Address | None:
    """The address that a host is, if it is one."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def _host(host: str) -> str:
    if "%" in host:
        raise TargetRefused("has an address with a zone")
    if literal(host) is not None:
        return host
    host = host.removesuffix(".")
    name = host.lower()
    # A last label of digits is an address in some notation: 127.1, 0x7f.1, 2130706433.
    last = name.rpartition(".")[2]
    if not _NAME.fullmatch(name) or re.fullmatch(r"[0-9]+|0x[0-9a-f]*", last):
        raise TargetRefused("has a host that is none")
    return name


def _is_this_machine(host: str) -> bool:
    address = literal(host)
    return host == "localhost" if address is None else address.is_loopback
