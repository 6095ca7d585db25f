"""Carry the coordinator's messages: find the agent's worker, encode, send, wait for replies.

    body -> Codec -> the lane of the worker (fabric.lane_ends, which waits for room)
    reply lanes -> Replies -> the entry of the one who asked

Messages of one call are sent in chunks, each encoded while the worker handles the one before.
"""

import contextlib
from array import array
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from fabric.agent import AgentRef
from fabric.batch import Batch
from fabric.codec import Codec
from fabric.counters import TIMEOUTS
from fabric.errors import BackpressureError, FabricError
from fabric.lane_ends import LaneEnds, Post
from fabric.messages import (
    CANCEL,
    COORDINATOR,
    EXPIRE,
    INDEX_MASK,
    MESSAGE,
    NONE,
    ORDER,
    RAW,
    RECORDS,
    REPLY,
    SMALL,
)
from fabric.orders import encode_order
from fabric.parcel import Data
from fabric.pending import NO_REPLIES, Many, One, Promise, deadline_of, error_in
from fabric.replies import Replies
from fabric.ring import Peer
from fabric.same import Same, pick
from fabric.sender import make_batch
from fabric.stopwatch import Stopwatch

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


class Switchboard(LaneEnds):
    """Messages of the coordinator to agents, and the replies to them."""

    def __init__(
        self, peer: Peer, codec: Codec, replies: Replies, target_queueing: float, handled_of: Callable[[int], int]
    ) -> None:
        """See LaneEnds for `target_queueing` and `handled_of`."""
        super().__init__(peer, replies, target_queueing, handled_of)
        self.codec = codec
        replies.on_stray = self.cancel_stray
        self.streams: dict[int, Callable[[], Any]] = {}  # that are read here, by correlation id: weak references
        self.watch: Stopwatch | None = None  # of encoding

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
            chosen = bodies[start:stop] if whole else pick(bodies, start, order)
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

    def same(self, body: Any, count: int, json: bool | None, timeout: float | None = None) -> Same:
        """Encode one body for many receivers."""
        return Same(*self._encode(body, json, timeout), count)


def _numbers(start: int, order: Sequence[int]) -> Callable[[int], int]:
    return lambda index: start + order[index]
