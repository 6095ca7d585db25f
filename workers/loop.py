"""Run a worker: receive a batch, have the host handle it, publish, commit, wait. The one hot Python loop.

    lanes --receive--> [ handle a slice -> publish its replies and sends -> commit ]* --> next lane
                         ^ up to 200 us of handlers, or the whole batch

Peek, handle, publish, commit: a lane's head moves past exactly the messages whose effects are out, so a
worker that dies in between leaves them to its successor.
"""

import os
import time
from array import array
from typing import Any

from fabric import counters as count
from fabric.channel import Received, Receiver, Sender
from fabric.errors import MessageTooLargeError
from fabric.messages import (
    COORDINATOR,
    FAILURE,
    FORWARDED,
    MESSAGE,
    MIXED,
    PING,
    PREWARM,
    REPLY,
    SHUTDOWN,
    SPAWN,
    STOP_AGENTS,
    ErrorInfo,
    PrewarmOrder,
    SpawnOrder,
    StopOrder,
)
from fabric.ring import MESSAGES, ROOM, Batch, Lifeline, Peer
from fabric.workers.host import Host
from fabric.workers.ledger import Ledger, Stretch
from fabric.workers.outbox import Outbox

_IDLE_LOOK = 1.0  # seconds; the C core wakes as often on its own, as a safety net


