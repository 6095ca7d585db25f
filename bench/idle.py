"""What does a fabric cost that has nothing to do?

::

    this process sleeps      one worker, 1,000 agents, asked once each, then left alone

CPU share of all processes together, and wake-ups per second of the one that wakes most (voluntary context
switches of all its threads; the sleep of the bench is one of them). What would change our minds: any cost
that grows with the number of agents.
"""

from __future__ import annotations

from bench import agents as agent_classes
from bench import bodies, processes
from bench.harness import Case, Contestant, Metric
from bench.sample import Sample
from fabric import Fabric

CPU = Metric("CPU", "% of a core", higher_is_better=False)
WAKE_UPS = Metric("wake-ups", "per second", higher_is_better=False)


def cases(quick: bool) -> list[Case]:
    """Return the one case."""
    options = {"seconds": 2.0 if quick else 5.0}
    return [
        Case(
            "1,000 agents, nothing to do",
            (CPU, WAKE_UPS),
            (
                Contestant("fabric", "bench.idle:ours", options),
                Contestant("multiprocessing.Pool", "bench.peers.pool:idle", options),
                Contestant("ProcessPoolExecutor", "bench.peers.executor:idle", options),
            ),
            rounds=1 if quick else 3,
        )
    ]


def ours(seconds: float, *, agents: int = 1_000, agent: str = "Echo") -> Sample:
    """Ask each agent once, so that all of it has run, then wait."""
    with Fabric(workers=1) as fabric:
        group = fabric.spawn_batch(getattr(agent_classes, agent), agents)
        bodies.expect(group.ask_each(range(agents)), range(agents), "replies")
        return processes.watch_idle(seconds)
