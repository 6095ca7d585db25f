"""Do 10,000 agents, spawned in waves and asked 100 times each, give 1,000,000 right replies, and how fast?

::

    this process   ── spawn_waves, then ask_many ──▶  workers, 10,000 counters
                   ◀───────── totals ───────────────  each adds what it is asked

Agent i is asked for i % 7 + 1 each time, so its k-th reply must be k times that: a lost, doubled, swapped or
reordered message shows in a total. What would change our minds: one wrong reply.
"""

from __future__ import annotations

import time

from bench import agents as agent_classes
from bench import bodies
from bench.harness import Case, Contestant, Metric
from bench.sample import Sample
from fabric import Fabric

REPLIES = Metric("replies", "messages/s")
SPAWNED = Metric("spawned in waves", "agents/s")
TIMES = 100
AT_ONCE = 10  # questions to each agent in one call of ask_many


def cases(quick: bool) -> list[Case]:
    """Return the run with one worker and with two."""
    agents = 1_000 if quick else 10_000

    def contestant(workers: int) -> Contestant:
        return Contestant("fabric", "bench.million:ours", {"agents": agents, "workers": workers}, busy=workers + 1)

    rounds = 1 if quick else 3
    metrics = (REPLIES, SPAWNED)
    return [
        Case("1 worker", metrics, (contestant(1),), rounds),
        Case("2 workers", metrics, (contestant(2),), rounds),
    ]


def ours(agents: int, workers: int, *, agent: str = "Counter") -> Sample:
    """Spawn ten waves and ask; each reply is checked outside the clock."""
    asked = 0.0
    with Fabric(workers=workers) as fabric:
        start = time.perf_counter()
        waves = list(fabric.spawn_waves(getattr(agent_classes, agent), agents, wave_size=agents // 10))
        spawning = time.perf_counter() - start
        counters = [ref for wave in waves for ref in wave.agents]
        bodies.expect([wave.spawned for wave in waves], [agents // 10] * 10, "agents spawned by the waves")
        refs, steps = counters * AT_ONCE, [place % 7 + 1 for place in range(agents)]
        for first in range(0, TIMES, AT_ONCE):
            start = time.perf_counter()
            replies = fabric.ask_many(refs, steps * AT_ONCE)
            asked += time.perf_counter() - start
            due = [step * (first + nth) for nth in range(1, AT_ONCE + 1) for step in steps]
            bodies.expect(replies, due, "totals")
    values = {"replies": [agents * TIMES / asked], "spawned in waves": [agents / spawning]}
    return Sample(values, f"{agents * TIMES:,} correct replies, waves of {agents // 10:,}")
