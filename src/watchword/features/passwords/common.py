"""The list of common and breached passwords that comes with the package.

No word can be read from it: it holds five bytes of a digest of each, the first two as a place, so
that a hundred thousand need 360 KB. Another password is taken for one of them once in ten million
times, which costs somebody another try and opens nothing. scripts/make_common_passwords.py
makes the file.
"""

import hashlib
import unicodedata
from array import array
from functools import cache
from itertools import accumulate
from pathlib import Path

_FILE = Path(__file__).with_name("common-passwords.bin")
_BUCKETS = 1 << 16  # by the first two bytes
_WIDTH = 3  # bytes that a bucket holds of each


def is_common(password: str) -> bool:
    """Is this password, as a whole and whatever the case of its letters, on the list?

    Source: NIST SP 800-63B-4 §3.1.1.2 and ASVS 6.2.4, 6.2.12: the whole is compared, never a
    part of it.
    """
    text = unicodedata.normalize("NFC", password).casefold()
    digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=2 + _WIDTH).digest()
    starts, rests = _listed()
    bucket = digest[0] << 8 | digest[1]
    wanted = digest[2:]
    return any(
        rests[place : place + _WIDTH] == wanted
        for place in range(starts[bucket] * _WIDTH, starts[bucket + 1] * _WIDTH, _WIDTH)
    )


@cache
def _listed() -> "tuple[array[int], bytes]":
    """Where each bucket begins, and what they hold; read when it is first asked for."""
    data = _FILE.read_bytes()
    return array("I", accumulate(data[:_BUCKETS], initial=0)), data[_BUCKETS:]
