"""How many messages a second can be told, and handled?

::

    this process   ── tell_many(refs, bodies); drain() ──▶  one worker, 1,000 agents
                                                            each keeps what it is told

Two cores. "handled" is timed from the first message until drain() returns, and a peer's until its consumer
has the last one; "accepted" ends when the sending call returns. What each consumer kept is then compared, by
count and by a digest in order. What would change our minds: a general-purpose transport (pyzmq) that is
faster would say that the ring is not worth its code.
"""

from __future__ import annotations

import time
from itertools import cycle, islice

from bench import agents as agent_classes
from bench import bodies
from bench.batches import mean_batch
from bench.harness import Case, Contestant, Metric
from bench.peers import stream
from bench.sample import Sample, warm_up
from fabric import AgentRef, Fabric

AGENTS = 1_000
HANDLED, ACCEPTED = Metric("handled", "messages/s"), Metric("accepted", "messages/s")


def cases(quick: bool) -> list[Case]:
    """Return the one case."""
    messages = 100_000 if quick else 500_000

    def contestant(shown: str, call: str, needs: str = "") -> Contestant:
        return Contestant(shown, call, {"messages": messages}, needs)

    return [
        Case(
            "64-byte bytes",
            (HANDLED, ACCEPTED),
            (
                contestant("fabric", "bench.tell_many:ours"),
                contestant("multiprocessing.Queue", "bench.peers.mp_queue:tell"),
                contestant("multiprocessing.Pipe", "bench.peers.pipe:tell"),
                contestant("pyzmq PUSH/PULL over ipc", "bench.peers.zmq_ipc:tell", "zmq"),
                contestant("faster-fifo", "bench.peers.fifo:tell", "faster_fifo"),
                contestant("iceoryx2", "bench.peers.iceoryx:tell", "iceoryx2"),
            ),
            rounds=2 if quick else 5,
        )
    ]


def ours(messages: int, *, agents: int = AGENTS, agent: str = "Sink", size: int = bodies.SIZE) -> Sample:
    """Tell the agents in turn; then have an auditor on the same worker count and digest what they kept."""
    sent = bodies.sized(messages, size)
    with Fabric(workers=1) as fabric:
        group = list(fabric.spawn_batch(getattr(agent_classes, agent), agents, each={"index": range(agents)}))
        auditor = fabric.spawn_batch(agent_classes.Auditor, 1)[0]
        refs = list(islice(cycle(group), messages))
        _tell(fabric, auditor, refs[: warm_up(messages)], sent[: warm_up(messages)], agents)
        before = fabric.statistics()
        accepted, handled = _tell(fabric, auditor, refs, sent, agents)
        batch = mean_batch(before, fabric.statistics())
    values = {"handled": [messages / handled], "accepted": [messages / accepted]}
    return Sample(values, f"{messages:,} messages, {agents:,} agents, mean batch {batch:.0f}")


def _tell(
    fabric: Fabric, auditor: AgentRef, refs: list[AgentRef], sent: list[bytes], agents: int
) -> tuple[float, float]:
    start = time.perf_counter()
    fabric.tell_many(refs, sent)
    accepted = time.perf_counter() - start
    fabric.drain(timeout=30)
    handled = time.perf_counter() - start
    by_agent = [body for place in range(agents) for body in sent[place::agents]]
    stream.check(tuple(auditor.ask(None)), by_agent)
    return accepted, handled
