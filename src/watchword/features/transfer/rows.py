"""What a source gives: rows in order, each with its place, and why one could not be read."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

Place = str | int
"""Where a source goes on: a place in a file, or a key of a table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a source."""

    line: int  # of the file, from 1; of a table the row in order of its key
    values: Mapping[str, object]  # empty if it could not be read
    place: Place  # of what comes next
    fault: str | None = None  # why it could not be read


class Unreadable(Exception):
    """The source as a whole is not what it was said to be; the text says what to do."""


class Source(Protocol):
    """Where users come from."""

    columns: Sequence[str] | None  # None where each row says its own

    def batches(self, size: int) -> AsyncGenerator[list[Row]]:
        """The rows, `size` at a time.

        Raises:
            Unreadable
        """
        ...
