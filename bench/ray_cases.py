"""How many calls a second, by the cases of Ray's microbenchmark?

::

    1:1    this process ── 1,000 calls, or one after the other ──▶ one actor
    1:n    this process ── one call ──▶ a client actor ── 5,000 calls each ──▶ n actors
    n:n    this process ── a call each ──▶ clients ── 5,000 (with an argument 1,000) calls each ──▶ n actors
    tasks  this process, or four clients ── 1,000 or 2,500 calls each ──▶ stateless functions

The names, numbers and the way to time are those of `ray microbenchmark`: n is half the cores, a call answers with two
bytes, and calls go on for so many seconds after some to warm up. An actor is an agent, a client one whose `on_message`
awaits `ask_async`, a task is the Executor's. Where Ray's have threads ("concurrent") ours has coroutines, and the four
clients of "multi client tasks" are threads of this process, because a worker has no Executor. Each answer is looked
at. Left out: the object store (bench.large) and placement groups. What would change our minds: any case in which ours
is less than ten times Ray's, for both are two processes and two bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench import call_agents
from bench.harness import Case, Contestant, Metric
from bench.sample import Sample, WrongAnswerError, rate
from fabric import AgentRef, Executor, Fabric

CALLS = Metric("calls", "calls/s")
AT_ONCE = 1_000
CLIENTS, OF_A_CLIENT = 4, 2_500  # of tasks; Ray submits 10,000, which takes it half a minute
EACH, EACH_WITH_ARGUMENT = 5_000, 1_000
ACTORS = {
    "1:1 actor calls sync": "Small",
    "1:1 actor calls async": "Small",
    "1:1 actor calls concurrent": "Concurrent",
    "1:1 async-actor calls sync": "AsyncSmall",
    "1:1 async-actor calls async": "AsyncSmall",
    "1:1 async-actor calls with args async": "AsyncSmall",
}
CROWDS = {  # the servers, how many clients to one of them (0: one for all), calls of a client, what they are given
    "1:n actor calls async": ("Small", 0, EACH, None),
    "n:n actor calls async": ("Small", CLIENTS, EACH, None),
    "n:n actor calls with arg async": ("Small", 1, EACH_WITH_ARGUMENT, 0),
    "1:n async-actor calls async": ("AsyncSmall", 0, EACH, None),
    "n:n async-actor calls async": ("AsyncSmall", CLIENTS, EACH, None),
}
TASKS = ("single client tasks sync", "single client tasks async", "multi client tasks async")


def cases(quick: bool) -> list[Case]:
    """Return a case for each of Ray's."""
    names = [*TASKS, *ACTORS, *CROWDS]
    return [Case(name, (CALLS,), _contestants(name, 0.1 if quick else 1.0), 1 if quick else 3) for name in names]


def _contestants(name: str, seconds: float) -> tuple[Contestant, ...]:
    options = {"case": name, "seconds": seconds}
    busy = 2 * half_the_cores() if name in CROWDS else 2
    ray = Contestant("Ray", "bench.peers.ray_calls:run", options, "ray", True, busy=busy, rounds=2, limit_s=120)
    if name in TASKS:
        return (
            Contestant("fabric.Executor", "bench.ray_cases:tasks", options),
            Contestant("ProcessPoolExecutor", "bench.ray_cases:tasks", {**options, "user": "ProcessPoolExecutor"}),
            Contestant("loky", "bench.ray_cases:tasks", {**options, "user": "loky"}, "loky", slow=True),
            ray,
        )
    xoscar = Contestant("xoscar", "bench.peers.xoscar_calls:run", options, "xoscar", True, busy=busy)
    if name in CROWDS:
        return Contestant("fabric", "bench.ray_cases:crowd", options, busy=busy), ray, xoscar
    found = [Contestant("fabric", "bench.ray_cases:one_to_one", options), ray, xoscar]
    if name == "1:1 actor calls sync":
        found.append(Contestant("multiprocessing Manager", "bench.peers.manager:run", options))
    elif " calls sync" not in name:
        found.append(Contestant("ask_many", "bench.ray_cases:one_to_one", {**options, "many": True}, peer=False))
    return tuple(found)


