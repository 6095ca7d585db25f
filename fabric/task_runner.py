"""Run tasks in a worker: the agent behind Executor and Pool, one for each worker and way of treating a crash.

    a task's body, a pickled tuple                            its reply
      (function, args, kwargs)                                what function(*args, **kwargs) returns
      (function, items, star, seed)                           a ChunkResult: function of each item, in order
      (function, args, kwargs, seed, index)                   as the first, with random numbers of its own

`function` is the function, or the bytes of its pickle: those are unpickled once, since many tasks have the same
(fabric.callables says which functions may be treated so).
"""

import itertools
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from fabric.agent import Agent
from fabric.codec import describe
from fabric.messages import ErrorInfo

_FUNCTIONS_KEPT = 256
_CHUNK_SECONDS = 0.02  # a chunk that takes longer gives back what it has not begun: others may be idle


class ChunkResult(NamedTuple):
    """What became of a chunk: values of its first items; `error` says what the next one raised, None for nothing.

    With no error and fewer values than items, the others were not begun. `seconds` is how long it took.
    """

    values: list[Any]
    error: ErrorInfo | None
    seconds: float


class Setup(NamedTuple):
    """What a worker does before its first task."""

    initializer: Callable[..., Any] | None = None
    initargs: tuple[Any, ...] = ()
    authkey: bytes | None = None  # of multiprocessing, for the proxies of its managers among arguments


class TaskRunner(Agent):
    """Runs the tasks of one worker, one at a time, in the order in which they were sent."""

    __slots__ = ("_functions", "_withdrawn")

    def __init__(self, setup: bytes) -> None:
        self._functions: dict[bytes, Any] = {}
        _set_up(_loaded(setup))

    def on_start(self) -> None:
        """See Agent."""
        self._withdrawn = self._host.withdrawn

    def on_message(self, body: Any) -> Any:
        """Run one task, or a chunk of them; nothing, where it was taken back to be run by another worker."""
        if self._withdrawn[0] and self._host.is_withdrawn:
            return None
        function = body[0]
        if type(function) is bytes:
            function = self._functions.get(function) or self._load(function)
        if len(body) == 3:
            return function(*body[1], **body[2])
        if len(body) == 4:
            return run_chunk(function, *body[1:])
        with _random_numbers(body[3], body[4]):
            return function(*body[1], **body[2])

    def _load(self, data: bytes) -> Any:
        if len(self._functions) >= _FUNCTIONS_KEPT:
            del self._functions[next(iter(self._functions))]
        function = self._functions[data] = _loaded(data)
        return function


def run_chunk(function: Any, items: Sequence[Any], star: bool, seed: tuple[Any, int] | None) -> ChunkResult:
    """Apply a function to each item (`star`: to the parts of each), up to the first that raises.

    `seed`: (entropy, the index of the first item) of random numbers, None for none. What takes long stops
    between two items and leaves the rest to whoever asked.
    """
    begun = time.perf_counter()
    values: list[Any] = []
    try:
        if seed is not None:
            _run_seeded(function, items, star, seed, values)
        else:
            calls = itertools.starmap(function, items) if star else map(function, items)
            for value in calls:
                values.append(value)
                if time.perf_counter() - begun > _CHUNK_SECONDS:
                    break
            else:
                if len(values) < len(items):
                    raise StopIteration("raised by the function")  # else these would be taken for not begun
    except BaseException as error:
        return ChunkResult(values, describe(error, frames_to_skip=1), time.perf_counter() - begun)
    return ChunkResult(values, None, time.perf_counter() - begun)


def _run_seeded(function: Any, items: Sequence[Any], star: bool, seed: tuple[Any, int], values: list[Any]) -> None:
    entropy, first = seed
    for index, item in enumerate(items, first):
        with _random_numbers(entropy, index):
            values.append(function(*item) if star else function(item))


def _random_numbers(entropy: Any, index: int) -> Any:
    from fabric.seeds import seeded  # most tasks want none

    return seeded(entropy, index)


def _loaded(data: bytes) -> Any:
    import pickle

    return pickle.loads(data)


def _set_up(setup: Setup) -> None:
    if setup.authkey is not None:
        from multiprocessing import process  # a few ms, which only those pay whose program uses it

        process.current_process().authkey = setup.authkey
    if setup.initializer is None:
        return
    try:
        setup.initializer(*setup.initargs)
    except BaseException:
        logging.getLogger("concurrent.futures").critical("Exception in initializer:", exc_info=True)
        raise
