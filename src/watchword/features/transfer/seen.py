"""Which texts came already, in sixteen bytes each."""

from array import array
from typing import Final

_LEAST: Final = 1 << 12
_MASK: Final = (1 << 64) - 1


class Seen:
    """A set that only grows and holds 64 bits of each text's hash, so that it stays small.

    Python keys its hash anew in each process: nobody can prepare two texts that meet, and of ten
    million texts two meet by chance in three of a million runs.
    """

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 * _LEAST))
        self._count = 0

    def add(self, text: str) -> bool:
        """Put it in; False if it was there."""
        code = hash(text) & _MASK or 1
        mask = len(self._slots) - 1
        at = code & mask
        while self._slots[at]:
            if self._slots[at] == code:
                return False
            at = (at + 1) & mask
        self._slots[at] = code
        self._count += 1
        if 2 * self._count > len(self._slots):
            self._grow()
        return True

    def __contains__(self, text: str) -> bool:
        code = hash(text) & _MASK or 1
        mask = len(self._slots) - 1
        at = code & mask
        while self._slots[at]:
            if self._slots[at] == code:
                return True
            at = (at + 1) & mask
        return False

    def _grow(self) -> None:
        old, self._slots = self._slots, array("Q", bytes(16 * len(self._slots)))
        mask = len(self._slots) - 1
        for code in old:
            if code:
                at = code & mask
                while self._slots[at]:
                    at = (at + 1) & mask
                self._slots[at] = code
