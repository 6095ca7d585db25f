"""Iterate over the results of Executor.map: in order, as they come (fabric.runs does the work)."""

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError
from itertools import islice
from typing import Any

from fabric.chunking import FixedSize, MeasuredSize, Sizer
from fabric.errors import EncodingError
from fabric.pending import deadline_of, seconds_left
from fabric.pool_results import IMapIterator
from fabric.runs import Run, Work, run_aside
from fabric.sources import Listed, Source
from fabric.task_errors import outcome
from fabric.task_future import TaskOptions
from fabric.task_pool import TaskPool


class Buffered:
    """Items of an iterable, which only the one who iterates over results consumes, so many ahead of the results."""

    inert = False
    left: int | None = None

    def __init__(self, items: Iterable[Any], buffer: int) -> None:
        self.error: BaseException | None = None
        self._items = iter(items)
        self._room = buffer  # how many may be fetched
        self._over = False
        self._reader = threading.get_ident()

    def ready(self, least: int) -> bool:
        """May this thread fetch more?"""
        return not self._over and self._room > 0 and threading.get_ident() == self._reader

    def ended(self) -> bool:
        """Will nothing come any more?"""
        return self._over

    def take(self, most: int) -> Any:
        """Fetch the next items."""
        items: list[Any] = []
        most = min(most, self._room)
        try:
            items.extend(islice(self._items, most))
        except BaseException as error:
            self.error = error
            self._over = True
        self._over = self._over or len(items) < most
        self._room -= len(items)
        return items

    def given(self, count: int) -> None:
        """Take note that so many results are about to be taken, by this thread."""
        self._room += count
        self._reader = threading.get_ident()

    def release(self) -> None:
        """Fetch nothing more, which only the reader could; it is told so behind the results of what was fetched."""
        if not self._over:
            self.error = RuntimeError("cannot schedule new futures after shutdown")
            self._over = True

    def stop(self) -> None:
        """Fetch nothing more."""
        self._over = True

    def join(self, timeout: float) -> None:
        """Do nothing: there is no thread."""


class _Results(IMapIterator):
    """The results of one map, by the errors of an Executor."""

    def _explain(self, error: Any) -> BaseException:
        if isinstance(error, BaseException):
            return error.__cause__ or error if type(error) is EncodingError else error  # it was never sent
        return outcome(error, self._name)[1] or RuntimeError(f"{self._name} gave {error!r}")


def map_items(
    pool: TaskPool,
    work: tuple[Any, bool, TaskOptions, Any],
    items: Any,
    chunksize: int | None,
    buffer: int | None,
    timeout: float | None,
) -> Iterator[Any]:
    """Begin a map; return the iterator over its results. `work` is (function, star, options, seed)."""
    function, star, options, seed = work
    sizer: Sizer = FixedSize(chunksize) if chunksize is not None else MeasuredSize(pool.settings.max_workers)
    source: Source = Listed(items) if buffer is None else Buffered(items, buffer)
    run = Run(pool, Work(function, star, options, seed), source, sizer)
    return _iterate(run, _Results(run, pool.name_of_function(function)), deadline_of(timeout))


def _iterate(run: Run, results: _Results, deadline: float | None) -> Iterator[Any]:
    try:
        if deadline is None:
            yield from results
            return
        while True:
            try:
                value = results.next(seconds_left(deadline))
            except StopIteration:
                return
            yield value
            del value
    except GeneratorExit:  # perhaps of the garbage collector's, in a thread that holds any lock
        if not run.finished:
            run_aside(run.abort, CancelledError())
        raise
    except BaseException:
        run.abort(CancelledError())
        raise
