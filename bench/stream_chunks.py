"""How many bytes a second does a stream carry, against the size of its chunks?

::

    this process  ◀── for item in ref.ask_stream(...) ── items of 64 B to 4 MiB ── a generator in one worker
                  ── ref.send_stream(chunks) ──────────▶ an agent that counts the bytes

Two cores; the trials are those of bench.streams, where rates are in items, and windows are compared. Every item's
length and number is looked at. The peer is a Pipe that pickles them. What would change our minds about the 1 MiB in
which send_stream reads files: another size that carries a fifth more; and any size at which a Pipe carries more.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench import streams
from bench.arrays import name
from bench.harness import Case, Contestant, Metric
from bench.sample import Sample

SIZES = tuple(64 * 4**power for power in range(9))
_FEWEST = 20


def cases(quick: bool) -> list[Case]:
    """Return a case for each direction."""
    return [_case(direction, quick) for direction in ("yielded", "sent")]


def carried(way: str, most: int, most_bytes: int, *, sizes: Sequence[int] = SIZES) -> Sample:
    """Stream as bench.streams does in that way, for each size; return MB/s."""
    stream = getattr(streams, way)
    values = {}
    for size in sizes:
        items = max(_FEWEST, min(most, most_bytes // size))
        values[name(size)] = [rate * size / 1e6 for rate in stream(items, size).values[streams.ITEMS.name]]
    return Sample(values, f"{_FEWEST} to {most:,} items of a size")


def _case(direction: str, quick: bool) -> Case:
    options = {"most": 10_000 if quick else 50_000, "most_bytes": (16 if quick else 128) << 20}
    call = "bench.stream_chunks:carried"
    contestants = (
        Contestant("fabric", call, options | {"way": direction}, limit_s=120),
        Contestant("Pipe, pickled", call, options | {"way": f"{direction}_by_pipe"}, limit_s=120),
    )
    metrics = tuple(Metric(name(size), "MB/s", size=size) for size in SIZES)
    return Case(direction, metrics, contestants, 1 if quick else 3)
