"""Words that a password must not contain, because whoever knows the user would try them.

Source: ASVS 6.1.2, 6.2.11. docs/features/passwords.md lists them.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from urllib.parse import urlsplit

LEAST = 4  # letters; shorter ones stand in too much
_ALONE = 6  # letters; shorter ones count where they stand by themselves: no anna in savannah

_WORDS = re.compile(r"[^\W_]+")
# What many hosts are called says nothing of this one.
_GENERIC = frozenset(
    {"accounts", "account", "auth", "login", "signin", "identity", "mail", "admin", "test"}
)


def words_of_user(*, email: str | None = None, username: str | None = None) -> Iterator[str]:
    """The address, what stands before its @, the name of its domain, and the user's name."""
    if email:
        yield email
        local, _, domain = email.rpartition("@")
        yield from _with_parts(local)
        yield from _labels(domain)
    if username:
        yield from _with_parts(username)


def words_of_app(*, client_id: str, issuer: str, others: Iterable[str] = ()) -> Iterator[str]:
    """The app's name, the host of its address, and what its settings add."""
    yield from _with_parts(client_id)
    host = urlsplit(issuer).hostname or ""
    yield host
    yield from _labels(host)
    yield from others


def normal_words(words: Iterable[str]) -> tuple[str, ...]:
    """As they are compared; each once, none too short to mean anything."""
    folded = (_folded(word) for word in words)
    return tuple(dict.fromkeys(word for word in folded if len(word) >= LEAST))


def contained(password: str, words: Iterable[str]) -> bool:
    """Does the password contain one of these?"""
    text = _folded(password)
    return any(_stands_in(word, text) for word in words)


def _stands_in(word: str, text: str) -> bool:
    if word not in text:
        return False
    if len(word) >= _ALONE:
        return True
    return re.search(rf"(?<![^\W\d_]){re.escape(word)}(?![^\W\d_])", text) is not None


def _with_parts(name: str) -> Iterator[str]:
    yield name
    yield from _WORDS.findall(name)


def _labels(host: str) -> Iterator[str]:
    """What a domain is called, without its last label and what many are called."""
    try:
        ip_address(host)
    except ValueError:
        yield from (each for each in host.split(".")[:-1] if each.casefold() not in _GENERIC)


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()
