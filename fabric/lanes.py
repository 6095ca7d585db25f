"""Look at what lies in lanes, from outside: heads and tails are read from the file, and nothing is believed.

A process of the fabric has the whole mapped and asks the C core (native/fab_survey.h), which says the same. Whoever
only looks must read, since to look at a page through a mapping allocates it.
"""

import struct
from typing import NamedTuple

from fabric.layout import LINE_BYTES, TRAFFIC_BYTES
from fabric.measured import Traffic
from fabric.messages import COORDINATOR
from fabric.ring import HEADER_BYTES
from fabric.segment import Segment

NO_TRAFFIC = Traffic(0, 0, 0, 0, 0, 0)
_WORDS = TRAFFIC_BYTES // 8
_PAD = 1
_ALIGN = 16
_KIND = struct.Struct("<IH")  # of a record: its size, its kind
_SEQUENCE_AT = 32


class Lane(NamedTuple):
    """A lane that something lies in, and how much."""

    source: int  # process slots
    target: int
    bytes: int
    capacity: int
    records: int  # 0: not known


def read_traffic(segment: Segment, process: int) -> Traffic:
    """Return what a process has sent, and what waits for it in its lane from the coordinator."""
    start = segment.layout.block_offset(process) + segment.layout.metrics.traffic
    words = segment.look(start, 2 * segment.layout.processes * TRAFFIC_BYTES).cast("Q").tolist()
    messages, asks, replies, sent = (sum(words[index::_WORDS]) for index in range(1, 5))
    if process == COORDINATOR:
        return Traffic(messages, asks, replies, sent, 0, 0)
    head, tail = segment.head_of(process, COORDINATOR), segment.tail_of(COORDINATOR, process)
    lane = look_into(segment, COORDINATOR, process, head, tail)
    return Traffic(messages, asks, replies, sent, lane.bytes, lane.records)


def filled(segment: Segment, processes: list[int]) -> list[Lane]:
    """Return the data lanes between these processes that something lies in, the fullest first.

    Heads are read before tails, so what is seen lay there at some moment in between.
    """
    layout = segment.layout
    heads = {process: _words(segment, process, layout.heads_offset) for process in processes}
    found = []
    for source in processes:
        tails = _words(segment, source, layout.tails_offset)
        for target in processes:
            if tails[target] > heads[target][source]:
                found.append(look_into(segment, source, target, heads[target][source], tails[target]))
    return sorted((lane for lane in found if lane.bytes), key=lambda lane: -lane.bytes / lane.capacity)


def look_into(segment: Segment, source: int, target: int, head: int, tail: int) -> Lane:
    """Return what lies between these counters of a data lane; nothing, where they cannot be."""
    start, capacity = segment.layout.lane_range(source, target)
    if not 0 < tail - head <= capacity or head % _ALIGN:
        return Lane(source, target, 0, capacity, 0)
    first = _sequence(segment, start, capacity, head)
    records = 0 if first is None else records_sent(segment, source, target) - first
    return Lane(source, target, tail - head, capacity, max(0, min(records, (tail - head) // HEADER_BYTES)))


def records_sent(segment: Segment, source: int, target: int) -> int:
    """Return how many records have gone into a data lane."""
    place = segment.layout.block_offset(source) + segment.layout.metrics.traffic + TRAFFIC_BYTES * target
    return segment.look(place, 8).cast("Q")[0]


def _sequence(segment: Segment, start: int, capacity: int, head: int) -> int | None:
    """Return the number of the record at the head of a lane; one that is written meanwhile may be anything."""
    offset = head % capacity
    _, kind = _KIND.unpack(segment.look(start + offset, _KIND.size))
    if kind == _PAD:
        offset = 0
    if capacity - offset < HEADER_BYTES:
        return None
    return segment.look(start + offset + _SEQUENCE_AT, 8).cast("Q")[0]


def _words(segment: Segment, process: int, offset: int) -> list[int]:
    """Return the heads, or the tails, of a process's data lanes: one word a line."""
    start = segment.layout.block_offset(process) + offset
    return segment.look(start, segment.layout.processes * LINE_BYTES).cast("Q")[:: LINE_BYTES // 8].tolist()
