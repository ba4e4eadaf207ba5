"""Quotas: so many tries in so long, and by what they are counted."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final, NamedTuple, cast

from watchword.kernel.settings import format_duration, parse_duration

KINDS: Final = ("address", "account+address", "account", "client", "user", "global")
"""By what tries are counted, in the order in which they are asked."""

OWN: Final = "own"
"""By a value of the application's own."""

MOST_TRIES: Final = 100_000
LONGEST: Final = timedelta(days=31)

_FORM = re.compile(
    r"(?P<tries>[1-9][0-9]{0,5})\s*/\s*(?P<window>[0-9A-Z]+(?:ms|s|m|h|d)?)\s+per\s+(?P<by>[a-z+]+)"
)
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052 §2.1: an IPv4 address stands at its end


@dataclass(frozen=True, slots=True)
class Quota:
    """So many tries in a window that slides with the time."""

    tries: int
    window: timedelta
    by: str  # one of `KINDS`, or `OWN`

    def __post_init__(self) -> None:
        if not 1 <= self.tries <= MOST_TRIES:
            raise ValueError(f"takes 1 to {MOST_TRIES} tries")
        if not timedelta(seconds=1) <= self.window <= LONGEST or self.window.microseconds:
            raise ValueError("takes a window of whole seconds, from 1s to 31d")

    def __str__(self) -> str:
        return f"{self.tries}/{format_duration(self.window)} per {self.by}"


class Standing(NamedTuple):
    """How a key stands with one quota."""

    action: str
    quota: Quota
    left: int  # tries
    opens: timedelta  # until the oldest try leaves the window; zero where there is none


def parse_quotas(value: object) -> tuple[Quota, ...]:
    """Read `5/5m per account+address, 20/5m per address`, or a list of such; `off` is none.

    Raises:
        ValueError: says what is wrong with which.
    """
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        raise ValueError(_REMEDY)
    given = [
        each if isinstance(each, Quota) else str(each).strip()
        for each in cast("Iterable[object]", parts)
    ]
    if given == ["off"]:
        return ()
    if not given:  # an empty text must not mean "off"
        raise ValueError(_REMEDY)
    quotas = tuple(each if isinstance(each, Quota) else parse_quota(each) for each in given)
    if len({(quota.by, quota.window) for quota in quotas}) < len(quotas):
        raise ValueError("counts by the same thing in the same window twice: keep the lower one")
    return quotas


def parse_quota(text: str) -> Quota:
    """Read `5/5m per address`.

    Raises:
        ValueError
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:80]!r} is no limit: {_REMEDY}")
    if found["by"] not in KINDS:
        raise ValueError(f"{text[:80]!r}: counts per {', '.join(KINDS)}")
    try:
        return Quota(int(found["tries"]), parse_duration(found["window"]), found["by"])
    except ValueError as error:
        raise ValueError(f"{text[:80]!r} {error}") from None


_REMEDY = "write 5/5m per address, several with commas in between, or off"


def format_quotas(quotas: Iterable[Quota]) -> str:
    """The form that `parse_quotas` reads."""
    return ", ".join(str(quota) for quota in quotas) or "off"


def in_order(quotas: Iterable[Quota]) -> tuple[Quota, ...]:
    """In the order in which they are asked, the same in every worker."""
    places = {kind: place for place, kind in enumerate(KINDS)}
    return tuple(
        sorted(quotas, key=lambda quota: (places.get(quota.by, 0), quota.window, quota.tries))
    )


@lru_cache(maxsize=4096)
def network_of(address: str) -> str:
    """By what an address counts: IPv4 whole, IPv6 by its /64, of which anybody has one.

    What writes an IPv4 address in IPv6 is that address (CVE row 22).
    """
    try:
        known = ip_address(address.partition("%")[0])
    except ValueError:
        return address  # a socket's path, or nothing
    if isinstance(known, IPv6Address):
        within = IPv4Address(int(known) & 0xFFFFFFFF) if known in _NAT64 else known.ipv4_mapped
        if within is None:
            return f"{IPv6Address(int(known) >> 64 << 64)}/64"
        known = within
    return str(known)


def whole_seconds(duration: timedelta) -> int:
    """Rounded up, at least one: whoever comes back then is not too early."""
    return max(math.ceil(duration.total_seconds()), 1)


def rate_headers(standings: Sequence[Standing]) -> dict[str, str]:
    """What a client may know of its limits.

    Source: draft-ietf-httpapi-ratelimit-headers-10 §3 and §4: lists of structured fields, each
    a policy's name with its quota `q` and window `w`, or what remains, `r`, and until when, `t`.
    """
    policies: list[str] = []
    rests: list[str] = []
    for action, quota, left, opens in standings:
        name = _policy(action, quota.by)
        policies.append(f"{name};q={quota.tries};w={int(quota.window.total_seconds())}")
        rests.append(f"{name};r={left};t={whole_seconds(opens)}")
    return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(rests)}


@lru_cache(maxsize=1024)
def _policy(action: str, by: str) -> str:
    """The name of a policy: printable ASCII without quotes (RFC 9651 §3.3.3)."""
    text = f"{action} per {by}"
    plain = (letter if " " <= letter <= "~" and letter not in '"\\' else "_" for letter in text)
    return f'"{"".join(plain)}"'
