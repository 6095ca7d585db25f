"""Find out which message a dead worker had in hand: its cursor, and the records in the lane.

    cursor (two words that the worker alone wrote)
      [0]  index in the batch of the message in hand, plus 1; 0: none, it died elsewhere
           for a stream whose generator runs: 1, and above it how often that was resumed
      [1]  lane << 54 | counter of the lane where the batch begins

So exactly the message that was running is blamed, not its neighbours in the batch. A message whose head is
already committed was done when the worker died.
"""

import struct
from typing import NamedTuple

from fabric.columns import BATCH_MAX
from fabric.errors import EncodingError
from fabric.messages import (
    CURSOR_LANE_SHIFT,
    CURSOR_MAKING,
    CURSOR_STEP_SHIFT,
    CURSOR_UNCLEAR,
    LENT,
    PICKLE,
    TO_AGENTS,
    show,
)
from fabric.parcel import unpack
from fabric.ring import HEADER_BYTES
from fabric.segment import Segment, Slices
from fabric.views import copy_of

_HEADER = struct.Struct("<IHBBQQQ")  # size, kind, encoding, flags, target, sender, correlation
_SIZE_AND_KIND = struct.Struct("<IH")
_PAD = 1
_ALIGN = 16
_MOST_KEPT = 64 << 20  # bytes of a message that are copied for a dead letter


class Victim(NamedTuple):
    """The message that a worker died of."""

    lane: int
    position: int
    target: int
    sender: int
    correlation: int
    encoding: int
    body: bytes
    buffers: tuple[bytes, ...]  # that its pickle left out
    again: int  # messages of its batch that its successor handles again, this one included

    def __str__(self) -> str:
        return f"a message {'asked of' if self.correlation else 'told'} {show(self.target)}"


def examine(segment: Segment, slot: int) -> Victim | None:
    """Return the message that the dead worker in this slot had in hand, None when it had none.

    Only for a worker that is seen to be dead: nobody writes these words any more.
    """
    victim = locate(segment, slot)
    if victim is None:
        return None
    data = segment.lane_data(victim.lane, slot)
    at = victim.position % len(data)
    (size,) = struct.unpack_from("<I", data, at)
    encoding, body, buffers = _contents(
        segment, victim.lane, victim.encoding, bytes(data[at + HEADER_BYTES : at + size])
    )
    return victim._replace(encoding=encoding, body=body, buffers=buffers)


def locate(segment: Segment, slot: int) -> Victim | None:
    """Return the message that a worker has in hand, without its body: of a worker that is stopped, or as a guess."""
    index, where = segment.cursor_of(slot)
    index &= (1 << CURSOR_STEP_SHIFT) - 1
    if not 0 < index <= BATCH_MAX:
        return None
    lane, position = where >> CURSOR_LANE_SHIFT, where & (1 << CURSOR_LANE_SHIFT) - 1
    processes = segment.layout.processes
    if lane >= processes or position % _ALIGN != 0:
        return None
    data = segment.lane_slices(lane, slot)
    head = segment.head_of(slot, lane)
    again = 0
    for _ in range(index):
        record = _record_at(data, position)
        if record is None:
            return None
        padding, size = record
        position += padding
        again += position >= head
        begin, position = position, position + (size + _ALIGN - 1) // _ALIGN * _ALIGN
    if begin < head:
        return None
    at = begin % len(data)
    _, kind, encoding, _, target, sender, correlation = _HEADER.unpack(data[at : at + _HEADER.size])
    if kind not in TO_AGENTS:
        return None
    return Victim(lane, begin, target, sender, correlation, encoding, b"", (), again)


def _contents(segment: Segment, owner: int, encoding: int, body: bytes) -> tuple[int, bytes, tuple[bytes, ...]]:
    """Return a body as it would lie in the lane had none of it been lent: encoding, bytes, buffers of a pickle."""
    if not encoding & LENT:
        return encoding, body, ()
    encoding &= ~LENT
    try:
        entries, whole, rest = unpack(body)
        size = sum(entry.bytes for entry in entries)
        if size > _MOST_KEPT:
            return encoding, f"({size:,} bytes: too many to be kept here)".encode(), ()
        parts = copy_of(segment, owner, entries)
    except EncodingError:
        return encoding, body, ()
    inline = parts.pop(0) if whole else bytes(rest)
    return (encoding, inline, tuple(parts)) if encoding == PICKLE else (encoding, b"".join([inline, *parts]), ())


def died_unclear(segment: Segment, slot: int) -> bool:
    """Did this dead worker die while it decoded a batch or encoded replies, so that nobody knows of which message?"""
    return segment.cursor_of(slot)[0] == CURSOR_UNCLEAR


def died_making(segment: Segment, slot: int) -> int:
    """Return the address of the agent that this dead worker was making; 0 when it made none."""
    index, address = segment.cursor_of(slot)
    return address if index == CURSOR_MAKING else 0


def count_messages(segment: Segment, slot: int) -> int:
    """Count the messages in the lanes to a worker that is dead: between their heads and their ends.

    Bytes that are no records end the count of a lane.
    """
    found = 0
    for lane in range(segment.layout.processes):
        data = segment.lane_data(lane, slot)
        position, end = segment.head_of(slot, lane), segment.tail_of(lane, slot)
        while position < end and len(data):
            record = _record_at(data, position)
            if record is None:
                break
            padding, size = record
            (kind,) = struct.unpack_from("<H", data, (position + padding) % len(data) + 4)
            position += padding + (size + _ALIGN - 1) // _ALIGN * _ALIGN
            found += kind in TO_AGENTS
    return found


def in_hand(segment: Segment, slot: int) -> tuple[int, int] | None:
    """Return the cursor of a living worker, which names the message in hand; None when it has none."""
    index, where = segment.cursor_of(slot)
    return (index, where) if index and index != CURSOR_MAKING else None  # nobody limits how long a constructor takes


def is_stopped(pid: int) -> bool:
    """Is this process stopped by a signal or a debugger?"""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] in ("T", "t")
    except OSError:  # it ended meanwhile
        return False


def _record_at(data: memoryview | Slices, position: int) -> tuple[int, int] | None:
    """Return (bytes of padding before it, its size with the header) of the record at a counter."""
    padding = 0
    while True:
        offset = (position + padding) % len(data)
        size, kind = _SIZE_AND_KIND.unpack(data[offset : offset + _SIZE_AND_KIND.size])
        if kind == _PAD and _ALIGN <= size <= len(data) - offset and padding == 0:
            padding = size
            continue
        if not HEADER_BYTES <= size <= len(data) - offset:
            return None  # not what the worker saw: it cannot be trusted to blame anybody
        return padding, size
