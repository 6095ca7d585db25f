"""Run tasks in a worker: the agent behind Executor and Pool, one for each worker and way of treating a crash.

    a task's body, a pickled tuple                            its reply
      (function, args, kwargs)                                what function(*args, **kwargs) returns
      (function, items, star, seconds, seed)                  Outcomes of the first items, in order

`function` is the function, or the bytes of its pickle: those are unpickled once, since many tasks have the same
(fabric.callables says which functions may be treated so).
"""

import itertools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from fabric.agent import Agent
from fabric.callables import load_function
from fabric.remote_errors import describe

_FUNCTIONS_KEPT = 256
_SMALL = frozenset({int, float, complex, bool, type(None)})
_BLOCK = 128  # items between two looks at the clock while they are quick: a look and a slice cost 1 us
_QUICK = 0.0002  # seconds that a quick block takes
_LARGE = 1 << 20  # bytes of results after which a chunk gives back what it has not begun


class Outcomes(NamedTuple):
    """What became of the first items of a chunk. `errors` says, by index in `values`, what has no value.

    Fewer values than items: the others were not begun. `seconds` is how long it took.
    """

    values: list[Any]
    errors: dict[int, Any]  # ErrorInfo, and what a subclass of the runner makes of it
    seconds: float


class Withdrawn(NamedTuple):
    """Says that a task was not run, because the worker takes it for one that was taken back."""


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
        """Run one task, or a chunk of them; not one that was taken back to be run by another worker."""
        if self._withdrawn[0] and self._host.is_withdrawn:
            return Withdrawn()
        function = body[0]
        if type(function) is bytes:
            function = self._functions.get(function) or self._load(function)
        return self.run(function, body)

    def run(self, function: Any, body: Any) -> Any:
        """Run the function of a task whose body this is."""
        if len(body) == 3:
            return function(*body[1], **body[2])
        return run_items(function, *body[1:])

    def _load(self, data: bytes) -> Any:
        if len(self._functions) >= _FUNCTIONS_KEPT:
            del self._functions[next(iter(self._functions))]
        function = self._functions[data] = load_function(data)
        return function


def run_items(
    function: Any, items: Sequence[Any], star: bool, seconds: float, seed: tuple[Any, int] | None = None
) -> Outcomes:
    """Apply a function to each item (`star`: to the parts of each), whatever others raise.

    After so many seconds the items that were not begun are left to whoever asked. `seed`: (entropy, index of the
    first item) of random numbers of their own, None for none.
    """
    begun = looked = time.perf_counter()
    count, block, size = len(items), 1, 0
    values: list[Any] = []
    errors: dict[int, Any] = {}
    calls: Any = itertools.starmap(function, items) if star else map(function, items)
    if seed is not None:
        calls = _seeded(function, items, star, seed)
    while len(values) < count:
        try:
            _extend(values, calls, min(block, count - len(values)))
        except BaseException as error:
            errors[len(values)] = describe(error, frames_to_skip=2)
            values.append(None)
            if seed is not None:  # a generator that raised is over
                calls = _seeded(function, items[len(values) :], star, (seed[0], seed[1] + len(values)))
        size += block * _bytes_of(values[-1])
        now = time.perf_counter()
        block = min(2 * block, _BLOCK) if now - looked < _QUICK else 1
        looked = now
        if now - begun > seconds or size > _LARGE:
            break
    return Outcomes(values, errors, time.perf_counter() - begun)


def _seeded(function: Any, items: Sequence[Any], star: bool, seed: tuple[Any, int]) -> Iterator[Any]:
    from fabric.seeds import seeded  # most tasks want none

    entropy, first = seed
    for index, item in enumerate(items, first):
        with seeded(entropy, index):
            value = function(*item) if star else function(item)
        yield value


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
