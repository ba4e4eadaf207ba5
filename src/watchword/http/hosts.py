"""Which Host names a request may bear, and what is none."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from watchword.kernel.errors import HostMalformed, HostNotAllowed, WatchwordError

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
"""Names that only this machine is reached under; `*.localhost` too (RFC 6761 §6.3)."""

# RFC 9110 §7.2 and RFC 3986 §3.2.2, without what is still encoded: `a/public?` would become a
# path for whoever puts a URL together from it (CVE-2026-48710).
_HOST = re.compile(
    rb"(?P<name>[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?"
)
_LONGEST = 255 + 6
_MOST_KNOWN = 256


@dataclass(frozen=True, slots=True)
class Hosts:
    """The names that one App answers to, whatever the port."""

    names: frozenset[str]
    suffixes: tuple[str, ...] = ()
    takes_any: bool = False
    known: set[bytes] = field(default_factory=set[bytes], repr=False)
    """Headers that were found to be one of them; few, whoever sends what."""

    @classmethod
    def named(cls, names: Collection[str]) -> "Hosts":
        """Those of `names`: `*.example.com` is its sub-domains, `*` is any."""
        return cls(
            names=LOOPBACK | {name for name in names if "*" not in name},
            suffixes=(".localhost", *(name[1:] for name in names if name.startswith("*."))),
            takes_any="*" in names,
        )

    def knows(self, name: str) -> bool:
        """Is this, in small letters and without a port, one of them?"""
        return self.takes_any or name in self.names or name.endswith(self.suffixes)

    def fault(self, given: Sequence[bytes], *, is_http11: bool) -> WatchwordError | None:
        """Why a request with these Host headers is refused; None if it is not.

        Source: RFC 9112 §3.2: none in HTTP/1.1, or several, is answered with 400.
        """
        if len(given) == 1 and given[0] in self.known:
            return None
        if not given:
            return HostMalformed(note="no Host") if is_http11 else None
        if len(given) > 1 or len(given[0]) > _LONGEST:
            return HostMalformed(note="several Hosts, or a long one")
        found = _HOST.fullmatch(given[0])
        if found is None:
            return HostMalformed(note="not a host")
        name = found["name"].decode("ascii").lower().removesuffix(".")
        if not self.knows(name):
            return HostNotAllowed(note=name)
        if len(self.known) >= _MOST_KNOWN:
            self.known.clear()
        self.known.add(given[0])
        return None
