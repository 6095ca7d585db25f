"""Be a multiprocessing.Pool on the fabric: the same methods, save that a killed worker holds up nobody.

Pool ──▶ TaskPool ──▶ workers of a fabric         (fabric.task_pool says how)
  apply(_async)                    a task each
  map, starmap, imap ...           chunks of items are tasks (fabric.runs)
"""

import atexit
import os
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.pool import CLOSE, RUN, TERMINATE
from typing import Any, Literal

from fabric.chunking import FixedSize, MeasuredSize, Sizer
from fabric.config import usable_cpus
from fabric.errors import ClosedError
from fabric.pool_results import (
    ApplyResult,
    AsyncResult,
    Callback,
    IMapIterator,
    IMapUnorderedIterator,
    MapResult,
    in_callback,
)
from fabric.pool_runner import PoolRunner
from fabric.processes import Processes
from fabric.runs import Run, Work, run_aside
from fabric.sources import is_listed, source_of
from fabric.task_future import TaskOptions
from fabric.task_pool import TaskPool
from fabric.task_settings import PoolSettings, start_method_of, task_config

_MOST_WORKERS = 256
_PROMPT = 0.0005  # seconds of work in a chunk of imap: results are wanted as they come
_PROMPT_MOST = 512
_BOUND = 1 << 16  # items of an iterable without a length that imap is ahead of who takes the results
_TERMINATED = "the pool was terminated"
_pools: "weakref.WeakSet[TaskPool]" = weakref.WeakSet()


