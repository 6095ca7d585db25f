"""Run the tasks of a Pool in a worker: as for an Executor, but that each item of a chunk has an outcome of its own.

    a task's body, a pickled tuple                            its reply
      (function, args, kwargs)                                the result, or an Unsendable
      (function, items, star, seconds, seed)                  Outcomes of the first items, in order

What cannot be pickled is no reply but an Unsendable, as in multiprocessing: there results go by plain pickle.
What lives in `__main__` is pickled by value here (cloudpickle), since workers do not import the user's `__main__`.
"""

import io
import pickle
import types
from typing import Any, NamedTuple

from fabric.messages import ErrorInfo
from fabric.remote_errors import describe
from fabric.task_runner import Outcomes, TaskRunner, run_items

_PLAIN = frozenset({int, float, complex, bool, str, bytes, type(None)})


class Unsendable(NamedTuple):
    """Stands for a result, or an exception that was raised (`traceback`), that cannot be pickled."""

    error: str
    value: str
    traceback: str = ""


class PoolRunner(TaskRunner):
    """Runs the tasks of a Pool in one worker."""

    __slots__ = ()

    def run(self, function: Any, body: Any) -> Any:
        """See TaskRunner; what cannot be pickled is told item by item."""
        if len(body) > 3:
            return _Reply(_told_apart(run_items(function, *body[1:])))
        try:
            value = function(*body[1], **body[2])
        except BaseException as error:
            info = describe(error, frames_to_skip=1)
            if info.exception is None:
                return _unsendable(info)
            raise
        return value if type(value) in _PLAIN or type(value).__name__ == "ndarray" else _Reply(value)


def _told_apart(outcomes: Outcomes) -> Outcomes:
    for index, info in outcomes.errors.items():
        if info.exception is None:
            outcomes.errors[index] = _unsendable(info)
    return outcomes


def _unsendable(info: ErrorInfo) -> Unsendable:
    return Unsendable("its exception cannot be pickled", info.message, info.traceback)


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
