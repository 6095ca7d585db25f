"""Apply a function to many items: chunks of them are tasks, and results come back in the order of the items.

    items ──▶ [1] [1] [16] [256] ... ──▶ tasks ──▶ results, in order
              by the time that those before took (fabric.chunking)

Only a few chunks a worker are made ahead, since their size is to follow what is measured. Who iterates makes the
next ones; while nobody does, the steward. A chunk that took too long comes back in part, and the rest of it goes to
whoever is free; one that kills its worker is cut into single items, so that only the one to blame fails.
"""

import collections
import itertools
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from fabric.chunking import Sizer
from fabric.errors import PoisonMessageError
from fabric.pending import deadline_of, seconds_left
from fabric.task_errors import error_of
from fabric.task_future import TaskFuture, TaskOptions
from fabric.task_pool import TaskPool
from fabric.task_runner import ChunkResult

_AHEAD = 3  # chunks a worker: one in its hands, one behind it, one that waits here


class Job:
    """What is mapped: shared by all chunks of one call."""

    def __init__(self, pool: TaskPool, options: TaskOptions, function: Any, star: bool, seed: Any = None) -> None:
        """`star`: items are tuples of arguments. EncodingError: the function cannot be pickled."""
        self.pool = pool
        self.options = options
        self.function = function
        self.star = star
        self.seed = seed
        self._data = pool.functions.dump(function)

    def submit(self, items: Any, first: int) -> TaskFuture:
        """Send items; `first` is the index of the first of them."""
        seed = None if self.seed is None else (self.seed, first)
        function = self.function if self._data is None else self._data
        return self.pool.submit_call(self.options, (function, items, self.star, seed), self.function)


class Chunk:
    """Items that went together, and what came of them."""

    def __init__(self, job: Job, items: Any, first: int) -> None:
        self.items = items
        self.first = first
        self.future = job.submit(items, first)
        self.rest: list[Chunk] = []  # of its items that were not begun


class MapRun:
    """One call of map: an iterator over results. One thread at a time iterates."""

    def __init__(self, job: Job, items: Iterable[Any], sizer: Sizer, timeout: float | None, buffer: int | None) -> None:
        self._job = job
        self._sizer = sizer
        self._deadline = deadline_of(timeout)
        self._buffer = buffer
        self._left = None if buffer is not None else len(items)  # type: ignore[arg-type]
        self._items = iter(items)
        self._chunks: collections.deque[Chunk] = collections.deque()
        self._open = 0  # chunks that are not done
        self._made = 0  # items that are in chunks
        self._given = 0  # results that were yielded
        self._guard = threading.Lock()
        self._over = False
        self.watched = False  # does the one who iterates wait, and will look itself?

    def __iter__(self) -> Iterator[Any]:
        try:
            self.feed()
            while self._chunks:
                yield from self._results(self._chunks.popleft())
                self.feed()
        finally:
            self._abandon()

    def feed(self) -> None:
        """Make chunks, as many as are to be ahead. Any thread; those who come second leave it to the first."""
        if self._over or not self._guard.acquire(False):
            return
        try:
            while not self._over and self._open < _AHEAD * max(1, self._job.pool.crew.wanted):
                most = self._sizer.next(self._left)
                if self._buffer is not None:
                    most = min(most, self._buffer - (self._made - self._given))
                items = list(itertools.islice(self._items, most)) if most > 0 else []
                if not items:
                    break
                if self._left is not None:
                    self._left -= len(items)
                self._chunks.append(self._chunk(items, self._made))
                self._made += len(items)
        finally:
            self._guard.release()

    def done(self, future: TaskFuture) -> None:
        """Take note that a chunk is done, in the thread that drains: the steward looks, unless who iterates does."""
        self._open -= 1
        if not self.watched and self._buffer is None:
            self._job.pool.steward.feed(self.feed)

    def _chunk(self, items: Any, first: int) -> Chunk:
        self._open += 1
        try:
            chunk = Chunk(self._job, items, first)
        except BaseException:
            self._open -= 1
            raise
        chunk.future.follow(self.done)
        return chunk

    def _results(self, chunk: Chunk) -> Iterator[Any]:
        result = self._outcome(chunk)
        if result is None:
            for rest in chunk.rest:
                yield from self._results(rest)
            return
        self.feed()
        values = result.values
        values.reverse()
        while values:
            self._given += 1
            yield values.pop()
        if result.error is not None:
            raise error_of(result.error, self._job.pool.name_of_function(self._job.function))
        for rest in chunk.rest:
            yield from self._results(rest)

    def _outcome(self, chunk: Chunk) -> ChunkResult | None:
        """Wait for a chunk; None: it was cut into parts."""
        self.watched = True
        try:
            result: ChunkResult = chunk.future.result(seconds_left(self._deadline))
        except PoisonMessageError:
            if len(chunk.items) == 1 or self._job.options.once:
                raise
            chunk.rest = [self._chunk([item], chunk.first + i) for i, item in enumerate(chunk.items)]
            return None
        finally:
            self.watched = False
            chunk.future = None  # type: ignore[assignment]  # it has the values, and must not keep them
        self._sizer.observe(len(result.values), result.seconds)
        behind = len(result.values)
        if result.error is None and behind < len(chunk.items):
            chunk.rest = self._cut(chunk.items[behind:], chunk.first + behind)
        chunk.items = ()
        return result

    def _cut(self, items: Any, first: int) -> list[Chunk]:
        """Make chunks of what a worker gave back."""
        chunks = []
        while items:
            size = self._sizer.next(len(items))
            chunks.append(self._chunk(items[:size], first))
            items, first = items[size:], first + size
        return chunks

    def _abandon(self) -> None:
        """Drop what no worker has: nobody wants it any more."""
        self._over = True
        for chunk in self._chunks:
            for part in (chunk, *chunk.rest):
                if part.future is not None:
                    part.future.cancel_waiting()
