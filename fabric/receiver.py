"""Receive messages from one process's lanes: bytes on the other side, bodies on this.

    lanes -> ring.Peer -> Columns -> Receiver -> Codec -> Received        (one thread at a time: the leader)
    what lies in an arena -> Views                                        commit: the lane's room is given back

Nothing here waits, but `await_next` where it says so. What cannot be decoded, or be a record, is said and not raised.
"""

import contextlib
import struct
import time
from collections.abc import Iterator, Sequence
from typing import Any

from fabric.chunk import Chunk
from fabric.codec import Codec
from fabric.columns import BATCH_MAX, Columns
from fabric.errors import EncodingError
from fabric.heap import keep_heap
from fabric.messages import (
    CHUNK,
    COORDINATOR,
    CURSOR_LANE_SHIFT,
    CURSOR_UNCLEAR,
    DROPPED,
    LENT,
    MESSAGE,
    MIXED,
    ORDER,
    RAW,
    RECORDS,
    REPLY,
    STREAM,
    TO_AGENTS,
)
from fabric.orders import decode_order
from fabric.parcel import unpack
from fabric.remote_errors import Undecodable
from fabric.ring import EINTR, HEADER_BYTES, Peer
from fabric.segment import Segment
from fabric.stopwatch import Stopwatch
from fabric.views import Views

_ALIGN = 16
_VARIES = 0xFFFFFFFF
_CHUNK = 64  # bodies cut out of a run by one call of a prepared Struct: 19 ns each against 50 singly
_CUTTERS_KEPT = 64
_BODIES = frozenset({MESSAGE, STREAM, REPLY})
_LARGEST_COPY = 2 << 20  # bytes: of larger ones fresh pages are the lesser part
_LARGE_RUN = 256 << 10  # bytes: from there on copies are worth a heap that is kept
_COPIED = frozenset({RAW | LENT, CHUNK | LENT})
_LOOKED_AT = frozenset({Undecodable, Chunk})  # bodies that cannot be handed to an agent as they are


class Received:
    """Records of one kind from one lane, bodies decoded. Lists of numbers are made when they are asked for."""

    __slots__ = (
        "_columns",
        "asks",  # how many of the records expect a reply
        "bodies",
        "bytes",  # that the records take in the lane
        "correlation",  # of the first
        "count",
        "encoding",  # of all bodies, or messages.MIXED
        "end",  # counter of the lane behind the records
        "flags",  # of all records, or-ed
        "kind",  # what to do with them: see fabric.messages
        "lane",
        "lent",  # did parts of some body lie in an arena?
        "more",  # is there something else to read?
        "sender",  # of the first
        "sent_at",  # of the first, ns on the monotonic clock
        "size",  # of all bodies, or 2^32 - 1
        "start",  # offset of the records in the lane's data
        "step",  # from each correlation id to the next, modulo 2^64; 0 when it varies
        "target",  # of the first
        "token",  # that all correlation ids share, or 2^64 - 1
        "undecodable",  # are some bodies codec.Undecodable, or a chunk.Chunk?
    )

    bodies: list[Any]

    def __init__(self, lane: int, columns: Columns) -> None:
        self.lane = lane
        self._columns = columns
        self.undecodable = self.lent = False
        (
            self.count,
            self.kind,
            self.encoding,
            self.flags,
            self.asks,
            self.size,
            self.token,
            self.step,
            self.start,
            self.bytes,
            self.end,
            self.sent_at,
            self.more,
            self.target,
            self.sender,
            self.correlation,
        ) = columns.facts()

    def targets(self) -> list[int]:
        """Address of each receiver."""
        return [self.target] if self.count == 1 else self._columns.targets(self.count)

    def senders(self) -> list[int]:
        """Address of each sender."""
        return [self.sender] if self.count == 1 else self._columns.senders(self.count)

    def correlations(self) -> list[int]:
        """Correlation id of each."""
        return [self.correlation] if self.count == 1 else self._columns.correlations(self.count)

    def end_of(self, count: int) -> int:
        """The lane's counter behind the first `count` records: what to commit when they are handled."""
        if count == self.count:
            return self.end
        return self.end - self.bytes + (self._columns.end(count - 1) + _ALIGN - 1) // _ALIGN * _ALIGN


