"""Run a worker: receive a batch, have the host handle it, publish, commit, wait. The one hot Python loop.

    lanes --receive--> [ handle a slice -> publish its replies and sends -> commit ]* --> next lane
                         ^ up to 200 us of handlers, or the whole batch

Peek, handle, publish, commit: a lane's head moves past exactly the messages whose effects are out, so a
worker that dies in between leaves them to its successor.
"""

import os
import time
from collections.abc import Callable
from typing import Any

from fabric import counters as count
from fabric.lifeline import Lifeline
from fabric.messages import (
    CANCEL,
    COORDINATOR,
    CREDIT,
    CURSOR_LANE_SHIFT,
    EXPIRE,
    INDEX_BITS,
    MESSAGE,
    PREWARM,
    RELIEF,
    REPLY,
    SHUTDOWN,
    SPAWN,
    STOP_AGENTS,
    STREAM,
)
from fabric.receiver import Received, Receiver
from fabric.ring import MESSAGES, ROOM, Peer
from fabric.workers.host import Host
from fabric.workers.keeper import Keeper
from fabric.workers.ledger import Ledger, Stretch
from fabric.workers.orders import Orders
from fabric.workers.outbox import Slice
from fabric.workers.publisher import Publisher
from fabric.workers.recovery import DONE, Recovery
from fabric.workers.restoring import restore
from fabric.workers.unfinished import Unfinished

_EXPIRED_KEPT = 10_000


