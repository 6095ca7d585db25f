"""multiprocessing.shared_memory used by hand: one array that both sides map, and a Pipe that says "now".

The least that can be done, and nothing more: one message at a time, of a size agreed before, and who overwrites it
too early, or dies, is nobody's concern.
"""

from __future__ import annotations

import multiprocessing
import struct
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np

from bench.arrays import SUM, Array, Job, answer, run
from bench.sample import Sample

NOW = b"now"


def arrays(job: dict[str, Any], *, loan: bool = False) -> Sample:
    """Copy each array to where both see it, or (`loan`) fill it there."""
    wanted = Job(**job)
    with _memory(wanted.largest()) as memory:
        ours, theirs = multiprocessing.Pipe()
        arguments = theirs, memory.name, wanted.largest(), wanted.back
        process = multiprocessing.Process(target=_answer, args=arguments, daemon=True)
        process.start()
        try:
            return _talk(ours, _array(memory, wanted.largest()), wanted, loan)
        finally:
            process.terminate()
            process.join()


def _talk(connection: Connection, shared: Array, wanted: Job, loan: bool) -> Sample:
    def there_and_back(array: Array) -> Any:
        if not loan:
            np.copyto(shared, array)
        connection.send_bytes(NOW)
        reply = connection.recv_bytes()
        return struct.unpack("d", reply)[0] if wanted.back == SUM else shared.copy()

    return run(there_and_back, wanted, (lambda count: nullcontext(shared)) if loan else None)


@contextmanager
def _memory(size: int) -> Iterator[SharedMemory]:
    memory = SharedMemory(create=True, size=size)
    try:
        yield memory
    finally:
        memory.unlink()


def _array(memory: SharedMemory, size: int) -> Array:
    return np.ndarray(size // 8, "f8", memory.buf)


def _answer(connection: Connection, name: str, size: int, back: str) -> None:
    memory = SharedMemory(name)  # kept: the array does not keep it
    array = _array(memory, size)
    while connection.recv_bytes() == NOW:
        reply = answer(array, back)  # the array itself, where it is to come back
        connection.send_bytes(struct.pack("d", reply) if back == SUM else NOW)
