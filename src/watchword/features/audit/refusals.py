"""Of refusals that come again and again one is kept: strangers must not fill the database."""

import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

_log = logging.getLogger("watchword.audit")

EVERY: Final = 60.0  # seconds: of refusals that are alike one is kept
_MOST: Final = 300  # kept in that time, by one process, whatever they are
_EACH: Final = 30  # of one client: whoever makes up paths hides nobody else's

Key = tuple[str, ...]


@dataclass(slots=True)
class Refusals:
    """What one process kept in the last minute. Correct for one event loop."""

    _since: float = float("-inf")
    _seen: dict[Key, int] = field(default_factory=dict[Key, int])
    _by: Counter[str] = field(default_factory=Counter[str])
    _is_full: bool = False
    _before: dict[Key, int] = field(default_factory=dict[Key, int])

    def admit(self, key: Key, now: float, *, who: str | None = None) -> int | None:
        """May this one be kept? How many like it were not since the last; None: it may not.

        Args:
            key: what makes two of them alike.
            now: seconds of a clock that does not jump.
            who: caused it; None: there cannot be many.
        """
        if now - self._since >= EVERY:
            self._before = {key: many for key, many in self._seen.items() if many}
            self._since, self._seen, self._by, self._is_full = now, {}, Counter(), False
        if key in self._seen:
            self._seen[key] += 1
            return None
        if who is not None and self._by[who] >= _EACH:
            return None
        if len(self._seen) >= _MOST:
            if not self._is_full:
                self._is_full = True
                _log.warning("over %d unlike refusals a minute: the others are only counted", _MOST)
            return None
        self._seen[key] = 0
        if who is not None:
            self._by[who] += 1
        return self._before.pop(key, 0)
