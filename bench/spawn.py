"""How many agents a second are spawned in one batch?

::

    this process   ── spawn_batch(Counter, 100,000) ──▶  one worker constructs them all
                   ◀──────── one acknowledgement ──────

Only the call is timed, which returns when all agents live; then each one is asked once. Plain construction in
one process is the floor: nothing that crosses a process can beat it, so there we lose. What would change our
minds: a rate that falls as the batch grows would say that something is done once per agent that belongs once
per batch.
"""

from __future__ import annotations

from bench import agents as agent_classes
from bench import bodies
from bench.harness import Case, Contestant, Metric
from bench.sample import Sample, timed
from fabric import Fabric

SPAWNED = Metric("spawned", "agents/s")


def cases(quick: bool) -> list[Case]:
    """Return the one case."""
    agents = {"agents": 20_000 if quick else 100_000}
    ray = Contestant("Ray actors", "bench.peers.ray_actors:spawn", {"agents": 8}, "ray", True, rounds=2, limit_s=90)
    xoscar = Contestant("xoscar", "bench.peers.xoscar_actors:spawn", {"agents": 5_000}, "xoscar", True, rounds=3)
    return [
        Case(
            "one batch",
            (SPAWNED,),
            (
                Contestant("fabric", "bench.spawn:ours", agents),
                Contestant("plain objects in one process", "bench.spawn:plain", agents, busy=1),
                ray,
                xoscar,
            ),
            rounds=2 if quick else 5,
        )
    ]


def ours(agents: int, *, agent: str = "Counter") -> Sample:
    """Spawn the agents on one worker that has spawned a few before."""
    wanted = getattr(agent_classes, agent)
    with Fabric(workers=1) as fabric:
        fabric.spawn_batch(wanted, 100)
        seconds, group = timed(lambda: fabric.spawn_batch(wanted, agents))
        bodies.expect(group.ask_each(range(agents)), range(agents), "replies of the agents")
    return Sample({"spawned": [agents / seconds]}, f"{agents:,} agents, 1 worker")


def plain(agents: int) -> Sample:
    """Construct the same objects in a list."""
    seconds, found = timed(lambda: [agent_classes.Counter() for _ in range(agents)])
    bodies.expect([agent.on_message(place) for place, agent in enumerate(found)], range(agents), "totals")
    return Sample({"spawned": [agents / seconds]}, f"{agents:,} objects")
