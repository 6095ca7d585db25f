"""What does an idle agent cost in memory, beyond the object itself?

::

    this process: references, table      one worker: 100,000 agents

The growth of the memory that the processes do not share with others (USS) while 100,000 agents are spawned,
less the growth of one process while it makes a plain list of as many of the same objects. Afterwards each
agent is asked once. What would change our minds: more than a few hundred bytes would say that agents should
live in columns, not in objects.
"""

from __future__ import annotations

from bench import agents as agent_classes
from bench import bodies
from bench.harness import Case, Contestant, Metric
from bench.processes import own_bytes
from bench.sample import Sample
from fabric import Fabric

MEMORY = Metric("memory", "bytes/agent", higher_is_better=False)
WARM = 1_000


def cases(quick: bool) -> list[Case]:
    """Return the one case; it is not smaller when quick, because pages would blur the figure."""
    ours_only = (Contestant("fabric", "bench.memory:ours", {"agents": 100_000}),)
    return [Case("idle agents", (MEMORY,), ours_only, rounds=1 if quick else 3)]


def ours(agents: int, *, agent: str = "Counter") -> Sample:
    """Spawn the agents, then make the list in this process while they still live."""
    wanted = getattr(agent_classes, agent)
    with Fabric(workers=1) as fabric:
        warm = fabric.spawn_batch(wanted, WARM)
        bodies.expect(warm.ask_all(1), [1] * WARM, "replies of the warm-up")
        empty = own_bytes()
        group = fabric.spawn_batch(wanted, agents)
        full = own_bytes()
        plain = [wanted() for _ in range(agents)]
        plain_bytes = own_bytes() - full
        bodies.expect(group.ask_each(range(agents)), range(agents), "replies of the agents")
    grown, objects = (full - empty) / agents, plain_bytes / len(plain)
    return Sample({"memory": [grown - objects]}, f"{grown:,.0f} bytes each, of which the object {objects:,.0f}")
