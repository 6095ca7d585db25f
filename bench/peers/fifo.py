"""faster-fifo: a ring in shared memory behind a process-shared mutex, put_many and get_many.

Its own pickling is replaced by nothing at all, which is the fastest that it can be for bytes.
"""

from __future__ import annotations

import importlib
from multiprocessing.connection import Connection
from typing import Any

from bench.bodies import SIZE
from bench.peers import stream
from bench.sample import Sample

faster_fifo: Any = importlib.import_module("faster_fifo")

RING_BYTES = 8 << 20  # as a lane of ours
BATCH = 256  # as ours
WAIT_S = 30.0


def tell(messages: int, *, size: int = SIZE) -> Sample:
    """Stream the messages in batches through one queue."""
    batch = max(1, min(BATCH, RING_BYTES // 4 // size))
    queue = faster_fifo.Queue(max_size_bytes=RING_BYTES, loads=bytes, dumps=_as_it_is)
    with stream.consumer(_consume, queue, messages) as verdicts:

        def send_all(bodies: list[bytes]) -> None:
            for start in range(0, len(bodies), batch):
                queue.put_many(bodies[start : start + batch], timeout=WAIT_S)

        return stream.send(verdicts, messages, send_all, f"put_many of {batch}, not pickled", size)


def _as_it_is(body: bytes) -> bytes:
    return body


def _consume(verdicts: Connection, queue: Any, messages: int) -> None:
    def receive(due: int) -> list[bytes]:
        seen: list[bytes] = []
        while len(seen) < due:
            seen += queue.get_many(timeout=WAIT_S, max_messages_to_get=due - len(seen))
        return seen

    stream.consume(verdicts, messages, receive)
