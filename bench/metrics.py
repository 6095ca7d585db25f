"""What do metrics cost: an `ask_many`, whoever reads 64 workers' figures, and an idle sampler?

::

    this process ── ask_many ──▶ fabric      metrics on, off, off, on, ... by one word of the segment,
                                             at least 30 times each: 1 less the ratio of the medians
    this process ── reads ──▶ segment of 64 workers, each with full histograms of four classes; nobody runs there
    this process: a sampler of two workers at 1 s, and nothing else for 10 s: its share of a CPU

What would change our minds: over 2 % for on against off, which would call for sampling; over 1 ms for 64 workers;
over 0.1 % of a CPU for the sampler.
"""

from __future__ import annotations

import os
import statistics
import time
from array import array
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import cycle, islice

from bench import agents as agent_classes
from bench import bodies
from bench.harness import Case, Contestant, Metric
from bench.sample import Sample, WrongAnswerError, timed
from fabric import Fabric, FabricConfig, Statistics, counters
from fabric.histogram import HISTOGRAM_BYTES, SECONDS, TOP, Histogram
from fabric.layout import CLASSES
from fabric.meters import Board, Meters
from fabric.segment import Segment
from fabric.statistics import Known, take

COST = Metric("cost", "% of throughput", higher_is_better=False)
TIME = Metric("time", "ms", higher_is_better=False)
CPU = Metric("CPU", "% of a core", higher_is_better=False)
WORKERS, KINDS, EACH = 64, 4, 1_000  # blocks, classes of agents, values in each histogram


def cases(quick: bool) -> list[Case]:
    """Return the three cases."""
    alternations = {"alternations": 30 if quick else 60}
    looks, seconds = {"looks": 100 if quick else 500}, {"seconds": 3.0 if quick else 10.0}
    rounds = 1 if quick else 3
    return [
        Case("ask_many, on against off", (COST,), (_ours("alternate", alternations),), rounds),
        Case(f"statistics of {WORKERS} workers", (TIME,), (_ours("look", looks),), rounds),
        Case("sampler at 1 s, idle", (CPU,), (_ours("idle", seconds),), rounds),
    ]


def _ours(function: str, options: dict[str, float]) -> Contestant:
    return Contestant("fabric", f"bench.metrics:{function}", options)


def alternate(alternations: int, messages: int = 20_000, *, agents: int = 1_000, agent: str = "Echo") -> Sample:
    """Ask with metrics on and off in turn; return by how much they slow it down, in percent."""
    sent = bodies.make("bytes", messages)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    with Fabric(workers=1) as fabric:
        asked = list(islice(cycle(list(fabric.spawn_batch(getattr(agent_classes, agent), agents))), messages))
        counted = 0
        for turn in range(-2, alternations):  # two to warm up
            for on in (True, False) if turn % 2 else (False, True):
                fabric.metrics = on
                took, replies = timed(lambda: fabric.ask_many(asked, sent))
                bodies.expect(replies, sent, "replies")
                counted += messages * on
                if turn >= 0:
                    seconds[on].append(took)
        if fabric.statistics().messages != counted:
            raise WrongAnswerError(f"{fabric.statistics().messages:,} messages counted, {counted:,} sent meanwhile")
    on, off = statistics.median(seconds[True]), statistics.median(seconds[False])
    note = f"{messages / on / 1e6:.2f} M/s on, {messages / off / 1e6:.2f} M/s off, {alternations} times each"
    return Sample({COST.name: [100 * (1 - off / on)]}, note)


def look(looks: int, workers: int = WORKERS) -> Sample:
    """Read the figures of so many workers that nobody runs, and check them."""
    with _prepared(workers) as meters:
        known = Known(range(1, workers + 1), [], lambda slot: 10, lambda slot: (0, 1, 0), lambda slot: slot, {})
        times = []
        for _ in range(looks):
            took, found = timed(lambda: take(meters, known))
            times.append(1e3 * took)
        _check(found, workers)
    return Sample({TIME.name: times})


def idle(seconds: float, agents: int = 1_000, *, agent: str = "Echo") -> Sample:
    """Sample an idle fabric of two workers each second; return the share of a CPU beyond that without a sampler."""
    with Fabric(workers=2) as fabric:
        fabric.spawn_batch(getattr(agent_classes, agent), agents).ask_all(b"")
        fabric.sampler.sample()  # which imports psutil, once
        before = _cpu_of(seconds)
        fabric.sampler.start(1.0)
        during = _cpu_of(seconds)
        taken = len(fabric.sampler.history) - 1
        if not seconds - 2 <= taken <= seconds + 2:
            raise WrongAnswerError(f"{taken} samples in {seconds:g} s")
    return Sample({CPU.name: [max(0.0, 100 * (during - before) / seconds)]}, f"{taken} samples")


def _cpu_of(seconds: float) -> float:
    """CPU seconds of this process while it waits so long."""
    start = time.process_time()
    time.sleep(seconds)
    return time.process_time() - start


@contextmanager
def _prepared(workers: int) -> Iterator[Meters]:
    with closing(Segment.create(FabricConfig(max_agents=1_000), workers)) as segment:
        board = Board(segment)
        board.measure(True)
        for number in range(1, KINDS + 1):
            kind = type(f"Kind{number}", (), {})
            board.classify(kind, array("Q", [1 << 32 | number]))
        values = Histogram.of([1e-6 * i for i in range(1, EACH + 1)], SECONDS)
        raw = array("Q", [*values._raw, TOP - 1_000, *values._added])  # as it lies in a segment
        for slot in range(1, workers + 1):
            _fill(Segment.attach(os.dup(segment.descriptor), slot), raw)
        yield Meters(segment)
        board.close()


def _fill(block: Segment, raw: array[int]) -> None:
    """Write what a busy worker would have written."""
    words = block.counters()
    words[counters.STARTS], words[counters.MESSAGES] = 1, KINDS * EACH
    size = 2 * CLASSES + (3 + 1 + KINDS) * HISTOGRAM_BYTES // 8
    measures = block._own_words(block.layout.metrics.measures, size)
    measures[1 : 1 + KINDS] = memoryview(array("Q", [EACH] * KINDS))
    for number in (0, 1, *range(4, 4 + KINDS)):  # not the round trip, nor class 0
        start = 2 * CLASSES + number * HISTOGRAM_BYTES // 8
        measures[start : start + HISTOGRAM_BYTES // 8] = memoryview(raw)
    block.close()


def _check(found: Statistics, workers: int) -> None:
    counts = (found.messages, found.lane_time.count, found.handler_time.count, len(found.classes))
    wanted = (workers * KINDS * EACH, workers * EACH, workers * KINDS * EACH, KINDS)
    if counts != wanted:
        raise WrongAnswerError(f"messages, lane times, handler times, classes are {counts}, not {wanted}")
