"""Put out the effects of handled messages: replies, reports of failures, and what the outbox holds.

    slice of a batch, all asked by one process     one Batch of replies into the lane back to it
    told, deferred or forwarded among them         one by one, through the outbox
    failures of told messages                      to the coordinator, with a ring of its attention bell

Replies to the coordinator wait for room: it always makes some, since whoever waits there drains. Replies to
other workers never wait, they go into the outbox: two workers that wait for each other stand still.
"""

import functools
import os
from array import array

from fabric import counters as count
from fabric.batch import Batch
from fabric.encoded import Encoded
from fabric.errors import BackpressureError, MessageTooLargeError
from fabric.messages import COORDINATOR, CURSOR_UNCLEAR, FAILURE, FORWARDED, MIXED, RAW, REPLY, SMALL
from fabric.parcel import Data
from fabric.receiver import Received
from fabric.remote_errors import refusal
from fabric.ring import ROOM, Peer
from fabric.sender import Sender
from fabric.stopwatch import Stopwatch, add
from fabric.workers.host import Host
from fabric.workers.outbox import Outbox, Slice

_LOOK = 1.0  # seconds; the C core wakes as often on its own, as a safety net


class Publisher:
    """Sends for the loop of one worker."""

    def __init__(
        self, peer: Peer, senders: dict[int, Sender], host: Host, outbox: Outbox, counters: memoryview, attention: int
    ) -> None:
        self._peer = peer
        self._processes = peer.processes
        self._senders = senders
        self._host = host
        self._outbox = outbox
        self._counters = counters
        self._attention = attention
        self._watch = Stopwatch(functools.partial(add, counters, count.ENCODE_NS))
        self.answer_limit = senders[COORDINATOR].limit  # bytes

    def publish(self, received: Received, first: int, behind: int, of: Slice | None = None) -> None:
        """Put out all effects of messages first to behind - 1 of a batch; `of` is for Outbox.flush."""
        host, outbox = self._host, self._outbox
        if outbox.pending and host.takes_once(received.targets()[first]):
            outbox.flush()  # nobody does it again: who has the reply may rely on all that came before it
        if received.asks:
            if received.asks == received.count and not host.deferred and not received.flags & FORWARDED:
                self._reply_to_all(received, first, behind)
            else:
                self._reply_to_some(received, first, behind)
        if host.failures or outbox.wants_attention:
            self.publish_failures(of)
        if outbox.pending or outbox.backed_up:
            outbox.flush(of)

    def publish_early(self) -> None:
        """Send the replies to what is done of the slice in hand, while a handler runs; they go again behind it."""
        host = self._host
        received, first, values = host.received, host.first, host.values
        if received is None or received.lane != COORDINATOR or host.deferred:
            return
        targets, correlations = received.targets(), received.correlations()
        for index, value in enumerate(list(values), first):
            encoding, body = host.encode_reply(targets[index], value)
            self._send_one(REPLY | encoding << 16, COORDINATOR, correlations[index], body)

    def publish_failures(self, of: Slice | None = None) -> None:
        """Tell the coordinator of told messages that went wrong, and of requests, even if nobody waits there."""
        failures, self._host.failures = self._host.failures, []
        for address, sender, info in failures:
            encoding, body = self._host.codec.encode(info)
            self._send_one(FAILURE | encoding << 16, sender, 0, body, address)
        if failures or self._outbox.wants_attention:
            self._outbox.flush(of)
            self._outbox.wants_attention = False
            self._counters[count.ERRORS] = self._host.errors
            os.eventfd_write(self._attention, 1)

    def answer(self, correlation: int, encoding: int, body: Data) -> None:
        """Answer an order of the coordinator."""
        self._send_one(REPLY | encoding << 16, COORDINATOR, correlation, body)

    def _reply_to_all(self, received: Received, first: int, behind: int) -> None:
        """Each message of the slice is a question of the process at the other end of its lane."""
        host, values = self._host, self._host.values
        slot = received.lane % self._processes
        if received.count == 1 and slot == COORDINATOR:
            body: Data = values[0]
            if type(body) is bytes and len(body) < SMALL:  # an ask at a time is made of these
                encoding = RAW
            else:
                encoding, body = host.encode_reply(received.target, body)
            self._send_one(REPLY | encoding << 16, COORDINATOR, received.correlation, body)
            return
        json = None if not host.json_choices else self._json_of(received.targets()[first:behind])
        if behind - first > 1:
            host.cursor[0] = CURSOR_UNCLEAR  # encoding may kill, and which of them is not known before a second try
        started = self._watch.start(behind - first)
        try:
            encoded = host.codec.encode_replies(values, json, slot)
        except BackpressureError:  # together they do not fit into the arena
            encoded = None
        if started:
            self._watch.stop(started, behind - first)
        if encoded is None:
            self._reply_singly(received, first, behind, first)
            return
        if slot != COORDINATOR and _largest(encoded) > self._outbox.limit:
            self._reply_singly(received, first, behind, first)
            return
        encoding = 0 if encoded.encoding == MIXED else encoded.encoding
        batch = Batch(REPLY | encoding << 16, COORDINATOR, behind - first)
        batch.bodies(encoded.blob, encoded.sizes, encoded.encodings)
        batch.parcels = encoded.parcels
        correlations = received.correlations()
        if received.step == 1:
            batch.numbered_from(correlations[first])
        else:
            batch.correlations(array("Q", correlations[first:behind]))
        if slot != COORDINATOR:
            batch.targets(array("Q", received.senders()[first:behind]))
        try:
            self._send(slot, batch)
        except MessageTooLargeError:  # one reply is over the lane's limit: an error goes in its place
            self._reply_singly(received, first + batch.done, behind, first)

    def _reply_singly(self, received: Received, start: int, behind: int, first: int) -> None:
        """Send replies one by one to the process that asked; those that are too large as errors."""
        host = self._host
        slot, targets, senders = received.lane % self._processes, received.targets(), received.senders()
        correlations = received.correlations()
        for index in range(start, behind):
            if slot == COORDINATOR:
                encoding, body = host.encode_reply(targets[index], host.values[index - first])
                self._send_one(REPLY | encoding << 16, COORDINATOR, correlations[index], body)
            else:
                host.send_reply(senders[index], targets[index], correlations[index], host.values[index - first])

    def _reply_to_some(self, received: Received, first: int, behind: int) -> None:
        """Some were told, some are answered later, or the one who asked is elsewhere: through the outbox."""
        host = self._host
        targets, senders, correlations = received.targets(), received.senders(), received.correlations()
        for index in range(first, behind):
            if correlations[index] != 0 and index not in host.deferred:
                host.cursor[0] = index + 1
                host.send_reply(senders[index], targets[index], correlations[index], host.values[index - first])

    def _json_of(self, targets: list[int]) -> bool | None:
        choices = {self._host.json_choices.get(target) for target in targets}
        return choices.pop() if len(choices) == 1 else False

    def _send_one(self, meta: int, target: int, correlation: int, body: Data, source: int = COORDINATOR) -> None:
        sender = self._senders[COORDINATOR]
        try:
            while not sender.send_one(meta, target, correlation, body, source):
                self._peer.wait(ROOM, -1, _LOOK)
        except (MessageTooLargeError, BackpressureError) as error:  # too large; or all loans are out
            encoding, body = self._host.codec.encode(refusal(error))
            self._send_one(meta & 0xFFFF | encoding << 16, target, correlation, body, source)

    def _send(self, slot: int, batch: Batch) -> None:
        sender = self._senders[slot]
        if slot != COORDINATOR:
            if self._outbox.backed_up or not sender.put(batch):
                self._outbox.overflow(batch)
            return
        while not sender.put(batch):
            self._peer.wait(ROOM, -1, _LOOK)


def _largest(encoded: Encoded) -> int:
    return encoded.sizes if isinstance(encoded.sizes, int) else max(encoded.sizes)
