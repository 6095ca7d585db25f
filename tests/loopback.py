"""A segment whose processes all live in this one: what the tests of the floors above the C core stand on."""

import os
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from fabric.batch import Batch
from fabric.columns import BATCH_MAX, Columns
from fabric.config import FabricConfig
from fabric.ring import ALIVE, Peer
from fabric.segment import Segment

LANE_BYTES = 2**16
PEER_LANE_BYTES = 2**14
OUTBOX_BYTES = 2**16


class Loopback:
    """Coordinator and workers of one segment. `peers[0]` is the coordinator's."""

    def __init__(self, workers: int = 2, **settings: int) -> None:
        sizes = {"lane_bytes": LANE_BYTES, "peer_lane_bytes": PEER_LANE_BYTES, "outbox_bytes": OUTBOX_BYTES}
        config = FabricConfig(**{**sizes, "arena_bytes": 0, "max_agents": 100, **settings})
        first = Segment.create(config, workers)
        self.segments = [first, *(Segment.attach(os.dup(first.descriptor), 1 + k) for k in range(workers))]
        self.bells = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in self.segments]
        self.peers: list[Peer] = [segment.peer() for segment in self.segments]
        for peer in self.peers:
            peer.configure(1, 0)
            for process, bell in enumerate(self.bells):
                peer.set_bell(process, bell)

    def put_agent(self, index: int, slot: int, state: int = ALIVE, generation: int = 1) -> int:
        """Write an agent into the table; return its address."""
        address = generation << 32 | index
        self.peers[0].write_table(array("Q", [address]), array("H", [slot]), state)
        return address

    def close(self) -> None:
        """Let go of everything."""
        for peer in self.peers:
            peer.close()
        for segment in self.segments:
            segment.close()
        for bell in self.bells:
            os.close(bell)


@contextmanager
def loopback(workers: int = 2, **settings: int) -> Iterator[Loopback]:
    """Make a Loopback for the length of a with statement."""
    made = Loopback(workers, **settings)
    try:
        yield made
    finally:
        made.close()


def facts_of(columns: Columns) -> dict[str, int]:
    """Return what holds for the run in these columns, by name."""
    names = "count kind encoding flags asks size token step start bytes end sent_at more target sender correlation"
    return dict(zip(names.split(), columns.facts(), strict=True))


def receive(
    loop: Loopback, process: int, most: int = BATCH_MAX
) -> tuple[int, dict[str, int], Columns, list[bytes]] | None:
    """Return (lane, facts, columns, bodies) of the next run, None when there is none."""
    columns = Columns()
    lane = loop.peers[process].receive(most, columns)
    if lane < 0:
        return None
    facts = facts_of(columns)
    data = loop.segments[process].lane_data(lane % 3, process + lane // 3 * 3)
    run = bytes(data[facts["start"] : facts["start"] + facts["bytes"]])
    starts, ends = columns.starts(facts["count"]), columns.ends(facts["count"])
    return lane, facts, columns, [run[a:b] for a, b in zip(starts, ends, strict=True)]


def batch_of(meta: int, bodies: list[bytes], **columns: Iterable[int]) -> Batch:
    """Return a batch of these bodies, from the coordinator."""
    sizes = array("I", map(len, bodies))
    batch = Batch(meta, 0, len(bodies)).bodies(b"".join(bodies), sizes)
    for name, values in columns.items():
        getattr(batch, name)(array("Q", values))
    return batch
