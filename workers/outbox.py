"""Send from inside handlers without ever waiting.

    handler --tell--> pending (this process) --flush, at the end of the batch--> lanes
                                                    \\--what does not fit--> outbox region of our block
                                                                              \\--as room appears--> lanes

What a handler sends is published together with the replies of its batch, just before the batch is
committed: a worker killed before that has sent nothing, and its successor handles the batch anew. What lies
in the outbox region counts as published; a successor inherits it. While the region holds anything, new
messages queue behind it, so order is kept. When it is full, the handler gets a BackpressureError.

A worker may also be killed between the two, published and not committed. So that its successor does not
handle the batch again and send everything twice, all messages of a slice become visible by one store, of the
tail of one lane or of the region's, and before that it is written down what the store will mean (Peer.pass_on,
intend_slice):

    intent | lane | end of the slice | where we publish | tail there, before |
    the successor finds that tail moved on (`settle`): the slice was published, its head goes to its end
"""

import itertools
from array import array
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

from fabric.batch import Batch
from fabric.encoded import Encoded
from fabric.errors import BackpressureError, MessageTooLargeError
from fabric.messages import COORDINATOR, LENT, MESSAGE, MIXED, RAW, REPLY, REQUEST, TO_AGENTS
from fabric.parcel import Data, Parcel, lend_all
from fabric.ring import IN_OUTBOX, OUTBOX_LANE, RECORD, Peer
from fabric.sender import Sender

_HEADER_AND_PADDING = 64
_FEW = 16  # records of no slice that are tried to be sent together: more may well go to several workers
_pack = RECORD.pack


class _Record(NamedTuple):
    kind: int
    target: int
    sender: int
    correlation: int
    encoding: int
    body: Data
    flags: int


class Slice(NamedTuple):
    """Part of a lane whose effects are being published: up to counter `end`."""

    lane: int
    end: int


