"""Bind the queue of the C core: a ring in a memfd that any process puts into and gets from.

    descriptor (memfd) ── mapped by each process ──▶ put, put_many: one crossing, or one for 1,024 items
                                                     get, get_many: likewise
    nobody owns it: it lives as long as somebody has it open

One of the few modules that see the C core (tests/test_exports.py lists them). Any thread may call anything here.
Deadlines are NO_WAIT, FOR_EVER or a moment of `time.monotonic_ns`. A signal that comes while a call waits is handled
by Python before it waits on.
"""

import errno
import os
import struct
import sys
from array import array
from collections.abc import Callable, Sequence
from queue import Empty, Full
from typing import Any

from fabric._native import ffi, lib
from fabric.errors import BackpressureError, FabricError, LayoutError

if sys.version_info >= (3, 13):
    from queue import ShutDown
else:

    class ShutDown(Exception):  # noqa: N818 - its name in Python 3.13
        """Refuse what was asked of a queue that was shut down; Python 3.13 has it as queue.ShutDown."""


NO_WAIT = 0
FOR_EVER: int = lib.FAB_QUEUE_FOR_EVER
MOST_ITEMS: int = lib.FAB_QUEUE_MOST_ITEMS
BATCH_ITEMS: int = lib.FAB_BATCH_MAX
DATA_BYTES: int = lib.FAB_QUEUE_DATA

_ENCODING_BITS: int = lib.FAB_QUEUE_ENCODING_BITS
_ENCODING_MASK = (1 << _ENCODING_BITS) - 1
_BUFFER_BYTES = 1 << 16
_KEPT_BYTES = 1 << 20  # a larger buffer is not kept
_BATCH_BYTES = 4 << 20  # items of a batch are joined up to here
_UNASKED_BYTES = 1 << 20  # of memory that each process takes without a look at what is left
_FRESH_AT_ONCE = 64 << 20  # bytes of memory that are taken with one look
_LEFT_TO_OTHERS = 64 << 20  # bytes of memory that are never taken
_BUSY_LOOKS = 10  # of 0.1 s at a lock, before who does not want to wait gives up: its holder was stopped
_CHUNK = 64  # items cut out of a batch by one call of a prepared Struct
_CUTTERS_KEPT = 64

_PROBLEMS = {
    -errno.EBADF: "this is no queue of shm-fabric, or one of another version",
    -errno.EINVAL: "the sizes in this queue's header contradict each other or its length",
}
_TOO_LARGE = {
    -errno.ENOMEM: "; raise the address space, ulimit -v",
    -errno.EFBIG: "; raise the size that files may have, ulimit -f",
}


