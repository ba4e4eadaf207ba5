"""The root secret: how it is made, what is too weak to be one, and the keys drawn from it."""

import hashlib
import re
import secrets
from collections.abc import Sequence
from typing import Final, final

from watchword.crypto.base64url import decoded
from watchword.kernel.errors import ConfigurationError
from watchword.kernel.secrets import Secret, same, unpadded

_PREFIX: Final = "wws_"
_BODY: Final = 43  # letters of 256 bits
_CHECKSUM: Final = 6  # letters; finds a slip of the pen, and no more is asked of it

_REMEDY: Final = "set what `watchword secret generate` prints"
_SHARED_REMEDY: Final = f"{_REMEDY}, or `openssl rand -base64 32`"

# What people leave in. Compared in lower case without punctuation, so `Change-Me!` is found too.
_WORDS: Final = (
    "supersecret",
    "changethis",
    "changeme",
    "secretkey",
    "jwtsecret",
    "password",
    "secret",
    "insecure",
    "development",
    "production",
    "demo123",
    "example",
    "default",
    "replace",
    "please",
    "random",
    "string",
    "letmein",
    "qwerty",
    "atleast",
    "32characters",
    "256bits",
    "256bit",
    "change",
    "admin",
    "token",
    "debug",
    "value",
    "your",
    "this",
    "demo",
    "test",
    "long",
    "very",
    "here",
    "key",
    "jwt",
)
_OPENINGS: Final = ("devonly", "djangoinsecure", "notsosecret", "abcdefghijklm", "1234567890")
# Samples in much-copied documentation (FastAPI's and Flask's), by digest: a copied secret is not.
_SAMPLES: Final = frozenset(
    (
        "570dad43de1af4c925f92c16a68a50936da42b7dd6fdeb24850507a1199aac89",
        "2598f7d6adc142d88161630f3db12ab2bd3403521c281811e5e1ce60d4ac5d76",
    )
)


def generate_secret() -> Secret:
    """A root secret: `wws_`, 256 random bits and a checksum, 53 letters in all."""
    body = unpadded(secrets.token_bytes(32))
    return Secret(_PREFIX + body + _checksum(body))


def secret_fault(secret: Secret, *, development: bool) -> str | None:
    """Say why a root secret is too weak and what to do; None if it will do (I-17).

    Production takes only what `generate_secret` made. Development also takes 30 characters that
    are on no list of what people leave in.
    """
    text = secret.reveal()
    if _is_generated(text):
        return None
    if text.startswith(_PREFIX):
        return f"the secret is not whole, perhaps copied incompletely: {_REMEDY}"
    if not development:
        return f"the secret was not made by Watchword: {_REMEDY}"
    if len(text) < 30:
        return f"the secret is shorter than 30 characters: {_REMEDY}"
    if _is_commonplace(text):
        return f"the secret is one that others know or guess: {_REMEDY}"
    return None


def shared_secret_fault(secret: Secret) -> str | None:
    """Say why a shared HS256 secret is too weak and what to do; None if it will do.

    Others may have made it, so it need not be one of ours, but it must look like chance.

    Source: RFC 7518 §3.2, at least 256 bits; RFC 8725 §3.5, no passwords.
    """
    text = secret.reveal()
    if len(text.encode("utf-8", "surrogatepass")) < 32:
        return f"is shorter than 32 bytes: {_SHARED_REMEDY}"
    if text.startswith(_PREFIX):
        return None if _is_generated(text) else f"is not whole: {_SHARED_REMEDY}"
    if _is_commonplace(text):
        return f"is one that others know or guess: {_SHARED_REMEDY}"
    # 43 letters of base64url hold 256 bits; what people write has spaces or fewer letters.
    if re.fullmatch(r"[A-Za-z0-9+/_=-]{43,}", text, re.ASCII) is None or len(set(text)) < 10:
        return f"may be a password: {_SHARED_REMEDY}"
    return None


@final
class RootSecrets:
    """The root secret in force and those before it, and the keys drawn from them.

    Each purpose has its own key, so that what one part signs means nothing to another.

    Source: RFC 5869, HKDF with SHA-256.
    """

    __slots__ = ("_cache", "_roots", "current_id")

    def __init__(self, current: Secret, old: Sequence[Secret] = ()) -> None:
        """Take the secret for new keys and those whose keys still open what they closed."""
        self._cache: dict[tuple[str, str, int], bytes] = {}
        self._roots: dict[str, bytes] = {}
        for secret in (current, *old):
            root = secret.reveal().encode("utf-8", "surrogatepass")
            key_id = derived(root, salt=b"", info=b"watchword key id", length=4).hex()
            if self._roots.setdefault(key_id, root) != root:
                raise ConfigurationError([f"two secrets share the key id {key_id}: {_REMEDY}"])
        self.current_id = next(iter(self._roots))

    def __repr__(self) -> str:
        return "RootSecrets(…)"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("RootSecrets are not pickled")

    @property
    def ids(self) -> tuple[str, ...]:
        """The id of each secret, the current one first. An id tells nothing of its secret."""
        return tuple(self._roots)

    def subkey(self, purpose: str, *, length: int = 32, key_id: str | None = None) -> bytes:
        """The key of a purpose, from the current secret or the one named.

        Raises:
            KeyError: no such secret is configured.
        """
        key_id = self.current_id if key_id is None else key_id
        wanted = (key_id, purpose, length)
        found = self._cache.get(wanted)
        if found is None:
            info = b"watchword subkey\x00" + purpose.encode()
            found = derived(self._roots[key_id], salt=b"", info=info, length=length)
            self._cache[wanted] = found
        return found

    def subkeys(self, purpose: str) -> list[bytes]:
        """The keys of a purpose under every secret, the current one first."""
        return [self.subkey(purpose, key_id=key_id) for key_id in self._roots]


def derived(material: bytes, *, salt: bytes, info: bytes, length: int) -> bytes:
    """HKDF-SHA256 (RFC 5869)."""
    # Loaded with the first App: `cryptography` costs a tenth of what `import fastapi` does.
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415

    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=info).derive(material)


def _checksum(body: str) -> str:
    digest = hashlib.sha256(b"watchword secret\x00" + body.encode("ascii")).digest()
    return unpadded(digest)[:_CHECKSUM]


def _is_generated(text: str) -> bool:
    body = text[len(_PREFIX) : len(_PREFIX) + _BODY]
    if not text.startswith(_PREFIX) or len(text) != len(_PREFIX) + _BODY + _CHECKSUM:
        return False
    try:
        bits = decoded(body)
    except ValueError:
        return False
    # Chance repeats half of 32 bytes once in 10^20; whoever types zeros does it at once.
    return same(text[len(_PREFIX) + _BODY :], _checksum(body)) and len(set(bits)) >= 16


def _is_commonplace(text: str) -> bool:
    plain = re.sub(r"[^a-z0-9]", "", text.lower())
    if hashlib.sha256(plain.encode()).hexdigest() in _SAMPLES or plain.startswith(_OPENINGS):
        return True
    rest = plain
    for word in _WORDS:
        rest = rest.replace(word, "")
    return len(rest) < 16 or len(set(text)) < 8 or _repeats(text)


def _repeats(text: str) -> bool:
    """Is it a short text written out again and again?"""
    return any(text == (text[:size] * len(text))[: len(text)] for size in range(1, 17))
