"""Be `tqdm.contrib.concurrent` on the fabric: the same call, and a bar, from another import."""

import operator
from collections.abc import Callable, Iterable
from typing import Any

from tqdm.auto import tqdm as auto_tqdm

from fabric.executor import Executor

_OF_TQDMS_POOL = ("lock_name",)  # whose workers share a lock, to draw bars of their own
_OF_EXECUTORS = ("max_tasks_per_child", "mp_context")


def process_map(
    function: Callable[..., Any],
    *iterables: Iterable[Any],
    max_workers: int | None = None,
    chunksize: int | None = None,
    timeout: float | None = None,
    buffersize: int | None = None,
    tqdm_class: Any = auto_tqdm,
    **options: Any,
) -> list[Any]:
    """Return `list(map(function, *iterables))`, run by the workers of an Executor, and show a bar meanwhile.

    Takes what tqdm's function of this name does. `chunksize` is by default as it is found to be good, so that short
    functions need none. Other options are those of the bar (`desc`, `unit`), and the executor's
    `max_tasks_per_child` and `mp_context`.
    """
    for name in _OF_TQDMS_POOL:
        options.pop(name, None)
    settings = {name: options.pop(name) for name in _OF_EXECUTORS if name in options}
    if "total" not in options:
        options["total"] = min((n for n in (operator.length_hint(it, -1) for it in iterables) if n >= 0), default=None)
    with Executor(max_workers, **settings) as executor:
        results = executor.map(function, *iterables, chunksize=chunksize, timeout=timeout, buffersize=buffersize)
        return list(tqdm_class(results, **options))
