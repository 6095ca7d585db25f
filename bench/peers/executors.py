"""The executors of others, opened with so many processes: ProcessPoolExecutor, loky's and pebble's."""

from __future__ import annotations

import importlib
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any

NEEDS = {"ProcessPoolExecutor": "", "loky": "loky", "pebble": "pebble"}


class Pebble:
    """pebble.ProcessPool under the names of an Executor."""

    def __init__(self, workers: int) -> None:
        context = multiprocessing.get_context("forkserver")
        self._pool = importlib.import_module("pebble").ProcessPool(max_workers=workers, context=context)

    def submit(self, function: Callable[..., Any], /, *args: Any) -> Future[Any]:
        """Schedule a call."""
        future: Future[Any] = self._pool.schedule(function, args=args)
        return future

    def map(self, function: Callable[..., Any], items: Iterable[Any], **options: Any) -> Iterator[Any]:
        """Map; the results come in order."""
        return iter(self._pool.map(function, items, **options).result())

    def __enter__(self) -> Pebble:
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.close()
        self._pool.join()


def open_peer(name: str, workers: int) -> Any:
    """Return the executor of this name, a context manager."""
    if name == "ProcessPoolExecutor":
        return ProcessPoolExecutor(workers, multiprocessing.get_context("forkserver"))
    if name == "loky":
        return importlib.import_module("loky").get_reusable_executor(max_workers=workers)
    return Pebble(workers)
