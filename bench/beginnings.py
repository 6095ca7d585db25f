"""Runs the scenarios of agents that begin: how long a spawn takes, and how long until an agent has answered."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from bench import bodies, scenario_agents
from bench.sample import Sample, percentile, timed
from bench.scenario_agents import VERDICT
from bench.scenario_file import Scenario
from fabric import AgentGroup, Fabric


def run_spawn(scenario: Scenario, agent: str = "Handler") -> Sample:
    """Spawn one agent, many in one call, and one each from many threads at once, by turns; p99 of each."""
    kind, count, times = getattr(scenario_agents, agent), scenario.agents, scenario.how["times"]
    single, batch, caller = [], [], []
    with Fabric(workers=scenario.workers) as fabric, ThreadPoolExecutor(count) as pool:
        _check(fabric.spawn_batch(kind, scenario.workers))
        for _ in range(times):
            seconds, group = timed(lambda: fabric.spawn_batch(kind, 1))
            single.append(seconds)
            _check(group)
            seconds, group = timed(lambda: fabric.spawn_batch(kind, count))
            batch.append(seconds)
            _check(group)
            each = _at_once(pool, count, lambda: timed(lambda: fabric.spawn_batch(kind, 1)))
            caller += [seconds for seconds, _ in each]
            for _, one in each:
                _check(one)
    values = {"single": _tail(single), "batch": _tail(batch), "caller": _tail(caller)}
    return Sample(values, f"{times:,} times, {count} agents, {scenario.workers} workers")


def run_startup(scenario: Scenario, agent: str = "Handler") -> Sample:
    """Spawn one agent and ask it, again and again, beside those that live already."""
    kind, taken = getattr(scenario_agents, agent), []
    with Fabric(workers=scenario.workers) as fabric:
        fabric.spawn_batch(kind, scenario.agents).ask_all(VERDICT)
        for number in range(scenario.how["times"]):
            seconds, (group, reply) = timed(lambda number=number: _first_answer(fabric, kind, number))  # type: ignore[misc]
            taken.append(seconds)
            bodies.expect([reply], [number], "first answers")
            bodies.expect(group.ask_all(VERDICT), [(1, number)], "what the agent counted")
            group.stop()
    ordered = sorted(taken)
    values = {"p50": [percentile(ordered, 0.5) * 1e3], "p99": [percentile(ordered, 0.99) * 1e3]}
    return Sample(values, f"{len(taken):,} agents, one after the other, {scenario.workers} workers")


def _first_answer(fabric: Fabric, kind: type[scenario_agents.Handler], number: int) -> tuple[AgentGroup, int]:
    group = fabric.spawn_batch(kind, 1)
    return group, group[0].ask(number)


def _check(group: AgentGroup) -> None:
    """See that all agents are there and answer; stop them."""
    numbers = range(7, 7 + len(group))
    bodies.expect(group.ask_each(numbers), numbers, "answers of the agents")
    bodies.expect(group.ask_all(VERDICT), [(1, number) for number in numbers], "what the agents counted")
    group.stop()


def _at_once(
    pool: ThreadPoolExecutor, count: int, call: Callable[[], tuple[float, AgentGroup]]
) -> Sequence[tuple[float, AgentGroup]]:
    """Call from so many threads that begin together."""
    barrier = threading.Barrier(count)

    def begin_together(_: int) -> tuple[float, AgentGroup]:
        barrier.wait(30)
        return call()

    return list(pool.map(begin_together, range(count)))


def _tail(seconds: Sequence[float]) -> list[float]:
    return [percentile(sorted(seconds), 0.99) * 1e3]
