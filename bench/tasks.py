"""The tasks that executors and pools are given; and the script that has them in its own `__main__`.

::

    bench.trial  bench.executor:pipelined           increment is bench.tasks.increment: importable
    bench.trial  bench.tasks:in_a_script
      └─ python -m bench.tasks  bench.executor:pipelined    increment is __main__.increment, as in a user's script
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Any

from bench import bodies
from bench.sample import Sample, WrongAnswerError

IMPORTABLE, OF_A_SCRIPT = "importable function", "function of the script"


def increment(number: int) -> int:
    """The task: as small as one can be, and its result tells whether it ran."""
    return number + 1


def stutter(number: int) -> int:
    """A task with a fault: one in a hundred results is wrong."""
    return number + (number % 100 != 7)


def find(name: str) -> Callable[[int], int]:
    """Return the task of this name: that of the script, if one with tasks runs."""
    found: Callable[[int], int] = getattr(sys.modules["__main__"], name, None) or globals()[name]
    return found


def check(results: Iterable[int], count: int, what: str) -> None:
    """Compare what `increment` made of 0 to count - 1, in order.

    Raises: WrongAnswerError.
    """
    bodies.expect(list(results), range(1, count + 1), what)


def in_a_script(call: str, options: dict[str, Any]) -> Sample:
    """Call "module:function" in a script that has the tasks in its `__main__`; return its sample.

    Raises: WrongAnswerError, RuntimeError: as the call did.
    """
    command = [sys.executable, "-m", "bench.tasks", call, json.dumps(options)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the script ended with status {done.returncode}")
    found = json.loads(done.stdout.splitlines()[-1])
    if "failed" in found:
        raise WrongAnswerError(found["failed"]) if found["wrong"] else RuntimeError(found["failed"])
    return Sample(**found)


def placed(where: str, call: str, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the call and options of a contestant whose tasks are defined there: IMPORTABLE or OF_A_SCRIPT."""
    return (call, options) if where == IMPORTABLE else ("bench.tasks:in_a_script", {"call": call, "options": options})


if __name__ == "__main__":
    from bench.trial import run

    print(json.dumps(run(sys.argv[1], json.loads(sys.argv[2]))))
