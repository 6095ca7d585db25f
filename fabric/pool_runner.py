"""Run the tasks of a Pool in a worker: as for an Executor, but that each item of a chunk has an outcome of its own.

    a task's body, a pickled tuple                            its reply
      (function, args, kwargs)                                the result, or an Unsendable
      (function, items, star, seconds)                        Outcomes of the first items, in order

What cannot be pickled is no reply but an Unsendable, as in multiprocessing: there results go by plain pickle.
What lives in `__main__` is pickled by value here (cloudpickle), since workers do not import the user's `__main__`.
"""

import io
import itertools
import pickle
import time
import types
from collections.abc import Sequence
from typing import Any, NamedTuple

from fabric.codec import describe
from fabric.messages import ErrorInfo
from fabric.task_runner import TaskRunner

_PLAIN = frozenset({int, float, complex, bool, str, bytes, type(None)})
_SMALL = _PLAIN - {str, bytes}
_BLOCK = 32  # items between two looks at the clock while they are quick: a look and a slice cost 0.3 us
_QUICK = 0.0002  # seconds that a quick block takes
_LARGE = 1 << 20  # bytes of results after which a chunk gives back what it has not begun


class Unsendable(NamedTuple):
    """Stands for a result, or an exception that was raised (`traceback`), that cannot be pickled."""

    error: str
    value: str
    traceback: str = ""


class Outcomes(NamedTuple):
    """What became of the first items of a chunk. `errors` says, by index in `values`, what has no value.

    Fewer values than items: the others were not begun. `seconds` is how long it took.
    """

    values: list[Any]
    errors: dict[int, Any]  # ErrorInfo, Unsendable
    seconds: float


class PoolRunner(TaskRunner):
    """Runs the tasks of a Pool in one worker."""

    __slots__ = ()

    def on_message(self, body: Any) -> Any:
        """Run one task, or a chunk of items."""
        function = body[0]
        if type(function) is bytes:
            function = self._functions.get(function) or self._load(function)
        if len(body) == 4:
            return _Reply(run_items(function, *body[1:]))
        try:
            value = function(*body[1], **body[2])
        except BaseException as error:
            info = describe(error)
            if info.exception is None:
                return _unsendable(info)
            raise
        return value if type(value) in _PLAIN or type(value).__name__ == "ndarray" else _Reply(value)


def run_items(function: Any, items: Sequence[Any], star: bool, seconds: float) -> Outcomes:
    """Apply a function to each item (`star`: to the parts of each), whatever others raise.

    After so many seconds the items that were not begun are left to whoever asked.
    """
    begun = looked = time.perf_counter()
    count, block, size = len(items), 1, 0
    values: list[Any] = []
    errors: dict[int, Any] = {}
    calls: Any = itertools.starmap(function, items) if star else map(function, items)
    while len(values) < count:
        try:
            _extend(values, calls, min(block, count - len(values)))
        except BaseException as error:
            info = describe(error, frames_to_skip=2)
            errors[len(values)] = _unsendable(info) if info.exception is None else info
            values.append(None)
        size += block * _bytes_of(values[-1])
        now = time.perf_counter()
        block = min(2 * block, _BLOCK) if now - looked < _QUICK else 1
        looked = now
        if now - begun > seconds or size > _LARGE:
            break
    return Outcomes(values, errors, time.perf_counter() - begun)


def _unsendable(info: ErrorInfo) -> Unsendable:
    return Unsendable("its exception cannot be pickled", info.message, info.traceback)


def _extend(values: list[Any], calls: Any, most: int) -> None:
    behind = len(values) + most
    values.extend(itertools.islice(calls, most))
    if len(values) < behind:
        raise StopIteration("raised by the function")


def _bytes_of(value: Any) -> int:
    """Return about how many bytes a result has, if it is of the kinds that have many."""
    kind = type(value)
    if kind in _SMALL:
        return 0
    size = len(value) if kind is str or kind is bytes else getattr(value, "nbytes", 0)
    return size if type(size) is int else 0


class _Reply:
    """What a task returned, on its way: it arrives as the value itself. Pickled a second time, it screens it."""

    __slots__ = ("_tried", "_value")

    def __init__(self, value: Any) -> None:
        self._value = value
        self._tried = False

    def __reduce__(self) -> Any:
        if self._tried:  # plain pickle could not do it, or needs help with `__main__`
            self._value = _screened(self._value)
        self._tried = True
        return _same, (self._value,)


def _same(value: Any) -> Any:
    return value


def _screened(value: Any) -> Any:
    if type(value) is not Outcomes:
        error = _refusal(value)
        return value if error is None else error
    for index, one in enumerate(value.values):
        error = None if type(one) in _PLAIN else _refusal(one)
        if error is not None:
            value.values[index] = None
            value.errors[index] = error
    return value


def _refusal(value: Any) -> Unsendable | None:
    """Return why a value cannot be pickled, None if it can, in a process that has the user's `__main__`."""
    if type(value) is Unsendable:
        return None
    try:
        _Screen(io.BytesIO(), 5).dump(value)
    except BaseException as error:
        return Unsendable(_shown(error), _shown(value))
    return None


def _shown(value: Any) -> str:
    try:
        return repr(value)[:2000]
    except Exception as error:
        return f"<{type(value).__name__}, whose repr raises {type(error).__name__}>"


class _Screen(pickle.Pickler):
    """Pickles as if all that has a name in `__main__` could be found there."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, (type, types.FunctionType)) and obj.__module__ == "__main__" and "<" not in obj.__qualname__:
            return _same, (None,)
        return NotImplemented
