"""Give a process its arena: large bodies go through it, and what others lend arrives as views."""

import functools
from collections.abc import Callable

from fabric.arena import Arena
from fabric.codec import Codec
from fabric.config import FabricConfig
from fabric.large import Large
from fabric.lending import Lending, Receipts
from fabric.receiver import Receiver
from fabric.ring import Peer
from fabric.segment import Segment
from fabric.views import Views


def open_arena(
    segment: Segment,
    peer: Peer,
    codec: Codec,
    receiver: Receiver,
    config: FabricConfig,
    memory_left: Callable[[], int],
) -> Arena | None:
    """Connect this process's arena, before it sends or receives anything; None in a segment without arenas.

    `memory_left` says how many bytes of memory may be taken.

    What a dead predecessor lent stays lent, and what it held and had committed goes back.
    """
    process = peer.process
    if segment.layout.arena_range(process)[1] == 0:
        return None
    receipts = Receipts(peer)
    receipts.adopt()
    lending = Lending(peer)
    receiver.borrow(Views(segment, receipts, functools.partial(segment.head_of, process)))
    arena = Arena(segment, lending, config.arena_timeout, memory_left)
    lanes = [peer.body_limit(lane) for lane in range(peer.processes) if lane != process or process]
    codec.lend(Large(arena, config.arena_threshold, min(lanes)), config.arena_threshold)
    return arena
