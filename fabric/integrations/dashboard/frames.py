"""Turn samples into what the page shows: plain data, with each figure in seconds, bytes or counts. Pure."""

import math
from collections.abc import Sequence
from typing import Any

from fabric.alerts import Alert
from fabric.histogram import Histogram
from fabric.samples import Sample
from fabric.statistics import ClassStatistics, WorkerStatistics

_TIMES = ("lane_time", "handler_time", "round_trip")
_COUNTS = ("messages", "errors", "dead_letters", "restarts", "redelivered", "poisoned", "late_replies", "alarms")
_WAITS = ("timeouts", "backpressure_waits", "backpressure_seconds", "refusals")
_BUSY = 0.005  # a worker that waits for more than the rest of the time is called idle


def frame(sample: Sample, alerts: Sequence[Alert]) -> dict[str, Any]:
    """Return all that the page shows of one moment. What came in the interval is None for a first sample."""
    now = sample.statistics
    counted = {name: getattr(now, name) for name in _COUNTS}
    counted |= {name: getattr(now.coordinator, name) for name in ("replies", *_WAITS)}
    stalled = {alert.worker for alert in alerts if alert.key.startswith("stalled")}
    return {
        "pid": now.coordinator.pid,
        "measuring": now.measuring,
        "interval": sample.seconds or None,
        "point": point(sample),
        "counts": counted | {"dropped": now.dropped_bytes, "logs": now.dropped_logs},
        "times": {name: _distribution(sample, name) for name in _TIMES},
        "workers": [_worker(sample, one, one.slot in stalled) for one in now.workers],
        "classes": [_class(sample, one) for one in now.classes],
        "alerts": [{"text": alert.text, "worker": alert.worker} for alert in alerts],
    }


def point(sample: Sample) -> dict[str, Any]:
    """Return what the page keeps of each moment: a point of its curves."""
    now, recent = sample.statistics, bool(sample.seconds)
    own = sample.usage.values()
    rates = {
        "messages": sample.rate("messages"),
        "replies": sample.process_rate(0, "replies"),
        "errors": sample.rate("errors"),
        "bytes": sum(sample.process_rate(worker.slot, "bytes_in") for worker in now.workers),
        "cpu": sum(one.cpu for one in own),
    }
    return {
        "at": now.seconds,
        **{name: value if recent else None for name, value in rates.items()},
        **{name: _percentile(getattr(sample, name), 0.99) if recent else None for name in _TIMES},
        "agents": now.agents,
        "outstanding": now.outstanding,
        "queued": sum(worker.lane_bytes for worker in now.workers),
        "memory": sum(one.private_bytes for one in own),
        "arena": now.coordinator.arena_bytes + sum(worker.arena_bytes for worker in now.workers),
    }


def _worker(sample: Sample, worker: WorkerStatistics, stalled: bool) -> dict[str, Any]:
    recent, usage = bool(sample.seconds), sample.usage.get(worker.pid)
    busy = sample.busy(worker.slot)
    idle = not worker.lane_bytes and busy < _BUSY
    handler = sample.worker_histogram(worker.slot, "handler_time")
    state = "gone" if not worker.alive else "stalled" if stalled else "idle" if idle else "working"
    return {
        "slot": worker.slot,
        "state": state if recent or not worker.alive else "alive",
        "pid": worker.pid,
        "agents": worker.agents,
        "rate": sample.process_rate(worker.slot, "messages") if recent else None,
        "errors": worker.errors,
        "queued": worker.lane_bytes,
        "fill": worker.lane_fill,
        "waiting": worker.in_flight,
        "p50": _percentile(handler, 0.5) if recent else None,
        "p99": _percentile(handler, 0.99) if recent else None,
        "lane_p99": _percentile(sample.worker_histogram(worker.slot, "lane_time"), 0.99) if recent else None,
        "busy": busy if recent else None,
        "cpu": usage.cpu if usage and recent else None,
        "memory": usage.private_bytes if usage else None,
        "restarts": max(0, worker.starts - 1),
    }


def _class(sample: Sample, now: ClassStatistics) -> dict[str, Any]:
    then = next((one for one in sample.before.classes if one.name == now.name), None) if sample.before else None
    recent = now.handler_time if then is None else now.handler_time - then.handler_time
    rate = (now.messages - (then.messages if then else 0)) / sample.seconds if sample.seconds else None
    return {
        "name": now.name,
        "rate": rate,
        "messages": now.messages,
        "errors": now.errors,
        "p50": _percentile(recent, 0.5) if sample.seconds else None,
        "p99": _percentile(recent, 0.99) if sample.seconds else None,
        "seconds": now.handler_time.sum,
    }


def _distribution(sample: Sample, name: str) -> dict[str, Any]:
    whole: Histogram = getattr(sample.statistics, name)
    return {"recent": _shape(getattr(sample, name) if sample.seconds else Histogram()), "whole": _shape(whole)}


def _shape(histogram: Histogram) -> dict[str, Any]:
    count = histogram.count
    p50, p99 = histogram.percentiles(0.5, 0.99)
    summary = {"p50": p50, "p99": p99, "max": histogram.maximum} if count else {"p50": None, "p99": None, "max": None}
    return {"count": count, **summary, "buckets": quarters(histogram)}


def quarters(histogram: Histogram) -> list[tuple[float, float, int]]:
    """Return (from, below, count) of each quarter of an octave that counts anything: fine enough to draw."""
    counts: dict[tuple[int, int], int] = {}
    for low, _, count in histogram.buckets():
        part, octave = math.frexp(max(1, round(low / histogram.scale)))  # 0.5 <= part < 1
        key = (octave, int((part - 0.5) * 8))
        counts[key] = counts.get(key, 0) + count
    unit = histogram.scale / 8
    return [
        ((4 + quarter) * 2.0**octave * unit, (5 + quarter) * 2.0**octave * unit, count)
        for (octave, quarter), count in sorted(counts.items())
    ]


def _percentile(histogram: Histogram, share: float) -> float | None:
    return histogram.percentile(share) if histogram.count else None
