"""What our tests, and our users' tests, are written with."""

from watchword.testing.clock import MovableClock
from watchword.testing.cost import cheap_hashing
from watchword.testing.story import Outbox, Story, telling, without_limits

__all__ = ["MovableClock", "Outbox", "Story", "cheap_hashing", "telling", "without_limits"]
