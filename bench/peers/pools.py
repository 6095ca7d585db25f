"""The pools of others under the names of multiprocessing.Pool: itself, and mpire's."""

from __future__ import annotations

import importlib
import multiprocessing
from collections.abc import Callable, Iterable
from typing import Any

NEEDS = {"multiprocessing.Pool": "", "mpire": "mpire"}


class Mpire:
    """mpire.WorkerPool."""

    def __init__(self, workers: int) -> None:
        self._pool: Any = importlib.import_module("mpire").WorkerPool(workers, keep_alive=True)
        self._pool.pass_on_worker_id(False)

    def map(self, function: Callable[..., Any], items: Iterable[Any]) -> Any:
        """Map with its own chunks."""
        return self._pool.map(function, items)

    def imap(self, function: Callable[..., Any], items: Iterable[Any], chunksize: int) -> Any:
        """Map lazily."""
        return self._pool.imap(function, items, chunk_size=chunksize)

    def imap_unordered(self, function: Callable[..., Any], items: Iterable[Any], chunksize: int) -> Any:
        """Map lazily, in any order."""
        return self._pool.imap_unordered(function, items, chunk_size=chunksize)

    def __enter__(self) -> Mpire:
        self._pool.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.__exit__(*exception)


def open_peer(name: str, workers: int) -> Any:
    """Return the pool of this name, a context manager."""
    return multiprocessing.Pool(workers) if name == "multiprocessing.Pool" else Mpire(workers)
