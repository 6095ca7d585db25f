"""How many items a second go through a queue, from how many producers to how many consumers?

::

    producer processes ── put, put_many ──▶ one queue ── get, get_many ──▶ consumer processes
                                                                          each keeps what it gets

All are forked and ready before the clock starts; it stops when the last item was got. Each item names its producer
and its number. Afterwards the consumers look at what they kept: whole, in each producer's order, and all of it
once. With more than two processes at work two cores are shared. What would change our minds: another queue that
is faster one to one would say that a crossing into C for each item, and a lock at each end, cost too much.
"""

from __future__ import annotations

import importlib
import multiprocessing
from collections.abc import Callable, Iterator
from typing import Any

import fabric
from bench.harness import Case, Contestant, Metric
from bench.race import Get, Put, Work, race
from bench.sample import Sample, WrongAnswerError

ITEMS = Metric("items", "items/s")
BATCH = 256
CROWDS = ((1, 4), (4, 1), (4, 4))
FIFO_BYTES = 64 << 20
WAIT_S = 30.0


def cases(quick: bool) -> list[Case]:
    """Return a case for each way to put and get, and one for each crowd."""
    few = 4 if quick else 1
    rounds = 2 if quick else 5
    found = [
        Case("64 bytes, one to one", (ITEMS,), _contestants(400_000 // few, 64), rounds),
        Case(f"64 bytes, batches of {BATCH}", (ITEMS,), _contestants(2_000_000 // few, 64, BATCH), rounds),
        Case("1 MB, one to one", (ITEMS,), _contestants(2_000 // few, 1_000_000), rounds),
    ]
    for producers, consumers in CROWDS:
        crowd = {"producers": producers, "consumers": consumers}
        name = f"64 bytes, {producers} to {consumers}"
        found.append(Case(name, (ITEMS,), _contestants(200_000 // few, 64, 1, **crowd), 1 if quick else 3))
    return found


def _contestants(items: int, size: int, batch: int = 1, **crowd: int) -> tuple[Contestant, ...]:
    options = {"items": items, "size": size, "batch": batch, **crowd}
    busy = crowd.get("producers", 1) + crowd.get("consumers", 1)
    fewer = options | {"items": max(1, items // 4)}
    return (
        Contestant("fabric.Queue", "bench.queues:ours", options, busy=busy),
        Contestant("fabric.Queue(1000)", "bench.queues:ours", options | {"maxsize": 1_000}, peer=False, busy=busy),
        Contestant("multiprocessing.Queue", "bench.queues:theirs", fewer, busy=busy),
        Contestant("faster-fifo", "bench.queues:fifo", options, "faster_fifo", busy=busy),
    )


def ours(items: int, size: int, batch: int, producers: int = 1, consumers: int = 1, maxsize: int = 0) -> Sample:
    """fabric.Queue."""
    queue = fabric.Queue(maxsize)
    put, get = (put_one(queue.put), get_one(queue.get)) if batch == 1 else (queue.put_many, queue.get_many)
    return _race(put, get, (items, size, batch), producers, consumers)


def theirs(items: int, size: int, batch: int, producers: int = 1, consumers: int = 1) -> Sample:
    """multiprocessing.Queue, which has no batches."""
    queue: Any = multiprocessing.Queue()
    return _race(put_one(queue.put), get_one(queue.get), (items, size, batch), producers, consumers)


def fifo(items: int, size: int, batch: int, producers: int = 1, consumers: int = 1) -> Sample:
    """faster-fifo, with its pickling replaced by nothing at all: the fastest that it can be for bytes."""
    queue: Any = importlib.import_module("faster_fifo").Queue(FIFO_BYTES, loads=bytes, dumps=_as_it_is)
    if batch == 1:
        put = put_one(lambda item: queue.put(item, timeout=WAIT_S))
        get = get_one(lambda: queue.get(timeout=WAIT_S))
    else:
        put = _with_timeout(queue.put_many)
        get = _with_timeout(queue.get_many)
    return _race(put, get, (items, size, batch), producers, consumers)


def put_one(put: Callable[[Any], None]) -> Put:
    """Return what puts one by one."""

    def put_all(items: list[Any]) -> None:
        for item in items:
            put(item)

    return put_all


def get_one(get: Callable[[], Any]) -> Get:
    """Return what gets one by one."""
    return lambda: [get()]


def _with_timeout(call: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments: call(*arguments, timeout=WAIT_S)


def _as_it_is(body: bytes) -> bytes:
    return body


def _bodies(producer: int, items: int, size: int) -> Iterator[bytes]:
    padding = bytes([producer]) * (size - 12)
    for number in range(items):
        yield producer.to_bytes(4) + number.to_bytes(8) + padding


def _race(put: Put, get: Get, work: tuple[int, int, int], producers: int, consumers: int) -> Sample:
    items, size, batch = work
    each = items // producers
    few = size * each >= 1 << 28  # too much for memory: all with one number, of which the heads are kept

    def parts(producer: int) -> list[list[bytes]]:
        bodies = list(_bodies(producer, 1, size)) * each if few else list(_bodies(producer, each, size))
        return [bodies[first : first + batch] for first in range(0, each, batch)] if batch > 1 else [bodies]

    def keep(part: list[bytes]) -> list[bytes]:
        return [item[:12] for item in part if len(item) == size] if few else part

    passed = race(put, get, Work(each, parts, b"", keep, lambda kept: _counts(kept, size, few)), producers, consumers)
    return Sample({"items": [each * producers / passed]}, f"{each * producers:,} items, {producers} to {consumers}")


def _counts(kept: list[bytes], size: int, heads: bool) -> dict[int, int]:
    """Count the items of each producer, and see that they are whole and in order."""
    before: dict[int, int] = {}
    counts: dict[int, int] = {}
    for item in kept:
        producer, number = int.from_bytes(item[:4]), int.from_bytes(item[4:12])
        if not heads and (len(item) != size or item[12:] != bytes([producer]) * (size - 12)):
            raise WrongAnswerError(f"item {number} of producer {producer} is not what was put")
        if not heads and number <= before.get(producer, -1):
            raise WrongAnswerError(f"item {number} of producer {producer} came behind {before[producer]}")
        before[producer] = number
        counts[producer] = counts.get(producer, 0) + 1
    return counts
