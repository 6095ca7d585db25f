"""Be what Pool's methods return: results that come later, and iterators over results.

Who waits drains, and feeds what is still to be sent (fabric.runs). Callbacks run in the pump thread, since they are
the user's and may take their time; a result that has one is ready when it has run.
"""

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from fabric.errors import ClosedError
from fabric.guarded_log import GuardedLogger
from fabric.pending import deadline_of, seconds_left
from fabric.pool_errors import TimedOutError, pool_error
from fabric.pool_runner import Unsendable
from fabric.runs import Run
from fabric.task_future import TaskFuture
from fabric.task_pool import TaskPool

_log = GuardedLogger("fabric")

Callback = Callable[[Any], object]
_here = threading.local()  # `calls_back`: is this thread in a callback?


def in_callback() -> bool:
    """Is a callback running in this thread? It must not wait for the end of the thread, as joining a pool does."""
    return getattr(_here, "calls_back", False)


class AsyncResult:
    """A result that comes later."""

    def __init__(self, pool: TaskPool, name: str, callback: Callback | None, error_callback: Callback | None) -> None:
        self._tasks = pool
        self._name = name  # of the function: for errors
        self._callbacks = callback, error_callback
        self._value: Any = None
        self._error: BaseException | None = None
        self._called = threading.Event() if callback or error_callback else None  # have callbacks run?

    def _came(self) -> bool:
        """Is the outcome there? Callbacks may not have run yet. Looks for nothing."""
        raise NotImplementedError

    def _await(self, deadline: float | None) -> None:
        raise NotImplementedError

    def ready(self) -> bool:
        """Is it there? Looks whether it has come."""
        if not self._came():
            self._tasks.look()
        return self._came() and (self._called is None or self._called.is_set())

    def successful(self) -> bool:
        """Did the call return, and not raise?

        Raises:
            ValueError: it is not there yet.
        """
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return self._error is None

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it is there, `timeout` seconds at the most."""
        self._wait(timeout)

    def _wait(self, timeout: float | None) -> bool:
        deadline = deadline_of(timeout)
        if not self._came():
            self._await(deadline)
        if self._called is not None:
            self._called.wait(seconds_left(deadline))
            return self._called.is_set()
        return self._came()

    def get(self, timeout: float | None = None) -> Any:
        """Return the result; raise what the function raised.

        Raises:
            multiprocessing.TimeoutError: it did not come in `timeout` seconds.
        """
        if not self._wait(timeout):
            raise TimedOutError(f"there is no result of {self._name} after {timeout} s")
        error = self._error
        if error is None:
            return self._value
        try:
            raise error
        finally:
            error = self = None  # type: ignore[assignment]  # the traceback would keep both in a cycle

    def _call_back(self) -> None:
        """Have the callbacks run, if there are any."""
        if self._called is not None:
            self._tasks.run_later(self._run_callbacks)

    def _run_callbacks(self) -> None:
        assert self._called is not None
        callback, error_callback = self._callbacks
        _here.calls_back = True
        try:
            if self._error is None:
                if callback is not None:
                    callback(self._value)
            elif error_callback is not None and type(self._error) is not ClosedError:  # as in the original
                error_callback(self._error)
        except BaseException:  # SystemExit too: others' callbacks are to run
            _log.exception("a callback of a pool's result raised")
        finally:
            _here.calls_back = False
            self._callbacks = None, None
            self._called.set()

    def __repr__(self) -> str:
        state = "to come" if not self._came() else "an error" if self._error is not None else "there"
        return f"<fabric {type(self).__name__} of {self._name}: {state}>"


class ApplyResult(AsyncResult):
    """The result of one call."""

    def __init__(
        self, pool: TaskPool, future: TaskFuture, name: str, callback: Callback | None, error_callback: Callback | None
    ) -> None:
        super().__init__(pool, name, callback, error_callback)
        self._future: TaskFuture | None = future
        future.follow(self._take)
        if self._called is not None:
            pool.attend()

    def _take(self, future: TaskFuture) -> None:
        self._absorb(future)
        self._call_back()

    def _absorb(self, future: TaskFuture) -> None:
        """Take the outcome of the future, which is done.

        Who waits may see that before the thread that drained has called `_take`: so both do this, and twice is once.
        """
        if self._future is None:
            return
        value, error = future._result, future._exception
        if type(value) is Unsendable:
            error = pool_error(value, self._name)
        elif error is not None:
            error = pool_error(error, self._name)
        else:
            self._value = value
        self._error = error
        self._future = None

    def _came(self) -> bool:
        return self._future is None

    def _await(self, deadline: float | None) -> None:
        future = self._future
        if future is not None:
            self._tasks.wait(future, seconds_left(deadline))
            if future.done():
                self._absorb(future)


class MapResult(AsyncResult):
    """The results of one map. All items are done before it is ready, whatever some of them raise."""

    def __init__(
        self, run: Run, count: int, name: str, callback: Callback | None, error_callback: Callback | None
    ) -> None:
        super().__init__(run.pool, name, callback, error_callback)
        self._run = run
        self._value = [None] * count
        self._first_error = count  # index of its item
        self._complete = False
        self._lock = threading.Lock()  # of what `accept` and `finish` do
        if self._called is not None:
            run.pool.attend()
        run.begin(self)

    def accept(self, first: int, values: list[Any], errors: dict[int, Any]) -> None:
        """See fabric.runs.Collector."""
        with self._lock:
            if self._complete:  # it was aborted meanwhile
                return
            if first >= 0:
                self._value[first : first + len(values)] = values
            if errors:
                index = min(errors)
                if first + index < self._first_error:
                    self._first_error = first + index
                    self._error = pool_error(errors[index], self._name)

    def finish(self) -> None:
        """See fabric.runs.Collector."""
        with self._lock:
            if self._error is not None:
                self._value = None
            self._complete = True
        self._call_back()

    def _came(self) -> bool:
        return self._complete

    def _await(self, deadline: float | None) -> None:
        self._run.wait(self._came, deadline)


class IMapIterator:
    """Results in the order of their items, as they come. An item that raised raises in its turn; then others follow."""

    def __init__(self, run: Run, name: str) -> None:
        self._run = run
        self._name = name
        self._lock = threading.Lock()  # of all that follows; only taking from `_now` does without
        self._now: list[Any] = []  # results to give, the last first
        self._ready: deque[list[Any]] = deque()  # what is given after them
        self._early: dict[int, list[Any]] = {}  # what came before its turn, by the index of its first item
        self._next = 0  # index of the first item that is in none of these
        self._aborted = False
        run.begin(self)

    def __iter__(self) -> "IMapIterator":
        return self

    def __next__(self) -> Any:
        try:
            value = self._now.pop()
        except IndexError:
            return self.next()
        if type(value) is _Raises:
            raise value.error
        return value

    def next(self, timeout: float | None = None) -> Any:
        """Return the next result.

        Raises:
            multiprocessing.TimeoutError: it did not come in `timeout` seconds.
        """
        deadline = deadline_of(timeout)
        while True:
            try:
                value = self._now.pop()
                break
            except IndexError:  # or another thread was quicker
                if not self._refill(deadline):
                    raise TimedOutError(f"there is no next result of {self._name} after {timeout} s") from None
        if type(value) is _Raises:
            raise value.error
        return value

    def _refill(self, deadline: float | None) -> bool:
        """Have results in `_now`, or look again; StopIteration at the end. False: the time is up."""
        finished = self._run.finished  # looked at first: what came last came before
        with self._lock:
            if self._now:
                return True
            if self._ready:
                self._now = self._ready.popleft()
                self._run.source.given(len(self._now))
                return True
        if finished:
            raise StopIteration
        return self._run.wait(self._is_due, deadline)

    def _is_due(self) -> bool:
        return bool(self._ready or self._now) or self._run.finished

    def accept(self, first: int, values: list[Any], errors: dict[int, Any]) -> None:
        """See fabric.runs.Collector."""
        for index, error in errors.items():
            values[index] = _Raises(self._explain(error))
        values.reverse()
        with self._lock:
            if self._aborted:  # it comes too late
                return
            if first < 0:  # the pool is gone, and with it what came too early
                self._aborted = True
                self._early.clear()
                self._ready.append(values)
            else:
                self._place(first, values)

    def _explain(self, error: Any) -> BaseException:
        return pool_error(error, self._name)

    def _place(self, first: int, values: list[Any]) -> None:
        """Have results given in their turn. With the lock held."""
        self._early[first] = values
        while self._next in self._early:
            values = self._early.pop(self._next)
            self._next += len(values)
            self._ready.append(values)

    def finish(self) -> None:
        """See fabric.runs.Collector."""


class IMapUnorderedIterator(IMapIterator):
    """Results as they come."""

    def _place(self, first: int, values: list[Any]) -> None:
        self._ready.append(values)


class _Raises:
    """Stands for a result that is an exception."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error
