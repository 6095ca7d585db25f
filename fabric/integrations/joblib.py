"""Be a backend of joblib: `register()`, then `joblib.parallel_config(backend="fabric")`. scikit-learn runs on it.

    Parallel ──▶ FabricBackend ──▶ Lease ──▶ TaskPool (fabric.integrations.shared_pools keeps one between calls)
       ▲              │
       └── callback ──┘   that a batch is done: joblib then makes the next one of its iterator

joblib can hear of results in two ways, and asks which by `supports_retrieve_callback`:

    True    in the thread that runs callbacks; the caller looks every 10 ms whether there is something
    False   the caller waits in `retrieve_result`. It drains the lanes itself, and runs the callbacks

The second takes a tenth of the time where calls are short, but serves no generator and no time limit; so each call
has the one that it needs. A task that fails ends the wait for any other: the call is over with its error.
"""

import collections
import functools
import math
import os
import pickle
import resource
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import joblib
from joblib._parallel_backends import FallbackToBackend
from joblib.externals.loky import process_executor
from joblib.parallel import AutoBatchingMixin, ParallelBackendBase, SequentialBackend

from fabric.callables import load_function
from fabric.config import FabricConfig, usable_cpus
from fabric.errors import EncodingError
from fabric.integrations.lent_arrays import LentArrays
from fabric.integrations.shared_pools import Keeper, Lease
from fabric.task_future import TaskFuture, Waiter
from fabric.task_settings import PoolSettings, task_config
from fabric.threads import VARIABLES, cpu_part

_MOST_WORKERS = 256
_IDLE_SECONDS = 300.0
_ONE_MIB = 1 << 20
_ADDRESSES = 16 << 40  # bytes of its address space that a process gives to arenas: an eighth
_OF_LOKY = ("context", "max_nbytes", "mmap_mode", "temp_folder", "verbose", "prefer", "require")  # not of the pool
_OF_POOLS = {"max_tasks_per_child": "max_tasks", "max_seconds_per_child": "max_seconds"}
_claims = threading.Lock()
_keeper = Keeper()


def register(make_default: bool = False) -> None:
    """Make the backend "fabric" known to joblib; `make_default`: for all calls that name no other."""
    joblib.register_parallel_backend("fabric", FabricBackend, make_default=make_default)


def shutdown() -> None:
    """End the workers that are kept between calls. The next call starts new ones."""
    _keeper.close()


class FabricBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]  # joblib has no annotations
    """A backend of joblib on the fabric's workers.

    It differs from loky's in this: a worker that dies takes only its batch with it, which is run again; what is
    aborted is stopped in its own workers, and other calls go on; a short call takes a tenth of the time.

    Options, beside those of loky's backend (`initializer`, `initargs`, `idle_worker_timeout`): `on_crash`,
    `max_tasks_per_child`, `max_seconds_per_child`, and the settings of FabricConfig.
    """

    supports_inner_max_num_threads = True
    supports_retrieve_callback = False  # of each call its own: see above
    supports_return_generator = True
    supports_timeout = True

    def __init__(self, nesting_level: int | None = None, inner_max_num_threads: int | None = None, **options: Any):
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        self._options = options
        self.parallel: Any = None
        self._given: dict[str, Any] = {}  # to this call
        self._workers: Lease | None = None
        self._begin()

    def _begin(self) -> None:
        self._done: collections.deque[TaskFuture] = collections.deque()  # but joblib was not told yet
        self._failed: TaskFuture | None = None
        self._waiter: Waiter | None = None
        self._lent: LentArrays | None = None

    # A call begins and ends.

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many workers a call with this n_jobs has: in a worker its part of the CPUs at the most."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None or n_jobs == 1:
            return 1
        where = self._where_it_cannot_be()
        if where is not None:
            warnings.warn(
                f"Fabric-backed parallel loops cannot be nested below {where}, setting n_jobs=1", stacklevel=3
            )
            return 1
        if n_jobs < 0:
            n_jobs = max(1, min(joblib.cpu_count(), usable_cpus()) + 1 + n_jobs)
        part = cpu_part()
        return min(n_jobs, _MOST_WORKERS if part is None else part)

    def _where_it_cannot_be(self) -> str | None:
        import multiprocessing

        if multiprocessing.current_process().daemon:
            return "multiprocessing"
        in_main_thread = threading.current_thread() is threading.main_thread()
        return None if in_main_thread or self.nesting_level == 0 else "threads"

    def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
        """Make ready for a call of `parallel`; return the number of its workers."""
        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        with _claims:
            if self.parallel is not None and self.parallel is not parallel:  # its call is not over: a generator
                raise FallbackToBackend(type(self)(self.nesting_level, self.inner_max_num_threads, **self._options))
            self.parallel = parallel
        self._given = options
        try:
            self._workers = self._lease(n_jobs, {**self._options, **options})
        except BaseException:
            self.parallel = None
            raise
        self.supports_retrieve_callback = parallel.return_generator or parallel.timeout is not None
        self._begin()
        return n_jobs

    def _lease(self, n_jobs: int, options: dict[str, Any]) -> Lease:
        for name in _OF_LOKY:
            options.pop(name, None)
        idle_seconds = options.pop("idle_worker_timeout", None) or _IDLE_SECONDS
        environment = [os.environ.get(name) for name in VARIABLES]
        wanted = {**options, "n_jobs": n_jobs, "threads": self.inner_max_num_threads, "environment": environment}
        return _keeper.lease(wanted, lambda: _settings(n_jobs, self.inner_max_num_threads, **options), idle_seconds)

    def terminate(self) -> None:
        """End a call; the workers are kept for the next."""
        workers, self._workers = self._workers, None
        if workers is not None:
            workers.release()
        self.parallel = None
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Stop the batches of this call, those that run too."""
        workers, self._workers = self._workers, None
        if workers is not None:
            workers.abort()
            workers.release()
        if ensure_ready:
            self.configure(self.parallel.n_jobs, self.parallel, **self._given)

    def start_call(self) -> None:
        """Begin with arrays as they are now: a context manager may have called before."""
        if self._workers is not None:
            self._lent = LentArrays(self._workers.pool, _large_from(**self._given))

    def stop_call(self) -> None:
        """Let go of the arrays that were lent."""
        self._lent = None

    # Batches.

    def submit(self, batch: Any, callback: Callable[[Any], Any] | None = None) -> "Future[Any]":
        """Have a batch run; `callback` hears when it is done. What cannot be sent is told by the future."""
        workers = self._workers
        if workers is None:  # joblib's callback came to it while the call was aborted
            return Future()
        try:
            future = _send(workers, self._lent, batch)
        except Exception as error:  # on the future: it may be joblib's callback, in a thread of ours, that asks
            future = TaskFuture(workers.pool, workers.options)
            future.settle(None, error)
        workers.add(future, callback)
        if self.supports_retrieve_callback:
            future.add_done_callback(workers.forget)
            if callback is not None:
                future.add_done_callback(callback)
        else:
            future.follow(self._hear)
        return future

    def apply_async(self, func: Any, callback: Callable[[Any], Any] | None = None) -> "_Job":
        """Do what submit does, for joblib before 1.5."""
        return _Job(self, self.submit(func, callback))

    def retrieve_result_callback(self, future: "Future[Any]") -> Any:
        """Return what a batch that is done returned, or raise what it raised."""
        return future.result()

    def retrieve_result(self, future: TaskFuture, timeout: float | None = None) -> Any:
        """Wait until a batch is done; return what it returned. Raises what it, or any batch before that, raised."""
        workers = self._workers
        assert workers is not None
        self._tell(workers)
        while future in workers.futures and self._failed is None:
            waiter = self._waiter = Waiter()
            if not self._done:
                workers.pool.crew.wait(waiter, None)
            self._tell(workers)
        return (self._failed or future).result()

    def _hear(self, future: TaskFuture) -> None:
        """Take note that a batch is done, in the thread that drains."""
        self._done.append(future)
        waiter = self._waiter  # made before its owner looks at `_done`, which we filled before we look here
        if waiter is not None:
            waiter.complete()

    def _tell(self, workers: Lease) -> None:
        """Tell joblib of batches that are done; it sends the next ones then."""
        while self._done and self._failed is None:
            future = self._done.popleft()
            if future not in workers.futures:  # of a call before, that was aborted
                continue
            callback = workers.futures[future]
            if future.cancelled() or future.exception() is not None:
                self._failed = future
            elif callback is not None:
                callback(future)
            workers.forget(future)


class _Job:
    """A batch as joblib before 1.5 wants it: it asks this for the result, and not the backend."""

    def __init__(self, backend: FabricBackend, future: Any) -> None:
        self._backend = backend
        self._future = future

    def get(self, timeout: float | None = None) -> Any:
        """See FabricBackend.retrieve_result."""
        return self._backend.retrieve_result(self._future, timeout)


def _settings(
    n_jobs: int,
    threads: int | None,
    initializer: Callable[..., Any] | None = None,
    initargs: tuple[Any, ...] = (),
    on_crash: str = "retry",
    **options: Any,
) -> PoolSettings:
    """Return the settings of a pool for so many jobs, `threads` of BLAS and OpenMP in each."""
    limits = {name: options.pop(given) for given, name in _OF_POOLS.items() if given in options}
    if threads is not None:
        options["threads_per_worker"] = threads
    options.setdefault("arena_bytes", _arena_bytes(n_jobs))
    options.setdefault("preload", (__name__, *sorted(name for name in sys.modules if name.startswith("sklearn."))))
    return PoolSettings(
        max_workers=n_jobs,
        initializer=_begin_worker,
        initargs=(initializer, initargs),
        all_at_once=True,
        once=on_crash == "fail",
        config=task_config(n_jobs, None, options),
        **limits,
    )


def _arena_bytes(n_jobs: int) -> int:
    """Return how large the arenas may get: an array as large as the memory has room. Untouched, it costs nothing."""
    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        return FabricConfig().arena_bytes
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(FabricConfig().arena_bytes, min(memory, _ADDRESSES // (n_jobs + 1)) // _ONE_MIB * _ONE_MIB)


def _large_from(max_nbytes: int | None = _ONE_MIB, mmap_mode: str | None = "r", **others: Any) -> float:
    """Return from how many bytes on arrays are shared by the workers: with mmap_mode="c" each task has its own."""
    return math.inf if max_nbytes is None or mmap_mode != "r" else max_nbytes


def _send(workers: Lease, lent: LentArrays | None, batch: Any) -> TaskFuture:
    pool, large = workers.pool, False
    try:
        calls = []
        for function, *given in batch.items:
            args, kwargs, lends = (*given, False) if lent is None else lent.lend(*given)
            calls.append((pool.functions.dump(function) or function, args, kwargs))
            large = large or lends
        call: Any = (pool.functions.dump(_run_batch), (calls, batch._backend, batch._n_jobs), {})
        return pool.submit_call(workers.options, call, batch.items[0][0], large)
    except EncodingError as error:
        raise pickle.PicklingError("Could not pickle the task to send to the workers.") from error.__cause__ or error


# In the workers.


def _begin_worker(initializer: Callable[..., Any] | None, initargs: tuple[Any, ...]) -> None:
    register()
    process_executor._CURRENT_DEPTH = max(1, process_executor._CURRENT_DEPTH)  # joblib's multiprocessing looks at it
    if initializer is not None:
        initializer(*initargs)


_loaded = functools.lru_cache(maxsize=256)(load_function)


def _run_batch(calls: list[tuple[Any, Any, Any]], nested: Any, n_jobs: int | None) -> list[Any]:
    with joblib.parallel_config(backend=nested, n_jobs=n_jobs):
        return [
            (_loaded(function) if type(function) is bytes else function)(*args, **kwargs)
            for function, args, kwargs in calls
        ]
