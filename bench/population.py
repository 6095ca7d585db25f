"""What changes with the number of agents, from 10 to 1,000,000?

::

    this process   ── ask_many, 100,000 messages to agents at random ──▶  one worker, 10 to 1,000,000 agents
                   ── ask, one at a time, agents at random ──────────▶    each answers with its number
                   ── spawn_batch ───────────────────────────────────▶

Two cores. Each reply must be the number of the agent that was asked, so one that went to another shows. xoscar's
actors are asked in batches, a call for each actor that has any. What would change our minds: anything that grows by
more than what the processor's caches explain (the agents' objects no longer fit) would say that something is searched,
or done for all.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Sequence

from bench import agents as agent_classes
from bench import bodies
from bench.harness import Case, Contestant, points
from bench.sample import Sample, timed, warm_up
from fabric import AgentGroup, Fabric

AGENTS = (10, 100, 1_000, 10_000, 100_000, 1_000_000)
MANY, ONE, SPAWNED = "ask_many", "ask, one at a time", "spawn_batch"
_UNITS = {MANY: "messages/s", ONE: "µs", SPAWNED: "µs an agent"}
_XOSCAR = AGENTS[:4]


def cases(quick: bool) -> list[Case]:
    """Return a case for each thing that is done with them."""
    agents = AGENTS[:-1] if quick else AGENTS
    return [_case(what, agents, quick) for what in _UNITS]


def ours(what: str, agents: Sequence[int], messages: int, *, agent: str = "Counter") -> Sample:
    """Spawn so many agents and ask them."""
    values = {}
    for count in agents:
        with Fabric(workers=1) as fabric:
            if what == SPAWNED:
                values[f"{count:,}"] = [_spawn(fabric, agent, count)]
                continue
            kind = getattr(agent_classes, agent)
            group = fabric.spawn_batch(kind, count, each={"start": range(count)})
            asked = random.Random(count).choices(range(count), k=messages)
            look = _ask_many if what == MANY else _ask
            values[f"{count:,}"] = [look(fabric, group, asked)]
    return Sample(values, f"{messages:,} messages")


def plain(agents: Sequence[int]) -> Sample:
    """Construct the same objects in a list."""
    values = {}
    for count in agents:
        seconds, found = timed(lambda count=count: [agent_classes.Counter() for _ in range(count)])
        bodies.expect([one.on_message(0) for one in found], [0] * count, "totals")
        values[f"{count:,}"] = [seconds * 1e6 / count]
    return Sample(values)


def _spawn(fabric: Fabric, agent: str, count: int) -> float:
    """Return the microseconds for an agent of a batch."""
    kind = getattr(agent_classes, agent)
    fabric.spawn_batch(kind, 100)
    seconds, group = timed(lambda: fabric.spawn_batch(kind, count))
    bodies.expect(group.ask_all(3), [3] * count, "first totals")
    return seconds * 1e6 / count


def _ask_many(fabric: Fabric, group: AgentGroup, asked: list[int]) -> float:
    """Return messages a second."""
    refs, sent = [group[place] for place in asked], [0] * len(asked)
    warm = warm_up(len(asked))
    fabric.ask_many(refs[:warm], sent[:warm])
    seconds, replies = timed(lambda: fabric.ask_many(refs, sent))
    bodies.expect(replies, asked, "numbers of the agents")
    return len(asked) / seconds


def _ask(fabric: Fabric, group: AgentGroup, asked: list[int]) -> float:
    """Return microseconds, the median."""
    refs = [group[place] for place in asked]
    taken, replies, clock = [], [], time.perf_counter_ns
    for ref in refs:
        start = clock()
        replies.append(ref.ask(0))
        taken.append(clock() - start)
    bodies.expect(replies, asked, "numbers of the agents")
    return statistics.median(taken) / 1e3


def _case(what: str, agents: Sequence[int], quick: bool) -> Case:
    messages = {MANY: 100_000, ONE: 4_000, SPAWNED: 0}[what] // (2 if quick else 1)
    options = {"what": what, "agents": agents, "messages": messages}
    contestants = [Contestant("fabric", "bench.population:ours", options, limit_s=180)]
    if what == SPAWNED:
        contestants.append(
            Contestant("plain objects here", "bench.population:plain", {"agents": agents}, peer=False, busy=1)
        )
    if what != ONE:
        few = {"what": what, "agents": _XOSCAR[:3] if what == SPAWNED else _XOSCAR, "messages": messages}
        contestants.append(
            Contestant("xoscar", "bench.peers.xoscar_actors:population", few, "xoscar", True, limit_s=180)
        )
    metrics = points("agents", agents, _UNITS[what], higher_is_better=what == MANY)
    return Case(what, metrics, tuple(contestants), 1 if quick else 3)
