"""How many bodies a second are told, and handled, against their size?

::

    this process   ── tell_many, bytes of 16 B to 1 MiB ──▶ one worker, 1,000 agents that keep them

The rate of bench.tell_many ("handled") for each size; what arrived is compared by count and digest. From 64 KiB on a
body goes through the arena. bench.sizes has arrays, one at a time. What would change our minds: a size at which a pipe
or a queue is faster, or a step at 64 KiB, which is what arena_threshold is for (bench.threshold).
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from bench.arrays import name
from bench.harness import Case, Contestant, Metric
from bench.sample import Sample

SIZES = tuple(16 * 4**power for power in range(9))
_FEWEST = 30


def cases(quick: bool) -> list[Case]:
    """Return the one curve."""
    options = {"most": 20_000 if quick else 100_000, "most_bytes": (16 if quick else 128) << 20}
    told = {
        "fabric": "bench.tell_many:ours",
        "Pipe, send_bytes": "bench.peers.pipe:tell",
        "multiprocessing.Queue": "bench.peers.mp_queue:tell",
        "faster-fifo": "bench.peers.fifo:tell",
        "pyzmq PUSH/PULL over ipc": "bench.peers.zmq_ipc:tell",
    }
    needs = {"faster-fifo": "faster_fifo", "pyzmq PUSH/PULL over ipc": "zmq"}
    contestants = tuple(
        Contestant(shown, "bench.body_sizes:by_size", options | {"call": call}, needs.get(shown, ""), limit_s=120)
        for shown, call in told.items()
    )
    metrics = tuple(Metric(name(size), "messages/s", size=size) for size in SIZES)
    return [Case("told and handled", metrics, contestants, 1 if quick else 3)]


def by_size(call: str, most: int, most_bytes: int, *, sizes: Sequence[int] = SIZES, **options: Any) -> Sample:
    """Call "module:function" for each size, with as many messages as the bytes allow."""
    module, _, function = call.partition(":")
    tell = getattr(importlib.import_module(module), function)
    values = {}
    for size in sizes:
        messages = max(_FEWEST, min(most, most_bytes // size))
        values[name(size)] = tell(messages, size=size, **options).values["handled"]
    return Sample(values, f"{_FEWEST} to {most:,} messages of a size")
