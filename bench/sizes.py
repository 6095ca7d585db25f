"""At which sizes is an array slower through us than through a Pipe?

::

    this process   ── ask(array), 64 B to 64 MiB ──▶  one worker, one agent: sums it
                   ◀── the sum, or the array ───────

Two cores, one array at a time; the time from the filled array to the checked answer. A Pipe carries arrays (send and
recv: they are pickled) or their bytes (send_bytes and recv_bytes: nothing is). What would change our minds: any size
at which a Pipe is faster.
"""

from __future__ import annotations

from bench.arrays import ARRAY, SUM, name
from bench.harness import Case, Contestant, Metric

SIZES = tuple(64 * 4**power for power in range(11))


def cases(quick: bool) -> list[Case]:
    """Return the two ways to answer."""
    return [_case("its sum back", SUM, quick), _case("there and back", ARRAY, quick)]


def _case(shown: str, back: str, quick: bool) -> Case:
    options = {"job": {"back": back, "trips": 100 if quick else 1_000, "sizes": SIZES}}
    contestants = (
        Contestant("fabric", "bench.large:ours", options, limit_s=120),
        Contestant("Pipe, send", "bench.peers.pipe:arrays", options, limit_s=120),
        Contestant("Pipe, send_bytes", "bench.peers.pipe:array_bytes", options, limit_s=120),
    )
    metrics = tuple(Metric(name(size), "µs", higher_is_better=False, size=size) for size in SIZES)
    return Case(shown, metrics, contestants, rounds=1 if quick else 3)