class Outbox:
    """What this worker's handlers sent and what is not in a lane yet."""

    def __init__(self, peer: Peer, senders: dict[int, Sender]) -> None:
        self._peer = peer
        self._senders = senders
        self.pending: list[_Record] = []  # queued since the last flush
        self._pending_bytes = 0
        self._room = peer.outbox_room()
        self.limit = min(peer.outbox_limit, *(sender.limit for sender in senders.values()))  # to other workers
        self._limit_home = min(peer.outbox_limit, senders[COORDINATOR].limit)
        self.undeliverable: Callable[[int, int, int], None] | None = None  # (target, sender, correlation)
        self.backed_up = False  # is there something that waits for room in a lane?
        self._spilled: list[Batch] = []
        self.guard: AbstractContextManager[Any] = nullcontext()  # of the arena: what nobody can get is taken back
        self.lost = 0
        self.wants_attention = False  # the coordinator must look even if nobody there waits for anything

    def tell(
        self,
        target: int,
        sender: int,
        correlation: int,
        encoding: int,
        body: Data,
        flags: int = 0,
        kind: int = MESSAGE,
    ) -> None:
        """Queue a message of a handler; `kind` is MESSAGE or STREAM.

        Raises:
            BackpressureError: the outbox is full.
            MessageTooLargeError: the body is over what a lane between workers takes.
        """
        body_bytes = len(body)
        if body_bytes > self.limit:
            raise MessageTooLargeError(body_bytes, self.limit)
        size = body_bytes + _HEADER_AND_PADDING
        if self._pending_bytes + size > self._room:
            self.require(body_bytes)
        if type(body) is not bytes:
            self._lend(target, body)
        self._pending_bytes += size
        self.pending.append(_Record(kind, target, sender, correlation, encoding, body, flags))

    def require(self, body_bytes: int, messages: int = 1) -> None:
        """Raise BackpressureError unless there is room for so much now."""
        size = body_bytes + messages * _HEADER_AND_PADDING
        if self._pending_bytes + size > self._room:
            raise BackpressureError(
                f"the outbox of this worker is full, with no room for {size:,} bytes ({self._pending_bytes:,} wait to "
                f"be sent, {self._room:,} have room): receivers are slower; send less, or raise outbox_bytes"
            )

    def steer(self, meta: int, target: int, sender: int, correlation: int, body: bytes) -> None:
        """Queue what steers a stream. Not refused: how many there can be is bounded by the streams' windows."""
        self._pending_bytes += len(body) + _HEADER_AND_PADDING
        self.pending.append(_Record(meta & 0xFFFF, target, sender, correlation, meta >> 16, body, 0))

    def reply(self, target: int, sender: int, correlation: int, encoding: int, body: Data) -> None:
        """Queue a reply. Not refused for want of room: how many there can be is bounded by what others asked.

        Raises:
            MessageTooLargeError: the body is over what the lane to its receiver takes.
        """
        limit = self._limit_home if target == COORDINATOR else self.limit
        if len(body) > limit:
            raise MessageTooLargeError(len(body), limit, "reply")
        self._lend(target, body)
        self._pending_bytes += len(body) + _HEADER_AND_PADDING
        self.pending.append(_Record(REPLY, target, sender, correlation, encoding, body, 0))

    def request(self, sender: int, correlation: int, encoding: int, body: Data) -> None:
        """Queue a Request for the coordinator. MessageTooLargeError as for `reply`."""
        if len(body) > self._limit_home:
            raise MessageTooLargeError(len(body), self._limit_home, "request")
        self._lend(COORDINATOR, body)
        self.wants_attention = True
        self._pending_bytes += len(body) + _HEADER_AND_PADDING
        self.pending.append(_Record(REQUEST, COORDINATOR, sender, correlation, encoding, body, 0))

    def _lend(self, target: int, body: Data) -> None:
        """Lend a parcel to the worker of its target while the handler can still be told that too much is lent."""
        if type(body) is Parcel:
            found, slots = (1, [COORDINATOR]) if target == COORDINATOR else self._peer.route(array("Q", [target]))
            body.lend(slots[0] if found else self._peer.process)  # nobody is there: it comes back undeliverable

    def flush(self, of: Slice | None = None) -> None:
        """Publish all that was queued: in lanes where there is room, else in the outbox region.

        `of` is the slice of a lane whose effects these are, all of them, and which is committed next; None
        where that is not so: those may be sent again by a successor.
        """
        if self.backed_up:
            self.retry()
        while self.pending:  # again when some were undeliverable, and that was answered
            pending, self.pending, self._pending_bytes = self.pending, [], 0
            if len(pending) == 1:
                kind = pending[0].kind
                self._send(kind, pending, None if kind in (REPLY, REQUEST) else of)
                continue
            spawns = [record for record in pending if record.kind == REQUEST and record.encoding & ~LENT != RAW]
            stops = [record for record in pending if record.kind == REQUEST and record.encoding & ~LENT == RAW]
            replies = [record for record in pending if record.kind == REPLY]
            others = [record for record in pending if record.kind not in (REQUEST, REPLY)]
            if replies:
                self._send(REPLY, replies)
            if spawns:  # whose second is dropped, as that of a reply is: see SpawnRequest
                self._send(REQUEST, spawns)
            runs = [(kind, list(run)) for kind, run in itertools.groupby(others, lambda record: record.kind)]
            for kind, run in runs:
                self._send(kind, run, None if stops or len(runs) > 1 else of)
            if stops:  # behind what was sent to those who stop
                self._send(REQUEST, stops)
        if self.backed_up:
            self._room = self._peer.outbox_room()

    def drop_pending(self) -> None:
        """Forget what was queued since the last flush."""
        self.pending.clear()
        self._pending_bytes = 0

    def settle(self) -> Slice | None:
        """Take up what a dead predecessor left; return the slice that it had published and not committed, if any."""
        self._peer.resume_outbox()
        published = self._peer.published_slice()
        self.retry()  # not before that look: it moves tails
        return Slice(*published) if published else None

    def retry(self) -> None:
        """Move what waits in the outbox region to the lanes, as far as there is room."""
        while True:
            with self.guard:
                empty, strays = self._peer.flush_outbox()
            for stray in strays:
                self.lost += 1
                if stray.kind in TO_AGENTS and self.undeliverable is not None:
                    self.undeliverable(stray.target, stray.sender, stray.correlation)
            if not empty or not self._spilled:
                break
            if self._spilled[0].put_in_outbox(self._peer):
                self._spilled.pop(0)
        self.backed_up = not empty or bool(self._spilled)
        self._room = self._peer.outbox_room()

    @property
    def unpublished(self) -> bool:
        """Is there something that the region too had no room for? It would be lost with this process."""
        return bool(self._spilled)

    @property
    def idle(self) -> bool:
        """Is nothing queued anywhere?"""
        return not self.pending and not self.backed_up

    def _send(self, kind: int, records: list[_Record], of: Slice | None = None) -> None:
        if self._pass_on(records, of):
            return
        if self.backed_up:
            self._intend(of, OUTBOX_LANE, self._peer.outbox_room(), records)
            self.overflow(_batch(kind, records))
            return
        slots = self._slots_of(kind, records)
        parts = self._peer.partition(slots)
        if of is not None and parts and (len(parts) > 1 or not _fits(records, self._peer.room(parts[0][0]))):
            self._intend(of, OUTBOX_LANE, self._peer.outbox_room(), records)
            self.overflow(_batch(kind, records))
            self.retry()
            return
        for slot, indexes in parts:
            batch = _batch(kind, [records[i] for i in indexes])
            if of is not None:
                self._intend(of, slot, self._peer.room(slot), records)
            if not self._senders[slot].put(batch):
                self.overflow(batch)

    def _pass_on(self, records: list[_Record], of: Slice | None) -> bool:
        """Send as `_send` does, in one crossing. False: it takes more, and nothing was done."""
        if self._spilled or (of is None and len(records) > _FEW):
            return False
        parts: list[bytes] = []
        for kind, target, sender, correlation, encoding, body, flags in records:
            if type(body) is not bytes:  # a parcel hears of it when it is in the lane
                return False
            parts.append(_pack(len(body), kind, encoding, flags, target, sender, correlation, 0, 0))
            parts.append(body)
        lane, end = (-1, 0) if of is None else of
        where = self._peer.pass_on(lane, end, self.backed_up, b"".join(parts))
        if where == IN_OUTBOX and not self.backed_up:
            self.retry()
        return where != 0

    def _intend(self, of: Slice | None, where: int, room: int, records: list[_Record]) -> None:
        """Write down that the next store of the tail of `where` publishes the effects of a slice, if one store will."""
        if of is not None and not self._spilled and _fits(records, room):  # behind what spilled it would wait unseen
            self._peer.intend_slice(where, of.lane, of.end)

    def _slots_of(self, kind: int, records: list[_Record]) -> "array[int]":
        """Return the slot of each target; take out of the list those that stopped since the handler looked."""
        slots = array("H")
        while True:
            found, some = self._peer.route(array("Q", [record.target for record in records[len(slots) :]]))
            slots.extend(some[:found])
            if len(slots) == len(records):
                return slots
            lost = records.pop(len(slots))
            self.lost += 1
            if kind in TO_AGENTS and self.undeliverable is not None:
                self.undeliverable(lost.target, lost.sender, lost.correlation)

    def overflow(self, batch: Batch) -> None:
        """Keep a batch, or the rest of it, until its lane has room; what comes later queues behind it."""
        self.backed_up = True
        if self._spilled or not batch.put_in_outbox(self._peer):
            self._spilled.append(batch)


def _fits(records: list[_Record], room: int) -> bool:
    """Will these be published by one store, where so many bytes are free? One of them may have to begin anew."""
    sizes = [len(record.body) + _HEADER_AND_PADDING for record in records]
    return sum(sizes) + max(sizes) <= room


def _batch(kind: int, records: list[_Record]) -> Batch:
    _, targets, senders, correlations, encodings, bodies, flags = zip(*records, strict=True)
    blobs, parcels = lend_all(bodies, COORDINATOR)  # lent before: `_lend`
    encoded = Encoded(MIXED, bytes(encodings), array("I", map(len, blobs)), b"".join(blobs))
    meta = kind | max(flags) << 24  # there is one flag, and it only says how replies are to be sent
    batch = Batch(meta, COORDINATOR, len(records)).bodies(encoded.blob, encoded.sizes, encoded.encodings)
    batch.parcels = parcels
    return batch.targets(array("Q", targets)).senders(array("Q", senders)).correlations(array("Q", correlations))