class Loop:
    """The loop of one worker, and what it needs of shared memory."""

    def __init__(
        self,
        peer: Peer,
        receiver: Receiver,
        senders: dict[int, Sender],
        host: Host,
        counters: memoryview,
        attention: int,
    ) -> None:
        self._peer = peer
        self._receiver = receiver
        self._senders = senders
        self._host = host
        self._outbox: Outbox = host.outbox
        self._counters = counters
        self._attention = attention
        self._ledger = Ledger()
        self._shutdown: str | None = None
        self._handlers = {
            MESSAGE: self._messages,
            REPLY: self._replies,
            SPAWN: self._orders,
            STOP_AGENTS: self._orders,
            PREWARM: self._orders,
            SHUTDOWN: self._orders,
            PING: self._orders,
        }

    def start(self, orders: list[Any]) -> None:
        """Carry out what comes before any message: a successor makes the agents of its slot again."""
        self._counters[count.PID] = os.getpid()
        for order in orders:
            report = self._obey(order)
            for position, *info in report[0] if isinstance(order, SpawnOrder) else []:
                address = array("Q", order.addresses)[position]
                self._host.failures.append((address, COORDINATOR, ErrorInfo(*info)))
        self._publish_failures()
        self._outbox.flush()
        self._counters[count.AGENTS] = self._host.count

    def run(self, batch_size: int, lifeline: Lifeline) -> None:
        """Work until told to leave, or until the coordinator is gone."""
        receive, handlers = self._receiver.receive, self._handlers
        while not lifeline.ended:
            received = receive(batch_size)
            if received is not None:
                handlers[received.kind](received)
                if self._host.busy_coroutines:
                    self._turn_event_loop()
            elif self._shutdown is not None and self._all_done():
                break
            else:
                self._idle()
        self._host.stop_all()
        self._publish_failures()
        self._outbox.flush()
        self._note_facts()

    # One batch.

    def _messages(self, received: Received) -> None:
        host, total, lane = self._host, received.count, received.lane
        counters = self._counters
        began = time.perf_counter_ns()
        first = 0
        while first < total:
            stretch = Stretch(lane, 0)
            if first == 0:
                host.begin(received, stretch)
            else:
                host.stretch = stretch
            behind = host.handle(first)
            self._publish(received, first, behind)
            stretch.end = received.end_of(behind)
            self._commit(lane, self._ledger.read(stretch))
            first = behind
        host.end()
        counters[count.HANDLED] += total
        counters[count.BATCHES] += 1
        counters[count.BYTES_IN] += received.bytes
        counters[count.BUSY_NS] += time.perf_counter_ns() - began
        if counters[count.ERRORS] != host.errors:
            counters[count.ERRORS] = host.errors

    def _publish(self, received: Received, first: int, behind: int) -> None:
        """Put out all effects of messages first to behind - 1."""
        host = self._host
        if received.asks:
            if received.asks == received.count and not host.deferred and not received.flags & FORWARDED:
                self._reply_to_all(received, first, behind)
            else:
                self._reply_to_some(received, first, behind)
        if host.failures or self._outbox.wants_attention:
            self._publish_failures()
        if not self._outbox.idle:
            self._outbox.flush()

    def _reply_to_all(self, received: Received, first: int, behind: int) -> None:
        """Each message of the slice is a question of the process at the other end of its lane."""
        values = self._host.values
        slot = received.lane % self._peer.processes
        json = None if not self._host.json_choices else self._json_of(received.targets()[first:behind])
        if behind - first == 1:
            encoding, body = self._host.encode_reply(received.targets()[first], values[0])
            self._send_one(slot, encoding, received.senders()[first], received.correlations()[first], body)
            return
        correlations = received.correlations()
        encoded = self._host.codec.encode_replies(values, json)
        encoding = 0 if encoded.encoding == MIXED else encoded.encoding
        batch = Batch(REPLY | encoding << 16, COORDINATOR, behind - first)
        batch.bodies(encoded.blob, encoded.sizes, encoded.encodings)
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
        self._counters[count.REPLIES] += behind - first

    def _reply_singly(self, received: Received, start: int, behind: int, first: int) -> None:
        """Send replies one by one, those that are too large as errors."""
        slot, senders, correlations = (
            received.lane % self._peer.processes,
            received.senders(),
            received.correlations(),
        )
        for index in range(start, behind):
            encoding, body = self._host.encode_reply(0, self._host.values[index - first])
            self._send_one(slot, encoding, senders[index], correlations[index], body)

    def _reply_to_some(self, received: Received, first: int, behind: int) -> None:
        """Some were told, some are answered later, or the one who asked is elsewhere: one by one."""
        host = self._host
        targets, senders, correlations = received.targets(), received.senders(), received.correlations()
        for index in range(first, behind):
            if correlations[index] == 0 or index in host.deferred:
                continue
            encoding, body = host.encode_reply(targets[index], host.values[index - first])
            self._outbox.reply(senders[index], targets[index], correlations[index], encoding, body)
            self._counters[count.REPLIES] += 1

    def _json_of(self, targets: list[int]) -> bool | None:
        choices = {self._host.json_choices.get(target) for target in targets}
        return choices.pop() if len(choices) == 1 else False

    def _publish_failures(self) -> None:
        """Tell the coordinator of told messages that went wrong."""
        failures, self._host.failures = self._host.failures, []
        for address, sender, info in failures:
            encoding, body = self._host.codec.encode(info)
            self._send_one(COORDINATOR, encoding, sender, 0, body, kind=FAILURE, source=address)
        if failures or self._outbox.wants_attention:
            self._outbox.flush()
            self._outbox.wants_attention = False
            os.eventfd_write(self._attention, 1)

    def _replies(self, received: Received) -> None:
        """Answers to what coroutines of this worker asked."""
        for correlation, body in zip(received.correlations(), received.bodies, strict=True):
            if not self._host.resolve(correlation, body):
                self._counters[count.LATE_REPLIES] += 1
        self._commit(received.lane, self._ledger.read(_ended(received)))
        self._turn_event_loop()

    def _orders(self, received: Received) -> None:
        """Orders of the coordinator; each is answered."""
        correlations = received.correlations()
        for correlation, order in zip(correlations, received.bodies, strict=True):
            try:
                answer = self._obey(order)
            except BaseException as error:
                answer = self._host.describe(error, COORDINATOR)
            self._publish_failures()
            self._outbox.flush()
            if correlation:
                encoding, body = self._host.codec.encode_answer(answer)
                self._send_one(COORDINATOR, encoding, COORDINATOR, correlation, body)
        self._commit(received.lane, self._ledger.read(_ended(received)))
        self._counters[count.AGENTS] = self._host.count

    def _obey(self, order: Any) -> Any:
        if isinstance(order, SpawnOrder):
            return self._host.spawn(order).plain(self._host.codec.allow_pickle)
        if isinstance(order, StopOrder):
            return self._host.stop(array("Q", order.addresses))
        if isinstance(order, PrewarmOrder):
            return self._host.prewarm(order)
        if isinstance(order, str):  # SHUTDOWN: "drain" or "now"
            self._shutdown = order
            return None
        self._note_facts()
        return self._peer.facts()

    # Sending what must go: waits for room, which the coordinator always makes.

    def _send_one(
        self,
        slot: int,
        encoding: int,
        target: int,
        correlation: int,
        body: bytes,
        kind: int = REPLY,
        source: int = COORDINATOR,
    ) -> None:
        if slot != COORDINATOR:
            self._outbox.reply(target, source, correlation, encoding, body)
            self._outbox.flush()
            return
        sender = self._senders[slot]
        if len(body) > sender.limit:
            info = ErrorInfo("too_large", f"{len(body)} {sender.limit}", "", 0, None)
            encoding, body = self._host.codec.encode(info)
        while not sender.send_one(kind | encoding << 16, target, correlation, body, source):
            self._wait_for_room()

    def _send(self, slot: int, batch: Batch) -> None:
        sender = self._senders[slot]
        if slot != COORDINATOR:
            if self._outbox.backed_up or not sender.put(batch):
                self._outbox.overflow(batch)
            return
        while not sender.put(batch):
            self._wait_for_room()

    def _wait_for_room(self) -> None:
        self._peer.wait(ROOM, -1, _IDLE_LOOK)

    def _commit(self, lane: int, end: int | None) -> None:
        if end is not None:
            self._receiver.commit(lane, end)

    # Nothing to do.

    def _idle(self) -> None:
        outbox = self._outbox
        if outbox.backed_up:
            outbox.retry()
        seconds = self._host.due_timers(time.monotonic())
        if outbox.pending or self._host.failures:
            self._publish_failures()
            outbox.flush()
            return
        if self._host.busy_coroutines:
            self._sleep_in_event_loop(seconds)
        elif not self._host.warm.refill_one():
            self._note_facts()
            self._peer.wait(MESSAGES | (ROOM if outbox.backed_up else 0), -1, seconds)

    def _note_facts(self) -> None:
        counters, facts = self._counters, self._peer.facts()
        counters[count.PARKS] = facts["parks"]
        counters[count.ALARMS] = facts["alarms"]
        counters[count.DROPPED_BYTES] = facts["dropped_bytes"]
        counters[count.LOST] = self._outbox.lost

    def _all_done(self) -> bool:
        return self._shutdown == "now" or (self._ledger.empty and self._outbox.idle)

    # Coroutines.

    def _turn_event_loop(self) -> None:
        """Let coroutines run until each awaits something; then publish what they finished and sent."""
        loop = self._host.loop()
        loop.call_soon(loop.stop)
        loop.run_forever()
        self._publish_finished()

    def _sleep_in_event_loop(self, seconds: float | None) -> None:
        """Sleep where coroutines can be woken, by messages as well as by what they await."""
        loop = self._host.loop()
        reasons = MESSAGES | (ROOM if self._outbox.backed_up else 0)
        bell = self._peer.bell
        loop.add_reader(bell, loop.stop)
        timer = loop.call_later(min(_IDLE_LOOK, _IDLE_LOOK if seconds is None else seconds), loop.stop)
        self._host.wake = loop.stop
        if self._peer.arm(reasons):
            loop.call_soon(loop.stop)
        loop.run_forever()
        self._peer.disarm()
        self._host.wake = None
        timer.cancel()
        loop.remove_reader(bell)
        self._publish_finished()

    def _publish_finished(self) -> None:
        host = self._host
        if not host.finished and self._outbox.idle and not host.failures:
            return
        self._publish_failures()
        self._outbox.flush()
        finished, host.finished = host.finished, []
        for ticket in finished:
            if ticket.stretch is not None:
                self._commit(ticket.stretch.lane, self._ledger.done(ticket.stretch))


def _ended(received: Received) -> Stretch:
    return Stretch(received.lane, received.end_of(received.count))
