"""Be a ProcessPoolExecutor on the fabric: the same contract, save that one dead worker does not break the others' work.

Executor ──▶ TaskPool ──▶ workers of a fabric         (fabric.task_pool says how)
   ▲ options(...)
ExecutorView: the same workers; its tasks have a time limit, a priority, or another way of treating a crash
"""

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor as _Base
from typing import Any, Literal

from fabric.config import usable_cpus
from fabric.mapping import map_items
from fabric.processes import Processes
from fabric.progress import progress_bar
from fabric.runs import run_aside
from fabric.task_future import TaskFuture, TaskOptions
from fabric.task_pool import TaskPool
from fabric.task_settings import PoolSettings, start_method_of, task_config

_MOST_WORKERS = 256
_pools: "weakref.WeakSet[TaskPool]" = weakref.WeakSet()


class _Submitting(_Base):
    """What an executor and its views have in common: tasks go to one pool, by these options."""

    _pool: TaskPool
    _options: TaskOptions

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> TaskFuture:
        """Run function(*args, **kwargs) in a worker; return its Future at once.

        The future raises what the function raised, with the remote traceback as its `__cause__`. What cannot be
        pickled is told by the future too. `cancel()` of a task that runs stops it (not with `strict`).

        Raises:
            RuntimeError: the executor was shut down. BrokenProcessPool: it is broken.
        """
        return self._pool.submit(self._options, function, args, kwargs)

    def map(  # chunksize may be None: by measured time
        self,
        function: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        seed: Any = None,
        progress: bool = False,
    ) -> Iterator[Any]:
        """Run function(*items) for the items of all iterables; return an iterator of results, in order.

        `chunksize` items go to a worker together; None: as many as take about a millisecond, as it turns out.
        Without `buffersize` the iterables are consumed at once; with it they are consumed as results are
        taken, so many items ahead, and may be endless. `timeout` seconds from this call, the next
        result that is not there raises TimeoutError. `seed`: `fabric.rng()` in the function is then a
        numpy.random.Generator of its own for each item, the same for any number of workers. `progress` shows
        a bar (needs tqdm). The function's exceptions are raised where its result would be.
        """
        if chunksize is not None and chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and (not isinstance(buffersize, int) or buffersize < 1):
            raise ValueError(f"buffersize={buffersize!r} must be None, or a whole number over 0")
        star = len(iterables) != 1
        items: Any = zip(*iterables, strict=False) if star else iterables[0]
        if buffersize is None:
            items = list(items)
        self._pool.check_open()
        work = (function, star, self._options, seed)
        results = map_items(self._pool, work, items, chunksize, buffersize, timeout)
        if progress:
            bar: Iterator[Any] = progress_bar(results, total=None if buffersize else len(items))
            return iter(bar)
        return results


