"""What the tests of joblib and other libraries have run in workers: importable there."""

import os
import signal
import threading
import time
from pathlib import Path

import joblib
from joblib import Parallel, delayed


def pid_of(_):
    return os.getpid()


def divide(a, b):
    return a / b


def kill_worker_once(mark, value):
    """Kill this worker the first time."""
    path = Path(mark)
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return value


def say_and_block(folder, name):
    """Say who runs this, and never return."""
    Path(folder, f"{name}.new").write_text(str(os.getpid()))
    Path(folder, f"{name}.new").rename(Path(folder, name))
    threading.Event().wait()


def fail_after(folder, *names):
    """Raise when all of these files are there."""
    while not all(Path(folder, name).exists() for name in names):
        time.sleep(0.001)
    raise LookupError("on purpose")


def levels(_):
    """Return who runs what in a call that is nested twice, without naming a backend: (pid, backend, level) of each."""

    def here():
        inner = Parallel(n_jobs=2)
        return os.getpid(), type(inner._backend).__name__, inner._backend.nesting_level

    return [here(), Parallel(n_jobs=2)(delayed(here)() for _ in range(1))[0]]


def nested_on_the_fabric(_):
    """Name the backend again, in a worker; return the processes that ran it."""
    return Parallel(n_jobs=4, backend="fabric")(delayed(pid_of)(i) for i in range(4))


def threads_of_blas(_):
    return os.environ.get("OPENBLAS_NUM_THREADS")


_made_with: list[str] = []


def remember(word):
    _made_with.append(word)


def made_with(_):
    return list(_made_with)


def wrote_to(array):
    """Return whether the array could be written to, and its sum."""
    total = float(array.sum())
    if array.flags.writeable:
        array[:] = 0
    return array.flags.writeable, total


def is_registered(_):
    return "fabric" in joblib.parallel.BACKENDS


def wait_for(folder, name, value):
    """Say that this waits, return the value when the file is there."""
    Path(folder, f"waits-{value}").touch()
    while not Path(folder, name).exists():
        time.sleep(0.001)
    return value


def wait_until(reached):
    """Poll for something that no event tells: a process is gone, a file is there."""
    deadline = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def sum_of(values, factor):
    return factor * values.sum()


def twice(values, factor):
    return values * factor


def sign(value):
    return "+" if value > 0.5 else "-"


def no_score(estimator, x, y):
    return divide(1, 0)


def count_up(array, first):
    array[:] = range(first, first + len(array))
