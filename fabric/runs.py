"""Apply a function to many items, for an Executor or a Pool: chunks of them are tasks, a collector gets the outcomes.

    source ──▶ chunks, by measured time ──▶ TaskPool ──▶ outcomes of items ──▶ collector: a list, or an iterator
      ▲                                        │
      └── a few chunks a worker are ahead ◀────┘         (fed by who waits for results, else by the steward)

A chunk that took too long comes back in part, and the rest of it goes to whoever is free. One that kills its worker,
or cannot be pickled, is cut into single items, so that only the one to blame fails.
"""

import _thread
import contextlib
import math
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from fabric.chunking import MeasuredSize, Sizer
from fabric.errors import BackpressureError, EncodingError, PoisonMessageError
from fabric.sources import Iterated, Source
from fabric.task_future import TaskFuture, TaskOptions, Waiter
from fabric.task_pool import TaskPool
from fabric.task_runner import Outcomes

_CHUNK_SECONDS = 0.02  # a chunk of ours that takes longer gives back what it has not begun: others may be idle
_AHEAD = 3  # chunks of measured size a worker: one in its hands, one behind it, one that waits here
_AHEAD_FIXED = 256  # those that were asked for may be of a microsecond each


class Work(NamedTuple):
    """What is to be done with each item."""

    function: Any
    star: bool
    options: TaskOptions
    seed: Any = None  # of random numbers, for each item its own


class Collector(Protocol):
    """Takes what becomes of items, in the thread that drains: `errors` has, by index in `values`, what has none."""

    def accept(self, first: int, values: list[Any], errors: dict[int, Any]) -> None: ...
    def finish(self) -> None: ...


class Piece:
    """Items that go together, and their place among all."""

    __slots__ = ("first", "items", "run")

    def __init__(self, run: "Run", items: Any, first: int) -> None:
        self.run = run
        self.items = items
        self.first = first

    def came(self, task: TaskFuture) -> None:
        """Take note that their task is done."""
        self.run._tasks.pop(task, None)
        self.run._came(self, task._result, task._exception)


