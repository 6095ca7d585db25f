"""Empty the lanes of a worker that is given up, so that nobody waits for them and no message is lost in silence.

The coordinator takes the dead worker's place at its ends of the lanes: it maps the dead one's block writable,
which only the fabric's owner can do, and only when the kernel has said that the worker is dead. What was
told is reported; what the coordinator asked is failed by those who hold the entries; what agents of other
workers asked is answered with the error.
"""

import contextlib
from collections.abc import Callable

from fabric.codec import Codec
from fabric.errors import EncodingError, FabricError, WorkerLostError
from fabric.lending import Receipts
from fabric.messages import COORDINATOR, LENT, MESSAGE, MIXED, REPLY, TO_AGENTS
from fabric.parcel import unpack
from fabric.receiver import Received, Receiver
from fabric.remote_errors import refusal
from fabric.ring import MESSAGES
from fabric.segment import Segment
from fabric.sender import Sender


class _Headers(Receiver):
    """Reads the headers alone: decoding a body may be what the worker died of."""

    receipts: Receipts

    def _decode(self, received: Received) -> None:
        received.bodies = []
        if received.encoding & (LENT | MIXED):
            parts = self._parts(self._data_of(received.lane), received)
            for index, (encoding, part) in enumerate(zip(self._encodings(received), parts, strict=True)):
                if encoding & LENT:
                    self._hold(received.lane, part, received.end_of(index + 1))

    def _hold(self, lane: int, body: bytes, end: int) -> None:
        """Take what was lent in the dead one's name, so that it goes back with what it had taken itself."""
        with contextlib.suppress(EncodingError):
            for entry in unpack(body)[0]:
                self.receipts.hold(lane, entry.loan, entry.offset, entry.bytes, end)


def empty_lanes(
    segment: Segment,
    slot: int,
    codec: Codec,
    bells: list[int],
    error: WorkerLostError,
    report: Callable[[int, int, FabricError], None],
) -> int:
    """Take all messages from the lanes of a dead worker; return how many.

    `report(target, sender, error)` is called for each that was told. Nothing waits: an answer that finds no room
    is dropped, and the one who asked learns of it when it times out.
    """
    peer = Segment(segment.descriptor, segment.layout, slot).peer()
    for process, bell in enumerate(bells):
        peer.set_bell(process, bell)
    receiver = _Headers(segment, peer, codec)
    receipts = receiver.receipts = Receipts(peer)
    encoding, body = codec.encode(refusal(error))
    taken = 0
    while (received := receiver.receive()) is not None:
        back = received.lane % peer.processes
        if received.kind in TO_AGENTS:
            taken += received.count
            rows = zip(received.targets(), received.senders(), received.correlations(), strict=True)
            for target, sender, correlation in rows:
                if correlation == 0:
                    report(target, sender, error)
                elif back not in (COORDINATOR, slot):
                    Sender(peer, back).send_one(REPLY | encoding << 16, sender, correlation, body, target)
        receiver.commit(received.lane, received.end)
    receipts.adopt()  # all is committed: what it held, and what we held for it, goes back to its owners
    peer.resume_outbox()
    for stray in peer.flush_outbox()[1]:
        if stray.kind == MESSAGE and stray.correlation == 0:
            report(stray.target, stray.sender, error)
    peer.arm(MESSAGES)  # the dead are not awake: nobody spins less on their account
    return taken
