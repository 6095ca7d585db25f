"""multiprocessing.Queue: a feeder thread, a pipe and two locks; bodies are pickled."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from typing import Any

from bench.bodies import SIZE
from bench.latency import ping
from bench.peers import stream
from bench.sample import Sample

Queue = Any  # what multiprocessing.Queue() returns


def tell(messages: int, *, size: int = SIZE) -> Sample:
    """Stream the messages through one queue."""
    queue: Queue = multiprocessing.Queue()
    with stream.consumer(_consume, queue, messages) as verdicts:

        def send_all(bodies: list[bytes]) -> None:
            for body in bodies:
                queue.put(body)

        return stream.send(verdicts, messages, send_all, size=size)


def ask(trips: int, silence_us: float) -> Sample:
    """Put one message into a queue and wait for its echo in another."""
    there: Queue = multiprocessing.Queue()
    back: Queue = multiprocessing.Queue()
    process = multiprocessing.Process(target=_echo, args=(there, back), daemon=True)
    process.start()
    try:

        def there_and_back(body: bytes) -> bytes:
            there.put(body)
            reply: bytes = back.get()
            return reply

        return ping(there_and_back, trips, silence_us)
    finally:
        there.put(None)
        process.join()


def _consume(verdicts: Connection, queue: Queue, messages: int) -> None:
    stream.consume(verdicts, messages, lambda due: [queue.get() for _ in range(due)])


def _echo(there: Queue, back: Queue) -> None:
    while (body := there.get()) is not None:
        back.put(body)
