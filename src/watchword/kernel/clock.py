"""Where the time comes from, so that tests can move it."""

import time
from datetime import UTC, datetime
from typing import Protocol

# A laptop that slept must not find its cache as young as it left it: the boot-time clock
# counts sleep, the monotonic one does not. Only Linux has it.
_BOOT_TIME: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock(Protocol):
    """A source of time. `now` is for what is stored, `monotonic` for what is measured."""

    def now(self) -> datetime:
        """The time as an aware UTC instant."""
        ...

    def monotonic(self) -> float:
        """Seconds since some start; never goes back."""
        ...


class SystemClock:
    """The clock of this machine."""

    def now(self) -> datetime:
        """The time as an aware UTC instant."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since boot, those asleep included where the system can tell."""
        return time.clock_gettime(_BOOT_TIME)
