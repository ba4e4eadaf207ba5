"""Base64url the strict way: one text for one value, so that no two spellings prove the same."""

import re
from base64 import urlsafe_b64decode

_ALPHABET = re.compile(r"[A-Za-z0-9_-]*")
# What may come last when 2 or 3 letters are left over: only those whose unused bits are zero.
_LAST = {2: frozenset("AQgw"), 3: frozenset("AEIMQUYcgkosw048")}


def decoded(text: str) -> bytes:
    """The bytes that `kernel.secrets.unpadded` would write as this very text.

    Source: RFC 7515 §2, no padding, no white space; RFC 4648 §3.5, unused bits are zero.

    Raises:
        ValueError: anything else, whether or not a lenient reader would take it.
    """
    rest = len(text) % 4
    if not _ALPHABET.fullmatch(text) or rest == 1 or (rest and text[-1] not in _LAST[rest]):
        raise ValueError("not base64url")
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
