"""Send from inside handlers without ever waiting.

    handler --tell--> pending (this process) --flush, at the end of the batch--> lanes
                                                    \\--what does not fit--> outbox region of our block
                                                                              \\--as room appears--> lanes

What a handler sends is published together with the replies of its batch, just before the batch is
committed: a worker killed before that has sent nothing, and its successor handles the batch anew. What lies
in the outbox region counts as published; a successor inherits it. While the region holds anything, new
messages queue behind it, so order is kept. When it is full, the handler gets a BackpressureError.
"""

from array import array

from fabric.channel import Sender
from fabric.codec import Encoded
from fabric.errors import BackpressureError, MessageTooLargeError
from fabric.messages import COORDINATOR, MESSAGE, MIXED, REPLY, REQUEST
from fabric.ring import Batch, Peer

_HEADER_AND_PADDING = 64


class Outbox:
    """What this worker's handlers sent and what is not in a lane yet."""

    def __init__(self, peer: Peer, senders: dict[int, Sender]) -> None:
        self._peer = peer
        self._senders = senders
        self._pending: list[tuple[int, int, int, int, int, bytes]] = []
        self._pending_bytes = 0
        self._room = peer.outbox_room()
        self._limit = min(sender.limit for sender in senders.values())
        self._backed_up = False
        self._spilled: list[Batch] = []
        self.lost = 0
        self.wants_attention = False  # the coordinator must look even if nobody there waits for anything

    def tell(self, target: int, sender: int, correlation: int, encoding: int, body: bytes) -> None:
        """Queue a message of a handler.

        Raises:
            BackpressureError: the outbox is full.
            MessageTooLargeError: the body is over what a lane between workers takes.
        """
        size = len(body) + _HEADER_AND_PADDING
        if len(body) > self._limit:
            raise MessageTooLargeError(len(body), self._limit)
        if self._pending_bytes + size > self._room:
            raise BackpressureError(
                f"the outbox of this worker is full ({self._pending_bytes:,} bytes wait to be sent and "
                f"{self._room:,} have room): receivers are slower than this sender; send less, or raise outbox_bytes"
            )
        self._pending_bytes += size
        self._pending.append((MESSAGE, target, sender, correlation, encoding, body))

    def reply(self, target: int, sender: int, correlation: int, encoding: int, body: bytes) -> None:
        """Queue a reply. Never refused: how many there can be is bounded by what others asked."""
        self._pending_bytes += len(body) + _HEADER_AND_PADDING
        self._pending.append((REPLY, target, sender, correlation, encoding, body))

    def request(self, sender: int, correlation: int, encoding: int, body: bytes) -> None:
        """Queue a Request for the coordinator."""
        self.wants_attention = True
        self._pending_bytes += len(body) + _HEADER_AND_PADDING
        self._pending.append((REQUEST, COORDINATOR, sender, correlation, encoding, body))

    def flush(self) -> None:
        """Publish all that was queued: in lanes where there is room, else in the outbox region."""
        if self._backed_up:
            self.retry()
        if self._pending:
            pending, self._pending, self._pending_bytes = self._pending, [], 0
            for kind in (MESSAGE, REPLY, REQUEST):
                records = [record for record in pending if record[0] == kind]
                if records:
                    self._send(kind, records)
        self._room = self._peer.outbox_room()

    def retry(self) -> None:
        """Move what waits in the outbox region to the lanes, as far as there is room."""
        while True:
            empty, lost = self._peer.flush_outbox()
            self.lost += lost
            if not empty or not self._spilled:
                break
            if self._spilled[0].put_in_outbox(self._peer):
                self._spilled.pop(0)
        self._backed_up = not empty or bool(self._spilled)

    @property
    def backed_up(self) -> bool:
        """Is there something that waits for room in a lane?"""
        return self._backed_up

    @property
    def pending(self) -> bool:
        """Has anything been queued since the last flush?"""
        return bool(self._pending)

    @property
    def idle(self) -> bool:
        """Is nothing queued anywhere?"""
        return not self._pending and not self._backed_up

    def _send(self, kind: int, records: list[tuple[int, int, int, int, int, bytes]]) -> None:
        if self._backed_up:
            self.overflow(_batch(kind, records))
            return
        addresses = array("Q", [record[1] for record in records])
        found, slots = self._peer.route(addresses)
        if found < len(records):  # a target stopped since the handler looked: leave it out
            self.lost += 1
            rest = records[:found] + records[found + 1 :]
            if rest:
                self._send(kind, rest)
            return
        for slot, indexes in self._peer.partition(slots):
            batch = _batch(kind, [records[i] for i in indexes])
            if not self._senders[slot].put(batch):
                self.overflow(batch)

    def overflow(self, batch: Batch) -> None:
        """Keep a batch, or the rest of it, until its lane has room; what comes later queues behind it."""
        self._backed_up = True
        if self._spilled or not batch.put_in_outbox(self._peer):
            self._spilled.append(batch)


def _batch(kind: int, records: list[tuple[int, int, int, int, int, bytes]]) -> Batch:
    _, targets, senders, correlations, encodings, bodies = zip(*records, strict=True)
    encoded = Encoded(MIXED, bytes(encodings), array("I", map(len, bodies)), b"".join(bodies))
    batch = Batch(kind, COORDINATOR, len(records)).bodies(encoded.blob, encoded.sizes, encoded.encodings)
    return batch.targets(array("Q", targets)).senders(array("Q", senders)).correlations(array("Q", correlations))
