"""How many small tasks a second does an executor do?

::

    this process   ── submit, submit, ... ──▶  one worker   pipelined: all are submitted, then all results taken
                   ── submit ──▶ ◀─ result ──               one at a time
                   ── map(function, items) ──▶              ours without a chunksize, as most callers leave it out

The function adds one, so that the figure is what the executor costs; every result is compared, outside the clock.
It is importable, or of the script: a peer sends its name either way (loky its code), we its code once. With two
workers there are three busy processes: ours is shown so beside. What would change our minds: a peer within a factor
of three, which would say that a lane in shared memory does not pay for tasks; or a map that is far from
ProcessPoolExecutor's with a chunksize picked by hand, which would say that measuring the items is not enough.
"""

from __future__ import annotations

import time
from typing import Any

from bench.harness import Case, Contestant, Metric
from bench.peers.executors import NEEDS, open_peer
from bench.sample import Sample, WrongAnswerError, timed, warm_up
from bench.tasks import IMPORTABLE, OF_A_SCRIPT, check, find, placed

OURS = "fabric.Executor"
TASKS, TRIP, ITEMS = (
    Metric("tasks", "tasks/s"),
    Metric("submit to result", "µs", higher_is_better=False),
    Metric("items", "items/s"),
)
HAND_PICKED = 10_000  # of a million trivial items: more or fewer make ProcessPoolExecutor no faster
_PIPELINED = {OURS: 200_000, "ProcessPoolExecutor": 20_000, "loky": 10_000, "pebble": 20_000}
_ONE_BY_ONE = {OURS: 10_000, "ProcessPoolExecutor": 2_000, "loky": 2_000, "pebble": 2_000}


def cases(quick: bool) -> list[Case]:
    """Return three ways of use, each with a function of either kind."""
    share = 10 if quick else 1
    found = []
    for where in (IMPORTABLE, OF_A_SCRIPT):
        counts = {user: tasks // share for user, tasks in _PIPELINED.items()}
        two = _contestant(where, "pipelined", OURS, f"{OURS}, two workers", tasks=counts[OURS], workers=2)
        pipelined = [_contestant(where, "pipelined", user, tasks=tasks) for user, tasks in counts.items()]
        found.append(_case(f"pipelined submits, {where}", TASKS, [*pipelined, two], quick))
        counts = {user: tasks // share for user, tasks in _ONE_BY_ONE.items()}
        single = [_contestant(where, "one_by_one", user, tasks=tasks) for user, tasks in counts.items()]
        found.append(_case(f"one submit at a time, {where}", TRIP, single, quick))
        found.append(_case(f"map, {where}", ITEMS, _mapping(where, share), quick))
    return found


def pipelined(user: str, tasks: int, *, workers: int = 1, task: str = "increment") -> Sample:
    """Submit all tasks, then take their results in order."""
    function = find(task)
    with open_executor(user, workers) as executor:

        def submit_all(count: int) -> list[Any]:
            futures = [executor.submit(function, number) for number in range(count)]
            return [future.result() for future in futures]

        submit_all(warm_up(tasks))
        seconds, results = timed(lambda: submit_all(tasks))
    check(results, tasks, "results of submit")
    return Sample({TASKS.name: [tasks / seconds]}, f"{tasks:,} tasks")


def one_by_one(user: str, tasks: int, *, task: str = "increment") -> Sample:
    """Submit a task when the result of the one before is there."""
    function, clock = find(task), time.perf_counter_ns
    warm = warm_up(tasks)
    taken: list[float] = []
    with open_executor(user, 1) as executor:
        for number in range(warm + tasks):
            start = clock()
            result = executor.submit(function, number).result()
            taken.append((clock() - start) / 1e3)
            if result != number + 1:
                raise WrongAnswerError(f"submitted {number}, the result is {result}")
    return Sample({TRIP.name: taken[warm:]}, f"{tasks:,} tasks a round")


def mapped(user: str, items: int, *, workers: int = 1, task: str = "increment", **options: Any) -> Sample:
    """Map over the items and take all results; `options` are map's."""
    function = find(task)
    with open_executor(user, workers) as executor:
        list(executor.map(function, range(warm_up(items)), **options))
        seconds, results = timed(lambda: list(executor.map(function, range(items), **options)))
    check(results, items, "results of map")
    return Sample({ITEMS.name: [items / seconds]}, f"{items:,} items")


def open_executor(user: str, workers: int) -> Any:
    """Return ours or a peer's executor, a context manager."""
    if user == OURS:
        from fabric import Executor

        return Executor(workers)
    return open_peer(user, workers)


def _mapping(where: str, share: int) -> list[Contestant]:
    many, few = 1_000_000 // share, 20_000 // share
    picked = {"items": many, "chunksize": HAND_PICKED // share}
    by_hand = f"chunksize={picked['chunksize']:,}"
    return [
        _contestant(where, "mapped", OURS, f"{OURS}, no chunksize", items=many),
        _contestant(where, "mapped", "ProcessPoolExecutor", "ProcessPoolExecutor, no chunksize", items=few),
        _contestant(where, "mapped", "ProcessPoolExecutor", f"ProcessPoolExecutor, {by_hand}", **picked),
        _contestant(where, "mapped", "loky", f"loky, {by_hand}", **picked),
        _contestant(where, "mapped", "pebble", f"pebble, {by_hand}", **picked),
        _contestant(where, "mapped", OURS, f"{OURS}, {by_hand}", **picked),
        _contestant(where, "mapped", OURS, f"{OURS}, no chunksize, two workers", items=many, workers=2),
    ]


def _contestant(where: str, function: str, user: str, shown: str = "", **options: Any) -> Contestant:
    call, options = placed(where, f"bench.executor:{function}", {"user": user, **options})
    busy = 1 + options.get("options", options).get("workers", 1)
    return Contestant(shown or user, call, options, NEEDS.get(user, ""), peer=user != OURS, busy=busy)


def _case(name: str, metric: Metric, contestants: list[Contestant], quick: bool) -> Case:
    return Case(name, (metric,), tuple(contestants), rounds=2 if quick else 5)
