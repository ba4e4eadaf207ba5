"""Tallies: how often, and how long, for operators."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate


class Durations:
    """How long something took, in seconds, counted under edges; the last one is infinite."""

    __slots__ = ("_edges", "_under", "count", "total")

    def __init__(self, edges: Sequence[float]) -> None:
        self.count = 0
        self.total = 0.0
        self._edges = tuple(edges)
        self._under = [0] * len(self._edges)

    def add(self, seconds: float) -> None:
        """Count one; clocks of two machines may make it negative, which counts as none."""
        seconds = max(seconds, 0.0)
        self.count += 1
        self.total += seconds
        place = bisect_left(self._edges, seconds)
        if place < len(self._edges):
            self._under[place] += 1

    def buckets(self) -> list[tuple[float, int]]:
        """How many took at most that long."""
        sums = list(accumulate(self._under))
        return [*zip(self._edges, sums, strict=True), (math.inf, self.count)]
