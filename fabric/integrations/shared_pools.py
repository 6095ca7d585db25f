"""Keep one pool of workers between the calls of a library that would start and end them with each.

    a call begins     lease(...)    the kept pool, if it is the one that is wanted; else another takes its place
    a call ends       release()     the pool stays; one whose place was taken leaves with its last call

What nobody uses for a while ends, by a thread that waits for that, and at the latest with the program. A process
that was forked begins with none: the workers are its parent's.
"""

import os
import threading
import time
from collections.abc import Callable
from typing import Any

from fabric.task_future import TaskFuture, TaskOptions
from fabric.task_pool import TaskPool
from fabric.task_settings import PoolSettings


class _Kept:
    """A pool, and who uses it."""

    def __init__(self, wanted: dict[str, Any], settings: PoolSettings, idle_seconds: float) -> None:
        self.wanted = wanted
        self.pool = TaskPool(settings)
        self.idle_seconds = idle_seconds
        self.users = 0
        self.idle_since = 0.0

    def fits(self, wanted: dict[str, Any]) -> bool:
        """Is this the pool that is wanted, and in order?"""
        if self.pool.closing or self.pool.broken is not None:
            return False
        try:
            return bool(self.wanted == wanted)
        except ValueError:  # arrays among the arguments of an initializer are neither equal nor not
            return False


class Lease:
    """The use that one call makes of the kept pool."""

    def __init__(self, keeper: "Keeper", kept: _Kept) -> None:
        self.pool = kept.pool
        self.options = TaskOptions()
        self.futures: dict[TaskFuture, Callable[[Any], Any] | None] = {}  # not done yet: and who is told then
        self._keeper = keeper
        self._kept: _Kept | None = kept
        self._aborted = False

    def add(self, future: TaskFuture, callback: Callable[[Any], Any] | None) -> None:
        """Take note of a future; `callback` is for who looks into `futures`."""
        self.futures[future] = callback
        if self._aborted:  # meanwhile, by another thread
            self.abort()

    def abort(self) -> None:
        """Stop what this call has the workers do; those of other calls do not notice."""
        self._aborted = True
        for future in list(self.futures):
            self.forget(future)
            future.cancel()

    def forget(self, future: Any) -> None:
        """Let go of a future: it is done."""
        self.futures.pop(future, None)

    def release(self) -> None:
        """Use the pool no longer. Safe to call twice."""
        kept, self._kept = self._kept, None
        if kept is not None:
            self._keeper.give_back(kept)


class Keeper:
    """The one kept pool of this process. Any thread may call any method."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bell = threading.Event()
        self._thread: threading.Thread | None = None
        self._kept: _Kept | None = None
        os.register_at_fork(after_in_child=self._forget)
        threading._register_atexit(lambda: self.close(at_exit=True))  # type: ignore[attr-defined]

    def lease(self, wanted: dict[str, Any], settings: Callable[[], PoolSettings], idle_seconds: float) -> Lease:
        """Return the use of a pool: the kept one if it was made by an equal `wanted`, else one with these settings."""
        replaced = None
        with self._lock:
            kept = self._kept
            if kept is None or not kept.fits(wanted):
                replaced, self._kept = kept, _Kept(wanted, settings(), idle_seconds)
                kept = self._kept
            kept.idle_seconds = idle_seconds
            kept.users += 1
            leaves = replaced is not None and not replaced.users
        if leaves and replaced is not None:
            _end(replaced)
        return Lease(self, kept)

    def give_back(self, kept: _Kept) -> None:
        """Take note that a call has ended."""
        with self._lock:
            kept.users -= 1
            kept.idle_since = time.monotonic()
            leaves = not kept.users and kept is not self._kept
            if not leaves and self._thread is None:
                self._bell = threading.Event()  # its own: the thread before may not have heard of its end yet
                self._thread = threading.Thread(
                    target=self._watch, args=(self._bell,), name="fabric-idle-workers", daemon=True
                )
                self._thread.start()
        if leaves:
            _end(kept)

    def close(self, at_exit: bool = False) -> None:
        """End the workers, when they have done what they were given."""
        with self._lock:
            kept, self._kept = self._kept, None
            thread, self._thread = self._thread, None
            self._bell.set()
        if kept is not None:
            _end(kept, at_exit)
        if thread is not None:
            thread.join()

    def _watch(self, bell: threading.Event) -> None:
        """End the workers when they have been idle for long, and this thread with them."""
        left: float | None = 0.0
        while not bell.wait(left):
            with self._lock:
                if bell.is_set():  # meanwhile; what is kept now is watched by another thread
                    return
                kept = self._kept
                if kept is None:
                    left = None
                    continue
                left = kept.idle_seconds
                if not kept.users:
                    left = kept.idle_since + kept.idle_seconds - time.monotonic()
                if left > 0:
                    continue
                self._kept = self._thread = None
            _end(kept)
            return

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._bell = threading.Event()
        self._thread = self._kept = None


def _end(kept: _Kept, at_exit: bool = False) -> None:
    kept.pool.leave(at_exit)
    kept.pool.join()
