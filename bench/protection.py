"""What do the protections against crashes cost an `ask_many`?

::

    this process ── ask_many ──▶ fabric with its protections      one worker, 1,000 agents
                 ── ask_many ──▶ fabric without them              the same, see bench.unprotected
                    in turn, at least 30 times each: A B B A A B ...

Both run in this process at the same time, the one that is not asked sleeps. The cost is 1 less the ratio of the
medians of their throughput, in one run: between runs the machine varies by more than that. bench.unprotected says
what is off and what is not. What would change our minds: over 5 %, which would call for cheaper bookkeeping.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from typing import Any

from bench import agents as agent_classes
from bench import bodies, unprotected
from bench.harness import Case, Contestant, Metric
from bench.sample import Sample, timed
from fabric import Fabric, launch, switchboard

COST = Metric("cost", "% of throughput", higher_is_better=False)
AGENTS = 1_000


def cases(quick: bool) -> list[Case]:
    """Return a case per kind of body."""
    alternations = 30 if quick else 60
    return [
        Case(
            name,
            (COST,),
            (Contestant("fabric", "bench.protection:ours", {"kind": kind, "alternations": alternations}),),
            rounds=1 if quick else 3,
        )
        for name, kind in bodies.KINDS.items()
    ]


def ours(kind: str, alternations: int, messages: int = 20_000, *, agents: int = AGENTS, agent: str = "Echo") -> Sample:
    """Ask both fabrics in turn; return by how much the protected one is slower, in percent."""
    sent = bodies.make(kind, messages)
    with _fabric(careless=False) as guarded, _fabric(careless=True) as careless:
        asked = {fabric: _refs(fabric, agent, agents, messages) for fabric in (guarded, careless)}
        seconds: dict[Fabric, list[float]] = {guarded: [], careless: []}
        for turn in range(-2, alternations):  # two to warm up
            for fabric in (guarded, careless) if turn % 2 else (careless, guarded):
                switchboard.Many = unprotected.Heedless if fabric is careless else _GUARDED
                took, replies = timed(lambda fabric=fabric: fabric.ask_many(asked[fabric], sent))
                bodies.expect(replies, sent, "replies")
                if turn >= 0:
                    seconds[fabric].append(took)
    slow, fast = (statistics.median(seconds[fabric]) for fabric in (guarded, careless))
    note = f"{messages / slow / 1e6:.2f} M/s with, {messages / fast / 1e6:.2f} M/s without, {alternations} times each"
    return Sample({COST.name: [100 * (1 - fast / slow)]}, note)


_GUARDED: Any = switchboard.Many


@contextmanager
def _fabric(careless: bool) -> Iterator[Fabric]:
    usual = launch._BOOTSTRAP
    launch._BOOTSTRAP = unprotected.BOOTSTRAP if careless else usual
    try:
        fabric = Fabric(workers=1)
    finally:
        launch._BOOTSTRAP = usual
    with fabric:
        yield fabric


def _refs(fabric: Fabric, agent: str, agents: int, messages: int) -> list[Any]:
    group = fabric.spawn_batch(getattr(agent_classes, agent), agents)
    return list(islice(cycle(list(group)), messages))
