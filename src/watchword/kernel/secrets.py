"""`Secret` is what a person holds, `Digest` is what we store: two types, so neither slips."""

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64encode
from typing import Final, final


@final
class Secret:
    """A text that must not be seen. It has no text form but `reveal()`."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text: Final = text

    def reveal(self) -> str:
        """The text itself. Call it where it leaves us and nowhere else."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __format__(self, format_spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and same(self._text, other._text)

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __bool__(self) -> bool:
        return bool(self._text)

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a Secret is not pickled")


@final
class Digest(str):
    """SHA-256 of a secret of at least 128 random bits, as 43 letters of base64url.

    Fast on purpose: guessing 128 random bits is hopeless at any speed. Passwords are
    not like that and go through `watchword.crypto.hashing`.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "Digest(…)"


def digest_of(secret: Secret | str, *, purpose: str) -> Digest:
    """The stored form of a secret. Two purposes never share a digest (CVE row 26)."""
    text = secret.reveal() if isinstance(secret, Secret) else secret
    data = purpose.encode() + b"\x00" + text.encode("utf-8", "surrogatepass")
    return Digest(unpadded(hashlib.sha256(data).digest()))


def new_secret(prefix: str = "", *, bits: int = 256) -> Secret:
    """A fresh secret: the prefix, then `bits` random bits as base64url."""
    return Secret(prefix + unpadded(secrets.token_bytes(bits // 8)))


def same(one: str, other: str) -> bool:
    """Compare two texts in a time that tells nothing of either.

    Both sides are hashed first, so neither length nor alphabet matters (DEF-35).
    """
    digests = [
        hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in (one, other)
    ]
    return hmac.compare_digest(*digests)


def unpadded(data: bytes) -> str:
    """Base64url without padding (RFC 7515 §2)."""
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
