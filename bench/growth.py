"""What does memory grow by while messages of 1 MB come and go?

::

    this process   ── half of them: arrays, 16 in a call ──▶  one worker: sums each
                   ◀── the other half: arrays ──────────────  one worker: a Source

Two cores. Before and after, a tenth of the messages having gone ahead: the anonymous memory of all processes (heaps,
and pages of the segment that a receiver has written to and so has copies of) and what the segment itself has in
memory. What is asked for is 0; what is allowed is 4 MB, because Python takes memory in pieces of 1 MiB and up in
each process, and none of them is a leak. A payload that is not given back is 1 MB, so that 4 of 10,000 would show, as
would 400 bytes left by each message. What would change our minds: growth that is more for more messages.
"""

from __future__ import annotations

from bench import array_agents
from bench.array_agents import variants, words
from bench.bodies import expect
from bench.harness import Case, Contestant, Metric
from bench.processes import anonymous_bytes, segment_bytes
from bench.sample import Sample, warm_up
from fabric import AgentRef, Fabric

GROWTH = Metric("growth", "MB", higher_is_better=False)
BODY_BYTES = 1_000_000
IN_A_CALL = 16


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
        source = fabric.spawn_batch(array_agents.Source, 1, kind="arrays", size=BODY_BYTES)[0]
        _exchange(fabric, reader, source, warm_up(messages))
        own, segment = anonymous_bytes(), segment_bytes()
        _exchange(fabric, reader, source, messages)
        own, segment = anonymous_bytes() - own, segment_bytes() - segment
    note = f"processes {own / 1e6:+.2f} MB, segment {segment / 1e6:+.2f} MB"
    return Sample({GROWTH.name: [max(0.0, (own + segment) / 1e6)]}, note)


def _exchange(fabric: Fabric, reader: AgentRef, source: AgentRef, messages: int) -> None:
    """Send half of the messages and have the other half sent to us; check each by its sum."""
    bodies = variants("arrays", BODY_BYTES)
    sums = [words(body) for body in bodies]
    there = [bodies[index % len(bodies)] for index in range(IN_A_CALL)]
    due = [sums[index % len(bodies)] for index in range(IN_A_CALL)]
    for _ in range(max(1, messages // (2 * IN_A_CALL))):
        expect(fabric.ask_many([reader] * IN_A_CALL, there), due, "sums from the worker")
        came = fabric.ask_many([source] * IN_A_CALL, range(IN_A_CALL))
        expect([words(body) for body in came], due, "arrays from the worker")
        del came