class _Buffer:
    """Where one thread at a time gets items to."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._bytes = ffi.new("uint8_t[]", size)
        self.c = ffi.new("struct fab_queue_taken *", {"bytes": self._bytes, "room": size})
        self.view = ffi.buffer(self._bytes, size)


class QueueRing:
    """One queue, as this process sees it. `memory_left` says how many bytes this process may still take."""

    def __init__(self, descriptor: int, c: Any, memory_left: Callable[[], int], spin_ns: int) -> None:
        self.descriptor = descriptor
        self.maxsize = int(c.maxsize)
        self._c = ffi.gc(c, lib.fab_queue_close)
        self._memory_left = memory_left
        self._spare: list[_Buffer] = []
        self._cutters: dict[int, struct.Struct] = {}
        lib.fab_queue_tune(c, spin_ns)
        lib.fab_queue_allow(c, _UNASKED_BYTES)

    @classmethod
    def create(
        cls, descriptor: int, maxsize: int, identity: int, memory_left: Callable[[], int], spin_ns: int
    ) -> "QueueRing":
        """Make a queue of an empty memfd, which is then this object's. The ring is as large as can be mapped.

        Raises:
            FabricError: nothing can be mapped.
        """
        c = ffi.new("struct fab_queue *")
        size = lib.FAB_QUEUE_MOST_BYTES
        while True:
            try:
                os.ftruncate(descriptor, DATA_BYTES + size)
                rc = int(lib.fab_queue_create(c, descriptor, size, maxsize, identity))
            except OSError as error:
                rc = -(error.errno or errno.EIO)
            if rc == 0:
                return cls(descriptor, c, memory_left, spin_ns)
            if rc not in _TOO_LARGE or size <= lib.FAB_QUEUE_LEAST_BYTES:
                raise FabricError(f"a queue cannot be made: {os.strerror(-rc)}{_TOO_LARGE.get(rc, '')}")
            size //= 4

    @classmethod
    def attach(cls, descriptor: int, memory_left: Callable[[], int], spin_ns: int) -> "QueueRing":
        """Map a descriptor of a queue, which is then this object's.

        Raises:
            LayoutError: it is no queue of this version.
            FabricError: it cannot be mapped.
        """
        c = ffi.new("struct fab_queue *")
        rc = lib.fab_queue_open(c, descriptor)
        if rc in _PROBLEMS:
            raise LayoutError(_PROBLEMS[rc])
        if rc != 0:
            raise FabricError(f"a queue cannot be opened: {os.strerror(-rc)}; raise the address space, ulimit -v")
        return cls(descriptor, c, memory_left, spin_ns)

    @property
    def identity(self) -> int:
        """A random number that tells this queue from any other."""
        return int(lib.fab_queue_identity(self._c))

    # Putting.

    def put(self, data: bytes, encoding: int, deadline: int) -> None:
        """Put one item.

        Raises:
            queue.Full: it is full until the deadline.
            ShutDown: it was shut down.
            BackpressureError: there is no memory for it.
        """
        looks = 0
        while (rc := lib.fab_queue_put(self._c, data, len(data), encoding, deadline)) != 1:
            looks = self._see_to(rc, looks, deadline, len(data), Full)

    def put_many(self, datas: Sequence[bytes], encodings: bytes | int, deadline: int) -> int:
        """Put items in order; return how many, fewer than all only where `put` would raise Full.

        `encodings` is one for each, or one for all. Raises as `put`, but for Full.
        """
        sizes = list(map(len, datas))
        if len(datas) > BATCH_ITEMS or sum(sizes) > _BATCH_BYTES:
            return self._put_parts(datas, encodings, deadline)
        blob, lengths = b"".join(datas), array("Q", sizes)
        each, all_of_them = (encodings, 0) if isinstance(encodings, bytes) else (None, encodings)
        bytes_at, sizes_at = ffi.from_buffer("uint8_t[]", blob), ffi.from_buffer("uint64_t[]", lengths)
        encodings_at = ffi.NULL if each is None else ffi.from_buffer("uint8_t[]", each)
        batch = ffi.new("struct fab_queue_batch *", (bytes_at, sizes_at, encodings_at, 0, all_of_them, len(datas)))
        done = looks = 0
        while done < len(datas):
            rc = lib.fab_queue_put_many(self._c, batch, deadline)
            if rc > 0:
                batch.bytes += sum(sizes[done : done + rc])
                batch.sizes += rc
                batch.encodings = batch.encodings if each is None else batch.encodings + rc
                batch.count -= rc
                done, looks = done + rc, 0
                continue
            try:
                looks = self._see_to(rc, looks, deadline, sizes[done], Full)
            except Full:
                break
        return done

    def _put_parts(self, datas: Sequence[bytes], encodings: bytes | int, deadline: int) -> int:
        """Put more than fits one batch: halves of it, down to one item."""
        if len(datas) == 1:
            try:
                self.put(datas[0], encodings[0] if isinstance(encodings, bytes) else encodings, deadline)
            except Full:
                return 0
            return 1
        half = min(BATCH_ITEMS, (len(datas) + 1) // 2)
        done = 0
        while done < len(datas):
            part = encodings[done : done + half] if isinstance(encodings, bytes) else encodings
            wanted = datas[done : done + half]
            put = self.put_many(wanted, part, deadline)
            done += put
            if put < len(wanted):
                break
        return done

    # Getting.

    def get(self, deadline: int) -> tuple[int, bytes]:
        """Return (encoding, bytes) of the next item.

        Raises:
            queue.Empty: there is none until the deadline.
            ShutDown: there is none, or it was thrown away, and there will be none.
            LayoutError: what is there is no queue any more.
        """
        try:
            buffer = self._spare.pop()
        except IndexError:
            buffer = _Buffer(_BUFFER_BYTES)
        looks = 0
        try:
            while (found := lib.fab_queue_get(self._c, buffer.c, deadline)) < 0:
                if found == -errno.EMSGSIZE and (large := self._get_large(buffer)) is not None:
                    return large
                if found != -errno.EMSGSIZE:
                    looks = self._see_to(found, looks, deadline, 0, Empty)
            return found & _ENCODING_MASK, buffer.view[: found >> _ENCODING_BITS]
        finally:
            self._spare.append(buffer)

    def _get_large(self, buffer: _Buffer) -> tuple[int, bytes] | None:
        """Get the item that does not fit the buffer right into bytes of its size; None: somebody else has got it.

        Nobody has seen these bytes yet, so they may still be written: it spares a copy, half the time of a large get.
        """
        data = bytes(int(buffer.c.used))
        taken = ffi.new("struct fab_queue_taken *", {"bytes": ffi.from_buffer("uint8_t[]", data), "room": len(data)})
        found = lib.fab_queue_get(self._c, taken, NO_WAIT)
        if found < 0:  # whatever it is, the next look says it again
            return None
        size = found >> _ENCODING_BITS
        return found & _ENCODING_MASK, data if size == len(data) else data[:size]

    def get_many(self, most: int, deadline: int) -> tuple[bytes, list[bytes]]:
        """Return (encodings, bytes of each) of the next items: what is there, of `most`, at least one.

        Raises as `get`.
        """
        try:
            buffer = self._spare.pop()
        except IndexError:
            buffer = _Buffer(_BUFFER_BYTES)
        looks = 0
        try:
            while (count := lib.fab_queue_get_many(self._c, buffer.c, most, deadline)) < 0:
                if count == -errno.EMSGSIZE:
                    buffer = _Buffer(int(buffer.c.used))
                    continue
                looks = self._see_to(count, looks, deadline, 0, Empty)
            sizes = ffi.unpack(buffer.c.sizes, count)
            encodings = bytes(ffi.buffer(buffer.c.encodings, count))
            return encodings, self._cut(buffer.view, sizes)
        finally:
            if buffer.size <= _KEPT_BYTES:
                self._spare.append(buffer)

    def _cut(self, view: Any, sizes: list[int]) -> list[bytes]:
        """Copy out items that lie end to end; those of one size by a prepared Struct, 64 at a time."""
        parts: list[bytes] = []
        size, count, start = sizes[0], len(sizes), 0
        if count >= _CHUNK and sizes.count(size) == count:
            cutter = self._cutters.get(size)
            if cutter is None:
                if len(self._cutters) >= _CUTTERS_KEPT:
                    self._cutters.clear()
                cutter = self._cutters[size] = struct.Struct(f"{size}s" * _CHUNK)
            for _ in range(count // _CHUNK):
                parts += cutter.unpack_from(view, start)
                start += size * _CHUNK
        for one in sizes[len(parts) :]:
            parts.append(view[start : start + one])
            start += one
        return parts

    # The rest.

    def qsize(self) -> int:
        """Return how many items there are."""
        return int(lib.fab_queue_size(self._c))

    def was_used(self) -> bool:
        """Say whether anything was ever put, by whomever."""
        return bool(lib.fab_queue_put_count(self._c) != 0)

    def task_done(self, count: int) -> bool:
        """Say that items which were got are done with. False: there are not so many unfinished ones."""
        return bool(lib.fab_queue_task_done(self._c, count) == 0)

    def join(self, deadline: int) -> bool:
        """Wait until all items are done with. False: the deadline passed."""
        while (rc := lib.fab_queue_join(self._c, deadline)) != 0:
            if rc == -errno.EAGAIN:
                return False
        return True

    def shutdown(self, immediate: bool) -> None:
        """Refuse puts from now on, and gets once it is empty; `immediate`: throw away what is there."""
        while (rc := lib.fab_queue_shutdown(self._c, immediate)) != 0:
            if rc != -errno.EBUSY:
                raise FabricError(f"a queue cannot be shut down: {os.strerror(-rc)}")

    def travels(self) -> None:
        """Say that this queue goes to programs that may not have our `__main__`."""
        lib.fab_queue_set_travelled(self._c)

    def travelled(self) -> bool:
        """Return whether `travels` was said, in any process."""
        return bool(lib.fab_queue_travelled(self._c))

    def close(self) -> None:
        """Close the descriptor. The mapping goes with the last reference to this object. Safe to call twice."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()

    def _see_to(self, rc: int, looks: int, deadline: int, size: int, none: type[Exception]) -> int:
        """Raise what a refusal means, or do what is to be done before another try; return how many there were."""
        if rc == -errno.EAGAIN:
            raise none
        if rc == -errno.EINTR:  # Python has run the signal's handler, which did not raise
            return looks
        if rc == -errno.EBUSY and (deadline != NO_WAIT or looks < _BUSY_LOOKS):
            return self._look_again(looks, deadline, none)
        if rc == -errno.EBUSY:
            raise none
        if rc == -errno.ESHUTDOWN:
            raise ShutDown
        if rc == -errno.ENOMEM and looks < _BUSY_LOOKS:
            self._take_memory(size)
            return looks + 1
        if rc in (-errno.ENOMEM, -errno.ENOBUFS):
            raise BackpressureError(
                f"an item of {size:,} bytes finds no room in this queue, which holds {self.qsize():,}"
            )
        if rc == -errno.EBADMSG:
            raise LayoutError("this queue is damaged: somebody wrote into its memory")
        raise FabricError(f"a queue refused the call: {os.strerror(-rc)}")

    def _look_again(self, looks: int, deadline: int, none: type[Exception]) -> int:
        from time import monotonic_ns

        if deadline != NO_WAIT and monotonic_ns() >= deadline:
            raise none
        return looks + 1

    def _take_memory(self, size: int) -> None:
        needed = size + 4 * int(lib.FAB_QUEUE_STEP_BYTES)
        left = self._memory_left() - _LEFT_TO_OTHERS
        if left < needed:
            raise BackpressureError(
                f"an item of {size:,} bytes needs {needed:,} bytes of memory and {max(0, left):,} may be taken, with "
                f"{self.qsize():,} items in this queue: get items, give it a maxsize, or raise the memory limit"
            )
        lib.fab_queue_allow(self._c, max(needed, min(_FRESH_AT_ONCE, left // 4)))
