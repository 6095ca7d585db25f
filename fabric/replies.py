"""Drain the reply lanes in the coordinator: whoever waits does it, one thread at a time.

    thread A: ask ---- leads: waits in the C core, drains, completes A's and others' entries ---- leaves
    thread B: ask ---- follows: sleeps on its entry's lock ------- completed by A --|
    thread C: ask ---- follows --------------------------- woken to lead when A leaves --- drains ---
    pump          ---- leads only while futures are outstanding and nobody else does

There is no hop between threads for the one who leads. Only the leader sets the coordinator's `sleeping`
word: two threads on one word lost wake-ups. The story of a hand-over:
  1. A is done, and lets go of the lead.
  2. A wakes a follower. (One that comes between 1 and 2 finds the lead free, for it tries once more after it
     has put itself on the list.)
  3. The woken one tries for the lead. A newcomer may have it already: then it follows again. Or its own
     entry is done, or its time is up: then it wakes the next before it goes.
  4. Where no follower is left and futures are outstanding, the last one wakes the pump.
Functions of users (callbacks of futures, on_error) run in the pump, never on another caller's thread.
"""

import collections
import itertools
import threading
import time
from collections.abc import Callable

from fabric.counters import LATE_REPLIES
from fabric.errors import FabricError
from fabric.guarded_log import GuardedLogger
from fabric.messages import INDEX_BITS, REPLY, begins_stream
from fabric.pending import Entry, One, Promise, Replied, Single, wake
from fabric.pump import Pump
from fabric.receiver import Received, Receiver
from fabric.ring import MESSAGES, Peer
from fabric.tally import Tally

_log = GuardedLogger("fabric")
_MOST_RUNS = 64  # taken at one go: a worker that sends for ever must not keep a thread that has its reply
_LEAVING = 5.0  # seconds that a leader may take to see that the fabric is closed


