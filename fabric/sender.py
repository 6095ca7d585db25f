"""Send messages over one process's lanes: bodies on this side, bytes on the other.

    send_one            -> ring.Peer -> lane      one lock a lane: threads may share a sender
    make_batch -> put   -> Batch     -> lane      Codec has made bytes of the bodies before

Nothing here waits. What does not fit is said by False, and waiting is the business of those above.
"""

import threading
from array import array
from collections.abc import Sequence
from typing import Any

from fabric.batch import Batch
from fabric.encoded import Encoded
from fabric.errors import FabricError
from fabric.messages import MIXED
from fabric.parcel import Data, Parcel
from fabric.ring import Peer


class Sender:
    """The sending end of one lane."""

    __slots__ = ("_lane", "_peer", "_sender", "_usual", "lock")

    def __init__(self, peer: Peer, lane: int, sender: int = 0) -> None:
        self._peer = self._usual = peer
        self._lane = lane
        self._sender = sender
        self.lock = threading.Lock()

    def send_one(self, meta: int, target: int, correlation: int, body: Data, sender: int = 0) -> bool:
        """Send one encoded body. False: the lane is full.

        Raises:
            MessageTooLargeError: the body is over the lane's limit.
        """
        if type(body) is not bytes and isinstance(body, Parcel):
            return self._send_parcel(meta, target, correlation, body, sender)
        with self.lock:
            return self._peer.send(self._lane, meta, target, sender, correlation, body)

    def _send_parcel(self, meta: int, target: int, correlation: int, parcel: Parcel, sender: int) -> bool:
        with self.lock:
            peer, data = self._peer, parcel.lend(self._lane)
            tail, sent = peer.tail(self._lane), True  # until we know better: a loan too many does no harm
            try:
                sent = peer.send(self._lane, meta, target, sender, correlation, data)
            except BaseException:
                sent = peer.tail(self._lane) != tail  # an interrupt may come before the store, or behind it
                raise
            finally:
                if sent:
                    parcel.sent()
        return sent

    def send_at_once(self, meta: int, target: int, correlation: int) -> bool:
        """Send a record without a body. False: that would mean to wait, for room or for the lock. For finalisers."""
        if not self.lock.acquire(False):
            return False
        try:
            return self._peer.send(self._lane, meta, target, self._sender, correlation, b"")
        finally:
            self.lock.release()

    def put(self, batch: Batch, most_bytes: int = 2**62) -> bool:
        """Send what fits of a batch while fewer than `most_bytes` are in flight. True: all of it is in."""
        with self.lock:
            return batch.put(self._peer, self._lane, most_bytes)

    def backlog(self) -> tuple[int, int]:
        """Return (bytes in flight, the consumer's head)."""
        with self.lock:
            return self._peer.backlog(self._lane)

    @property
    def limit(self) -> int:
        """The largest body that this lane takes, in bytes."""
        return self._peer.body_limit(self._lane)

    def refuse(self, error: FabricError) -> None:
        """Let those who are sending finish, and have whoever comes later get this error."""
        with self.lock:
            self._peer = _Gone(error)

    def refuse_in_child(self, error: FabricError) -> None:
        """Do so in a forked child, where a thread that is no more may hold the lock for ever."""
        self._peer = _Gone(error)

    def allow(self) -> None:
        """Send again."""
        with self.lock:
            self._peer = self._usual


class LoneSender(Sender):
    """The sending end of a lane that only one thread uses: without the lock, which is 180 ns."""

    __slots__ = ()

    def send_one(self, meta: int, target: int, correlation: int, body: Data, sender: int = 0) -> bool:
        """See Sender."""
        if type(body) is not bytes and isinstance(body, Parcel):
            return self._send_parcel(meta, target, correlation, body, sender)
        return self._peer.send(self._lane, meta, target, sender, correlation, body)


class _Gone(Peer):
    """Stands where the peer was, when there is nobody to send to."""

    def __init__(self, error: FabricError) -> None:
        self._error = error

    def __getattribute__(self, name: str) -> Any:
        raise object.__getattribute__(self, "_error").with_traceback(None)


def make_batch(kind: int, encoded: Encoded, targets: "array[int] | int", count: int, sender: int = 0) -> Batch:
    """Make a batch of encoded bodies for these targets; correlation ids are added by the caller."""
    encoding = 0 if encoded.encoding == MIXED else encoded.encoding
    batch = Batch(kind | encoding << 16, sender, count).bodies(encoded.blob, encoded.sizes, encoded.encodings)
    batch.parcels = encoded.parcels
    return batch.target(targets) if isinstance(targets, int) else batch.targets(targets)


def as_sequence(bodies: Any) -> Sequence[Any]:
    """Return bodies as something with a length and an order."""
    return bodies if isinstance(bodies, (list, tuple)) else list(bodies)
