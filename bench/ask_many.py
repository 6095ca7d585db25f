"""How many questions a second does one call of `ask_many` get answered?

::

    this process   ── ask_many(refs, bodies) ──▶  one worker, 1,000 agents
                   ◀──── replies, in order ─────  each answers with the body

Two cores. Only the call is timed; then every reply is compared with its body. What would change our minds: a
peer within a factor of two, which would say that batches and the ring buy little, or a rate for 64-byte bytes
near that for dicts, which would say that the way costs more than the encoding.
"""

from __future__ import annotations

from itertools import cycle, islice

from bench import agents as agent_classes
from bench import bodies
from bench.batches import mean_batch
from bench.harness import Case, Contestant, Metric
from bench.sample import Sample, timed, warm_up
from fabric import Fabric, FabricConfig

AGENTS = 1_000
REPLIES = Metric("replies", "messages/s")
_MESSAGES = {"dicts": (100_000, 300_000), "kilobytes": (50_000, 100_000)}  # quick, and not; others: more


def cases(quick: bool) -> list[Case]:
    """Return a case per kind of body."""
    kinds = bodies.KINDS | {"1 kB bytes": "kilobytes"}
    return [_case(name, kind, quick) for name, kind in kinds.items()]


def ours(
    kind: str,
    messages: int,
    *,
    agents: int = AGENTS,
    agent: str = "Echo",
    workers: int = 1,
    call_size: int | None = None,
    batch_size: int = 256,
) -> Sample:
    """Ask the agents in turn, `call_size` messages in each call of ask_many (None: all in one)."""
    with Fabric(workers=workers, config=FabricConfig(batch_size=batch_size)) as fabric:
        group = list(fabric.spawn_batch(getattr(agent_classes, agent), agents))
        refs, sent = list(islice(cycle(group), messages)), bodies.make(kind, messages)
        warm, size = warm_up(messages), call_size or messages
        bodies.expect(fabric.ask_many(refs[:warm], sent[:warm]), sent[:warm], "replies of the warm-up")
        calls = [(refs[at : at + size], sent[at : at + size]) for at in range(0, messages, size)]
        before = fabric.statistics()
        seconds, replies = timed(lambda: [fabric.ask_many(*call) for call in calls])
        batch = mean_batch(before, fabric.statistics())
    bodies.expect([reply for part in replies for reply in part], sent, "replies")
    note = f"{messages:,} messages, {agents:,} agents, mean batch {batch:.0f}"
    return Sample({"replies": [messages / seconds]}, note)


def _case(name: str, kind: str, quick: bool) -> Case:
    def peer(shown: str, call: str, messages: int, **more: object) -> Contestant:
        count = messages // 10 if quick else messages
        return Contestant(shown, call, {"kind": kind, "messages": count}, **more)  # type: ignore[arg-type]

    ray = {"needs": "ray", "slow": True, "rounds": 2, "limit_s": 90}
    messages = _MESSAGES.get(kind, (200_000, 300_000))[not quick]
    xoscar = {"kind": kind, "messages": 100_000, "agents": AGENTS}
    return Case(
        name,
        (REPLIES,),
        (
            Contestant("fabric", "bench.ask_many:ours", {"kind": kind, "messages": messages}),
            peer("ProcessPoolExecutor.submit", "bench.peers.executor:ask", 20_000),
            peer("multiprocessing.Pool.map", "bench.peers.pool:ask_map", 60_000),
            peer("multiprocessing.Pool.imap_unordered", "bench.peers.pool:ask_unordered", 40_000),
            peer("Ray actor calls", "bench.peers.ray_actors:ask", 6_000, **ray),
            Contestant("xoscar batch", "bench.peers.xoscar_actors:ask", xoscar, needs="xoscar", slow=True, rounds=3),
        ),
        rounds=2 if quick else 5,
    )
