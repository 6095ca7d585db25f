"""Latencies as counts in log-linear buckets: 32 to a power of two, so what is read back is off by 1.6 % at most.

Of a fixed size, however many are counted: a day of 50,000 a second fits as well as a second. Not thread-safe.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

_BITS = 5  # 32 buckets to a power of two: half of 1/32 is 1.6 %
_TOP = 52  # doubles tell integers apart so far; in ns that is 52 days
_BUCKETS = (_TOP - _BITS + 1) << _BITS


class Histogram:
    """Counts of whole numbers from 0 on, of whatever unit."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BUCKETS, np.int64)
        self._maximum = 0

    def record(self, values: Any) -> None:
        """Count an array of integers. One below 0 counts as 0, one of over 2^52 as that."""
        if len(values):
            values = np.clip(values, 0, (1 << _TOP) - 1).astype(np.int64)
            self._counts += np.bincount(_bucket(values), minlength=_BUCKETS)
            self._maximum = max(self._maximum, int(values.max()))

    def merge(self, other: Histogram) -> None:
        """Count what the other has counted too."""
        self._counts += other._counts
        self._maximum = max(self._maximum, other._maximum)

    @property
    def count(self) -> int:
        """How many were recorded."""
        return int(self._counts.sum())

    @property
    def maximum(self) -> int:
        """The largest, exactly; 0 of none."""
        return self._maximum

    def percentile(self, share: float) -> float:
        """Return the least value that `share` (0 to 1) of all do not exceed (nearest rank), to within 1.6 %.

        Raises: ValueError when nothing was recorded or the share is not in 0 to 1.
        """
        count = self.count
        if not count:
            raise ValueError("percentile of no values: nothing was recorded")
        if not 0 <= share <= 1:
            raise ValueError(f"share is {share}, must be between 0 and 1")
        rank = max(1, math.ceil(share * count))
        bucket = int(np.searchsorted(np.cumsum(self._counts), rank))
        return min(_middle(bucket), float(self._maximum))


def _bucket(values: Any) -> Any:
    """Return for each value its bucket: below 64 one for each number, above the upper six bits say which."""
    exponent = np.frexp(values.astype(np.float64))[1] - 1
    shift = np.maximum(exponent - _BITS, 0)
    return (shift << _BITS) + (values >> shift)


def _middle(bucket: int) -> float:
    shift = max(0, (bucket >> _BITS) - 1)
    lowest = (bucket - (shift << _BITS)) << shift
    return lowest + ((1 << shift) - 1) / 2