class Run:
    """One call of map or imap, from its first item to the last outcome. Any thread may feed it and wait for it."""

    def __init__(self, pool: TaskPool, work: Work, source: Source, sizer: Sizer) -> None:
        """See fabric.chunking for `sizer`: chunks of the size that was asked for come back whole.

        Raises:
            EncodingError: the function cannot be pickled.
        """
        self.pool = pool
        self.source = source
        self._work = work
        data = pool.functions.dump(work.function)
        self._function = work.function if data is None else data
        self._sizer = sizer
        self._workers = pool.settings.max_workers
        measured = isinstance(sizer, MeasuredSize)
        self._seconds = _CHUNK_SECONDS if measured else math.inf  # that a chunk may take
        self._most_open = (_AHEAD if measured else _AHEAD_FIXED) * self._workers
        self._guard = threading.Lock()  # of feeding: whoever has it may run the user's code, an iterator's say
        self._lock = threading.Lock()  # of what follows; no code of the user's runs under it
        self._open = 0  # chunks that are not done
        self._sent = 0  # items that were put into chunks
        self._left = 0  # of these, items without an outcome; and one while some are being taken
        self._again: deque[Piece] = deque()
        self._tasks: dict[TaskFuture, None] = {}  # of chunks that are not done
        self._waiting: list[Waiter] = []
        self._collector: Collector | None = None
        self._ending = False  # has somebody begun to finish it? Then it is theirs alone
        self.finished = False  # has the collector got all?

    def begin(self, collector: Collector) -> None:
        """Begin to send."""
        self._collector = collector
        self.pool.begin_run(self)
        try:
            if isinstance(self.source, Iterated):
                self.source.begin(self.feed)
            else:
                self.feed()
        except BaseException as error:  # no thread can be started
            self.abort(error)
            raise

    # Feeding.

    def feed(self) -> None:
        """Send chunks, as many as are to be ahead. Any thread; those who come second leave it to the first."""
        while self._wants() and self._guard.acquire(False):
            try:
                while self._wants():
                    self._send_next()
            except BaseException as error:
                self.abort(error)
            finally:
                self._guard.release()
        if self.source.ended():  # and all that it gave may be there
            self._finish_if_done()

    def _wants(self) -> bool:
        if self._open >= self._most_open or self._ending:
            return False
        if self._again:
            return True
        source = self.source
        return source.ready(1 if self._open < self._workers else self._sizer.next(source.left))

    def _send_next(self) -> None:
        with self._lock:
            piece = self._again.popleft() if self._again else None
        if piece is None:
            piece = self._take()
        if not len(piece.items) or self._ending:
            return
        with self._lock:
            self._open += 1
        work = self._work
        seed = None if work.seed is None else (work.seed, piece.first)
        try:
            task = self.pool.submit_call(
                work.options, (self._function, piece.items, work.star, self._seconds, seed), work.function
            )
        except EncodingError as error:
            self._came(piece, None, error)
            return
        self._sizer.weigh(len(piece.items), task.size)
        self._tasks[task] = None
        task.follow(piece.came)
        if self._ending:  # who aborted it may not have seen this one
            task.cancel_waiting()

    def _take(self) -> Piece:
        """Take the next items, which may run the user's code, and that wait for tasks of this very pool."""
        with self._lock:
            self._left += 1  # it must not look as if all were done meanwhile
        items: Any = ()
        try:
            items = self.source.take(self._sizer.next(self.source.left))
        finally:
            with self._lock:
                first = self._sent
                self._sent += len(items)
                self._left += len(items) - 1
        return Piece(self, items, first)

    # What comes back.

    def _came(self, piece: Piece, result: Any, error: BaseException | None) -> None:
        collector = self._collector
        values: list[Any] = []
        errors: dict[int, Any] = {}
        again: list[Piece] = []
        count = len(piece.items)
        if type(result) is Outcomes:
            values, errors, seconds = result
            self._sizer.observe(len(values), seconds)
            if len(values) < count:
                again = self._cut(piece, len(values), self._sizer.next(count))
                if seconds < self._seconds:  # results are large
                    self._sizer.limit(len(values))
        elif count > 1 and self._is_divisible(error):
            again = self._cut(piece, 0, 1 if not isinstance(error, BackpressureError) else -(-count // 4))
        else:
            values, errors = [None] * count, dict.fromkeys(range(count), error)
        piece.items = ()
        if self._ending:
            return
        if values and collector is not None:
            collector.accept(piece.first, values, errors)
        with self._lock:  # only now: once none is left, any thread may finish it
            self._open -= 1
            self._again.extend(again)
            self._left -= len(values)
        if not self._finish_if_done() and not self._wake() and self._wants():
            self.pool.steward.feed(self.feed)

    def _is_divisible(self, error: BaseException | None) -> bool:
        """Is one item to blame, and may the others be tried without it?"""
        if type(error) is EncodingError or isinstance(error, BackpressureError):  # it was never sent
            return True
        return isinstance(error, (PoisonMessageError, EncodingError)) and not self._work.options.once

    def _cut(self, piece: Piece, begin: int, size: int) -> list[Piece]:
        items, end = piece.items, len(piece.items)
        return [Piece(self, items[i : i + size], piece.first + i) for i in range(begin, end, size)]

    def _finish_if_done(self) -> bool:
        with self._lock:
            if self._ending or self._left or not self.source.ended():
                return self._ending
            self._ending = True
        last, self.source.error = self.source.error, None
        self._finish(self._sent, last)
        return True

    def abort(self, error: BaseException) -> None:
        """Give all that is still to come this error."""
        with self._lock:
            if self._ending:
                return
            self._ending = True
            self._again.clear()
        self.source.stop()
        for task in list(self._tasks):
            task.cancel_waiting()
        self._finish(-1, error)

    def _finish(self, at: int, error: BaseException | None) -> None:
        """Tell the collector that nothing more comes, after this error. Once, by whoever set `_ending`."""
        collector, self._collector = self._collector, None
        if collector is not None:
            if error is not None:
                collector.accept(at, [None], {0: error})
            collector.finish()
        self.finished = True
        self._wake()
        self.pool.end_run(self)
        self.pool.wake()  # who waits may sleep over the lanes, and this thread need not be the one that drains

    def release(self) -> None:
        """Send all there is, however few results are taken: the pool is to be left. Those who feed may all be gone."""
        self.source.release()
        self.feed()

    # Waiting.

    def wait(self, reached: Callable[[], bool], deadline: float | None) -> bool:
        """Wait until something is reached that outcomes bring about, feeding meanwhile. False: the time is up."""
        in_time = True
        while in_time and not reached():
            self.feed()
            waiter = Waiter()
            self._waiting.append(waiter)
            try:
                if not reached() and not self._wants():
                    in_time = self.pool.wait_for(waiter, deadline)
            finally:
                self._waiting.remove(waiter)
        if self._again or self.source.inert:  # whoever saw us wait left it to us, and we may not come back
            self.feed()
        return in_time or reached()  # what was reached may be gone again: another thread took it

    def _wake(self) -> bool:
        waiting = list(self._waiting)
        for waiter in waiting:
            waiter.complete()
        return bool(waiting)


def run_aside(function: Callable[..., object], *arguments: Any) -> None:
    """Call a function in a thread of its own: for finalizers, which run in any thread, and that may hold any lock.

    Where there can be no more threads nothing is called: what is left open then is ended with its pool.
    """
    with contextlib.suppress(RuntimeError, MemoryError):
        _thread.start_new_thread(function, arguments)
