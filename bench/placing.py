"""What does it cost to decide which worker gets each agent, by policy?

::

    fabric.placement.place: how many agents, how many workers, a policy ──▶ a worker for each agent

No process but this one: the decision is pure. Against the number of agents (on 4 workers) and of workers (10,000
agents). Each decision is checked: all workers alike ("round_robin", the usual one, and "least_loaded", which begins on
unequal workers), the same key to the same worker again ("hash"). The floor draws workers at random. What would change
our minds: a policy whose cost for an agent grows with the agents, or that costs more than the microsecond that
spawning one does.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence

from bench.harness import Case, Contestant, points
from bench.sample import Sample, WrongAnswerError
from fabric.placement import Key, Load, place

AGENTS = (10, 100, 1_000, 10_000, 100_000, 1_000_000)
WORKERS = (1, 2, 4, 16, 64, 256)
POLICIES = ("round_robin", "least_loaded", "hash")
USUAL_AGENTS, USUAL_WORKERS = 10_000, 4
_MOST = 200_000  # agents that a point places, unless it is one batch
_OF_HASH = 10  # times fewer


def cases(quick: bool) -> list[Case]:
    """Return a case for either axis."""
    agents = AGENTS[:-1] if quick else AGENTS
    return [
        _case("against the agents of a batch", "agents", agents, quick),
        _case("against the workers", "workers", WORKERS, quick),
    ]


def ours(axis: str, sizes: Sequence[int], policy: str) -> Sample:
    """Place batches; return nanoseconds an agent."""
    values = {}
    for size in sizes:
        count, workers = (size, USUAL_WORKERS) if axis == "agents" else (USUAL_AGENTS, size)
        load = Load(tuple(range(1, workers + 1)), (*range(workers),))
        keys: list[Key] | None = list(range(count)) if policy == "hash" else None
        batches = max(1, _MOST // count // (_OF_HASH if keys else 1))
        start = time.perf_counter_ns()
        for _ in range(batches):
            found = place(count, policy, load, keys).slots  # type: ignore[arg-type]
        values[f"{size:,}"] = [(time.perf_counter_ns() - start) / batches / count]
        check(policy, load, found, count)
    return Sample(values)


def at_random(axis: str, sizes: Sequence[int]) -> Sample:
    """Draw a worker for each agent."""
    values = {}
    for size in sizes:
        count, workers = (size, USUAL_WORKERS) if axis == "agents" else (USUAL_AGENTS, size)
        slots = range(1, workers + 1)
        batches = max(1, _MOST // count)
        start = time.perf_counter_ns()
        for _ in range(batches):
            found = random.choices(slots, k=count)
        values[f"{size:,}"] = [(time.perf_counter_ns() - start) / batches / count]
        if len(found) != count:
            raise WrongAnswerError(f"{len(found):,} of {count:,} were placed")
    return Sample(values)


def check(policy: str, load: Load, found: Sequence[int], count: int) -> None:
    """Look at the slots that were chosen.

    Raises: WrongAnswerError when they are too few, no worker's, or not as the policy says.
    """
    counts = Counter(found)
    if len(found) != count or not set(counts) <= set(load.slots):
        raise WrongAnswerError(f"{policy}: {len(found):,} of {count:,} were placed, on {sorted(counts)}")
    if policy == "hash":
        again = place(count, policy, load, list(range(count))).slots
        if list(found) != again:
            raise WrongAnswerError("hash: the same keys have other workers when they are placed again")
        return
    before = dict(zip(load.slots, load.agents, strict=True)) if policy == "least_loaded" else {}
    loads = [counts[slot] + before.get(slot, 0) for slot in load.slots]
    if max(loads) - min(loads) > 1 and max(loads) > max(before.values(), default=0):
        raise WrongAnswerError(f"{policy}: the workers have {loads} agents")


def _case(name: str, axis: str, sizes: Sequence[int], quick: bool) -> Case:
    options = {"axis": axis, "sizes": sizes}
    usual, *others = (
        Contestant(policy, "bench.placing:ours", options | {"policy": policy}, peer=False, busy=1)
        for policy in POLICIES
    )
    floor = Contestant("drawn at random", "bench.placing:at_random", options, peer=False, busy=1)
    metrics = points(axis, sizes, "ns an agent", higher_is_better=False)
    return Case(name, metrics, (usual, *others, floor), 1 if quick else 3)
