"""How long does an array of 8 MB take to another process, and back?

::

    this process   ── fill 8 MB of float64, ask ──▶  one worker, one agent: sums it
                   ◀── the sum, or the array ──────

Two cores. In "by value" and "there and back" the array is this process's own before and after; "from a loan" it is
filled where the worker sees it. Filling and summing are also timed alone, in turn with the trips, so that what the
way costs stands beside them. shared_memory by hand is the floor: one copy to where both see it, and a byte through a
pipe. Whoever receives read-only arrays copies them to answer with them. What would change our minds: a by-hand copy
that is twice as fast, or a loan that costs more than a message and the first look at its pages.
"""

from __future__ import annotations

from typing import Any

from bench import array_agents
from bench.arrays import ARRAY, BEYOND, SUM, TRIP, Job, run
from bench.harness import Case, Contestant, Metric
from bench.sample import Sample
from fabric import Fabric

METRICS = Metric(TRIP, "ms", higher_is_better=False), Metric(BEYOND, "µs", higher_is_better=False)
_ROUNDS = 3


def cases(quick: bool) -> list[Case]:
    """Return the three ways to hand it over."""
    trips = 20 if quick else 60
    return [
        _case("by value, its sum back", SUM, trips, quick),
        _case("by value, there and back", ARRAY, trips, quick),
        _loans("from a loan, its sum back", trips, quick),
    ]


def ours(job: dict[str, Any], *, loan: bool = False, agent: str = "Summer", spin_us: float | None = None) -> Sample:
    """Ask one agent; `spin_us` where it is not to be the usual."""
    wanted = Job(**job)
    settings = {} if spin_us is None else {"spin_us": spin_us}
    with Fabric(workers=1, **settings) as fabric:
        summer = fabric.spawn_batch(getattr(array_agents, agent), 1, back=wanted.back)[0]
        return run(summer.ask, wanted, fabric.loan if loan else None)


def _case(name: str, back: str, trips: int, quick: bool) -> Case:
    options = {"job": {"back": back, "trips": trips}}
    fewer = {"job": {"back": back, "trips": max(5, trips // 4)}}  # they take tens of milliseconds
    contestants = (
        Contestant("fabric", "bench.large:ours", options),
        Contestant("multiprocessing.Pipe, send", "bench.peers.pipe:arrays", fewer),
        Contestant("multiprocessing.Pipe, send_bytes", "bench.peers.pipe:array_bytes", fewer),
        Contestant("ProcessPoolExecutor", "bench.peers.executor:arrays", fewer),
        Contestant("multiprocessing.Pool", "bench.peers.pool:arrays", fewer),
        Contestant("joblib, memmapping", "bench.peers.joblib_memmap:arrays", fewer, "joblib"),
        Contestant("Ray", "bench.peers.ray_actors:arrays", options, "ray", slow=True, rounds=2, limit_s=90),
        Contestant("iceoryx2, bytes", "bench.peers.iceoryx_arrays:arrays", options, "iceoryx2"),
        Contestant("shared_memory by hand", "bench.peers.by_hand:arrays", options),
    )
    return Case(name, METRICS, contestants, rounds=1 if quick else _ROUNDS)


def _loans(name: str, trips: int, quick: bool) -> Case:
    options = {"job": {"back": SUM, "trips": trips}, "loan": True}
    contestants = (
        Contestant("fabric", "bench.large:ours", options),
        Contestant("fabric, spin_us=500", "bench.large:ours", {**options, "spin_us": 500}),
        Contestant("iceoryx2, a loaned sample", "bench.peers.iceoryx_arrays:arrays", options, "iceoryx2"),
        Contestant("shared_memory by hand", "bench.peers.by_hand:arrays", options),
    )
    return Case(name, METRICS, contestants, rounds=1 if quick else _ROUNDS)
