"""From which size on should a body go through the arena, and not through a lane?

::

    this process   ── bodies ──▶  one worker: a Reader answers each with the sum of its words       "to a worker"
                   ── indices ─▶  one worker: a Source answers each with a body, summed here       "to us"

Two cores; per message, one at a time (ask) and many at once (ask_many, about 4 MiB in a call). "arena" sends all
bodies of these sizes through it (arena_threshold=4096), "lane" has none (arena_bytes=0). Each body is read wholly where
it arrives, so that what its pages cost to look at counts. What would change our minds about
FabricConfig.arena_threshold: a crossover elsewhere than there, in most of the cases.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from bench import array_agents
from bench.array_agents import VARIANTS, variants, words
from bench.arrays import name
from bench.bodies import expect
from bench.harness import Case, Contestant, Metric
from bench.sample import Sample
from fabric import AgentRef, Fabric, FabricConfig

SIZES = tuple(4096 * 2**power for power in range(7))
CALL_BYTES = 4 << 20  # half a lane: no call waits for room in it
_MOST_IN_A_CALL = 256
_WARM = 3  # calls at least before the clock: memory is touched for the first time, on both sides
TO_WORKER, TO_US = "to a worker", "to us"


def cases(quick: bool) -> list[Case]:
    """Return a case per form of body, direction and pace."""
    return [
        _case(form, way, many, quick)
        for form in ("bytes", "arrays")
        for way in (TO_WORKER, TO_US)
        for many in (False, True)
    ]


def ours(
    form: str, way: str, many: bool, messages: int, sizes: Sequence[int], *, arena: bool = True, agent: str = ""
) -> Sample:
    """Send bodies of each size; return microseconds a message by the name of the size."""
    config = FabricConfig(arena_threshold=4096) if arena else FabricConfig(arena_bytes=0)
    values = {}
    with Fabric(workers=1, config=config) as fabric:
        for size in sizes:
            sent = variants(form, size)
            due = [words(body) for body in sent]
            if way == TO_WORKER:
                ref = fabric.spawn_batch(getattr(array_agents, agent or "Reader"), 1)[0]
            else:
                ref = fabric.spawn_batch(array_agents.Source, 1, form=form, size=size)[0]
                sent = list(range(VARIANTS))
            in_a_call = min(_MOST_IN_A_CALL, CALL_BYTES // size) if many else 1
            calls = max(1, messages // in_a_call)
            pairs = list(zip(sent, due, strict=True))
            warm = max(_WARM, calls // 10)
            times = [_call(fabric, ref, pairs, range(at, at + in_a_call)) for at in range(warm + calls)]
            values[name(size)] = [seconds * 1e6 / in_a_call for seconds in times[-calls:]]
    return Sample(values)


def _call(fabric: Fabric, ref: AgentRef, pairs: Sequence[tuple[object, int]], places: range) -> float:
    """Ask what lies at these places of the pairs, going round; return the seconds until all that came was read.

    And let go of: what that costs is a cost of the way. The second of a pair is the sum that is due.
    """
    asked, due = zip(*(pairs[place % len(pairs)] for place in places), strict=True)
    refs = [ref] * len(asked)
    start = time.perf_counter()
    replies = [ref.ask(asked[0])] if len(asked) == 1 else fabric.ask_many(refs, asked)
    found = [reply if isinstance(reply, int) else words(reply) for reply in replies]
    del replies
    seconds = time.perf_counter() - start
    expect(found, due, "sums")
    return seconds


def _case(form: str, way: str, many: bool, quick: bool) -> Case:
    options = {"form": form, "way": way, "many": many, "messages": 300 if quick else 2_000, "sizes": SIZES}
    contestants = (
        Contestant("arena", "bench.threshold:ours", options),
        Contestant("lane", "bench.threshold:ours", options | {"arena": False}, peer=False),
    )
    metrics = tuple(Metric(name(size), "µs a message", higher_is_better=False, size=size) for size in SIZES)
    shown = f"{form} {way}, {'many at once' if many else 'one at a time'}"
    return Case(shown, metrics, contestants, rounds=1 if quick else 3)