class Receiver:
    """The receiving ends of all lanes of one process. One thread at a time."""

    def __init__(self, segment: Segment, peer: Peer, codec: Codec) -> None:
        self._segment = segment
        self._peer = peer
        self._codec = codec
        self._columns = Columns()
        self._data: dict[int, memoryview] = {}
        self._cutters: dict[int, struct.Struct] = {}
        self._done_lane = -1
        self._done_end = 0
        self._views: Views | None = None
        self._unsettled: list[Any] = []
        self.watch: Stopwatch | None = None
        self._heap_kept = False
        self.cursor: Any = None  # a worker's: what it has in hand, for the supervisor; decoding may kill too
        self.careful = False  # say so of each body of a batch, not of the batch as a whole
        self.skips: set[tuple[int, int]] = set()  # (lane, counter) of records whose bodies are not to be decoded

    def borrow(self, views: Views) -> None:
        """Take what is lent to this process through these."""
        self._views, self._unsettled = views, views.unsettled

    def receive(self, most: int = BATCH_MAX) -> Received | None:
        """Return the next run of records, or None when all lanes are empty.

        The records stay in the lane until `commit`. Bodies are private copies. One that cannot be decoded
        is a codec.Undecodable. Bytes that cannot be records come as a run of kind DROPPED with none in it,
        which is to be committed like any other: its producer wants the room back.
        """
        if self._unsettled:
            self._settle()
        try:
            lane = self._peer.receive(most, self._columns, self._done_lane, self._done_end)
            self._done_lane = -1
            return self._received(lane) if lane >= 0 else None
        except BaseException:
            self._rewind()
            raise

    def await_next(self, reasons: int, seconds: float | None, most: int = BATCH_MAX) -> Received | None:
        """Do as `receive`, and wait first if nothing is there: for one of these reasons, at most a second."""
        if self._unsettled:
            self._settle()
        try:
            lane = self._peer.await_next(reasons, seconds, most, self._columns, self._done_lane, self._done_end)
            self._done_lane = -1
            if lane >= 0:
                return self._received(lane)
        except BaseException:
            self._rewind()
            raise
        if lane == EINTR:
            time.sleep(0)  # let Python run the signal's handler
        return None

    def _settle(self) -> None:
        """Give back what was not looked at any more before its record was committed."""
        self.commit_now()
        if self._views is not None:
            self._views.settle()

    def _rewind(self) -> None:
        """Let the next `receive` begin where this one, which was interrupted, began."""
        self.commit_now()
        self._peer.rewind()

    def _received(self, lane: int) -> Received:
        received = Received(lane, self._columns)
        if received.count == 1 and received.encoding == RAW:  # an ask at a time is made of these
            data = self._data.get(lane) or self._data_of(lane)
            at = received.start + HEADER_BYTES
            received.bodies = [data[at : at + received.size].tobytes()]
        elif received.count:
            self._decode(received)
        else:
            received.kind, received.bodies = DROPPED, []
        return received

    def commit(self, lane: int, end: int) -> None:
        """Hand the bytes below `end` back: the records there are handled, and their effects are out."""
        self._peer.commit(lane, end)

    def commit_at_next(self, lane: int, end: int) -> None:
        """Commit with the next `receive`, which spares a crossing; for who comes back before anybody waits."""
        if self._done_lane >= 0:
            self.commit_now()
        self._done_lane, self._done_end = lane, end

    def commit_now(self) -> None:
        """Do what `commit_at_next` put off."""
        if self._done_lane >= 0:
            self._peer.commit(self._done_lane, self._done_end)
            self._done_lane = -1

    def close(self) -> None:
        """Let go of the lanes, and of what is lent and not looked at."""
        self._data.clear()
        if self._views is not None:
            self._views.close()

    def _decode(self, received: Received) -> None:
        if not self._heap_kept and received.kind in _BODIES:
            self._keep_heap(received)
        started = self.watch.start(received.count) if self.watch is not None else 0
        self._decode_all(received)
        if started and self.watch is not None:
            self.watch.stop(started, received.count)

    def _keep_heap(self, received: Received) -> None:
        """Keep the heap that copies come and go in, once large ones do. What a spawn takes is better given back.

        Not for arrays and pickles in an arena, of which large ones are viewed: arrays of the program's own, of some MB,
        would lie in that heap too, where they have no huge pages (8 MB there and back: 2.6 ms, and 1.6 without).
        """
        if received.bytes >= _LARGE_RUN or received.encoding in _COPIED:
            self._heap_kept = True
            keep_heap(_LARGEST_COPY)

    def _decode_all(self, received: Received) -> None:
        lane, encoding = received.lane, received.encoding
        data = self._data.get(lane) or self._data_of(lane)
        if encoding == RECORDS and received.kind == MESSAGE:
            self._view_chunks(data, received)
            return
        parts = self._parts(data, received)
        if encoding == RAW:
            received.bodies = parts
            return
        if self.cursor is not None and received.kind in TO_AGENTS:
            self.cursor[1] = lane << CURSOR_LANE_SHIFT | received.end - received.bytes
            self.cursor[0] = 1 if received.count == 1 else CURSOR_UNCLEAR
            if self.careful or self.skips:
                received.bodies = list(self._decoded_carefully(received, parts))
                self.cursor[0] = 0  # none is in hand: the last would be blamed for what the first does when handled
                received.undecodable = _are_to_be_looked_at(received.bodies)
                return
        if encoding & (LENT | MIXED):
            self._decode_each(received, parts)
        elif encoding == ORDER and lane % self._peer.processes == COORDINATOR and self._peer.process != COORDINATOR:
            received.bodies = [decode_order(part) for part in parts]
        else:
            received.bodies = self._codec.decode_many(encoding, parts)
        received.undecodable = _are_to_be_looked_at(received.bodies)

    def _view_chunks(self, data: memoryview, received: Received) -> None:
        """Open chunks of records where they lie: the lane is committed when they are handled, not before."""
        start, decode = received.start, self._codec.decode_or_mark
        if received.count == 1:
            at = start + HEADER_BYTES
            received.bodies = [decode(RECORDS, data[at : at + received.size])]  # type: ignore[arg-type]
        else:
            spans = zip(self._columns.starts(received.count), self._columns.ends(received.count), strict=True)
            received.bodies = [decode(RECORDS, data[start + a : start + b]) for a, b in spans]  # type: ignore[arg-type]
        received.undecodable = True

    def _decode_each(self, received: Received, parts: list[bytes]) -> None:
        """Decode bodies of several encodings, or some of which are lent."""
        if received.count == 1:
            received.bodies = [self._body(received, 0, received.encoding, parts[0])]
            return
        pairs = enumerate(zip(self._encodings(received), parts, strict=True))
        received.bodies = [self._body(received, index, encoding, part) for index, (encoding, part) in pairs]

    def _encodings(self, received: Received) -> Sequence[int]:
        mixed = received.encoding == MIXED
        return self._columns.encodings(received.count) if mixed else [received.encoding] * received.count

    def _body(self, received: Received, index: int, encoding: int, part: bytes) -> Any:
        """Decode one body, lent or not."""
        if not encoding & LENT:
            return self._codec.decode_or_mark(encoding, part)
        received.lent = True
        lane, end = received.lane, received.end_of(index + 1)
        foreign = encoding == ORDER | LENT and (lane != COORDINATOR or self._peer.process == COORDINATOR)
        if self._views is None or foreign or lane >= self._peer.processes:
            return Undecodable(EncodingError("a message lies in an arena, and nobody may lend it to us"))
        views = self._views
        return self._codec.decode_lent(
            encoding & ~LENT, part, lambda entries, copied: views.take(lane, entries, end, copied)
        )

    def _decoded_carefully(self, received: Received, parts: list[bytes]) -> Iterator[Any]:
        """Decode one body after the other, and say which; None for those to be skipped, which others see to."""
        begin = received.end - received.bytes
        for index, (encoding, part) in enumerate(zip(self._encodings(received), parts, strict=True)):
            skipped = (received.lane, begin) in self.skips
            self.cursor[0] = index + 1
            if skipped:
                self._give_back(received, index, encoding, part)
            yield None if skipped else self._body(received, index, encoding, part)
            begin = received.end_of(index + 1)

    def _give_back(self, received: Received, index: int, encoding: int, part: bytes) -> None:
        """Give back what is lent to a message that is not to be decoded."""
        if encoding & LENT and self._views is not None:
            with contextlib.suppress(EncodingError):
                self._views.take(received.lane, unpack(part)[0], received.end_of(index + 1))

    def _parts(self, data: memoryview, received: Received) -> list[bytes]:
        """Copy the bodies out of the lane."""
        start, size, count = received.start, received.size, received.count
        if count == 1:
            at = start + HEADER_BYTES
            return [data[at : at + size].tobytes()]
        if size != _VARIES and count >= _CHUNK:
            return self._cut(data, start, size, count)
        run = data[start : start + received.bytes].tobytes()
        starts, ends = self._columns.starts(count), self._columns.ends(count)
        return [run[a:b] for a, b in zip(starts, ends, strict=True)]

    def _cut(self, data: memoryview, start: int, size: int, count: int) -> list[bytes]:
        """Copy out bodies of one size: a prepared Struct takes 64 records at a time."""
        cutter = self._cutters.get(size)
        span = (HEADER_BYTES + size + _ALIGN - 1) // _ALIGN * _ALIGN
        if cutter is None:
            if len(self._cutters) >= _CUTTERS_KEPT:
                self._cutters.clear()
            cutter = struct.Struct(f"{HEADER_BYTES}x{size}s{span - size - HEADER_BYTES}x" * _CHUNK)
            self._cutters[size] = cutter
        parts: list[bytes] = []
        whole = count - count % _CHUNK
        for first in range(0, whole, _CHUNK):
            parts.extend(cutter.unpack_from(data, start + first * span))
        at = start + whole * span + HEADER_BYTES
        for _ in range(count - whole):
            parts.append(data[at : at + size].tobytes())
            at += span
        return parts

    def _data_of(self, lane: int) -> memoryview:
        data = self._data.get(lane)
        if data is None:
            data = self._data[lane] = self._lane_data(lane)
        return data

    def _lane_data(self, lane: int) -> memoryview:
        """The data of an incoming lane; lanes from P on are control lanes (native/fab_layout.h)."""
        processes = self._peer.processes
        control = lane // processes
        return self._segment.lane_data(lane % processes, self._peer.process + control * processes)


def _are_to_be_looked_at(bodies: Sequence[Any]) -> bool:
    """Are there bodies among these that cannot be handed to an agent as they are?"""
    return not _LOOKED_AT.isdisjoint(map(type, bodies))
