"""How many items a second go through a queue, by the grid of faster-fifo's own comparison?

::

    1, 3, 10 or 20 producers ── put one by one ──▶ one queue ── get, or get_many(100) ──▶ 1, 3, 10 or 20 consumers

The numbers of processes and of items (50,000 to 200,000 of a producer), five ints an item and pickled, are those of
faster-fifo's README. Its queue holds 100,000 bytes there, ours and multiprocessing's 100,000 items. The rate is until
the last item was got; multiprocessing's queue, and by --quick all, get fewer items. Consumers look at what they got:
all of it once, in each producer's order. On few cores most processes wait for one. What would change our minds: a
crowd in which another queue is faster, because then what we do when many wait for one lock is wrong.
"""

from __future__ import annotations

import importlib
import multiprocessing
from typing import Any

import fabric
from bench.harness import Case, Contestant
from bench.queues import ITEMS, WAIT_S, get_one, put_one
from bench.race import Get, Put, Work, race
from bench.sample import Sample, WrongAnswerError

GRID = (  # producers, consumers, items of a producer
    (1, 1, 200_000),
    (1, 10, 200_000),
    (10, 1, 100_000),
    (3, 20, 100_000),
    (20, 3, 50_000),
    (20, 20, 50_000),
)
MANY = 100  # got in one call
FITS = 100_000
_LESS = 10  # times fewer items for multiprocessing's queue, which takes minutes for them
_QUICK, _FEW = 20, 3  # by --quick: times fewer items, and so many crowds


def cases(quick: bool) -> list[Case]:
    """Return a case for each crowd, and each way to get."""
    found = []
    for producers, consumers, each in GRID[:_FEW] if quick else GRID:
        for many in (1, MANY):
            name = f"{producers} to {consumers}, " + (f"get_many({many})" if many > 1 else "get")
            each_one = each // _QUICK if quick else each
            options = {"producers": producers, "consumers": consumers, "each": each_one, "many": many}
            found.append(Case(name, (ITEMS,), _contestants(options, quick), 1 if quick else 2))
    return found


def _contestants(options: dict[str, Any], quick: bool) -> tuple[Contestant, ...]:
    busy = options["producers"] + options["consumers"]
    fewer = options | {"each": options["each"] // (1 if quick else _LESS), "many": 1}
    return (
        Contestant("fabric.Queue", "bench.fifo_grid:ours", options, busy=busy),
        Contestant("faster-fifo", "bench.fifo_grid:fifo", options, "faster_fifo", busy=busy),
        Contestant("multiprocessing.Queue, get", "bench.fifo_grid:theirs", fewer, busy=busy, limit_s=120),
    )


def ours(producers: int, consumers: int, each: int, many: int) -> Sample:
    """fabric.Queue."""
    queue = fabric.Queue(FITS)
    get = get_one(queue.get) if many == 1 else lambda: queue.get_many(many)
    return _run(put_one(queue.put), get, producers, consumers, each)


def fifo(producers: int, consumers: int, each: int, many: int) -> Sample:
    """faster-fifo, pickling as it does by itself."""
    queue: Any = importlib.import_module("faster_fifo").Queue(FITS)
    put = put_one(lambda item: queue.put(item, timeout=WAIT_S))
    if many == 1:
        return _run(put, get_one(lambda: queue.get(timeout=WAIT_S)), producers, consumers, each)
    get = lambda: queue.get_many(timeout=WAIT_S, max_messages_to_get=many)  # noqa: E731
    return _run(put, get, producers, consumers, each)


def theirs(producers: int, consumers: int, each: int, many: int) -> Sample:
    """multiprocessing.Queue, which gets one by one."""
    queue: Any = multiprocessing.Queue(FITS)
    return _run(put_one(queue.put), get_one(queue.get), producers, consumers, each)


def _run(put: Put, get: Get, producers: int, consumers: int, each: int) -> Sample:
    work = Work(each, lambda producer: [_items(producer, each)], (), lambda part: part, _counts)
    passed = race(put, get, work, producers, consumers)
    return Sample({ITEMS.name: [each * producers / passed]}, f"{each * producers:,} items")


def _items(producer: int, each: int) -> list[tuple[int, ...]]:
    return [(number, number, number, number, producer) for number in range(each)]


def _counts(kept: list[tuple[int, ...]]) -> dict[int, int]:
    """Count the items of each producer, and see that they are whole and in order."""
    before: dict[int, int] = {}
    counts: dict[int, int] = {}
    for number, *rest, producer in kept:
        if rest != [number] * 3 or number <= before.get(producer, -1):
            raise WrongAnswerError(f"item {number} of producer {producer} came behind {before.get(producer)}: {rest}")
        before[producer] = number
        counts[producer] = counts.get(producer, 0) + 1
    return counts
