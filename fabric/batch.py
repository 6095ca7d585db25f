"""Send many records by one crossing: columns of numbers and one joined body, written and published together.

    Batch(...).targets(...).bodies(...) ── put ──▶ a lane          until it is full, or the window is
                                        ── put_in_outbox, put_in_journal ──▶ this worker's own

Sending to a lane belongs to whoever holds its lock (fabric.sender). Nothing here waits.
"""

from array import array
from typing import Any

from fabric._native import ffi, lib
from fabric.errors import MessageTooLargeError
from fabric.ring import Peer

MOST_BYTES = 2**32 - 1  # that the size of a record can say
_NO_LIMIT = 2**62


class Batch:
    """Records to send in one call: columns, and what the records have in common.

    `put` may be called again until all are in; it remembers how far it came. Not shared between threads.
    """

    def __init__(self, meta: int, sender: int, count: int) -> None:
        self._c = ffi.new("struct fab_batch *")
        self._done = ffi.new("uint32_t *")
        self._offset = ffi.new("uint64_t *")
        self._keep: list[Any] = []
        self.parcels: dict[int, Any] | None = None  # bodies that are lent, by index: told when they are in a lane
        self.count = self._c.count = count
        header = self._c.header
        header.kind = meta & 0xFFFF
        header.encoding = meta >> 16 & 0xFF
        header.flags = meta >> 24
        header.sender = sender

    def targets(self, addresses: "array[int]") -> "Batch":
        """Give each record its own target."""
        self._c.targets = self._pointer("uint64_t[]", addresses)
        return self

    def target(self, address: int) -> "Batch":
        """Give all records one target."""
        self._c.header.target = address
        return self

    def senders(self, addresses: "array[int]") -> "Batch":
        """Give each record its own sender."""
        self._c.senders = self._pointer("uint64_t[]", addresses)
        return self

    def correlations(self, ids: "array[int]") -> "Batch":
        """Give each record its own correlation id."""
        self._c.correlations = self._pointer("uint64_t[]", ids)
        return self

    def numbered_from(self, first: int) -> "Batch":
        """Number the records: the correlation ids are first, first + 1, ..."""
        self._c.header.correlation = first
        self._c.numbered = 1
        return self

    def bodies(self, blob: bytes, sizes: "array[int] | int", encodings: bytes | None = None) -> "Batch":
        """Give the bodies, behind one another; `sizes` is one number when all are of one size."""
        self._c.bytes = self._pointer("uint8_t[]", blob)
        self._c.bytes_count = len(blob)
        if isinstance(sizes, int):
            if sizes > MOST_BYTES:
                raise MessageTooLargeError(sizes, MOST_BYTES)
            self._c.header.size = sizes
        else:
            self._c.sizes = self._pointer("uint32_t[]", sizes)
        if encodings is not None:
            self._c.encodings = self._pointer("uint8_t[]", encodings)
        return self

    def same_body(self, body: bytes) -> "Batch":
        """Give all records the same body, kept once."""
        self._c.repeated = 1
        return self.bodies(body, len(body))

    @property
    def done(self) -> int:
        """How many records are in the lane."""
        return int(self._done[0])

    def put(self, peer: Peer, lane: int, most_bytes: int = _NO_LIMIT) -> bool:
        """Write and publish what fits while fewer than `most_bytes` are in flight. True: all are in.

        Raises:
            MessageTooLargeError: the next record is over the lane's limit; those before it were sent.
        """
        try:
            rc = lib.fab_peer_send_batch(peer.c, lane, self._c, most_bytes, self._done, self._offset)
            if rc > 0 and self._done[0] < self.count:  # what ended it: no room, or a record that is too large?
                rc = lib.fab_peer_send_batch(peer.c, lane, self._c, most_bytes, self._done, self._offset)
        finally:
            self._tell_parcels()
        return self._advanced(rc, peer, lane)

    def put_in_outbox(self, peer: Peer) -> bool:
        """Write and publish to this worker's own outbox. True: all are in."""
        try:
            rc = lib.fab_peer_outbox_batch(peer.c, self._c, self._done, self._offset)
            if rc > 0 and self._done[0] < self.count:
                rc = lib.fab_peer_outbox_batch(peer.c, self._c, self._done, self._offset)
        finally:
            self._tell_parcels()
        return self._advanced(rc, peer, 0)

    def put_in_journal(self, peer: Peer) -> bool:
        """Write and publish to this worker's own journal. True: all are in; a record too large counts as no room."""
        lib.fab_peer_journal_batch(peer.c, self._c, self._done, self._offset)
        return bool(self._done[0] == self.count)

    def _tell_parcels(self) -> None:
        """Leave what is in the lane to its receivers, whatever interrupts us: the C core has counted it."""
        if self.parcels:
            for index in [index for index in self.parcels if index < self.done]:
                self.parcels.pop(index).sent()

    def _advanced(self, rc: int, peer: Peer, lane: int) -> bool:
        if rc < 0:
            sizes = self._c.sizes
            size = sizes[self._done[0]] if sizes else self._c.header.size
            raise MessageTooLargeError(size, peer.body_limit(lane))
        return bool(self._done[0] == self.count)

    def _pointer(self, kind: str, data: Any) -> Any:
        pointer = ffi.from_buffer(kind, data)
        self._keep.append(pointer)
        return pointer
