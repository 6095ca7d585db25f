"""iceoryx2's Python API with arrays: their bytes are copied into a sample, or filled there when it is loaned.

Both sides spin, which is what answers soonest. A receiver may not write to a sample, so it copies to answer with it.
"""

from __future__ import annotations

import ctypes
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from bench.arrays import SUM, Array, Job, answer, run
from bench.peers import stream
from bench.peers.iceoryx import Node, own_folder
from bench.sample import Sample

HELD = 4  # samples that a subscriber holds: one is under way
SUM_BYTES = 8
NOTE = "both sides spin"


def arrays(job: dict[str, Any], *, loan: bool = False) -> Sample:
    """Publish each array and wait for the sample that answers it."""
    wanted = Job(**job)
    ready, theirs = multiprocessing.Pipe()
    with own_folder() as folder:
        arguments = theirs, folder, wanted.largest(), wanted.back
        process = multiprocessing.Process(target=_answer, args=arguments, daemon=True)
        process.start()
        try:
            there = Node(folder, wanted.largest(), HELD).publisher("there")
            answers = Node(folder, _reply_bytes(wanted.largest(), wanted.back), HELD).subscriber("back")
            ready.recv_bytes()
            return _run(wanted, there, answers, loan)
        finally:
            process.terminate()
            process.join()


def _run(wanted: Job, there: Any, answers: Any, loan: bool) -> Sample:
    size = wanted.largest()
    loaned: list[Any] = []

    @contextmanager
    def lend(count: int) -> Iterator[Array]:
        loaned.append(there.loan_uninit())
        yield _view(loaned[0], 8 * count)

    def there_and_back(array: Array) -> Any:
        if loan:
            loaned.pop().assume_init().send()
        else:
            _send(there, array, size)
        with _received(answers, _reply_bytes(size, wanted.back)) as reply:
            return float(reply[0]) if wanted.back == SUM else reply.copy()

    return run(there_and_back, wanted, lend if loan else None, NOTE)


def _answer(ready: Connection, folder: str, size: int, back: str) -> None:
    there = Node(folder, size, HELD).subscriber("there")
    out_bytes = _reply_bytes(size, back)
    out = Node(folder, out_bytes, HELD).publisher("back")
    ready.send_bytes(stream.READY)
    while True:
        with _received(there, size) as array:
            array.flags.writeable = False
            reply = answer(array, back)
        _send(out, np.atleast_1d(reply), out_bytes)


def _send(publisher: Any, array: Array, size: int) -> None:
    sample = publisher.loan_uninit()
    ctypes.memmove(sample.payload_ptr, array.ctypes.data, size)
    sample.assume_init().send()


@contextmanager
def _received(subscriber: Any, size: int) -> Iterator[Array]:
    """Wait, spinning, for a sample; give it as an array and then give it back."""
    take: Callable[[], Any] = subscriber.receive
    while (sample := take()) is None:
        pass
    yield _view(sample, size)
    sample.delete()


def _view(sample: Any, size: int) -> Array:
    pointer = ctypes.cast(sample.payload_ptr, ctypes.POINTER(ctypes.c_uint8))
    return np.ctypeslib.as_array(pointer, (size,)).view("f8")


def _reply_bytes(size: int, back: str) -> int:
    return SUM_BYTES if back == SUM else size
