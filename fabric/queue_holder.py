"""Hold a process's ring of a queue: make it, take it to other processes, let go of it.

Process(target=f, args=(queue,))     the child inherits it, or gets its descriptor from multiprocessing
what goes to a worker of a Fabric    (pid, descriptor): opened through /proc, by processes of the same user
"""

import functools
import itertools
import multiprocessing.context
import os
import secrets
import time
import types
from collections.abc import Iterable
from multiprocessing import reduction
from typing import Any

from fabric.admission import cgroup_available
from fabric.config import read_text, usable_cpus
from fabric.errors import ClosedError
from fabric.queue_items import RAW, decode, encode
from fabric.queue_ring import BATCH_ITEMS, FOR_EVER, NO_WAIT, QueueRing
from fabric.reopening import identity_of, reopen
from fabric.segment import memfd, seal

_SPIN_NS = 50_000  # see DESIGN.md, When to spin
_NAME = "shm-fabric-queue"


class RingHolder:
    """What the three kinds of queue have in common: one ring, and how it goes to another process."""

    _ring: QueueRing | None = None

    def _make(self, maxsize: int) -> None:
        descriptor = memfd(_NAME)
        try:
            ring = QueueRing.create(descriptor, maxsize, secrets.randbits(63), memory_left, _spin_ns())
        except BaseException:
            os.close(descriptor)
            raise
        self._ring = ring
        seal(descriptor)

    def _open(self) -> QueueRing:
        ring = self._ring
        if ring is None:
            raise ValueError(f"{type(self).__name__} {self!r} is closed")
        return ring

    def _pack(self) -> Any:
        """Return what stands for the ring in a pickle: a descriptor for a child, else where to find ours."""
        ring = self._open()
        child = multiprocessing.context.get_spawning_popen()
        if child is not None and getattr(child, "inherits", True):  # a worker does not: fabric.inheriting
            return reduction.DupFd(ring.descriptor)
        ring.travels()
        return os.getpid(), ring.descriptor, ring.identity, identity_of(ring.descriptor)

    def _unpack(self, packed: Any) -> None:
        descriptor = packed.detach() if hasattr(packed, "detach") else _reach(*packed)
        try:
            self._ring = QueueRing.attach(descriptor, memory_left, _spin_ns())
        except BaseException:
            os.close(descriptor)
            raise
        if type(packed) is tuple and self._ring.identity != packed[2]:
            self._ring.close()
            raise _gone(*packed[:2])

    def _get_many(self, most: int, deadline: int) -> list[Any]:
        ring = self._open()
        items = self._get_some(ring, most, deadline)
        while len(items) < most and ring.qsize() > 0:  # a crossing brings what one buffer holds
            try:
                items += self._get_some(ring, most - len(items), NO_WAIT)
            except Exception as error:
                if hasattr(error, "items"):
                    error.items[:0] = items
                    raise
                break  # others were faster; and whatever else it is, the next call says it again
        return items

    @staticmethod
    def _get_some(ring: QueueRing, most: int, deadline: int) -> list[Any]:
        encodings, datas = ring.get_many(most, deadline)
        if encodings.count(RAW) == len(datas):
            return list(datas)
        items: list[Any] = []
        error: Exception | None = None
        for encoding, data in zip(encodings, datas, strict=True):
            try:
                items.append(decode(encoding, data))
            except Exception as problem:
                error = error or problem
        if error is not None:
            error.add_note(
                f"{len(items)} other items were got with this one; they are the attribute `items` of this error"
            )
            error.items = items  # type: ignore[attr-defined]
            raise error
        return items

    def _encode(self, item: Any) -> tuple[int, bytes]:
        return encode(item, self._open().travelled)

    __class_getitem__ = classmethod(types.GenericAlias)  # type: ignore[var-annotated]


def memory_left() -> int:
    """Return the bytes this process may still take: the machine's or its control groups', the lesser. 0.1 ms."""
    lines = read_text("/proc/meminfo").splitlines()
    machine = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 0)
    groups = cgroup_available()
    return machine if groups is None else min(machine, groups)


@functools.cache
def _spin_ns() -> int:
    return _SPIN_NS if usable_cpus() > 1 else 0


def deadline_of(block: bool, timeout: float | None) -> int:
    if not block:
        return NO_WAIT
    if timeout is None:
        return FOR_EVER
    return min(time.monotonic_ns() + max(1, int(timeout * 1e9)), FOR_EVER)


def chunks(items: Iterable[Any]) -> Iterable[list[Any]]:
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, BATCH_ITEMS)):
        yield chunk


def _reach(pid: int, descriptor: int, identity: int, file: tuple[int, int]) -> int:
    """Open a queue that another process has open, or this one."""
    try:
        return reopen(pid, descriptor, file, os.O_RDWR)
    except OSError as error:
        raise _gone(pid, descriptor) from error


def _gone(pid: int, descriptor: int) -> ClosedError:
    return ClosedError(
        f"process {pid} sent a queue, and does not have it open any more as its descriptor {descriptor}: keep it open "
        "until it has arrived, or give it to a multiprocessing.Process as an argument"
    )