class Pool:
    """A multiprocessing.Pool; a drop-in for it.

    A worker that dies takes nothing with it: what it ran is run again, up to `max_attempts` times, then it raises
    a PoisonMessageError; with `on_crash="fail"` it raises a WorkerLostError at once. `processes` is by default the
    CPUs this process may use; they start now, and `initializer(*initargs)` runs in each first. A worker is
    replaced after `maxtasksperchild` tasks, `max_seconds_per_child` seconds, or when its memory grew by
    `max_growth_per_child` bytes. `context` says how they start ("spawn", else a fork server; plain fork is not
    offered). Further settings are those of FabricConfig.

    Raises:
        ValueError, TypeError: an argument is out of range.

    Example:
        >>> with Pool(2) as pool:
        ...     pool.map(abs, [-1, -2])
        [1, 2]
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., Any] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
        *,
        on_crash: Literal["retry", "fail"] = "retry",
        max_seconds_per_child: float | None = None,
        max_growth_per_child: int | None = None,
        **settings: Any,
    ) -> None:
        self._state = CLOSE  # until there is something to close
        workers = usable_cpus() if processes is None else processes
        _check(workers, initializer, on_crash, maxtasksperchild)
        self._processes = workers
        self._initializer = initializer
        self._initargs = tuple(initargs)
        self._maxtasksperchild = maxtasksperchild
        self._ctx = context or _default_context()
        method = start_method_of(context)
        self._tasks = TaskPool(
            PoolSettings(
                max_workers=workers,
                initializer=initializer,
                initargs=self._initargs,
                all_at_once=True,
                once=on_crash == "fail",
                max_tasks=maxtasksperchild,
                max_seconds=max_seconds_per_child,
                max_growth=max_growth_per_child,
                runner=PoolRunner,
                config=task_config(workers, method, settings),
            )
        )
        self._options = TaskOptions(once=on_crash == "fail")
        self._workers = Processes(self._tasks.crew.settled_pids)
        self._state = RUN
        weakref.finalize(self, run_aside, self._tasks.leave).atexit = False
        _pools.add(self._tasks)
        self._tasks.crew.want(workers)

    # One call.

    def apply(self, func: Callable[..., Any], args: Iterable[Any] = (), kwds: dict[str, Any] | None = None) -> Any:
        """Return func(*args, **kwds), run in a worker."""
        return self.apply_async(func, args, kwds).get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: dict[str, Any] | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> AsyncResult:
        """Run func(*args, **kwds) in a worker; return its result at once, to be had by `get()`.

        `callback` is called with what it returns, `error_callback` with what it raises, in a thread of ours.
        """
        self._check_running()
        future = self._tasks.submit(self._options, func, tuple(args), kwds or {})
        return ApplyResult(self._tasks, future, self._tasks.name_of_function(func), callback, error_callback)

    # All at once.

    def map(self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = None) -> list[Any]:
        """Return func(item) of all items, in order; raise, when all are done, what the first raised that did.

        `chunksize` items go to a worker together; None: as many as take about a millisecond, as it turns out; for 1
        see `imap`.
        """
        return self.map_async(func, iterable, chunksize).get()  # type: ignore[no-any-return]

    def starmap(self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = None) -> list[Any]:
        """Return func(*item) of all items: see `map`."""
        return self.starmap_async(func, iterable, chunksize).get()  # type: ignore[no-any-return]

    def map_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> MapResult:
        """Begin a `map`; return its result at once. For callbacks see `apply_async`."""
        return self._map_async(func, iterable, chunksize, callback, error_callback, False)

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> MapResult:
        """Begin a `starmap`; return its result at once. For callbacks see `apply_async`."""
        return self._map_async(func, iterable, chunksize, callback, error_callback, True)

    def _map_async(
        self, func: Any, iterable: Any, chunksize: Any, callback: Any, error_callback: Any, star: bool
    ) -> MapResult:
        self._check_running()
        items = iterable if is_listed(iterable) else list(iterable)
        sizer: Sizer = MeasuredSize(self._processes)
        group = 1
        if chunksize is not None:
            sizer, group = self._sizer(max(1, chunksize))
        run = self._run(func, star, items, sizer, group)
        return MapResult(run, len(items), self._tasks.name_of_function(func), callback, error_callback)

    # As they come.

    def imap(self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int = 1) -> Iterator[Any]:
        """Return an iterator over func(item), in order, each as soon as it is there; its `next(timeout)` may give up.

        One item a task (`chunksize=1`) is how it looks: quick ones go together, as many as take half a
        millisecond. An iterable without a length is consumed in a thread, no more than 65,536 items ahead of the
        results that were taken, so that it may be endless.
        """
        return IMapIterator(self._imap(func, iterable, chunksize), self._tasks.name_of_function(func))

    def imap_unordered(self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int = 1) -> Iterator[Any]:
        """Return an iterator over func(item) in the order in which they come: see `imap`."""
        return IMapUnorderedIterator(self._imap(func, iterable, chunksize), self._tasks.name_of_function(func))

    def _imap(self, func: Any, iterable: Any, chunksize: int) -> Run:
        self._check_running()
        if chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize}")
        return self._run(func, False, iterable, *self._sizer(chunksize))

    def _sizer(self, chunksize: int) -> tuple[Sizer, int]:
        """Return what makes chunks of this size, and how many items are never split."""
        if chunksize > 1 or self._maxtasksperchild is not None or self._options.once:
            return FixedSize(chunksize), chunksize
        return MeasuredSize(self._processes, _PROMPT, _PROMPT_MOST), 1

    def _run(self, func: Any, star: bool, items: Any, sizer: Sizer, group: int) -> Run:
        return Run(self._tasks, Work(func, star, self._options), source_of(items, group, _BOUND), sizer)

    # Leaving.

    def close(self) -> None:
        """Take no more work; the workers leave when what there is has been done. Returns at once."""
        if self._state == RUN:
            self._state = CLOSE
            self._tasks.leave()

    def terminate(self) -> None:
        """End all workers now, with what they have in hand, and wait until they have ended. Safe to call twice.

        Called by a callback it returns at once: they end when that has returned.
        """
        self._state = TERMINATE
        _terminate(self._tasks)
        self._join()

    def join(self) -> None:
        """Wait until the workers have left, after `close` or `terminate`.

        Raises:
            ValueError: the pool is still running.
        """
        if self._state == RUN:
            raise ValueError("Pool is still running")
        self._join()

    def _join(self) -> None:
        if in_callback():
            return
        self._tasks.join()
        len(self._workers)  # it looks, and lets go of processes that have ended

    def __enter__(self) -> "Pool":
        self._check_running()
        return self

    def __exit__(self, *error: Any) -> None:
        self.terminate()

    def __del__(self) -> None:
        if getattr(self, "_state", None) == RUN:
            warnings.warn(f"unclosed running multiprocessing pool {self!r}", ResourceWarning, stacklevel=1, source=self)

    def __reduce__(self) -> Any:
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")

    def _check_running(self) -> None:
        if self._state != RUN:
            raise ValueError("Pool not running")

    @property
    def _pool(self) -> list[Any]:
        """The workers' processes; waits until they have started."""
        return list(self._workers.values())

    def _repopulate_pool(self) -> None:
        """Do nothing: who dies is replaced at once."""

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__qualname__} state={self._state} pool_size={self._processes}>"


def _check(workers: Any, initializer: Any, on_crash: Any, max_tasks: Any) -> None:
    if workers < 1:
        raise ValueError("Number of processes must be at least 1")
    if workers > _MOST_WORKERS:
        raise ValueError(f"Number of processes must be at most {_MOST_WORKERS}")
    if max_tasks is not None and (not isinstance(max_tasks, int) or max_tasks <= 0):
        raise ValueError("maxtasksperchild must be a positive int or None")
    if initializer is not None and not callable(initializer):
        raise TypeError("initializer must be a callable")
    if on_crash not in ("retry", "fail"):
        raise ValueError(f'on_crash={on_crash!r} may be "retry" or "fail"')


def _default_context() -> Any:
    import multiprocessing

    return multiprocessing.get_context()


def _terminate(tasks: TaskPool) -> None:
    for run in list(tasks.runs):
        run.abort(ClosedError(_TERMINATED))
    tasks.fail(_TERMINATED, ClosedError(_TERMINATED))


def _terminate_all(pid: int) -> None:
    """End the pools that still run when the interpreter does, as multiprocessing does: what they do is dropped."""
    if os.getpid() != pid:  # a forked child has none
        return
    pools = [pool for pool in _pools if not pool.steward.done]
    for pool in pools:
        _terminate(pool)
    for pool in pools:
        pool.join()


atexit.register(_terminate_all, os.getpid())
