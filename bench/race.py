"""Producers and consumers of one queue, against the clock: the same for ours and for each peer.

::

    this process   forks all, waits until they are ready ── go ──▶ clock starts
    producers      put their parts, end
    this process   puts an end for each consumer            (a consumer that got several puts the others back)
    consumers      keep what they get until an end comes ── when the last item came, and what it was ──▶ this process
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from bench.sample import WrongAnswerError

Put = Callable[[list[Any]], None]
Get = Callable[[], list[Any]]
_FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Work:
    """What producers put, and what consumers make of it."""

    each: int  # items of a producer
    parts: Callable[[int], list[list[Any]]]  # those of a producer, as they are put
    end: Any  # tells a consumer that nothing follows
    keep: Callable[[list[Any]], list[Any]]  # of what was got
    count: Callable[[list[Any]], dict[int, int]]  # the items of each producer; raises WrongAnswerError


def race(put: Put, get: Get, work: Work, producers: int, consumers: int) -> float:
    """Return the seconds until the last item was got.

    Raises: WrongAnswerError when not every item of every producer was got, once.
    """
    pipes = [_FORK.Pipe() for _ in range(producers + consumers)]
    roles = [(_produce, (put, work, producer)) for producer in range(producers)]
    roles += [(_consume, (put, get, work))] * consumers
    processes = [
        _FORK.Process(target=role, args=(theirs, *arguments), daemon=True)
        for (role, arguments), (_, theirs) in zip(roles, pipes, strict=True)
    ]
    for process in processes:
        process.start()
    ends = [end for end, _ in pipes]
    for end in ends:
        end.recv()  # ready
    start = time.perf_counter()
    for end in ends:
        end.send(None)
    for process in processes[:producers]:
        process.join()
    put([work.end] * consumers)
    seen = [end.recv() for end in ends[producers:]]
    for process in processes[producers:]:
        process.join()
    _check([counts for _, counts in seen], work.each, producers)
    return float(max(last for last, _ in seen) - start)


def _produce(connection: Connection, put: Put, work: Work, producer: int) -> None:
    parts = work.parts(producer)
    connection.send(None)
    connection.recv()
    for part in parts:
        put(part)


def _consume(connection: Connection, put: Put, get: Get, work: Work) -> None:
    kept: list[Any] = []
    end = work.end
    last = 0.0
    connection.send(None)
    connection.recv()
    while True:
        part = get()
        if part[-1] == end:
            break
        kept += work.keep(part)
        last = time.perf_counter()
    ends = 0
    while part and part[-1] == end:
        part.pop()
        ends += 1
    if part:
        kept += work.keep(part)
        last = time.perf_counter()
    if ends > 1:
        put([end] * (ends - 1))
    connection.send((last, work.count(kept)))


def _check(found: list[dict[int, int]], each: int, producers: int) -> None:
    for producer in range(producers):
        count = sum(counts.get(producer, 0) for counts in found)
        if count != each:
            raise WrongAnswerError(f"{count:,} items of producer {producer} arrived, and {each:,} were put")
