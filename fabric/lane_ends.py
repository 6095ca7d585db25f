"""Send records and batches to workers: find the one that hosts an agent, put them into its lane, wait for room.

    address -> the agent table -> slot -> Sender of its lane     (full: wait for room, draining replies meanwhile)

How many bytes a call may have in a lane at a time follows the worker's pace (fabric.window), so that a call with a
million messages does not put all of them before those of other threads. What a message is, and who waits for the
reply to it, is for the Switchboard to know, which stands on this.
"""

import contextlib
import functools
import time
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from fabric.arena import Arena
from fabric.batch import Batch
from fabric.counters import BACKPRESSURE_NS, BACKPRESSURE_WAITS, REFUSALS, TIMEOUTS
from fabric.errors import AgentNotFoundError, BackpressureError, ClosedError, FabricError
from fabric.lending import ARENA
from fabric.messages import COORDINATOR, CREDIT, NONE, RELIEF, show
from fabric.parcel import Data
from fabric.pending import deadline_of
from fabric.replies import Replies
from fabric.ring import QUIET, ROOM, Peer
from fabric.sender import Sender
from fabric.tally import Tally
from fabric.window import Window


class Post(NamedTuple):
    """A record on its way: what Sender.send_one takes."""

    meta: int
    target: int
    correlation: int
    data: Data


