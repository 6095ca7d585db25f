"""Queues between processes that anyone started, in place of multiprocessing's: no Fabric, no owner, no thread.

    any process ── put ──▶ one ring in a memfd (fabric.queue_ring) ── get ──▶ any process

    from fabric import Queue            queue = Queue()            Process(target=work, args=(queue,))

An item is in the queue when `put` returns, and in one process only when `get` has it: whoever is killed, at
whatever instruction, loses nothing that was put, and leaves nobody stuck. What a consumer had got when it was killed
goes with it. The queue lives as long as a process has it open.
"""

import traceback
from collections.abc import Iterable
from queue import Full
from typing import Any

from fabric.queue_holder import RingHolder, chunks, deadline_of
from fabric.queue_items import PICKLED, RAW, decode, encode
from fabric.queue_ring import BATCH_ITEMS, FOR_EVER, MOST_ITEMS, QueueRing, ShutDown

__all__ = ["JoinableQueue", "Queue", "ShutDown", "SimpleQueue"]


class Queue(RingHolder):
    """A first-in-first-out queue with multiprocessing.Queue's methods; `maxsize` 0 is without limit and never blocks.

    Give it to a multiprocessing.Process as an argument, or send it to any process of the same user, as long as the
    sender has it open::

        queue = Queue()
        Process(target=work, args=(queue,)).start()
        queue.put({"job": 1})
        queue.put_many(range(1_000))
    """

    def __init__(self, maxsize: int = 0, *, ctx: Any = None) -> None:
        """`ctx` is for those who call multiprocessing.queues.Queue: nothing of a context is used."""
        self._maxsize = min(maxsize, MOST_ITEMS) if maxsize > 0 else MOST_ITEMS
        self._closed = False
        self._was_used = False
        self._make(self._maxsize)

    def __getstate__(self) -> tuple[Any, ...]:
        return self._pack(), self._maxsize

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        packed, self._maxsize = state[:2]
        self._closed = self._was_used = False
        self._unpack(packed)

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an item; wait for room up to `timeout` seconds, or as long as it takes.

        One that cannot be pickled is not put, and reported by `_on_queue_feeder_error`, as in the original.

        Raises:
            queue.Full: no room in time.
            ValueError: this queue was closed here.
            ShutDown: it was shut down, by whomever.
            BackpressureError: there is no memory for it.
        """
        ring = self._ring
        if ring is None:
            raise ValueError(f"Queue {self!r} is closed")
        deadline = FOR_EVER if block and timeout is None else deadline_of(block, timeout)
        if type(obj) is bytes:
            ring.put(obj, RAW, deadline)
            return
        try:
            encoding, data = encode(obj, ring.travelled)
        except Exception as error:
            self._on_queue_feeder_error(error, obj)
            return
        ring.put(data, encoding, deadline)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the next item; wait for one up to `timeout` seconds, or as long as it takes.

        Raises:
            queue.Empty: none in time.
            ValueError: this queue was closed here.
            ShutDown: it was shut down, and is empty.
        """
        ring = self._ring
        if ring is None:
            raise ValueError(f"Queue {self!r} is closed")
        encoding, data = ring.get(FOR_EVER if block and timeout is None else deadline_of(block, timeout))
        return data if encoding == RAW else decode(encoding, data)

    def put_nowait(self, obj: Any) -> None:
        """Put an item, or raise queue.Full at once."""
        self.put(obj, False)

    def get_nowait(self) -> Any:
        """Take the next item, or raise queue.Empty at once."""
        return self.get(False)

    def put_many(self, items: Iterable[Any], block: bool = True, timeout: float | None = None) -> None:
        """Put items in order, 1,024 by one crossing into C; those of a crossing come one right behind another.

        Raises as `put`. `args[0]` of queue.Full says how many were put before it.
        """
        ring, deadline, done = self._open(), deadline_of(block, timeout), 0
        for chunk in chunks(items):
            datas, encodings = self._encode_many(chunk)
            put = ring.put_many(datas, encodings, deadline) if datas else 0
            done += put
            if put < len(datas):
                raise Full(done)

    def get_many(self, max_items: int = BATCH_ITEMS, block: bool = True, timeout: float | None = None) -> list[Any]:
        """Take the items that are there, `max_items` at most; wait until there is one as `get` does.

        Raises as `get`. When one of them cannot be unpickled, that error; its `items` are the others.
        """
        if max_items < 1:
            raise ValueError(f"max_items={max_items} was asked for; 1 is the least")
        return self._get_many(max_items, deadline_of(block, timeout))

    def qsize(self) -> int:
        """Return how many items there are: exactly, of some moment."""
        return self._open_or_os_error().qsize()

    def empty(self) -> bool:
        """Say whether there are none. OSError once this queue was closed here, if it ever was used."""
        if self._closed and not self._was_used:
            return True
        return self._open_or_os_error().qsize() == 0

    def full(self) -> bool:
        """Say whether there are `maxsize` items."""
        return self.qsize() >= self._maxsize

    def shutdown(self, immediate: bool = False) -> None:
        """Have puts raise ShutDown from now on, in all processes, and gets once it is empty.

        `immediate`: throw away what is there, so that gets raise at once.
        """
        self._open().shutdown(immediate)

    def close(self) -> None:
        """Let go of the queue in this process; others go on. Safe to call twice. All that was put is there."""
        ring, self._ring, self._closed = self._ring, None, True
        if ring is not None:
            self._was_used = ring.was_used()
            ring.close()

    def join_thread(self) -> None:
        """Do nothing: there is no thread. Only after `close`, as in the original."""
        assert self._closed, f"Queue {self!r} not closed"

    def cancel_join_thread(self) -> None:
        """Do nothing: there is no thread."""

    @staticmethod
    def _on_queue_feeder_error(e: BaseException, obj: Any) -> None:
        """Report an item that cannot be pickled. A hook of the original's, called in the thread that puts."""
        traceback.print_exception(e)

    def _encode_many(self, chunk: list[Any]) -> tuple[list[bytes], bytes | int]:
        if {*map(type, chunk)} == {bytes}:
            return chunk, RAW
        datas, encodings = [], bytearray()
        for item in chunk:
            try:
                encoding, data = self._encode(item)
            except Exception as error:
                self._on_queue_feeder_error(error, item)
                continue
            datas.append(data)
            encodings.append(encoding)
        return datas, PICKLED if encodings.count(PICKLED) == len(datas) else bytes(encodings)

    def _open_or_os_error(self) -> QueueRing:
        if self._ring is None:
            raise OSError(f"Queue {self!r} is closed")
        return self._ring


