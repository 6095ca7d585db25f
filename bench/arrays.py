"""An array handed over, summed there, and a sum or the array back: the same loop for ours and for each peer.

::

    this process                                    the other
    spare: fill, sum       both alone, timed        asleep
    array: fill ── the contestant's way ──────────▶ answer(): sums it
    checks it   ◀─ the sum, or the array with ───── its sum as first element

`trip` is timed from the filled array to the checked answer. What is beyond filling and summing is the whole, from
before the filling on, less the medians of what each of them takes alone, as often as the whole has it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.sample import Sample, WrongAnswerError

SUM, ARRAY = "sum", "array"  # what comes back
TRIP, BEYOND = "trip", "beyond filling and summing"
EIGHT_MB = 8_000_000
_CURVE_BYTES = 256 << 20  # that a size of a curve sends at most, unless that were fewer than _FEWEST
_FEWEST = 5
_WARM = 5  # trips at least before the clock: memory is touched for the first time, on both sides

Array = Any  # a numpy array of float64
Lend = Callable[[int], AbstractContextManager[Array]]


@dataclass(frozen=True)
class Job:
    """What is sent and how often. Contestants get it as a dict: `Job(**job)`."""

    back: str  # SUM or ARRAY
    trips: int
    sizes: Sequence[int] = ()  # bytes: a curve; none of them: 8 MB, and what is beyond filling and summing

    def largest(self) -> int:
        """Return the bytes of the largest array."""
        return max(self.sizes, default=EIGHT_MB)


def answer(array: Array, back: str) -> Any:
    """Do what the other side does: sum, and return the sum, or the array with the sum as its first element.

    A read-only array has to be copied for that.
    """
    total = float(array.sum())
    if back == SUM:
        return total
    if not array.flags.writeable:
        array = array.copy()
    array[0] = total
    return array


def run(ask: Callable[[Array], Any], job: Job, lend: Lend | None = None, note: str = "") -> Sample:
    """Make the trips of a job. `ask` hands an array over and returns the answer; it may keep neither.

    `lend(count)` gives an array of that many elements which lies where the other side will see it.

    Raises: WrongAnswerError when the answer is not that to what was sent.
    """
    if job.sizes:
        values = {name(size): [trip * 1e6 for trip in _trips(ask, job, size)] for size in job.sizes}
        return Sample(values, note)
    loop = _Loop(ask, job.back, EIGHT_MB // 8, lend)
    times = [loop.once(index) for index in range(_warm_up(job.trips) + job.trips)][-job.trips :]
    fill, add = (statistics.median(alone) for alone in ([one.fill for one in times], [one.add for one in times]))
    alone = fill + add * (1 if job.back == SUM else 2)
    values = {
        TRIP: [one.trip * 1e3 for one in times],
        BEYOND: [max(0.0, one.whole - alone) * 1e6 for one in times],  # below 0 a ratio would say nothing
    }
    remark = f"{job.trips} trips; alone: fill {fill * 1e6:.0f} µs, sum {add * 1e6:.0f} µs"
    return Sample(values, f"{remark}; {note}" if note else remark)


def name(size: int) -> str:
    """Return a size as tables show it: 64 B, 4 KiB, 1 MiB."""
    for unit, sign in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:g} {sign}"
    return f"{size} B"


@dataclass(frozen=True)
class _Times:
    """Of one trip, in seconds."""

    fill: float  # alone
    add: float  # alone
    trip: float
    whole: float


def _warm_up(trips: int) -> int:
    return max(_WARM, trips // 10)


class _Loop:
    """Fills, hands over, checks."""

    def __init__(self, ask: Callable[[Array], Any], back: str, count: int, lend: Lend | None) -> None:
        self._ask = ask
        self._back = back
        self._count = count
        self._spare = np.zeros(count)
        own = np.zeros(count)
        self._lend = lend or (lambda count: nullcontext(own))

    def once(self, index: int) -> _Times:
        """Make a trip of its own content; nothing that was received is left afterwards."""
        value, clock = float(index + 1), time.perf_counter
        before = clock()
        self._spare.fill(value)
        filled = clock()
        wanted = float(self._spare.sum())
        added = clock()
        with self._lend(self._count) as array:
            array.fill(value)
            start = clock()
            reply = self._ask(array)
            found = float(reply.sum()) if self._back == ARRAY else reply
            del reply  # what letting go of it costs is a cost of the way
            end = clock()
        due = wanted if self._back == SUM else wanted - value + wanted
        if found != due:
            raise WrongAnswerError(f"{self._count:,} times {value} are {due}; the answer says {found}")
        return _Times(filled - before, added - filled, end - start, end - added)


def _trips(ask: Callable[[Array], Any], job: Job, size: int) -> list[float]:
    trips = max(_FEWEST, min(job.trips, _CURVE_BYTES // size))
    loop = _Loop(ask, job.back, size // 8, None)
    return [loop.once(index).trip for index in range(_warm_up(trips) + trips)][-trips:]