class LaneEnds:
    """The coordinator's ends of the lanes, with waiting."""

    def __init__(self, peer: Peer, replies: Replies, target_queueing: float, handled_of: Callable[[int], int]) -> None:
        """`handled_of(slot)` is how far a worker says it has handled our lane: see Segment.handled."""
        self._handled_of = handled_of
        self.peer = peer
        self.replies = replies
        self._arena: Arena | None = None
        self.most_lent = 0  # bytes of a message that goes through the arena; 0 without one
        self.tally = Tally()
        self.closed: str | None = None  # why nothing can be sent any more
        self._table: Sequence[int] = peer.table
        workers = range(1, peer.processes)
        self._senders = {slot: Sender(peer, slot) for slot in workers}
        self._control = {slot: Sender(peer, slot + peer.processes) for slot in workers}
        lane_bytes = {slot: 2 * (sender.limit + 48) for slot, sender in self._senders.items()}
        self._windows = {slot: Window(lane_bytes[slot], target_queueing) for slot in workers}

    def lend_from(self, arena: Arena) -> None:
        """Put large bodies into this arena, and wait for room there as for room in a lane."""
        self._arena = arena
        self.most_lent = arena.size // 4
        arena.wait = functools.partial(_wait_for_returns, self.replies)

    def _hurry(self, deadline: float | None) -> contextlib.AbstractContextManager[None]:
        """Have what is encoded meanwhile wait for room in the arena no longer than until then."""
        if self._arena is None or deadline is None:
            return contextlib.nullcontext()
        return self._arena.hurry(deadline)

    def close(self, why: str, in_child: bool = False) -> None:
        """Refuse everything from now on; `in_child`: in a forked child, where no lock can be relied on."""
        self.closed = why
        self._table = _Closed()
        for sender in (*self._senders.values(), *self._control.values()):
            (sender.refuse_in_child if in_child else sender.refuse)(ClosedError(why))

    def give_up(self, slot: int, error: FabricError) -> None:
        """Refuse what is still to be sent to a worker that is no more; who waits for room there is told."""
        self._senders[slot].refuse(error)
        self._control[slot].refuse(error)

    def use(self, slot: int) -> None:
        """Send to a slot that has a worker again."""
        for sender in (self._senders[slot], self._control[slot]):
            sender.allow()
            if self.closed is not None:  # looked at after it, for `close` says so before it has all of them refuse
                sender.refuse(ClosedError(self.closed))

    # Where agents are.

    def slot_of(self, address: int) -> int:
        """Return the worker slot of an agent, from the shared table.

        Raises:
            ClosedError, AgentNotFoundError
        """
        slot = self._table[address & 0xFFFFFFFF] ^ (address >> 32 << 32)
        if slot > 0xFFFF or address == COORDINATOR or self.closed is not None:
            raise self._unreachable(address)
        return slot

    def is_alive(self, address: int) -> bool:
        """Is the agent alive, by the shared table?"""
        index, table = address & 0xFFFFFFFF, self._table
        return self.closed is None and index < len(table) and table[index] ^ (address >> 32 << 32) <= 0xFFFF

    def slots_of(self, addresses: "array[int]") -> "array[int]":
        """Return the worker slot of each agent.

        Raises:
            ClosedError, AgentNotFoundError: with the position of the first that is not there.
        """
        self.check_open()
        found, slots = self.peer.route(addresses)
        if found < len(addresses):
            error = self._unreachable(addresses[found])
            raise type(error)(f"number {found} of {len(addresses):,}: {error}")
        return slots

    def check_open(self) -> None:
        """Raise ClosedError when nothing can be sent any more."""
        if self.closed is not None:
            raise ClosedError(self.closed)

    def _unreachable(self, address: int) -> FabricError:
        if self.closed is not None:
            return ClosedError(self.closed)
        return AgentNotFoundError(f"{show(address)} has stopped, or never was")

    # Sending.

    def post(self, slot: int, record: Post, timeout: float | None, wait: bool = True) -> None:
        """Send what is a stream's: what asks for it, what steers it, a chunk. Waits for room, or raises, as `tell`."""
        control = record.meta & 0xFFFF == CREDIT  # not behind all that was told; what is lost there is said again
        sender = (self._control if control else self._senders)[slot]
        self._send_one(sender, *record, timeout, wait)

    def post_at_once(self, slot: int, kind: int, target: int, correlation: int) -> bool:
        """Send a record without a body, or say False where that would mean to wait. Finalisers may call it."""
        return self.closed is not None or self._senders[slot].send_at_once(kind, target, correlation)

    def relieve(self, slot: int) -> bool:
        """Tell a worker to leave when what was sent to it before is handled. False: its lane is full. Never waits."""
        return self._senders[slot].send_one(RELIEF | NONE << 16, COORDINATOR, 0, b"")

    def order_limit(self, slot: int) -> int:
        """Return how many bytes an order to this worker may have."""
        return max(self._senders[slot].limit, self.most_lent)

    def chunk_limit(self, slots: Iterable[int]) -> int:
        """Return how many bytes a chunk of records to any of these workers may have: it goes through no arena."""
        return min(self._senders[slot].limit for slot in slots)

    def _send_one(
        self,
        sender: Sender,
        meta: int,
        target: int,
        correlation: int,
        data: Data,
        timeout: float | None,
        wait: bool,
    ) -> None:
        if sender.send_one(meta, target, correlation, data):
            return
        if not wait:
            self.tally.add(REFUSALS)
            raise BackpressureError(f"the lane to the worker of {show(target)} is full")

        done = False

        def sent() -> bool:
            nonlocal done  # whoever waits may look again after it has been sent: it must not go twice
            done = done or self.closed is not None or sender.send_one(meta, target, correlation, data)
            return done

        deadline = deadline_of(timeout)
        if not self._wait_for_room(sent, deadline):
            raise TimeoutError(f"no room in the lane to the worker of {show(target)} within {timeout} s")
        self.check_open()

    def _put_all(self, batches: list[tuple[int, Batch]], deadline: float | None) -> None:
        open_batches = [(slot, batch) for slot, batch in batches if not self._put(slot, batch)]

        def sent() -> bool:
            open_batches[:] = [(slot, batch) for slot, batch in open_batches if not self._put(slot, batch)]
            return not open_batches or self.closed is not None

        if open_batches and not self._wait_for_room(sent, deadline):
            rest = sum(batch.count - batch.done for _, batch in open_batches)
            raise TimeoutError(f"{rest:,} messages found no room in time; those before them were sent")
        self.check_open()

    def _wait_for_room(self, sent: Callable[[], bool], deadline: float | None) -> bool:
        start = time.monotonic_ns()
        in_time = False
        try:
            in_time = self.replies.wait_for(sent, ROOM, deadline)
        finally:
            self.tally.add(BACKPRESSURE_WAITS)
            self.tally.add(BACKPRESSURE_NS, time.monotonic_ns() - start)
            if not in_time:
                self.tally.add(TIMEOUTS)
        return in_time

    def _put(self, slot: int, batch: Batch) -> bool:
        sender, window = self._senders[slot], self._windows[slot]
        backlog, head = sender.backlog()
        held = max(0, min(backlog, self._handled_of(slot) - head))  # handled, and only not handed back yet
        window.observe(head + held, time.monotonic(), backlog - held)
        return sender.put(batch, window.limit + held)

    def wait_quiet(self, deadline: float | None) -> bool:
        """Wait until no message is in flight anywhere. False: the time was up."""
        return self.replies.wait_for(lambda: self.closed is not None or self.peer.quiet(), QUIET, deadline)


def _wait_for_returns(replies: Replies, reached: Callable[[], bool], deadline: float) -> bool:
    return replies.wait_for(reached, ARENA, deadline)


class _Closed(Sequence[int]):
    """The agent table of a closed fabric: every word says that nobody is there."""

    def __len__(self) -> int:
        return 0

    def __getitem__(self, index: Any) -> Any:
        return 0xFFFF_FFFF_FFFF_FFFF