class JoinableQueue(Queue):
    """A Queue whose consumers say of each item when they are done with it; `join` waits for the last."""

    def task_done(self, count: int = 1) -> None:
        """Say that one item, or `count` of them, is done with.

        Raises:
            ValueError: called more often than items were put.
        """
        if not self._open().task_done(count):
            raise ValueError("task_done() called too many times")

    def join(self, timeout: float | None = None) -> None:
        """Wait until all items are done with, or were thrown away by `shutdown(immediate=True)`.

        Raises:
            TimeoutError: not in `timeout` seconds.
        """
        if not self._open().join(deadline_of(True, timeout)):
            raise TimeoutError(f"there are unfinished items after {timeout} s")


class SimpleQueue(RingHolder):
    """A queue without limits, timeouts and states, in place of multiprocessing.SimpleQueue; and in batches."""

    def __init__(self, *, ctx: Any = None) -> None:
        """`ctx` is for those who call multiprocessing.queues.SimpleQueue: nothing of a context is used."""
        self._make(MOST_ITEMS)

    def __getstate__(self) -> Any:
        return (self._pack(),)

    def __setstate__(self, state: Any) -> None:
        self._unpack(state[0])

    def put(self, obj: Any) -> None:
        """Put an item. Never waits.

        Raises: what pickling raises; OSError when closed here; BackpressureError when there is no memory.
        """
        encoding, data = self._encode(obj)
        self._open().put(data, encoding, FOR_EVER)

    def get(self) -> Any:
        """Take the next item; wait for one."""
        encoding, data = self._open().get(FOR_EVER)
        return decode(encoding, data)

    def put_many(self, items: Iterable[Any]) -> None:
        """Put items in order: all of 1,024, or none of them when one cannot be pickled."""
        ring = self._open()
        for chunk in chunks(items):
            pairs = [self._encode(item) for item in chunk]
            ring.put_many([data for _, data in pairs], bytes(encoding for encoding, _ in pairs), FOR_EVER)

    def get_many(self, max_items: int = BATCH_ITEMS) -> list[Any]:
        """Take the items that are there, `max_items` at most; wait until there is one."""
        return self._get_many(max_items, FOR_EVER)

    def empty(self) -> bool:
        """Say whether there are no items."""
        return self._open().qsize() == 0

    def close(self) -> None:
        """Let go of the queue in this process. Safe to call twice."""
        ring, self._ring = self._ring, None
        if ring is not None:
            ring.close()

    def _open(self) -> QueueRing:
        ring = self._ring
        if ring is None:
            raise OSError(f"SimpleQueue {self!r} is closed")
        return ring

    @property
    def _reader(self) -> "SimpleQueue":
        """What the original has a pipe for; CPython's tests ask whether it is closed."""
        return self

    _writer = _reader

    @property
    def closed(self) -> bool:
        """Say whether this queue was closed here."""
        return self._ring is None