class Executor(_Submitting):
    """A concurrent.futures.Executor with processes, as ProcessPoolExecutor; a drop-in for it.

    A worker that dies takes only the task that it ran with it: with `on_crash="retry"` that is run again (up to
    `max_attempts` times, then PoisonMessageError), with "fail" its future raises a WorkerLostError; both are
    BrokenProcessPool too. `strict=True` is the standard library's way: all futures fail, the executor is broken.

    `max_workers` is by default the CPUs this process may use. Workers start as they are needed. `mp_context`
    says how ("spawn", else a fork server; plain fork is not offered). `initializer(*initargs)` runs in each
    worker first. A worker is replaced after `max_tasks_per_child` tasks, `max_seconds_per_child` seconds, or
    when its memory grew by `max_growth_per_child` bytes. Further settings are those of FabricConfig.

    Raises:
        ValueError, TypeError: an argument is out of range.

    Example:
        >>> with Executor(2) as executor:
        ...     executor.submit(pow, 2, 10).result()
        1024
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: Any = None,
        initializer: Callable[..., Any] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        strict: bool = False,
        on_crash: Literal["retry", "fail"] = "retry",
        max_seconds_per_child: float | None = None,
        max_growth_per_child: int | None = None,
        **settings: Any,
    ) -> None:
        workers = usable_cpus() if max_workers is None else max_workers
        _check(workers, initializer, on_crash, max_tasks_per_child)
        method = start_method_of(mp_context)
        if max_tasks_per_child is not None:
            if method == "fork":
                raise ValueError("max_tasks_per_child is incompatible with the 'fork' multiprocessing start method")
            mp_context = mp_context or _spawn_context()
        self._max_workers = workers
        self._mp_context = mp_context
        self._pool = TaskPool(
            PoolSettings(
                max_workers=workers,
                initializer=initializer,
                initargs=initargs,
                all_at_once=method == "fork",
                once=on_crash == "fail",
                strict=strict,
                max_tasks=max_tasks_per_child,
                max_seconds=max_seconds_per_child,
                max_growth=max_growth_per_child,
                config=task_config(workers, method, settings),
            )
        )
        self._options = TaskOptions(once=on_crash == "fail")
        self._processes = Processes(self._pool.crew.settled_pids)
        weakref.finalize(self, _leave_aside, self._pool).atexit = False  # at exit _finish_all does that, and waits
        _pools.add(self._pool)

    def options(
        self,
        *,
        timeout: float | None = None,
        priority: int = 0,
        on_crash: Literal["retry", "fail"] | None = None,
    ) -> "ExecutorView":
        """Return a view of this executor whose tasks are treated so.

        `timeout`: seconds that a task may run; then it is stopped, its future raises TimeoutError, and its worker
        is replaced, which the others do not notice. `priority`: tasks of a higher one go first. `on_crash`: as
        for the executor, and by default as there.
        """
        if timeout is not None and not timeout > 0:
            raise ValueError(f"timeout={timeout!r} must be over 0 seconds")
        if on_crash not in (None, "retry", "fail"):
            raise ValueError(f'on_crash={on_crash!r} may be "retry" or "fail"')
        once = self._options.once if on_crash is None else on_crash == "fail"
        return ExecutorView(self, TaskOptions(timeout, priority, once))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks; the workers leave when those there are have been done. Safe to call twice.

        `wait`: return when they have left. `cancel_futures`: cancel those that no worker has begun; that waits until
        the workers that are starting have. In a callback it does not wait.
        """
        if cancel_futures:
            self._pool.crew.settle()  # what the workers that are just starting can take is theirs
        self._pool.leave()
        if cancel_futures:
            self._pool.cancel_pending()
        if wait:
            self._pool.join()

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):  # nobody wants the rest any more
            self._pool.fail("the program was interrupted")
        self.shutdown(wait=True)

    def kill_workers(self) -> None:
        """Stop at once: end all workers, and fail all futures."""
        self._pool.fail("its workers were killed")
        self._pool.join()

    terminate_workers = kill_workers  # they do the same here: no worker handles a signal

    @property
    def _broken(self) -> str | bool:
        return self._pool.broken or False

    @property
    def _executor_manager_thread(self) -> threading.Thread | None:
        return self._pool.steward.thread

    @property
    def _call_queue(self) -> "_CallQueue":
        return _CallQueue()

    @property
    def _shutdown_thread(self) -> bool:
        return self._pool.closing

    def __repr__(self) -> str:
        pool = self._pool
        state = "broken" if pool.broken else "shut down" if pool.closing else f"{len(pool.crew.seats)} workers started"
        return f"<fabric.Executor: at most {self._max_workers} workers, {state}, {pool.unfinished:,} tasks>"


class _CallQueue:
    """Stands where the standard library has a queue with a thread; we have neither."""

    def join_thread(self) -> None:
        """There is no thread to wait for."""


class ExecutorView(_Submitting):
    """An executor as seen through Executor.options: it has the same workers, and shutting it down does nothing."""

    def __init__(self, executor: Executor, options: TaskOptions) -> None:
        self._executor = executor  # which lives as long as its views
        self._pool = executor._pool
        self._max_workers = executor._max_workers
        self._options = options

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Do nothing: the executor behind this is to be shut down."""


def _check(workers: Any, initializer: Any, on_crash: Any, max_tasks: Any) -> None:
    if isinstance(workers, bool) or not isinstance(workers, int):
        raise TypeError(f"max_workers={workers!r} must be a whole number")
    if workers <= 0:
        raise ValueError("max_workers must be greater than 0")
    if workers > _MOST_WORKERS:
        raise ValueError(f"max_workers must be <= {_MOST_WORKERS}")
    if initializer is not None and not callable(initializer):
        raise TypeError("initializer must be a callable")
    if on_crash not in ("retry", "fail"):
        raise ValueError(f'on_crash={on_crash!r} may be "retry" or "fail"')
    if max_tasks is not None:
        if not isinstance(max_tasks, int):
            raise TypeError("max_tasks_per_child must be an integer")
        if max_tasks <= 0:
            raise ValueError("max_tasks_per_child must be >= 1")


def _spawn_context() -> Any:
    import multiprocessing

    return multiprocessing.get_context("spawn")


def _leave_aside(pool: TaskPool) -> None:
    """Have a pool leave whose executor was collected: in any thread, which may hold any lock."""
    run_aside(pool.leave)


def _finish_all() -> None:
    """Let what was submitted be done before the interpreter ends, as the standard library does."""
    pools = list(_pools)
    for pool in pools:
        pool.leave(at_exit=True)
    for pool in pools:
        pool.join()


threading._register_atexit(_finish_all)  # type: ignore[attr-defined]
