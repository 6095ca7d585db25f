"""How does the rate of `ask_many` change with the workers, with the batch and with the size of a call?

::

    this process  ── ask_many in calls of N ──▶  1 .. 8 workers, batches of up to B messages, 1,000 agents

Each setting departs in one thing from the usual one (one worker, batches of 256, everything in one call),
which is the first row; none is a peer. With as many workers as cores or more, the figure says what crowding
costs, not what the fabric can do. What would change our minds: a batch of 16 as fast as 256 (then smaller is
better for latency), or two workers slower than one with cores to spare.
"""

from __future__ import annotations

from typing import Any

from bench.harness import Case, Contestant, Metric
from bench.machine import usable_cores

REPLIES = Metric("replies", "messages/s")
MOST_WORKERS = 8
BATCHES = (1, 16, 1_024)
CALLS = (16, 256, 4_096)


def cases(quick: bool) -> list[Case]:
    """Return one case with all settings."""
    messages = 100_000 if quick else 300_000
    settings: list[tuple[str, dict[str, Any]]] = [("usual: 1 worker, batches of 256, 1 call", {})]
    settings += [(f"{count} workers", {"workers": count}) for count in range(2, _most_workers() + 1)]
    settings += [(f"batches of {size:,}", {"batch_size": size}) for size in BATCHES]
    settings += [(f"calls of {size:,}", {"call_size": size}) for size in CALLS]
    contestants = tuple(_contestant(name, messages, options) for name, options in settings)
    return [Case("64-byte bytes", (REPLIES,), contestants, 1 if quick else 3)]


def _contestant(shown: str, messages: int, options: dict[str, Any]) -> Contestant:
    everything = {"kind": "bytes", "messages": messages} | options
    busy = 1 + int(options.get("workers", 1))
    return Contestant(shown, "bench.ask_many:ours", everything, busy=busy, peer=False)


def _most_workers() -> int:
    return min(MOST_WORKERS, max(2, usable_cores()))
