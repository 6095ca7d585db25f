"""Functions that tests have run in workers; importable there, so that they go by name."""

import os
import signal
import time
from pathlib import Path
from typing import Any


def echo(value: Any) -> Any:
    """Return what was given."""
    return value


def pid(_: Any = None) -> int:
    """Return the worker's process id."""
    return os.getpid()


def both(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """Return all arguments."""
    return args, kwargs


def fail(error: BaseException) -> None:
    """Raise this."""
    raise error


def die(number: int = signal.SIGKILL) -> None:
    """End the worker by a signal."""
    os.kill(os.getpid(), number)


def die_once(path: str) -> str:
    """End the worker at the first try, and return "survived" at the second."""
    if not os.path.exists(path):
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


def note_and_sleep(path: str, seconds: float) -> int:
    """Write to a file that this has begun, sleep, and return the process id."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(seconds)
    return os.getpid()


def sleep_and_return(seconds: float, value: Any = None) -> Any:
    """Sleep, then return a value."""
    time.sleep(seconds)
    return value


def total(array: Any) -> float:
    """Return the sum of an array."""
    return float(array.sum())


def fill(count: int) -> Any:
    """Return an array."""
    import numpy as np

    return np.full(count, 2.0)


def add(a: int, b: int) -> int:
    """Return the sum."""
    return a + b


def draw(_: Any) -> float:
    """Return a random number of this task's own."""
    import fabric

    return float(fabric.rng().random())


class Unpicklable:
    """Cannot be pickled."""

    def __reduce__(self) -> Any:
        raise RuntimeError("cannot pickle")


class DiesWhenRead:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> Any:
        return die, ()


class FailsWhenRead:
    """Cannot be unpickled."""

    def __reduce__(self) -> Any:
        return fail, (ValueError("cannot be read"),)


def make(kind: type) -> Any:
    """Return an object of a class."""
    return kind()


def end_the_worker_reading(value: Any) -> None:
    """Is never run: its argument ends the worker before."""


def wait_for_file(path: str) -> str:
    """Wait until a file is there, or fail after half a minute."""
    deadline = time.monotonic() + 30
    while not os.path.exists(path):
        if time.monotonic() > deadline:
            raise RuntimeError(f"nobody made {path}")
        time.sleep(0.001)
    return "gone"


def call(function: Any, argument: Any) -> Any:
    """Return what a function makes of an argument."""
    return function(argument)


def touch(path: str) -> None:
    """Make an empty file."""
    Path(path).touch()


def touch_own(folder: str) -> None:
    """Make an empty file, named by the process id."""
    (Path(folder) / f"{os.getpid()}").touch()


def note_and_sleep_long(path: str) -> None:
    """Make a file, then sleep for a minute."""
    Path(path).touch()
    time.sleep(60)


def note_and_maybe_fail(path: str, seconds: float, fails: bool) -> None:
    """Sleep, make a file, and raise if asked to."""
    time.sleep(seconds)
    Path(path).touch()
    if fails:
        raise FileNotFoundError(path)


def fail_at_multiples(number: int) -> int:
    """Return a number, but for multiples of three."""
    if number % 3 == 0:
        raise ValueError(number)
    return number


def make_lambda() -> Any:
    """Return what has no name to be pickled by."""
    return lambda: 42


def make_generator() -> Any:
    """Return what cannot be pickled at all."""
    return (i for i in range(3))


def fail_unpicklably() -> None:
    """Raise an exception that cannot be pickled."""
    raise ValueError(make_generator())


def work_then_die_once(path: str, seconds: float) -> str:
    """Work for a while and end the worker at the first try, and return "survived" at the second."""
    if not os.path.exists(path):
        Path(path).touch()
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


def result_of(future: Any) -> Any:
    """Wait for a future."""
    return future.result(20)


def sleep_and_total(seconds: float, array: Any) -> float:
    """Sleep, then return the sum of an array."""
    time.sleep(seconds)
    return float(array.sum())
