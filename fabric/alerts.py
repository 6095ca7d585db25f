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

    def stands(seen: Sequence[WorkerStatistics]) -> Alert | None:
        worker = seen[-1]
        if not all(one.lane_bytes > 0 for one in seen) or len({one.received for one in seen}) > 1 or _handles(seen):
            return None
        text = f"worker {worker.slot} (pid {worker.pid}) has handled nothing of {worker.lane_bytes:,} bytes"
        return Alert(f"stalled {worker.slot}", text, worker.slot)

    return _of_each_worker(samples, stands)


def growing(samples: int = 3) -> Condition:
    """Find workers whose queue has grown in each of the last so many intervals."""

    def grows(seen: Sequence[WorkerStatistics]) -> Alert | None:
        if not all(before.lane_bytes < after.lane_bytes for before, after in itertools.pairwise(seen)):
            return None
        slot, size = seen[-1].slot, seen[-1].lane_bytes
        text = f"the queue of worker {slot} has grown to {size:,} bytes, {samples} times in a row"
        return Alert(f"growing {slot}", text, slot)

    return _of_each_worker(samples, grows)


def _of_each_worker(samples: int, find: Callable[[Sequence[WorkerStatistics]], Alert | None]) -> Condition:
    """Look at what each worker was at the last so many samples and the one before; not at those that have fewer."""
    if samples < 1:
        raise ValueError(f"samples={samples} must be 1 or more")

    def look(history: Sequence[Sample]) -> list[Alert]:
        recent = history[-samples - 1 :]
        if len(recent) <= samples:
            return []
        alerts = []
        for worker in recent[-1].statistics.workers:
            seen = [one for sample in recent if (one := sample.worker(worker.slot)) is not None]
            alert = find(seen) if len(seen) == len(recent) else None
            if alert is not None:
                alerts.append(alert)
        return alerts

    return look


def _handles(seen: Sequence[WorkerStatistics]) -> bool:
    """Has it come further with a batch that it received before? That is known while metrics are on."""
    return seen[0].handler_time.count != seen[-1].handler_time.count
