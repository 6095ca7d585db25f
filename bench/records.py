"""How many 64-byte records a second can be told to array agents, and handled?

::

    this process   ── tell_records(ids, records); drain() ──▶  one worker, 1,000 array agents in one object
                                                               counts and adds up what each is told

Two cores, ids at random. "handled" is timed from the first record until drain() returns, a peer's until its consumer
has the last one; "accepted" ends when the sending call returns; "asked" is ask_records, until the replies are there.
Counts, sums and order are then compared. The peers: a Pipe that pickles the same arrays in chunks, as one would do by
hand, and our own tell_many with a 64-byte message each. What would change our minds: a Pipe that comes near would
say that the chunks should be the user's.
"""

from __future__ import annotations

import time
from typing import Any

from bench import bodies, tallies
from bench.harness import Case, Contestant, Metric
from bench.sample import Sample, warm_up
from fabric import ArrayGroup, Fabric

AGENTS = 1_000
HANDLED, ACCEPTED = Metric("handled", "messages/s"), Metric("accepted", "messages/s")
ASKED = Metric("asked", "messages/s")


def cases(quick: bool) -> list[Case]:
    """Return the case in which records are told, and that in which they are asked."""
    records = {"records": 500_000 if quick else 4_000_000}
    rounds = 2 if quick else 5
    told = (
        Contestant("fabric tell_records", "bench.records:ours", records),
        Contestant("fabric tell_many", "bench.tell_many:ours", {"messages": 200_000}, peer=False),
        Contestant("Pipe, arrays of 16,384 pickled", "bench.peers.record_pipe:tell", records),
    )
    asked = (Contestant("fabric ask_records", "bench.records:asked", records),)
    return [
        Case("64-byte records", (HANDLED, ACCEPTED), told, rounds),
        Case("64-byte records, replies of 8 bytes", (ASKED,), asked, rounds),
    ]


def ours(records: int, *, agents: int = AGENTS, agent: str = "Sink") -> Sample:
    """Tell the records in one call; then ask the object what arrived."""
    ids, sent = tallies.make(records, agents)
    with Fabric(workers=1) as fabric:
        group = fabric.spawn_array(getattr(tallies, agent), agents)
        few = warm_up(records)
        _tell(fabric, group, ids[:few], sent[:few])
        accepted, handled = _tell(fabric, group, ids, sent)
    values = {"handled": [records / handled], "accepted": [records / accepted]}
    return Sample(values, f"{records:,} records, {agents:,} array agents")


def asked(records: int, *, agents: int = AGENTS, agent: str = "Sink") -> Sample:
    """Ask the records in one call."""
    ids, sent = tallies.make(records, agents)
    with Fabric(workers=1) as fabric:
        group = fabric.spawn_array(getattr(tallies, agent), agents)
        few = warm_up(records)
        group.ask_records(ids[:few], sent[:few])
        start = time.perf_counter()
        replies = group.ask_records(ids, sent)
        seconds = time.perf_counter() - start
    bodies.expect(replies.tolist(), sent["serial"].tolist(), "serial numbers")
    return Sample({"asked": [records / seconds]}, f"{records:,} records, {agents:,} array agents")


def _tell(fabric: Fabric, group: ArrayGroup, ids: Any, sent: Any) -> tuple[float, float]:
    start = time.perf_counter()
    group.tell_records(ids, sent)
    accepted = time.perf_counter() - start
    fabric.drain(timeout=30)
    handled = time.perf_counter() - start
    tallies.check(group.hosts.ask_all("verdict"), ids, sent, len(group))
    return accepted, handled
