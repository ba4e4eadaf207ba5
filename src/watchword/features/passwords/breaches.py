"""Was a password seen in a breach? Asked of a range service, which does not learn which.

Only the first five of the forty hex digits of its SHA-1 leave; the answer holds every known rest
and is padded, so that its size tells nothing either.
"""

import asyncio
import hashlib
import logging
from collections import OrderedDict
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Final, Protocol
from urllib.parse import urlsplit

from watchword.features.passwords.policy import normal
from watchword.kernel.clock import Clock
from watchword.kernel.moment import refuse_in_transaction

_PREFIX: Final = 5  # hex digits that leave
_DIGITS: Final = 40
_LARGEST: Final = 256 * 1024  # bytes of an answer; padded ones have some 40,000
_KEPT: Final = 64  # answers
_MOST_DIGITS: Final = 12  # of how often a password was seen

_asking: Final[ContextVar[bool]] = ContextVar("watchword_asking", default=False)


class BreachesUnknown(Exception):
    """The service did not answer as it should. Its text names no password and no prefix."""


class BreachChecker(Protocol):
    """Knows passwords that were seen in breaches. `passwords(breach_checker=…)` takes your own."""

    async def is_breached(self, password: str) -> bool:
        """Was it seen?

        Raises:
            BreachesUnknown: nobody can say right now.
        """
        ...


@dataclass(slots=True, kw_only=True)
class BreachTally:
    """What a process asked, for metrics."""

    asked: int = 0
    found: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeChecker:
    """Asks a service that speaks Have I Been Pwned's range API."""

    url: str
    timeout: timedelta
    keep_for: timedelta
    clock: Clock

    _answers: OrderedDict[str, tuple[datetime, frozenset[str]]] = field(
        default_factory=OrderedDict[str, tuple[datetime, frozenset[str]]], init=False
    )

    async def is_breached(self, password: str) -> bool:
        """Was it seen at least once?

        Raises:
            BreachesUnknown: no answer in time, or none that can be read.
            RuntimeError: a transaction is open (I-04).
        """
        refuse_in_transaction("asking for breaches")
        text = normal(password).encode("utf-8", "replace")
        digest = hashlib.sha1(text, usedforsecurity=False).hexdigest().upper()
        prefix, rest = digest[:_PREFIX], digest[_PREFIX:]
        return rest in await self._range(prefix)

    async def _range(self, prefix: str) -> frozenset[str]:
        now = self.clock.now()
        known = self._answers.get(prefix)
        if known is not None and now < known[0]:
            self._answers.move_to_end(prefix)
            return known[1]
        rests = _read(await self._fetched(prefix))
        self._answers[prefix] = (now + self.keep_for, rests)
        self._answers.move_to_end(prefix)
        while len(self._answers) > _KEPT:
            self._answers.popitem(last=False)
        return rests

    async def _fetched(self, prefix: str) -> str:
        import httpx  # noqa: PLC0415  slow to load, and off by default

        seconds = self.timeout.total_seconds()
        headers = {
            "Add-Padding": "true",
            "User-Agent": "watchword",
            "Accept": "text/plain",
            "Accept-Encoding": "identity",  # a few bytes could unpack to more than is bounded
        }
        for name in _LOGGERS:  # one that is there already is not added again
            logging.getLogger(name).addFilter(_is_not_asking)
        asking = _asking.set(True)
        try:
            # httpx bounds each step; a service that drips a byte a second is bounded here.
            async with (
                asyncio.timeout(seconds),
                httpx.AsyncClient(
                    timeout=seconds,
                    follow_redirects=False,
                    trust_env=not is_loopback(self.url),  # a proxy of the operator's
                ) as client,
                client.stream("GET", self.url + prefix, headers=headers) as answer,
            ):
                if answer.status_code != 200:
                    raise BreachesUnknown(f"it answered {answer.status_code}")
                if answer.headers.get("content-encoding", "identity") != "identity":
                    raise BreachesUnknown("its answer is packed")
                data = bytearray()
                async for piece in answer.aiter_raw():
                    data += piece
                    if len(data) > _LARGEST:
                        raise BreachesUnknown("its answer is too large")
        except (httpx.HTTPError, TimeoutError, OSError) as error:
            raise BreachesUnknown(type(error).__name__) from None
        finally:
            _asking.reset(asking)
        return data.decode("ascii", "replace")


def _read(text: str) -> frozenset[str]:
    """The rests of digests that were seen; those that pad were seen no time."""
    rests: set[str] = set()
    for line in text.splitlines():
        rest, colon, seen = line.strip().partition(":")
        if len(rest) != _DIGITS - _PREFIX or not colon or not _is_number(seen):
            raise BreachesUnknown("its answer is no list of a range")
        if int(seen) > 0:
            rests.add(rest.upper())
    return frozenset(rests)


def _is_number(text: str) -> bool:
    return text.isdecimal() and len(text) <= _MOST_DIGITS


_LOGGERS: Final = (
    *("httpx", "httpcore.connection", "httpcore.http11", "httpcore.http2", "httpcore.proxy"),
    *("httpcore", "httpcore.socks"),
)


def _is_not_asking(_: logging.LogRecord) -> bool:
    """The client logs the address that it asks, which ends in digits of somebody's password."""
    return not _asking.get()


def url_fault(url: str, *, development: bool) -> str | None:
    """What is wrong with the service's address; None if it will do."""
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return None
    if parts.scheme == "http" and development and is_loopback(url):
        return None
    return "passwords.breach_url must be https"


def is_loopback(url: str) -> bool:
    """Does it stay on this machine?"""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
