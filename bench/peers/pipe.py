"""multiprocessing.Pipe, with send_bytes and recv_bytes: nothing is pickled. Arrays also with send and recv."""

from __future__ import annotations

import multiprocessing
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from bench.arrays import SUM, Array, Job, answer, run
from bench.bodies import SIZE
from bench.latency import ping
from bench.peers import stream
from bench.sample import Sample

STOP = b"stop"


def tell(messages: int, *, size: int = SIZE) -> Sample:
    """Stream the messages through a one-way pipe."""
    reader, writer = multiprocessing.Pipe(duplex=False)
    with stream.consumer(_consume, reader, messages) as verdicts:

        def send_all(bodies: list[bytes]) -> None:
            for body in bodies:
                writer.send_bytes(body)

        return stream.send(verdicts, messages, send_all, size=size)


def ask(trips: int, silence_us: float) -> Sample:
    """Send one message and wait for its echo."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=_echo, args=(theirs,), daemon=True)
    process.start()
    try:

        def there_and_back(body: bytes) -> bytes:
            ours.send_bytes(body)
            return ours.recv_bytes()

        return ping(there_and_back, trips, silence_us)
    finally:
        ours.send_bytes(STOP)
        process.join()


def arrays(job: dict[str, Any]) -> Sample:
    """Send arrays as objects: both sides pickle."""
    wanted = Job(**job)
    with _other_side(_answer_objects, wanted.back) as connection:

        def there_and_back(array: Array) -> Any:
            connection.send(array)
            return connection.recv()

        return run(there_and_back, wanted)


def array_bytes(job: dict[str, Any]) -> Sample:
    """Send the memory of arrays; the receiver looks at what came as an array, read-only."""
    wanted = Job(**job)
    with _other_side(_answer_bytes, wanted.back) as connection:

        def there_and_back(array: Array) -> Any:
            connection.send_bytes(array)
            return _unpacked(connection.recv_bytes(), wanted.back)

        return run(there_and_back, wanted)


@contextmanager
def _other_side(target: Callable[[Connection, str], None], back: str) -> Iterator[Connection]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=target, args=(theirs, back), daemon=True)
    process.start()
    try:
        yield ours
    finally:
        process.terminate()
        process.join()


def _answer_objects(connection: Connection, back: str) -> None:
    while True:
        connection.send(answer(connection.recv(), back))


def _answer_bytes(connection: Connection, back: str) -> None:
    while True:
        reply = answer(np.frombuffer(connection.recv_bytes()), back)
        connection.send_bytes(struct.pack("d", reply) if back == SUM else reply)


def _unpacked(reply: bytes, back: str) -> Any:
    return struct.unpack("d", reply)[0] if back == SUM else np.frombuffer(reply)


def _consume(verdicts: Connection, reader: Connection, messages: int) -> None:
    stream.consume(verdicts, messages, lambda due: [reader.recv_bytes() for _ in range(due)])


def _echo(connection: Connection) -> None:
    while (body := connection.recv_bytes()) != STOP:
        connection.send_bytes(body)
