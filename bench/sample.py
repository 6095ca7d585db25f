"""What a trial hands back: numbers, and the error that says that an answer was wrong.

Light on purpose: every trial imports it, ours and the peers' alike.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


class WrongAnswerError(Exception):
    """What was measured did not do its work: a count, content or order differs. The figure is worthless."""


@dataclass(frozen=True)
class Sample:
    """One trial of one contestant: per metric one value (a rate) or many (latencies)."""

    values: dict[str, list[float]]
    note: str = ""


@dataclass(frozen=True)
class Percentiles:
    """Where the values of a metric lie: all in the metric's unit."""

    minimum: float
    median: float
    p99: float
    maximum: float
    count: int


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the least of the sorted values that `share` (0 to 1) of them do not exceed (nearest rank).

    Raises: ValueError when there are no values or the share is not in 0 to 1.
    """
    if not ordered:
        raise ValueError("percentile of no values: a contestant that did not run has no percentiles")
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share}, must be between 0 and 1")
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def percentiles(values: Sequence[float]) -> Percentiles:
    """Return the percentiles of the values; the median of an even count is the mean of the middle two."""
    ordered = sorted(values)
    low, high = percentile(ordered, 0.5), ordered[len(ordered) // 2]
    return Percentiles(ordered[0], (low + high) / 2, percentile(ordered, 0.99), ordered[-1], len(ordered))


def timed(call: Callable[[], T]) -> tuple[float, T]:
    """Call once; return the seconds it took and what it returned."""
    start = time.perf_counter()
    found = call()
    return time.perf_counter() - start, found


def rate(call: Callable[[], int], seconds: float) -> float:
    """Return what calls do a second, when made for so many seconds, after a quarter of that to warm up.

    A call returns how many things it did.
    """
    _done_in(call, seconds / 4)
    done, passed = _done_in(call, seconds)
    return done / passed


def _done_in(call: Callable[[], int], seconds: float) -> tuple[int, float]:
    done, passed, start = 0, 0.0, time.perf_counter()
    while passed < seconds:
        done += call()
        passed = time.perf_counter() - start
    return done, passed


def warm_up(messages: int) -> int:
    """Return how many messages go ahead of the clock: a tenth, at least one."""
    return max(1, messages // 10)
