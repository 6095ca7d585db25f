"""When each message of a load is due, whatever becomes of those before it: an absolute timetable. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

CONSTANT, POISSON = "constant", "poisson"
ARRIVALS = (CONSTANT, POISSON)
_BLOCK = 1 << 12  # times made together. Each thread that makes some keeps the memory for it, which looked like growth
_SEED = 20_240_607


class Timetable:
    """Due times, in ns from the start, of messages number 0, 1, ...

    `phases` are (seconds, messages a second), one after the other. Constant arrivals are evenly spaced; Poisson
    arrivals have exponential gaps, the same each time by the seed, so that messages come in clusters as they do from
    many independent senders.
    """

    def __init__(self, phases: Sequence[tuple[float, float]], arrivals: str = CONSTANT, seed: int = _SEED) -> None:
        self._blocks = _blocks(phases, arrivals, np.random.default_rng(seed))
        self._ahead = np.empty(0, np.int64)
        self._taken = 0
        self._fill()

    @property
    def taken(self) -> int:
        """How many have been taken: the number of the next message."""
        return self._taken

    @property
    def next_due(self) -> int | None:
        """When the next message is due; None behind the last."""
        return int(self._ahead[0]) if len(self._ahead) else None

    def take(self, now: int, most: int) -> Any:
        """Return the due times of the next messages that are due by now, at most so many. There may be more."""
        count = min(most, int(np.searchsorted(self._ahead, now, side="right")))
        found, self._ahead = self._ahead[:count], self._ahead[count:]
        self._taken += count
        self._fill()
        return found

    def _fill(self) -> None:
        while len(self._ahead) < _BLOCK:
            block = next(self._blocks, None)
            if block is None:
                return
            self._ahead = np.concatenate([self._ahead, block])


def _blocks(phases: Sequence[tuple[float, float]], arrivals: str, chance: np.random.Generator) -> Iterator[Any]:
    begin = 0.0
    for seconds, rate in phases:
        make = _constant(rate, round(seconds * rate)) if arrivals == CONSTANT else _poisson(rate, seconds, chance)
        for offsets in make:
            yield np.rint((begin + offsets) * 1e9).astype(np.int64)
        begin += seconds


def _constant(rate: float, count: int) -> Iterator[Any]:
    for first in range(0, count, _BLOCK):
        yield np.arange(first, min(first + _BLOCK, count)) / rate


def _poisson(rate: float, seconds: float, chance: np.random.Generator) -> Iterator[Any]:
    last = 0.0
    while last < seconds:
        times = last + np.cumsum(chance.exponential(1 / rate, _BLOCK))
        yield times[: np.searchsorted(times, seconds)]
        last = float(times[-1])
