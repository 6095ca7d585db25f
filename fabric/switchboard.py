"""Carry the coordinator's messages: find the agent's worker, encode, send, wait for room and for replies.

    body -> Codec -> Sender of the worker's lane          (full: wait for room, draining replies meanwhile)
    reply lanes -> Replies -> the entry of the one who asked

Messages of one call are sent in chunks, each encoded while the worker handles the one before. How many
bytes a call may have in a lane at a time follows the worker's pace (fabric.window), so that a call with a
million messages does not put all of them before those of other threads.
"""

import contextlib
import functools
import time
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from fabric.agent import AgentRef
from fabric.arena import Arena
from fabric.batch import Batch
from fabric.codec import Codec, Encoded, encode_order, joined
from fabric.counters import BACKPRESSURE_NS, BACKPRESSURE_WAITS, REFUSALS, TIMEOUTS
from fabric.errors import AgentNotFoundError, BackpressureError, ClosedError, FabricError
from fabric.lending import ARENA
from fabric.messages import (
    CANCEL,
    COORDINATOR,
    CREDIT,
    EXPIRE,
    INDEX_MASK,
    MESSAGE,
    NONE,
    ORDER,
    RAW,
    RECORDS,
    RELIEF,
    REPLY,
    SMALL,
    show,
)
from fabric.parcel import Data, Parcel, lend_all
from fabric.pending import NO_REPLIES, Many, One, Promise, deadline_of, error_in
from fabric.replies import Replies
from fabric.ring import QUIET, ROOM, Peer
from fabric.sender import Sender, make_batch
from fabric.stopwatch import Stopwatch
from fabric.tally import Tally
from fabric.window import Window

_CHUNK = 2048  # messages encoded at a time: 0.3 ms of work for either side
_TOGETHER = 1 << 20  # bytes encoded at a time: more is memory that the kernel clears first, and leaves the caches
_NOW = 0.0  # a deadline that has passed
_MOST_TOGETHER = INDEX_MASK + 1


class Letter(NamedTuple):
    """A chunk of records for one address."""

    slot: int
    target: int
    correlation: int
    body: Any  # bytes, or an array of them


