"""How soon do 1,000,000 array agents live, and what does each cost in memory?

::

    this process   ── spawn_array(Flock, 1,000,000) ──▶  two workers, one object each: five columns of 4 bytes
                   ◀──────── one acknowledgement each ──

Timed is the call, which returns when all agents live. The memory is the growth of what the processes do not share
(USS), columns included, which are written to. Then each agent is told one record. What would change our minds: a
time that grows faster than numpy fills the columns would say that something is done once an agent.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bench import bodies
from bench.harness import Case, Contestant, Metric
from bench.processes import own_bytes
from bench.sample import Sample, timed
from fabric import ArrayAgents, Fabric

TIME = Metric("time", "s", higher_is_better=False)
MEMORY = Metric("memory", "bytes/agent", higher_is_better=False)


class Flock(ArrayAgents):
    """Agents with a place, a velocity and an energy."""

    dtype = np.dtype([("force", "f4")])

    def __init__(self, ids: range) -> None:
        self.first = ids.start
        self.columns = {name: np.full(len(ids), 1, "f4") for name in ("x", "y", "vx", "vy", "energy")}

    def on_records(self, ids: Any, records: Any) -> None:
        self.columns["energy"][ids - self.first] += records["force"]

    def on_message(self, body: object) -> float:
        return float(self.columns["energy"].sum(dtype="f8"))


class Deaf(Flock):
    """Does not do what it is told."""

    def on_records(self, ids: Any, records: Any) -> None:
        pass


def cases(quick: bool) -> list[Case]:
    """Return the one case; it is not smaller when quick, because pages would blur the figure."""
    ours_only = (Contestant("fabric", "bench.array_spawn:ours", {"agents": 1_000_000}, busy=3),)
    return [Case("1,000,000 array agents", (TIME, MEMORY), ours_only, rounds=1 if quick else 3)]


def ours(agents: int, *, agent: str = "Flock") -> Sample:
    """Spawn them on two workers that have spawned a few before."""
    kind = {"Flock": Flock, "Deaf": Deaf}[agent]
    with Fabric(workers=2) as fabric:
        fabric.spawn_array(kind, 2)
        empty = own_bytes()
        seconds, group = timed(lambda: fabric.spawn_array(kind, agents))
        grown = own_bytes() - empty
        group.tell_records(np.arange(agents), np.full(agents, 2, "f4").view(kind.dtype))
        fabric.drain(timeout=30)
        bodies.expect([sum(group.hosts.ask_all("energy"))], [3.0 * agents], "energy of all agents")
    return Sample({"time": [seconds], "memory": [grown / agents]}, f"{agents:,} agents, 2 workers, columns of 20 bytes")
