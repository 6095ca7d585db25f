"""Be an engine of pandas (3.0 and later): `frame.apply(function, axis=1, engine=Engine(executor))`.

    frame ──▶ parts: rows, or columns, a few for each worker ──▶ part.apply(function) in a worker ──▶ concat

What pandas does with the results of a function it does with those of each part, so parts and whole come out alike.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.executors import BaseExecutionEngine

from fabric.executor import Executor, ExecutorView

_PARTS_PER_WORKER = 4  # so that parts that take long do not leave the others idle


class Engine(BaseExecutionEngine):  # type: ignore[misc]  # pandas has no annotations
    """Runs the functions of `DataFrame.apply` and `Series.map` on an executor's workers.

    Example:
        >>> with Executor() as executor:
        ...     frame.apply(slow_function_of_a_row, axis=1, engine=Engine(executor))
    """

    def __init__(self, executor: Executor | ExecutorView) -> None:
        self._executor = executor

    @property
    def __pandas_udf__(self) -> "Engine":  # what pandas looks for
        return self

    def apply(self, data: Any, func: Any, args: Any, kwargs: Any, decorator: Any, axis: Any) -> Any:
        """Call `func` with each column (axis 0) or row (axis 1) of a frame or, with `raw`, of an array."""
        by_row = axis in (1, "columns")
        parts = self._parts(data, 0 if by_row else 1)
        if isinstance(data, np.ndarray):
            call = functools.partial(np.apply_along_axis, func, 1 if by_row else 0)
            results = self._run(functools.partial(_with_arguments, call, args, kwargs), parts)
            return np.concatenate(results, axis=0 if by_row or results[0].ndim == 1 else 1)
        results = self._run(functools.partial(_apply_to_frame, func, axis, args, kwargs), parts)
        reduced = all(isinstance(result, pd.Series) for result in results)
        return pd.concat(results, axis=0 if by_row or reduced else 1)

    def map(self, data: Any, func: Any, args: Any, kwargs: Any, decorator: Any, skip_na: bool) -> Any:
        """Call `func` with each element of a series or array."""
        call = functools.partial(_map_series, func, args, kwargs, "ignore" if skip_na else None)
        results = self._run(call, self._parts(data, 0))
        return np.concatenate(results) if isinstance(data, np.ndarray) else pd.concat(results)

    def _parts(self, data: Any, axis: int) -> list[Any]:
        count = min(data.shape[axis], _PARTS_PER_WORKER * self._executor._max_workers)
        edges = [data.shape[axis] * i // max(1, count) for i in range(max(1, count) + 1)]
        spans = [slice(begin, end) for begin, end in itertools.pairwise(edges)]
        rows = data if isinstance(data, np.ndarray) else data.iloc
        return [rows[span] if axis == 0 else rows[:, span] for span in spans]

    def _run(self, call: Callable[[Any], Any], parts: list[Any]) -> list[Any]:
        return list(self._executor.map(call, parts, chunksize=1))


# In the workers.


def _with_arguments(call: Callable[..., Any], args: Any, kwargs: Any, part: Any) -> Any:
    return call(part, *args, **kwargs)


def _apply_to_frame(func: Any, axis: Any, args: Any, kwargs: Any, part: Any) -> Any:
    return part.apply(func, axis=axis, args=args, **kwargs)


def _map_series(func: Any, args: Any, kwargs: Any, na_action: Any, part: Any) -> Any:
    series = pd.Series(part) if isinstance(part, np.ndarray) else part
    mapped = series.map(functools.partial(_last_arguments, func, args, kwargs), na_action=na_action)
    return mapped.to_numpy() if isinstance(part, np.ndarray) else mapped


def _last_arguments(func: Any, args: Any, kwargs: Any, value: Any) -> Any:
    return func(value, *args, **kwargs)