class Switchboard:
    """The coordinator's ends of the lanes, with waiting."""

    def __init__(
        self, peer: Peer, codec: Codec, replies: Replies, target_queueing: float, handled_of: Callable[[int], int]
    ) -> None:
        """`handled_of(slot)` is how far a worker says it has handled our lane: see Segment.handled."""
        self._handled_of = handled_of
        self.peer = peer
        self.codec = codec
        self.replies = replies
        self._arena: Arena | None = None
        self.most_lent = 0  # bytes of a message that goes through the arena; 0 without one
        replies.on_stray = self.cancel_stray
        self.streams: dict[int, Callable[[], Any]] = {}  # that are read here, by correlation id: weak references
        self.tally = Tally()
        self.watch: Stopwatch | None = None  # of encoding
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

    # One message.

    def tell(self, ref: AgentRef, body: Any, timeout: float | None, wait: bool) -> None:
        """Send a message nobody waits for."""
        slot = self.slot_of(ref._address)
        encoding, data = self._encode(body, ref._json, timeout, wait)
        self._send_one(self._senders[slot], MESSAGE | encoding << 16, ref._address, 0, data, timeout, wait)

    def ask(self, ref: AgentRef, body: Any, timeout: float | None, expire: bool = False) -> Any:
        """Send a question, wait for the reply."""
        address = ref._address
        slot = self._table[address & 0xFFFFFFFF] ^ (address >> 32 << 32)
        if slot > 0xFFFF or address == COORDINATOR or self.closed is not None:
            slot = self.slot_of(address)  # raises
        data: Data = body
        if type(body) is bytes and len(body) < SMALL:  # an ask at a time is made of these
            encoding = RAW
        else:
            encoding, data = self._encode(body, ref._json, timeout)
        deadline = None if timeout is None else deadline_of(timeout)
        entry = One(slot)
        correlation = self.replies.expect(entry)
        try:
            sender = self._senders[slot]
            meta = MESSAGE | encoding << 16
            if not sender.send_one(meta, address, correlation, data):
                self._send_one(sender, meta, address, correlation, data, timeout, True)
            data = b""  # the receiver alone has it now: not this call, nor who keeps the TimeoutError
            if not self.replies.wait(entry, deadline):
                if expire:
                    self._expire(slot, correlation)
                self.tally.add(TIMEOUTS)
                fate = "skipped, unless it was begun" if expire else "handled all the same"
                raise TimeoutError(f"no reply from {ref!r} within {timeout} s; the message is {fate}")
        except BaseException:
            self.replies.forget(correlation)
            raise
        value = entry.value
        if type(value) in NO_REPLIES:
            raise error_in(value, self.codec.allow_pickle)  # type: ignore[misc]
        return value

    def _expire(self, slot: int, correlation: int) -> None:
        """Have a worker skip what it has not begun of what was asked together. It is only worth a try."""
        meta = EXPIRE | NONE << 16
        with contextlib.suppress(FabricError):
            self._control[slot].send_one(meta, COORDINATOR, correlation, b"")

    def promise(self, ref: AgentRef, body: Any, wait: bool, entry: Promise) -> int:
        """Send a question whose reply goes to an entry of its own. Returns the correlation id."""
        slot = self.slot_of(ref._address)
        entry.slots = (slot,)
        encoding, data = self._encode(body, ref._json, None, wait)
        correlation = self.replies.expect(entry)
        try:
            meta = MESSAGE | encoding << 16
            self._send_one(self._senders[slot], meta, ref._address, correlation, data, None, wait)
        except BaseException:
            self.replies.forget(correlation)
            raise
        return correlation

    def post(self, slot: int, record: "Post", timeout: float | None, wait: bool = True) -> None:
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

    def cancel_streams(self, error: FabricError) -> None:
        """End all streams that are read here; their readers get this error. Any thread."""
        for found in list(self.streams.values()):
            stream = found()
            if stream is not None:
                stream.give_up(error)
        self.replies.wake_and_drain()

    def cancel_stray(self, address: int, correlation: int) -> None:
        """Cancel a stream that nobody reads. The draining thread only, which does not wait."""
        if not self.is_alive(address):
            return
        slot, meta = self.slot_of(address), CANCEL | NONE << 16

        def wait_and_send() -> None:
            with contextlib.suppress(FabricError):
                self.post(slot, Post(meta, address, correlation, b""), None)

        with contextlib.suppress(FabricError):
            if not self.post_at_once(slot, meta, address, correlation):
                self.replies.run_later(wait_and_send)

    def order(self, slot: int, kind: int, order: Any, entry: One, control: bool = False) -> int:
        """Send an order to a worker; the answer goes to the entry. Returns the correlation id."""
        self.check_open()
        encoding, data = (ORDER, encode_order(order)) if control else self.codec.dress(ORDER, encode_order(order))
        correlation = self.replies.expect(entry)
        sender = (self._control if control else self._senders)[slot]
        try:
            self._send_one(sender, kind | encoding << 16, COORDINATOR, correlation, data, None, True)
        except BaseException:
            self.replies.forget(correlation)
            raise
        return correlation

    def answer(self, address: int, correlation: int, body: Any) -> None:
        """Send the reply to what an agent asked of the coordinator."""
        encoding, data = self.codec.encode(body, json=False)  # JSON cannot say an AgentGroup
        sender = self._senders[self.slot_of(address)]
        self._send_one(sender, REPLY | encoding << 16, address, correlation, data, None, True)

    def order_limit(self, slot: int) -> int:
        """Return how many bytes an order to this worker may have."""
        return max(self._senders[slot].limit, self.most_lent)

    def chunk_limit(self, slots: Iterable[int]) -> int:
        """Return how many bytes a chunk of records to any of these workers may have: it goes through no arena."""
        return min(self._senders[slot].limit for slot in slots)

    def _encode(self, body: Any, json: bool | None, timeout: float | None, wait: bool = True) -> tuple[int, Data]:
        """Encode a body, and wait for room in the arena no longer than the caller is ready to."""
        if wait and timeout is None:
            started = self.watch.start(1) if self.watch is not None else 0
            encoded = self.codec.encode(body, json)
            if started and self.watch is not None:
                self.watch.stop(started, 1)
            return encoded
        with self._hurry(deadline_of(timeout) if wait else _NOW):
            return self.codec.encode(body, json)

    def _hurry(self, deadline: float | None) -> contextlib.AbstractContextManager[None]:
        """Have what is encoded meanwhile wait for room in the arena no longer than until then."""
        if self._arena is None or deadline is None:
            return contextlib.nullcontext()
        return self._arena.hurry(deadline)

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

    # Many messages.

    def tell_many(
        self, addresses: "array[int]", bodies: Sequence[Any], timeout: float | None, json: bool | None = None
    ) -> None:
        """Send a message to each address; `bodies` may be one body repeated (Same)."""
        slots = self.slots_of(addresses)
        deadline = deadline_of(timeout)
        self._send_chunks(addresses, slots, bodies, None, deadline, json)

    def ask_many(
        self,
        addresses: "array[int]",
        bodies: Sequence[Any],
        timeout: float | None,
        json: bool | None = None,
        expire: bool = False,
    ) -> tuple[list[Any], bool]:
        """Send a question to each address; return the replies in order, and whether errors are among them."""
        slots = self.slots_of(addresses)
        deadline = deadline_of(timeout)
        replies: list[Any] = []
        failed = False
        for start in range(0, len(addresses), _MOST_TOGETHER):
            part = slice(start, start + _MOST_TOGETHER)
            entry = Many(slots[part])
            first = self.replies.expect(entry)
            try:
                self._send_chunks(addresses[part], slots[part], bodies[part], first, deadline, json)
                if not self.replies.wait(entry, deadline):
                    for slot in set(entry.slots) if expire else ():
                        self._expire(slot, first)
                    self.tally.add(TIMEOUTS)
                    raise TimeoutError(f"{entry.owed:,} of {len(addresses):,} replies did not come within {timeout} s")
            except BaseException:
                self.replies.forget(first)
                raise
            failed = failed or entry.failed
            replies = entry.replies if not replies else replies + entry.replies
        if failed:
            allow = self.codec.allow_pickle
            return [error_in(reply, allow) or reply for reply in replies], True
        return replies, False

    def _send_chunks(
        self,
        addresses: "array[int]",
        slots: "array[int]",
        bodies: Sequence[Any],
        correlation: int | None,
        deadline: float | None,
        json: bool | None,
    ) -> None:
        count, start, most = len(addresses), 0, 0
        while start < count:
            stop = min(start + (most or self._chunk(bodies, start)), count)
            together = stop - start > 1
            try:
                batches = self._batches(addresses, slots, bodies, (start, stop), json, _NOW if together else deadline)
            except BackpressureError:  # some were larger than the first: fewer at a time, so that those before are sent
                if not together:
                    raise
                most = max(1, (stop - start) // 8)
                continue
            for _, order, batch in batches:
                if correlation is not None and len(batches) == 1:
                    batch.numbered_from(correlation + start)
                elif correlation is not None:
                    batch.correlations(array("Q", [correlation + start + i for i in order]))
            self._put_all([(slot, batch) for slot, _, batch in batches], deadline)
            if correlation is not None:
                self.replies.drain_if_free()
            start, most = stop, 0

    def _batches(
        self,
        addresses: "array[int]",
        slots: "array[int]",
        bodies: Sequence[Any],
        part: tuple[int, int],
        json: bool | None,
        deadline: float | None,
    ) -> list[tuple[int, Sequence[int], Batch]]:
        """Encode part of the bodies: for each slot, which of the part it gets, and those as a batch."""
        start, stop = part
        parts = self.peer.partition(slots[start:stop])
        batches = []
        for slot, order in parts:
            whole = len(parts) == 1
            targets = addresses[start:stop] if whole else array("Q", [addresses[start + i] for i in order])
            chosen = bodies[start:stop] if whole else _pick(bodies, start, order)
            started = self.watch.start(len(order)) if self.watch is not None else 0
            with self._hurry(deadline):
                batches.append((slot, order, self._batch(slot, targets, chosen, json, _numbers(start, order))))
            if started and self.watch is not None:
                self.watch.stop(started, len(order))
        return batches

    def _chunk(self, bodies: Sequence[Any], start: int) -> int:
        """Return how many bodies to encode before they are sent, by the size of the first of them."""
        size = 0 if isinstance(bodies, Same) else self.codec.about_bytes(bodies[start])
        return min(_CHUNK, max(1, _TOGETHER // max(1, size)))

    def send_chunks(self, chunks: Sequence[Letter], deadline: float | None) -> None:
        """Send chunks of records, each a message to the object that hosts its range; wait for room.

        Raises:
            TimeoutError
        """
        batches = []
        for slot, target, correlation, body in chunks:
            batch = Batch(MESSAGE | RECORDS << 16, COORDINATOR, 1).target(target).numbered_from(correlation)
            batches.append((slot, batch.bodies(body, len(body))))
        self._put_all(batches, deadline)
        if any(letter.correlation for letter in chunks):
            self.replies.drain_if_free()

    def _batch(
        self,
        slot: int,
        targets: "array[int]",
        bodies: Sequence[Any],
        json: bool | None,
        number: Callable[[int], int],
    ) -> Batch:
        if not isinstance(bodies, Same):
            return make_batch(MESSAGE, self.codec.encode_many(bodies, json, number, slot), targets, len(targets))
        if type(bodies.data) is bytes:
            batch = Batch(MESSAGE | bodies.encoding << 16, COORDINATOR, len(targets))
            return batch.targets(targets).same_body(bodies.data)
        return make_batch(MESSAGE, bodies.lent(len(targets), slot), targets, len(targets))

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

    def same(self, body: Any, count: int, json: bool | None, timeout: float | None = None) -> "Same":
        """Encode one body for many receivers."""
        return Same(*self._encode(body, json, timeout), count)

    def wait_quiet(self, deadline: float | None) -> bool:
        """Wait until no message is in flight anywhere. False: the time was up."""
        return self.replies.wait_for(lambda: self.closed is not None or self.peer.quiet(), QUIET, deadline)


class Post(NamedTuple):
    """A record on its way: what Sender.send_one takes."""

    meta: int
    target: int
    correlation: int
    data: Data


def _wait_for_returns(replies: Replies, reached: Callable[[], bool], deadline: float) -> bool:
    return replies.wait_for(reached, ARENA, deadline)


class _Closed(Sequence[int]):
    """The agent table of a closed fabric: every word says that nobody is there."""

    def __len__(self) -> int:
        return 0

    def __getitem__(self, index: Any) -> Any:
        return 0xFFFF_FFFF_FFFF_FFFF


class Same(Sequence[Any]):
    """One encoded body, as a sequence of any length."""

    def __init__(self, encoding: int, data: Data, count: int) -> None:
        self.encoding = encoding
        self.data = data
        self._count = count

    def lent(self, count: int, slot: int) -> Encoded:
        """Lend it to a worker so many times; what lies in the arena lies there once."""
        assert type(self.data) is Parcel
        parcels = [self.data.again() for _ in range(count)]
        blobs, by_index = lend_all(parcels, slot)
        return joined(self.encoding, None, blobs)._replace(parcels=by_index)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Same(self.encoding, self.data, len(range(*index.indices(self._count))))
        return self.data


def _numbers(start: int, order: Sequence[int]) -> Callable[[int], int]:
    return lambda index: start + order[index]


def _pick(bodies: Sequence[Any], start: int, order: Sequence[int]) -> Sequence[Any]:
    if isinstance(bodies, Same):
        return Same(bodies.encoding, bodies.data, len(order))
    return [bodies[start + i] for i in order]
