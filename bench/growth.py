"""What does memory grow by while messages of 1 MB come and go?

::

    this process   ── half of them: arrays, 16 in a call ──▶  one worker: sums each
                   ◀── the other half: arrays ──────────────  one worker: a Source

Two cores. Before and after: the anonymous memory of all processes (heaps, and copies of those pages of the segment that
a receiver has written to) and what the segment itself has in memory. Free blocks keep their memory, so ahead of both
looks goes a burst: one message of 64 arrays, there and back, with all given back before it. No call in between has more
under way, and a block that was kept is missed by the second burst. Ahead of the first go small bodies that turn the
lanes once: a ring touches all of its pages sooner or later, and then no more. What is asked for is 0; what is allowed
is 4 MB, because Python takes memory in pieces of 1 MiB and more in each process, and none of them is a leak. A payload
that is not given back is 1 MB, so that 5 of 10,000 show, as do 400 bytes left by each message. What would change our
minds: growth that is more for more messages.
"""

from __future__ import annotations

from bench import array_agents
from bench.agents import Echo
from bench.array_agents import VARIANTS, variants, words
from bench.bodies import expect
from bench.harness import Case, Contestant, Metric
from bench.processes import anonymous_bytes, segment_bytes
from bench.sample import Sample
from fabric import AgentRef, Fabric, FabricConfig

GROWTH = Metric("growth", "MB", higher_is_better=False)
BODY_BYTES = 1_000_000
IN_A_CALL = 16
_AT_ONCE = 4 * IN_A_CALL
_SETTLES = 5  # small messages: once they are answered, those before them are committed, and so given back
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
        echo = fabric.spawn_batch(Echo, 1)[0]
        reader = fabric.spawn_batch(getattr(array_agents, agent), 1)[0]
        source = fabric.spawn_batch(array_agents.Source, 1, form="arrays", size=BODY_BYTES)[0]
        exchange = _Exchange(fabric, reader, source)
        exchange.calls(IN_A_CALL)
        _turn_lanes(fabric, echo)
        _burst(echo)
        own, segment = anonymous_bytes(), segment_bytes()
        for _ in range(max(1, messages // (2 * IN_A_CALL))):
            exchange.calls(IN_A_CALL)
        _burst(echo)
        own, segment = anonymous_bytes() - own, segment_bytes() - segment
    note = f"processes {own / 1e6:+.2f} MB, segment {segment / 1e6:+.2f} MB"
    return Sample({GROWTH.name: [max(0.0, (own + segment) / 1e6)]}, note)


class _Exchange:
    """Sends arrays to a Reader, has a Source send as many, and checks each by its sum."""

    def __init__(self, fabric: Fabric, reader: AgentRef, source: AgentRef) -> None:
        self._fabric, self._reader, self._source = fabric, reader, source
        self._bodies = variants("arrays", BODY_BYTES)
        self._sums = [words(body) for body in self._bodies]

    def calls(self, count: int) -> None:
        """Make a call each way, of `count` arrays."""
        there, due = ([some[index % VARIANTS] for index in range(count)] for some in (self._bodies, self._sums))
        expect(self._fabric.ask_many([self._reader] * count, there), due, "sums from the worker")
        came = self._fabric.ask_many([self._source] * count, range(count))
        expect([words(body) for body in came], due, "arrays from the worker")


def _burst(echo: AgentRef) -> None:
    """Have as many blocks in use at once as ever will be, on both sides. A call of many messages might not have."""
    for number in range(_SETTLES):
        expect([echo.ask(number)], [number], "small bodies")
    sent = [body.copy() for body in variants("arrays", BODY_BYTES) * (_AT_ONCE // VARIANTS)]
    came = echo.ask(sent)
    expect(list(map(words, came)), list(map(words, sent)), "arrays of one message")


def _turn_lanes(fabric: Fabric, echo: AgentRef) -> None:
    """Send both lanes full, and more, of what needs no arena."""
    sent = [bytes([index % 251]) * _LANE_BODY for index in range(2 * FabricConfig().lane_bytes // _LANE_BODY)]
    expect(fabric.ask_many([echo] * len(sent), sent), sent, "small bodies")