class Loop:
    """The loop of one worker."""

    def __init__(
        self,
        peer: Peer,
        receiver: Receiver,
        host: Host,
        publisher: Publisher,
        counters: memoryview,
        closing: memoryview,
        keeper: Keeper,
        recovery: Recovery,
        head_of: Callable[[int], int],
        handled: memoryview,
    ) -> None:
        """`head_of(lane)` is how far we have committed it; `handled` are our words of Segment.handled."""
        self._peer = peer
        self._receiver = receiver
        self._host = host
        self._outbox = host.outbox
        self._publisher = publisher
        self._counters = counters
        self._closing = closing  # one word of the coordinator's: 1 when we are to leave at once
        self._ledger = Ledger(lambda lane: peer.lane_bytes(lane) // 2)
        self._leaving = False
        self._dropped_bytes = 0  # of records that nobody of ours sends here
        self._keeper = keeper
        self._recovery: Recovery | None = recovery
        self._head_of = head_of
        self._handled = handled
        self._handled[COORDINATOR] = 0  # our predecessor's; what it had not committed comes again
        self._unpublished: list[Stretch] = []  # handled, but some effect found no room anywhere yet
        self._orders = Orders(peer, receiver, host, recovery, publisher.answer_limit, self._leave)
        self._unfinished = Unfinished(peer, host, publisher, counters, self._commit_all, self._commit_finished)
        self._handlers = {MESSAGE: self._messages, STREAM: self._messages, REPLY: self._unfinished.replies}
        self._handlers.update({CREDIT: self._unfinished.steering, CANCEL: self._unfinished.steering})
        self._handlers.update({EXPIRE: self._expiries, RELIEF: self._relief})
        self._expired: dict[int, None] = {}  # tokens in order; bounded, for many were handled before the word came
        self._handlers.update(dict.fromkeys((SPAWN, STOP_AGENTS, PREWARM, SHUTDOWN), self._carry_out))

    def start(self, orders: list[Any]) -> None:
        """Carry out what comes before any message: a successor makes the agents of its slot again."""
        self._counters[count.PID] = os.getpid()
        self._counters[count.STARTED_NS] = time.monotonic_ns()
        published = self._outbox.settle()
        if published is not None:
            self._peer.resume(*published)
        self._orders.obey_first(orders)
        assert self._recovery is not None
        restore(self._host, self._keeper, self._recovery, self._head_of, self._counters)
        self._publisher.publish_failures()
        self._outbox.flush()
        self._counters[count.AGENTS] = self._host.count
        if self._orders.died_ns:
            self._counters[count.RECOVERY_NS] += time.monotonic_ns() - self._orders.died_ns

    def run(self, batch_size: int, lifeline: Lifeline) -> None:
        """Work until told to leave, or until the coordinator is gone."""
        receive, handlers, host = self._receiver.receive, self._handlers, self._host
        closing, unknown, turn = self._closing, self._unknown, self._unfinished.turn
        received = None
        while not closing[0]:
            received = received or receive(batch_size)
            while received is not None and not closing[0]:
                handlers.get(received.kind, unknown)(received)
                if host.in_hand:
                    turn()
                received = receive(batch_size) if received.more else None
            if self._leaving and self._hands_are_empty():
                break
            if lifeline.ended:  # looked at here, where nobody waits for us; its end wakes us too
                break
            received = self._idle(batch_size)
        self._receiver.commit_now()
        host.residents.stop_all()
        self._publisher.publish_failures()
        self._outbox.flush()
        self._note_facts()
        self._counters[count.LEFT] = os.getpid()

    # One batch.

    def _messages(self, received: Received) -> None:
        """Handle messages to agents, slice by slice."""
        host, lane, total = self._host, received.lane, received.count
        keeper, outbox = self._keeper, self._outbox
        streams = received.kind == STREAM
        if self._recovery is not None:
            self._recover(received)
        if self._expired and received.asks:
            self._skip_expired(received)
        host.begin(received)
        host.cursor[1] = lane << CURSOR_LANE_SHIFT | received.end - received.bytes
        first = 0
        while first < total and not (first and self._closing[0]):
            if streams:
                behind = host.handle_stream(first)
            else:
                behind = host.handle(first) if total > 1 else host.handle_one()
            end = received.end if behind == total else received.end_of(behind)
            if keeper.active and not streams:  # the question of a stream is done when that is over
                host.note(received, first, behind)
            if host.owing and outbox.pending:  # the store that publishes those may end the slice for a successor too
                self._owe()
            self._publisher.publish(received, first, behind, self._whole(lane, end) if outbox.pending else None)
            if host.owing:
                self._owe()
            if keeper.behind:
                self._keep()
            if outbox.unpublished:
                self._hold(received)
            if behind == total and host.stretch is None and self._may_put_off(lane):
                self._receiver.commit_at_next(lane, end)  # which is the next thing that happens
            else:
                self._commit_read(lane, end, host.stretch)
            host.stretch = None
            first = behind
        host.cursor[0] = 0
        host.end()
        if keeper.due:
            self._keep()

    def _may_put_off(self, lane: int) -> bool:
        """May the last slice of a batch be committed with the next look at the lanes? That follows at once."""
        host = self._host
        busy = self._keeper.active or host.mailboxes or host.in_hand or self._unpublished
        return not (busy or self._ledger.holds(lane))

    def _recover(self, received: Received) -> None:
        """See to what comes again after a crash, until all of that has come."""
        recovery = self._recovery
        assert recovery is not None
        if recovery.concerns(received):
            recovery.mark(received)
        if recovery.over:
            self._recovery = self._orders.recovery = None

    def _whole(self, lane: int, end: int) -> Slice | None:
        """Return the slice in hand, if its effects are all published now and it is committed next."""
        if self._host.stretch is not None or self._ledger.holds(lane) or self._keeper.behind:
            return None
        return Slice(lane, end)

    def _owe(self) -> None:
        """Write down whose reply was put off, and what is to be sent later, before that message is committed."""
        owing, self._host.owing = self._host.owing, []
        self._keeper.write_down(owing)

    def _let_go(self) -> None:
        """Write down what is in the hands of coroutines and is about to be committed all the same."""
        tickets, self._ledger.let_go = self._ledger.let_go, []
        for ticket in tickets:
            if not ticket.done:
                ticket.owed = True
                self._keeper.owe(ticket)

    def _hold(self, received: Received) -> None:
        """Keep the slice in hand from being committed until all of its effects are out."""
        host = self._host
        if host.stretch is None:
            host.stretch = Stretch(received.lane, begin=received.end - received.bytes)
        host.stretch.in_hand += 1
        self._unpublished.append(host.stretch)

    def _release(self) -> None:
        """Commit what was held for want of room."""
        if self._unpublished and not self._outbox.unpublished:
            if self._keeper.behind:
                self._keep()
            held, self._unpublished = self._unpublished, []
            for stretch in held:
                self._commit(stretch.lane, self._ledger.done(stretch))

    def _commit_finished(self) -> None:
        """Commit messages that were held until they were answered, and are."""
        finished, self._host.finished = self._host.finished, []
        keeper = self._keeper
        if self._host.owing:
            self._owe()
        if keeper.active:
            for ticket in finished:
                if ticket.behind >= 0 and ticket.stretch is not None:
                    keeper.finished(ticket.target, ticket.stretch.lane, ticket.behind)
            if keeper.due:
                self._keep()  # before the commit: state and position go together
        for ticket in finished:
            if ticket.stretch is not None:
                self._commit(ticket.stretch.lane, self._ledger.done(ticket.stretch))

    # State.

    def _keep(self) -> None:
        """Take snapshots, unless effects of what they would contain are not out yet."""
        if not self._outbox.unpublished:
            before = self._keeper.taken
            self._keeper.take(self._head_of)
            self._counters[count.SNAPSHOTS] += self._keeper.taken - before  # of all who had this slot

    def _expiries(self, received: Received) -> None:
        """Note what nobody waits for any more. Control lanes come first: it may be skipped still."""
        self._expired.update(dict.fromkeys(correlation >> INDEX_BITS for correlation in received.correlations()))
        while len(self._expired) > _EXPIRED_KEPT:
            del self._expired[next(iter(self._expired))]
        self._commit_all(received)

    def _skip_expired(self, received: Received) -> None:
        if received.lane != COORDINATOR:
            return
        for index, correlation in enumerate(received.correlations()):
            if correlation and correlation >> INDEX_BITS in self._expired:
                received.bodies[index] = DONE
                received.undecodable = True
                self._counters[count.EXPIRED] += 1

    def _carry_out(self, received: Received) -> None:
        """Carry out orders of the coordinator; each is answered. Nobody else gives us any."""
        if received.lane % self._peer.processes != COORDINATOR:
            self._unknown(received)
            return
        for correlation, order in zip(received.correlations(), received.bodies, strict=True):
            try:
                answer = self._orders.obey(order)
            except BaseException as error:
                answer = self._host.describe(error, COORDINATOR)
            self._publisher.publish_failures()
            self._outbox.flush()
            if self._host.finished:  # streams of agents that were stopped
                self._unfinished.publish_finished()
            if correlation:
                self._publisher.answer(correlation, *self._host.codec.encode_answer(answer))
        self._commit_all(received)
        if self._keeper.gone:
            self._keeper.forget_gone()
        self._counters[count.AGENTS] = self._host.count

    def _leave(self) -> None:
        """Have the loop end when nothing lies in the lanes, and nothing is in hand."""
        self._leaving = True

    def _relief(self, received: Received) -> None:
        """Leave although more may lie in the lanes: a successor waits for it."""
        if received.lane != COORDINATOR:
            self._unknown(received)
            return
        self._leaving = True
        self._commit_all(received)
        if self._hands_are_empty():
            received.more = False  # to us

    def _hands_are_empty(self) -> bool:
        """Is everything done that was taken from the lanes, and out?"""
        return self._ledger.empty and self._outbox.idle

    def _unknown(self, received: Received) -> None:
        """Drop what no version of ours sends here, and count it."""
        self._dropped_bytes += received.bytes
        self._commit_all(received)

    def _commit_all(self, received: Received) -> None:
        self._commit_read(received.lane, received.end)

    def _commit(self, lane: int, end: int | None) -> None:
        if end is not None:
            self._receiver.commit(lane, end)

    def _commit_read(self, lane: int, end: int, stretch: Stretch | None = None) -> None:
        """Commit what was handled up to `end`; where something holds that back, say how far it is handled."""
        committed = self._ledger.read(lane, end, stretch)
        if self._ledger.let_go:
            self._let_go()
        self._commit(lane, committed)
        if committed != end and lane == COORDINATOR:
            self._handled[lane] = end
            self._peer.ring(COORDINATOR)  # it may wait for its window to open, and no commit tells it

    # Nothing to do.

    def _idle(self, batch_size: int) -> Received | None:
        """Look after what is not urgent, then sleep until there is something; return it, if it is messages."""
        host, outbox = self._host, self._outbox
        if host.streams:
            self._unfinished.drop_orphans()
        if not (outbox.backed_up or outbox.pending or self._keeper.active or host.has_chores):
            received = self._receiver.await_next(MESSAGES, None, batch_size)
            if received is None:
                self._note_facts()
            return received
        self._receiver.commit_now()
        reasons = MESSAGES
        if outbox.backed_up:
            outbox.retry()
            self._release()
            reasons = MESSAGES | ROOM if outbox.backed_up else MESSAGES
        seconds = host.due_timers(time.monotonic()) if host.timers else None
        if self._keeper.active:
            left = self._keeper.seconds_left()
            seconds = left if seconds is None else seconds if left is None else min(left, seconds)
            if self._keeper.due:
                self._keep()
        if outbox.pending or host.failures:
            self._publisher.publish_failures()
            outbox.flush()
            if host.fired and not outbox.unpublished:
                host.forget_fired()
        elif host.streams.ready:
            self._unfinished.turn()
        elif host.busy_coroutines:
            self._unfinished.sleep(reasons, seconds)
        elif not host.warm.refill_one():
            received = self._receiver.await_next(reasons, seconds, batch_size)
            if received is not None:
                return received
            self._note_facts()
        return None

    def _note_facts(self) -> None:
        """Say what is not said as it happens: it is rare, and it is not worth a look each time."""
        counters = self._counters
        counters[count.LOST] = self._outbox.lost
        counters[count.ERRORS] = self._host.errors
        counters[count.DROPPED_BYTES] = self._peer.dropped_bytes() + self._dropped_bytes
