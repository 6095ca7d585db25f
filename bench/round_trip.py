"""How long does one question take, there and back?

::

    this process  ── ask(64 bytes) ──▶  one worker, one agent
                  ◀──── the body ────   answers with the body

Three settings: one question after the other (busy); each after 300 µs of sleep, so that both sides have gone
to sleep; and both processes on one core, where spinning is a waste. Each reply is compared with its body,
outside the clock. What would change our minds: a pipe that is faster in any of the three would say that our
way of waiting is wrong there.
"""

from __future__ import annotations

from typing import Any

from bench import agents as agent_classes
from bench.harness import Case, Contestant, Metric
from bench.latency import METRIC, ping
from bench.sample import Sample
from fabric import Fabric

TRIP = Metric(METRIC, "µs", higher_is_better=False)


def cases(quick: bool) -> list[Case]:
    """Return the three settings."""
    share = 5 if quick else 1
    return [
        _case("busy", quick, trips=20_000 // share, silence_us=0),
        _case("after 300 µs of silence", quick, trips=2_000 // share, silence_us=300),
        _case("on one core", quick, cpus=1, trips=5_000 // share, silence_us=0),
    ]


def ours(trips: int, silence_us: float, *, agent: str = "Echo") -> Sample:
    """Ask one agent."""
    with Fabric(workers=1) as fabric:
        return ping(fabric.spawn_batch(getattr(agent_classes, agent), 1)[0].ask, trips, silence_us)


def _case(name: str, quick: bool, *, cpus: int | None = None, **options: Any) -> Case:
    spinning, sleeping = options | {"spin": True}, options | {"spin": False}
    contestants = [
        Contestant("fabric", "bench.round_trip:ours", options),
        Contestant("multiprocessing.Pipe", "bench.peers.pipe:ask", options),
        Contestant("multiprocessing.Queue", "bench.peers.mp_queue:ask", options),
        Contestant("pyzmq REQ/REP over ipc", "bench.peers.zmq_ipc:ask", options, "zmq"),
        Contestant("iceoryx2, sleeping on events", "bench.peers.iceoryx:ask", sleeping, "iceoryx2"),
    ]
    if cpus is None:  # on one core a spinning pair only waits for the scheduler
        contestants.append(Contestant("iceoryx2, spinning", "bench.peers.iceoryx:ask", spinning, "iceoryx2"))
    return Case(name, (TRIP,), tuple(contestants), rounds=1 if quick else 5, cpus=cpus)
