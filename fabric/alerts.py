"""Conditions on samples, which a sampler looks at: pure, a history goes in, what is wrong comes out."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fabric.samples import Sample
from fabric.statistics import WorkerStatistics

Condition = Callable[[Sequence[Sample]], "list[Alert]"]


@dataclass(frozen=True, slots=True)
class Alert:
    """What a condition found. The same `key` in the next sample is the same alert, and is not told again."""

    key: str
    text: str
    worker: int | None = None  # slot


def slow(seconds: float, share: float = 0.99, of: str = "round_trip") -> Condition:
    """Find a percentile over its target, of the last interval: "round_trip", "lane_time" or "handler_time"."""
    if of not in ("round_trip", "lane_time", "handler_time"):
        raise ValueError(f"of={of!r} must be round_trip, lane_time or handler_time")

    def look(history: Sequence[Sample]) -> list[Alert]:
        if history[-1].before is None:  # the first sample has no interval
            return []
        found = getattr(history[-1], of).percentile(share)
        if found <= seconds:
            return []
        return [Alert(f"slow {of}", f"{share:.1%} of {of.replace('_', ' ')} is {found:.3g} s, over {seconds:g} s")]

    return look


def stalled(samples: int = 2) -> Condition:
    """Find workers with something in their lane that handled nothing in the last so many intervals."""
    if samples < 1:
        raise ValueError(f"samples={samples} must be 1 or more")

    def look(history: Sequence[Sample]) -> list[Alert]:
        recent = history[-samples - 1 :]
        if len(recent) <= samples:
            return []
        alerts = []
        for worker in recent[-1].statistics.workers:
            found = [sample.worker(worker.slot) for sample in recent]
            seen = [one for one in found if one is not None and one.lane_bytes > 0]
            if len(seen) == len(recent) and len({one.received for one in seen}) == 1 and not _handles(seen):
                text = f"worker {worker.slot} (pid {worker.pid}) has handled nothing of {worker.lane_bytes:,} bytes"
                alerts.append(Alert(f"stalled {worker.slot}", text, worker.slot))
        return alerts

    return look


def _handles(seen: Sequence[WorkerStatistics]) -> bool:
    """Has it come further with a batch that it received before? That is known while metrics are on."""
    return seen[0].handler_time.count != seen[-1].handler_time.count


def growing(samples: int = 3) -> Condition:
    """Find workers whose queue has grown in each of the last so many intervals."""
    if samples < 1:
        raise ValueError(f"samples={samples} must be 1 or more")

    def look(history: Sequence[Sample]) -> list[Alert]:
        recent = history[-samples - 1 :]
        if len(recent) <= samples:
            return []
        alerts = []
        for worker in recent[-1].statistics.workers:
            fill = [found.lane_bytes for sample in recent if (found := sample.worker(worker.slot)) is not None]
            if len(fill) == len(recent) and all(a < b for a, b in itertools.pairwise(fill)):
                text = f"the queue of worker {worker.slot} has grown to {fill[-1]:,} bytes, {samples} times in a row"
                alerts.append(Alert(f"growing {worker.slot}", text, worker.slot))
        return alerts

    return look
