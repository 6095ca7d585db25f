"""What does memory grow by while messages of 1 MB come and go?

::

    this process   ── half of them: arrays, 16 in a call ──▶  one worker: sums each
                   ◀── the other half: arrays ──────────────  one worker: a Source

Two cores. Before and after: the anonymous memory of all processes (heaps, and copies of those pages of the segment that
a receiver has written to) and what the segment itself has in memory. Ahead of that go a tenth of the messages, in
calls twice as large, so that no later call has more under way, and small bodies that turn the lanes once: a ring
touches all of its pages sooner or later, and then no more. What is asked for is 0; what is allowed is 4 MB, because
Python takes memory in pieces of 1 MiB and more in each process, and none of them is a leak. A payload that is not
given back is 1 MB, so that 5 of 10,000 show, as do 400 bytes left by each message. What would change our minds:
growth that is more for more messages.
"""

from __future__ import annotations

from bench import array_agents
from bench.agents import Echo
from bench.array_agents import variants, words
from bench.bodies import expect
from bench.harness import Case, Contestant, Metric
from bench.processes import anonymous_bytes, segment_bytes
from bench.sample import Sample, warm_up
from fabric import AgentRef, Fabric, FabricConfig

GROWTH = Metric("growth", "MB", higher_is_better=False)
BODY_BYTES = 1_000_000
IN_A_CALL = 16
_WARM = 1_000  # fewer do not yet have touched all the blocks that ever are in use at once
_LANE_BODY = 16 << 10  # less than arena_threshold


def cases(quick: bool) -> list[Case]:
    """Return the short case, and the long one unless it is to be quick."""
    counts = [10_000] if quick else [10_000, 100_000]
    return [
        Case(
            f"{count:,} messages of 1 MB",
            (GROWTH,),
            (Contestant("fabric", "bench.growth:ours", {"messages": count}, limit_s=300),),
            rounds=1,
        )
        for count in counts
    ]


def ours(messages: int, *, agent: str = "Reader") -> Sample:
    """Send and fetch the messages, and look at the memory before and after."""
    with Fabric(workers=1) as fabric:
        reader = fabric.spawn_batch(getattr(array_agents, agent), 1)[0]
        source = fabric.spawn_batch(array_agents.Source, 1, form="arrays", size=BODY_BYTES)[0]
        _turn_lanes(fabric)
        _exchange(fabric, (reader, source), max(_WARM, warm_up(messages)), 2 * IN_A_CALL)
        own, segment = anonymous_bytes(), segment_bytes()
        _exchange(fabric, (reader, source), messages, IN_A_CALL)
        own, segment = anonymous_bytes() - own, segment_bytes() - segment
    note = f"processes {own / 1e6:+.2f} MB, segment {segment / 1e6:+.2f} MB"
    return Sample({GROWTH.name: [max(0.0, (own + segment) / 1e6)]}, note)


def _turn_lanes(fabric: Fabric) -> None:
    """Send both lanes full, and more, of what needs no arena."""
    echo = fabric.spawn_batch(Echo, 1)[0]
    sent = [bytes([index % 251]) * _LANE_BODY for index in range(2 * FabricConfig().lane_bytes // _LANE_BODY)]
    expect(fabric.ask_many([echo] * len(sent), sent), sent, "small bodies")


def _exchange(fabric: Fabric, refs: tuple[AgentRef, AgentRef], messages: int, in_a_call: int) -> None:
    """Send half of the messages to a Reader and have a Source send us the other half; check each by its sum."""
    reader, source = refs
    bodies = variants("arrays", BODY_BYTES)
    sums = [words(body) for body in bodies]
    there = [bodies[index % len(bodies)] for index in range(in_a_call)]
    due = [sums[index % len(bodies)] for index in range(in_a_call)]
    for _ in range(max(1, messages // (2 * in_a_call))):
        expect(fabric.ask_many([reader] * in_a_call, there), due, "sums from the worker")
        came = fabric.ask_many([source] * in_a_call, range(in_a_call))
        expect([words(body) for body in came], due, "arrays from the worker")
        del came
