"""How many small tasks a second does joblib do, when each call has only ten?

::

    this process   ── Parallel(n_jobs=2)(ten tasks) ──▶  two workers      again and again
                   ◀──────── ten results ─────────────

As scikit-learn calls it: many short calls, each in a context that is made anew (the workers stay), or in one that is
kept. Where a call has few tasks, what counts is what the backend costs a call and not a task. Every result is
compared. What would change our minds: loky within a factor of five, which would say that the time goes in joblib
itself, and that a backend of ours is not worth its code.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any

from bench.harness import Case, Contestant, Metric
from bench.sample import Sample, timed, warm_up
from bench.tasks import check, find

OURS, WORKERS, TASKS = "fabric", 2, 10
RATE = Metric("tasks", "tasks/s")
_CALLS = {OURS: 500, "loky": 50, "multiprocessing": 50}  # the last makes a pool for each context


def cases(quick: bool) -> list[Case]:
    """Return the two cases."""
    return [
        _case(f"{TASKS} small tasks a call, {name} context", quick, reuse=reuse)
        for name, reuse in (("new", False), ("kept", True))
    ]


def repeated(backend: str, calls: int, *, reuse: bool, task: str = "increment") -> Sample:
    """Call Parallel again and again, in one context (`reuse`) or a new one each time."""
    joblib: Any = importlib.import_module("joblib")
    if backend == OURS:
        importlib.import_module("fabric.integrations.joblib").register()
    delayed = joblib.delayed(find(task))

    def repeat(parallel: Callable[[Any], list[int]], count: int) -> list[list[int]]:
        return [parallel(delayed(number) for number in range(TASKS)) for _ in range(count)]

    with joblib.parallel_config(backend=backend, n_jobs=WORKERS), _parallel(joblib, reuse) as parallel:
        repeat(parallel, warm_up(calls))
        seconds, results = timed(lambda: repeat(parallel, calls))
    for result in results:
        check(result, TASKS, "results of Parallel")
    return Sample({RATE.name: [calls * TASKS / seconds]}, f"{calls:,} calls")


@contextlib.contextmanager
def _parallel(joblib: Any, reuse: bool) -> Iterator[Callable[[Any], list[int]]]:
    if not reuse:
        yield lambda tasks: joblib.Parallel()(tasks)
        return
    with joblib.Parallel() as parallel:
        yield parallel


def _case(name: str, quick: bool, reuse: bool) -> Case:
    contestants = [
        Contestant(
            OURS if backend == OURS else f"joblib, {backend}",
            "bench.joblib_calls:repeated",
            {"backend": backend, "calls": calls // 5 if quick else calls, "reuse": reuse},
            needs="joblib",
            busy=1 + WORKERS,
        )
        for backend, calls in _CALLS.items()
    ]
    return Case(name, (RATE,), tuple(contestants), rounds=2 if quick else 5)
