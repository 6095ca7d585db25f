"""Queues that many threads of one process put into, and one process gets from; see bench.publishers."""

from __future__ import annotations

import importlib
import multiprocessing
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import fabric
from bench.bodies import digest
from bench.peers import stream
from bench.publishers import THREADS, in_threads
from bench.sample import Sample, warm_up

RING_BYTES = 8 << 20  # as a lane of ours
WAIT_S = 30.0
Put = Callable[[Sequence[bytes]], None]  # up to a batch of them
Get = Callable[[], list[bytes]]


def mp_queue(messages: int, batch: int, *, threads: Sequence[int] = THREADS) -> Sample:
    """multiprocessing.Queue; a batch is a list that is put as one item."""

    def open_queue() -> tuple[Put, Get]:
        queue: Any = multiprocessing.Queue()
        if batch == 1:
            return lambda part: queue.put(part[0]), lambda: [queue.get()]
        return lambda part: queue.put(list(part)), queue.get

    return _run(open_queue, messages, batch, threads)


def fifo(messages: int, batch: int, *, threads: Sequence[int] = THREADS) -> Sample:
    """faster-fifo, without its pickling."""

    def open_queue() -> tuple[Put, Get]:
        queue: Any = importlib.import_module("faster_fifo").Queue(RING_BYTES, loads=bytes, dumps=lambda body: body)

        def get() -> list[bytes]:
            found: list[bytes] = queue.get_many(timeout=WAIT_S)
            return found

        if batch == 1:
            return lambda part: queue.put(part[0], timeout=WAIT_S), get
        return lambda part: queue.put_many(part, timeout=WAIT_S), get

    return _run(open_queue, messages, batch, threads)


def ours(messages: int, batch: int, *, threads: Sequence[int] = THREADS) -> Sample:
    """fabric.Queue."""

    def open_queue() -> tuple[Put, Get]:
        queue: Any = fabric.Queue()
        get = lambda: queue.get_many(1_024)  # noqa: E731
        return (lambda part: queue.put(part[0]), get) if batch == 1 else (queue.put_many, get)

    return _run(open_queue, messages, batch, threads)


def _run(open_queue: Callable[[], tuple[Put, Get]], messages: int, batch: int, threads: Sequence[int]) -> Sample:
    values = {}
    for count in threads:
        put, get = open_queue()

        def publish(thread: int, part: Sequence[bytes], put: Put = put) -> None:
            for first in range(0, len(part), batch):
                put(part[first : first + batch])

        with stream.consumer(_consume, get, messages, count) as verdicts:
            for due in (warm_up(messages), messages):
                start, sent = in_threads(count, due, publish)
                verdicts.recv_bytes()  # all arrived
                seconds = time.perf_counter() - start
                stream.check(verdicts.recv(), sent)
        values[f"{count:,}"] = [messages / seconds]
    return Sample(values, f"{messages:,} messages")


def _consume(verdicts: Connection, get: Get, messages: int, threads: int) -> None:
    for due in (warm_up(messages), messages):
        seen: list[bytes] = []
        while len(seen) < due:
            seen += get()
        verdicts.send_bytes(stream.ARRIVED)
        firsts = [due * thread // threads for thread in range(threads)]

        def thread_of(body: bytes, firsts: list[int] = firsts) -> int:
            number = int.from_bytes(body[:8], "little")
            return sum(first <= number for first in firsts)

        seen.sort(key=thread_of)  # a stable sort: in a thread's own order
        verdicts.send((len(seen), digest(seen)))