def half_the_cores() -> int:
    """Return Ray's n. It counts those of the machine, not those it may use."""
    return max(1, (os.cpu_count() or 1) // 2)


def one_to_one(case: str, seconds: float, *, agent: str = "", many: bool = False) -> Sample:
    """Call one agent: `submit` and take the results, or `many` in a call of ask_many."""
    with Fabric(workers=1) as fabric:
        ref = fabric.spawn_batch(getattr(call_agents, agent or ACTORS[case]), 1)[0]
        if " calls sync" in case:
            return _sample(lambda: check([ref.ask(None)], 1), seconds)
        bodies = list(range(AT_ONCE)) if "with args" in case else [None] * AT_ONCE

        def at_once() -> int:
            if many:
                return check(fabric.ask_many([ref] * AT_ONCE, bodies), AT_ONCE)
            futures = [ref.submit(body) for body in bodies]
            return check([future.result() for future in futures], AT_ONCE)

        return _sample(at_once, seconds)


def crowd(case: str, seconds: float, *, agent: str = "") -> Sample:
    """Have agents call agents of other workers."""
    kind, to_each, calls, argument = CROWDS[case]
    size = half_the_cores()
    with Fabric(workers=2 * size) as fabric:
        servers = [_on(fabric, size + place, agent or kind) for place in range(size)]
        clients = [_on(fabric, place % size, "Client") for place in range(max(1, to_each) if to_each != 1 else size)]
        if to_each == 1:  # each client has a server of its own
            orders = [([server], calls, argument) for server in servers]
        else:
            orders = [(servers, calls * (1 if to_each else size), argument)] * len(clients)
        due = sum(order[1] for order in orders)

        def ask_clients() -> int:
            found = sum(fabric.ask_many(clients, orders))
            if found != due:
                raise WrongAnswerError(f"{found:,} of {due:,} answers are right")
            return due

        return _sample(ask_clients, seconds)


def tasks(case: str, seconds: float, *, user: str = "fabric.Executor", task: str = "small") -> Sample:
    """Submit tasks to one worker, from this thread or from four."""
    from bench.peers.executors import open_peer

    function = {"small": small, "wrong": wrong}[task]
    with Executor(1) if user == "fabric.Executor" else open_peer(user, 1) as executor:

        def submit(count: int) -> int:
            futures = [executor.submit(function) for _ in range(count)]
            return check([future.result() for future in futures], count)

        if case == TASKS[0]:
            return _sample(lambda: submit(1), seconds)
        if case == TASKS[1]:
            return _sample(lambda: submit(AT_ONCE), seconds)
        with ThreadPoolExecutor(CLIENTS) as clients:
            return _sample(lambda: sum(clients.map(submit, [OF_A_CLIENT] * CLIENTS)), seconds)


def small() -> bytes:
    """The task."""
    return call_agents.OK


def wrong() -> bytes:
    """A task with a fault."""
    return b"no"


def check(replies: list[Any], due: int) -> int:
    """Return how many there are.

    Raises: WrongAnswerError when one is not what it should be, or missing.
    """
    right = replies.count(call_agents.OK)
    if right != due or len(replies) != due:
        raise WrongAnswerError(f"{right:,} of {len(replies):,} replies are right, and {due:,} were due")
    return due


def _on(fabric: Fabric, worker: int, kind: str) -> AgentRef:
    return fabric.spawn_batch(getattr(call_agents, kind), 1, placement=worker)[0]


def _sample(call: Callable[[], int], seconds: float) -> Sample:
    return Sample({CALLS.name: [rate(call, seconds)]}, f"for {seconds:g} s")
