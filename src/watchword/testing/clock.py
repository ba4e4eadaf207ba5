"""A clock that moves only when told."""

from datetime import datetime, timedelta


class MovableClock:
    """Time for tests: it stands still until somebody calls `advance`."""

    def __init__(self, now: datetime) -> None:
        if now.tzinfo is None:
            raise ValueError("a clock tells aware instants: give a datetime with a time zone")
        self._start = now
        self._now = now

    def now(self) -> datetime:
        """The time as an aware instant."""
        return self._now

    def monotonic(self) -> float:
        """Seconds since the clock was made; moves with it."""
        return (self._now - self._start).total_seconds()

    def advance(self, by: timedelta) -> None:
        """Let this much time pass at once."""
        if by < timedelta(0):
            raise ValueError("time does not go back")
        self._now += by