class Replies(Pump):
    """Entries that wait for replies, and the threads that drain them."""

    def __init__(self, peer: Peer, receiver: Receiver, on_record: Callable[[Received], None]) -> None:
        self._peer = peer
        self._receiver = receiver
        self._on_record = on_record
        self._lead = threading.Lock()
        self._pending: dict[int, Entry] = {}
        self._tokens = itertools.count(1)
        self._followers: set[threading.Lock] = set()
        self._awaited = 0  # reasons for which the leader sleeps
        self._wanted: collections.Counter[int] = collections.Counter()  # reasons of followers, by count
        self._orders: collections.deque[Callable[[], None]] = collections.deque()
        super().__init__()
        self._promised: set[int] = set()  # tokens of futures; a set, since threads add to it without a lock
        self._finishes: list[Callable[[], None]] = []  # to be done when the replies in hand are committed
        self._unread = False  # did the last look leave something in the lanes?
        self._closed: FabricError | None = None  # what those get who come too late
        self._obliging = False  # does somebody lead who would rather leave it to whoever waits?
        self.drains = 0  # how often it was looked what lies in the lanes
        self.late = 0
        self.tally = Tally()
        # Told of a stream that begins although nobody reads it, (agent, correlation id): its reader had all of it
        # when its worker died, but that had not committed the question.
        self.on_stray: Callable[[int, int], None] | None = None
        self.on_garbage: Callable[[], None] | None = None  # told when bytes were dropped that can be no records
        self._dropped = 0  # such bytes, when it was told last

    def expect(self, entry: Entry) -> int:
        """Register an entry; return the correlation id of its first question."""
        token = next(self._tokens)
        self._pending[token] = entry
        if type(entry) is Promise:
            self._promised.add(token)
        if self._closed is not None:  # it came too late for close() to find it
            self.forget(token << INDEX_BITS)
            raise self._closed
        return token << INDEX_BITS

    def expects(self, correlation: int) -> bool:
        """Is a reply still waited for that has not come? Drains what is there, unless somebody does. Never waits."""
        self.drain_if_free()
        return correlation >> INDEX_BITS in self._pending

    def forget(self, correlation: int) -> None:
        """Wait no longer; a reply that comes later is dropped and counted."""
        token = correlation >> INDEX_BITS
        self._pending.pop(token, None)
        self._promised.discard(token)

    def attend(self, correlation: int) -> None:
        """Have the pump drain until this entry has something to be done: an event loop waits for it."""
        self._promised.add(correlation >> INDEX_BITS)
        self.wake_pump()

    def wait(self, entry: Entry, deadline: float | None) -> bool:
        """Wait for an entry, draining meanwhile. False: the deadline (monotonic seconds) has passed."""
        while not entry.done:
            if self._lead.acquire(False):
                try:
                    in_time = entry.done or self._lead_until(entry.is_done, MESSAGES, deadline)
                finally:
                    self._leave()
            else:
                in_time = self._follow(entry, deadline)
            if not in_time and not entry.done:
                return False
        return True

    def wait_for(self, reached: Callable[[], bool], reason: int, deadline: float | None) -> bool:
        """Wait for a condition of the lanes (room, quiet), draining meanwhile. False: the time was up."""
        while not reached():
            if self._lead.acquire(False):
                try:
                    in_time = self._lead_until(reached, MESSAGES | reason, deadline)
                finally:
                    self._leave()
            else:
                in_time = self._watch(reason, deadline)
            if not in_time or self._closed is not None:
                return reached()
        return True

    def lead_if_free(self, reached: Callable[[], bool], deadline: float | None) -> bool:
        """Drain in the place of all who do not wait, until `reached` or until somebody waits. False: another leads.

        `reached` is looked at when something came, or `wake_leader` was called.
        """
        if not self._lead.acquire(False):
            return False
        try:
            self._obliging = True  # then look at the list: who follows is on it before it looks here
            if not self._followers and not reached():
                self._lead_until(lambda: bool(self._followers) or reached(), MESSAGES, deadline)
        finally:
            self._obliging = False
            self._leave()
        return True

    def wake_leader(self) -> None:
        """Have whoever leads look whether it still has to. Any thread."""
        self._peer.ring(self._peer.process)

    def drain_if_free(self) -> None:
        """Drain what is there, unless somebody does already. Never waits."""
        if self._lead.acquire(False):
            try:
                self._drain()
            finally:
                self._leave()

    def fail_all(self, slot: int, error: FabricError, first: Callable[[Receiver], None] | None = None) -> None:
        """Give up what a worker owes, in whichever thread leads; `first` is called there before. Any thread."""

        def give_up() -> None:
            if first is not None:
                first(self._receiver)
            for token, entry in list(self._pending.items()):
                if slot in entry.slots:
                    finish = entry.fail(slot, error)
                    if entry.done and not entry.stays:
                        self._pending.pop(token, None)
                        self._promised.discard(token)
                    if finish is not None:
                        self._later(finish)

        self._order(give_up)

    def wake_and_drain(self) -> None:
        """Drain what a worker sent although nobody here waits for it. Any thread."""
        self._order(_look)  # who leads and is about to leave looks once more for its sake

    def _order(self, order: Callable[[], None]) -> None:
        self._orders.append(order)
        self._peer.ring(self._peer.process)
        self.drain_if_free()

    def close(self, error: FabricError) -> None:
        """Fail what is still open, and end the pump."""
        with self._pump_guard:
            if self._closed is not None:
                return
            self._closed = error
            pump, self._pump = self._pump, None
        for entry in list(self._pending.values()):
            for slot in set(entry.slots):
                finish = entry.fail(slot, error)
                if finish is not None:
                    self._jobs.append(finish)
        self._pending.clear()
        self._promised.clear()
        self._wake_followers()
        self._pump_bell.set()
        self._peer.ring(self._peer.process)
        if pump is not None and pump is not threading.current_thread():
            pump.join()
        self._run_jobs()
        self._lead.acquire(timeout=_LEAVING)  # kept: nobody drains any more
        self._receiver.close()

    @property
    def outstanding(self) -> int:
        """How many entries are open."""
        return len(self._pending)

    # Leading.

    def _lead_until(self, reached: Callable[[], bool], reasons: int, deadline: float | None) -> bool:
        """Drain until `reached`. It was looked at before, so wait first: that returns at once if there is work."""
        receiver = self._receiver
        seconds = None
        while True:
            if deadline is not None:
                seconds = deadline - time.monotonic()
                if seconds <= 0:
                    self._drain()
                    return reached()
            if self._wanted:
                for reason in list(self._wanted):
                    reasons |= reason
            self._awaited = reasons
            received = receiver.await_next(reasons, seconds)
            if received is None:
                self._look_for_garbage()
            self._drain(received)
            del received  # what is lent goes back when those who got it let go, and not when something comes again
            if reached() or self._closed is not None:
                return True
            if self._wanted:
                self._wake_followers()

    def _look_for_garbage(self) -> None:
        """See whether a worker wrote what cannot be into its lane to us: replies may have been there."""
        dropped = self._peer.dropped_bytes()
        if dropped != self._dropped and self.on_garbage is not None:
            self._dropped = dropped
            self.on_garbage()

    def _lead_as_pump(self) -> bool:
        """See Pump."""
        if not self._lead.acquire(False):
            return False
        try:
            self._lead_until(lambda: bool(self._jobs) or not self._promised, MESSAGES, None)
        finally:
            self._leave()
        return True

    def _leave(self) -> None:
        """Let go of the lead, and hand it on."""
        self._awaited = 0
        unread, self._unread = self._unread, False
        self._lead.release()
        if self._followers or self._promised or self._jobs:
            self._hand_on()
        if self._orders:
            self.drain_if_free()
        elif unread and self._closed is None:
            self.run_later(self.drain_if_free)

    def _hand_on(self) -> None:
        """Wake somebody to lead, if nobody does: a follower, else the pump. Who is done already hands on in turn."""
        if self._lead.locked():
            return
        for lock in list(self._followers):
            wake(lock)
            return
        if self._promised or self._jobs:
            self._pump_bell.set()

    def _drain(self, received: Received | None = None) -> None:
        """Take `received`, and what lies in the lanes: all of it, or a good deal. The leader only."""
        receiver, pending = self._receiver, self._pending
        self.drains += 1
        while self._orders:
            self._orders.popleft()()
        self._unread = False
        runs = 0
        while runs < _MOST_RUNS:
            received = received or receiver.receive()
            if received is None:
                return
            if received.kind == REPLY:
                entry = pending.get(received.token)
                if type(entry) is One:  # an ask at a time is made of these
                    pending.pop(received.token, None)
                    entry.accept(received)
                elif entry is not None:
                    self._give(entry, received.token, received)
                else:
                    self._give_singly(received)
            else:
                self._on_record(received)
            if received.lent:  # its memory is to go back when the last view is gone, and not when we look next
                receiver.commit(received.lane, received.end)
            else:
                receiver.commit_at_next(received.lane, received.end)
            while self._finishes:
                self._later(self._finishes.pop(0))
            if not received.more:
                return
            received = None
            runs += 1
        self._unread = True

    def _give(self, entry: Entry, token: int, replies: Replied) -> None:
        try:
            finish = entry.accept(replies)
        except (IndexError, ValueError):  # no worker of ours numbers a reply so: drop it
            self._count_late(len(replies.bodies))
            return
        if finish is not None:
            self._promised.discard(token)
            self._finishes.append(finish)
        if entry.done and not entry.stays:
            self._pending.pop(token, None)

    def _give_singly(self, received: Received) -> None:
        """Replies of one batch that belong to different entries."""
        pending = self._pending
        for index, (correlation, body) in enumerate(zip(received.correlations(), received.bodies, strict=True)):
            token = correlation >> INDEX_BITS
            entry = pending.get(token)
            if entry is None:
                self._count_late(1)
                if begins_stream(correlation) and self.on_stray is not None:
                    self.on_stray(received.senders()[index], correlation)
            else:
                self._give(entry, token, Single(correlation, body))

    def _count_late(self, replies: int) -> None:
        self.late += replies
        self.tally.add(LATE_REPLIES, replies)

    def _later(self, finish: Callable[[], None]) -> None:
        self._jobs.append(finish)
        self.wake_pump()

    # Following.

    def _follow(self, entry: Entry, deadline: float | None) -> bool:
        lock = threading.Lock()
        lock.acquire()
        entry.lock = lock
        self._followers.add(lock)
        if self._obliging:
            self.wake_leader()
        try:
            return self._sleep(lock, lambda: entry.done, deadline)
        finally:
            self._followers.discard(lock)
            entry.lock = None
            self._hand_on()

    def _watch(self, reason: int, deadline: float | None) -> bool:
        lock = threading.Lock()
        lock.acquire()
        self._wanted[reason] += 1
        self._followers.add(lock)
        if self._obliging or not reason & self._awaited:
            self._peer.ring(self._peer.process)  # the leader sleeps for other reasons: let it take in ours
        try:
            return self._sleep(lock, lambda: self._closed is not None, deadline)
        finally:
            self._followers.discard(lock)
            self._wanted[reason] -= 1
            if self._wanted[reason] <= 0:
                del self._wanted[reason]
            self._hand_on()

    def _sleep(self, lock: threading.Lock, done: Callable[[], bool], deadline: float | None) -> bool:
        if not self._lead.locked():  # the leader left before it could see us on its list
            return True
        if done():
            return True
        seconds = -1.0
        if deadline is not None:
            seconds = deadline - time.monotonic()
            if seconds <= 0:
                return False
        return lock.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))

    def _wake_followers(self) -> None:
        for lock in list(self._followers):
            wake(lock)


def _look() -> None:
    """An order to do nothing but to have looked at the lanes."""
