"""Times of two kinds of requests, compared as a patient attacker would."""

import math
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

SAMPLES = 200  # of each kind
GROSS = 1.25  # a ratio of medians that any network lets through
ALPHA = 1e-6
POWER = 0.99
FINDABLE = 0.5  # in standard deviations of the noise: what SAMPLES find with POWER at 1 %

Send = Callable[[int], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Compared:
    """What the times of two kinds say."""

    first: float  # medians, in seconds
    second: float
    spread: float  # of the noise: a standard deviation, told robustly
    p: float  # that nothing but chance parts them

    @property
    def is_gross(self) -> bool:
        """Would an attacker with a stopwatch see it, and is it no accident?"""
        low, high = sorted((self.first, self.second))
        return high > low * GROSS and self.p < ALPHA

    def __str__(self) -> str:
        return (
            f"{self.first * 1e3:.3f} and {self.second * 1e3:.3f} ms, p = {self.p:.2g}; "
            f"a difference of {self.spread * FINDABLE * 1e3:.3f} ms would show at 1 % with a "
            f"power of {POWER:.0%}"
        )


async def compare(first: Send, second: Send, *, samples: int = SAMPLES) -> Compared:
    """Time both, in turn and in random order, so that what the machine does meets both alike.

    Args:
        first, second: send the n-th request of its kind.
    """
    times: tuple[list[float], list[float]] = ([], [])
    order = random.Random(6)
    for number in range(samples):
        turn = [(0, first), (1, second)]
        order.shuffle(turn)
        for kind, send in turn:
            began = time.perf_counter()
            await send(number)
            times[kind].append(time.perf_counter() - began)
    return compared(*times)


def compared(first: Sequence[float], second: Sequence[float]) -> Compared:
    """Medians, and the two-sided test of Mann and Whitney, which asks for no bell curve."""
    together = sorted((value, kind) for kind, many in enumerate((first, second)) for value in many)
    ranks = 0.0
    ties = 0
    at = 0
    while at < len(together):
        end = at
        while end < len(together) and together[end][0] == together[at][0]:
            end += 1
        rank = (at + 1 + end) / 2  # of all that are equal
        ranks += rank * sum(kind == 0 for _, kind in together[at:end])
        ties += (end - at) ** 3 - (end - at)
        at = end
    n, m = len(first), len(second)
    total = n + m
    mean = n * m / 2
    variance = n * m / 12 * (total + 1 - ties / (total * (total - 1)))
    z = (ranks - n * (n + 1) / 2 - mean) / math.sqrt(variance) if variance else 0.0
    middle = [statistics.median(first), statistics.median(second)]
    off = [abs(value - middle[kind]) for kind, many in enumerate((first, second)) for value in many]
    return Compared(
        first=middle[0],
        second=middle[1],
        spread=1.4826 * statistics.median(off),
        p=math.erfc(abs(z) / math.sqrt(2)),
    )
