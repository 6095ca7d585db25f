"""Give each task random numbers of its own, which do not depend on who runs it: not on the number of workers, not
on order, not on a worker that died meanwhile.

    seed ──┬─ index 0 ──▶ Generator of task 0       SeedSequence(seed).spawn(n)[index], without the n - 1 others
           ├─ index 1 ──▶ Generator of task 1
           └─ ...

Whoever runs tasks says before each which it is (`set_current`, the price of a context variable); code in the task
asks for `fabric.rng()`, and numpy is loaded then. A coroutine keeps the task that it was begun in.
"""

import contextlib
import operator
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

Seed = Any  # int, or numpy.random.SeedSequence: not named, for numpy is loaded only when somebody draws

_current: ContextVar[list[Any] | None] = ContextVar("fabric_task", default=None)  # seed, index, its Generator if made


def task_generator(seed: Seed, index: int) -> Any:
    """Make the numpy.random.Generator of task `index` under `seed`; equal arguments give equal numbers.

    It is that of the index-th child which SeedSequence(seed).spawn() returns, so streams of different tasks are
    independent as numpy promises. `seed` is a whole number, 0 or more, or a SeedSequence; that one is left as it is.
    Agents do likewise: spawn with each={"index": range(n)}, and call this in __init__.

    Raises:
        TypeError: seed or index are no whole numbers.
        ValueError: one of them is below 0.

    Example:
        >>> task_generator(7, 0).integers(100) == task_generator(7, 0).integers(100)
        True
    """
    import numpy as np

    _require_whole("index", index)
    if isinstance(seed, np.random.SeedSequence):
        key, pool = (*seed.spawn_key, index), seed.pool_size
        return np.random.default_rng(np.random.SeedSequence(seed.entropy, spawn_key=key, pool_size=pool))
    _require_whole("seed", seed)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))


def rng() -> Any:
    """Return the numpy.random.Generator of the running task: the same for each call in it, seeded for it alone.

    Its numbers follow from the seed and the task's index, whichever worker runs it and however many there are. A
    task that is run again after a crash draws the same.

    Raises:
        LookupError: no task with a seed runs here.
    """
    current = _current.get()
    if current is None:
        raise LookupError(
            "there is no seed here: fabric.rng() is for code in a task that was given one (seed=...). Threads that a "
            "task starts have none either: hand them the generator, or make one, fabric.task_generator(seed, index)"
        )
    if current[2] is None:
        current[2] = task_generator(current[0], current[1])
    return current[2]


def set_current(seed: Seed | None, index: int) -> None:
    """Say which task runs from here on, for `rng`; None for one without a seed. For those who run tasks."""
    _current.set(None if seed is None else [seed, index, None])


@contextlib.contextmanager
def seeded(seed: Seed, index: int) -> Iterator[None]:
    """Be the task of this index under `seed` for the time of a `with`."""
    token = _current.set([seed, index, None])
    try:
        yield
    finally:
        _current.reset(token)


def _require_whole(name: str, value: Any) -> None:
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}={value!r} is of type {type(value).__name__}; give it a whole number") from None
    if number < 0:
        raise ValueError(f"{name}={value!r} must be 0 or more")
