"""Keep messages in queues of this process, in the place of lanes: what fabric.inline sends and takes.

Lanes     in the place of fabric.ring.Peer       encoded records, in one deque for each process
Outbox    in the place of workers.outbox         what a handler sends goes into those deques at once
Batch     in the place of receiver.Received      records of one kind, decoded
"""

from array import array
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from fabric.codec import Codec
from fabric.config import FabricConfig
from fabric.errors import BackpressureError, MessageTooLargeError
from fabric.inline_arena import InlineArena
from fabric.messages import COORDINATOR, LENT, MESSAGE, ORDER, REPLY, REQUEST, TO_AGENTS
from fabric.orders import decode_order
from fabric.parcel import Data, Parcel
from fabric.ring import HEADER_BYTES


class Record(NamedTuple):
    """A message on its way, encoded. `outbox` is that of the worker it comes from, None for the coordinator."""

    kind: int
    encoding: int
    target: int
    sender: int
    correlation: int
    body: Data  # a Parcel only on its way through an outbox
    outbox: "Outbox | None" = None


class Lanes:
    """The queues to all processes, and the agent table. One thread."""

    process = COORDINATOR

    def __init__(self, config: FabricConfig, processes: int) -> None:
        self.processes = processes
        self.table = memoryview(bytearray(8 * (config.max_agents + 1))).cast("Q")
        self.queues: list[deque[Record]] = [deque() for _ in range(processes)]
        self.busy: Callable[[], bool] = lambda: False
        self.wake: Callable[[], None] = lambda: None
        self._lane_bytes = config.lane_bytes
        self._in_flight = [0] * processes  # bytes from the coordinator to each
        self._sent = [0] * processes
        self.arena: InlineArena | None = None

    def send(self, lane: int, meta: int, target: int, sender: int, correlation: int, body: bytes) -> bool:
        """Queue a record of the coordinator. False: as many bytes wait as a lane would take."""
        if len(body) > self.body_limit(lane):
            raise MessageTooLargeError(len(body), self.body_limit(lane))
        size = len(body) + HEADER_BYTES
        if self._in_flight[lane] + size > self._lane_bytes:
            return False
        self._in_flight[lane] += size
        self._sent[lane] += 1
        self.queues[lane].append(Record(meta & 0xFFFF, meta >> 16 & 0xFF, target, sender, correlation, body))
        self.wake()
        return True

    def take(self, process: int, most: int) -> list[Record]:
        """Take the first records to a process that are of one kind."""
        queue = self.queues[process]
        kind = queue[0].kind
        taken: list[Record] = []
        while queue and queue[0].kind == kind and len(taken) < most:
            record = queue.popleft()
            taken.append(record)
            size = len(record.body) + HEADER_BYTES
            if record.outbox is not None:
                record.outbox.waiting -= size
            else:
                self._in_flight[process] -= size
        return taken

    def body_limit(self, lane: int) -> int:
        """The largest body that a lane of the coordinator takes."""
        return self._lane_bytes // 2 - HEADER_BYTES

    def backlog(self, lane: int) -> tuple[int, int]:
        """Return (bytes in flight, 0)."""
        return self._in_flight[lane], 0

    def dropped_bytes(self) -> int:
        """Return 0: nobody writes here but ourselves."""
        return 0

    def sent(self, lane: int) -> int:
        """Return how many messages the coordinator has sent to a worker."""
        return self._sent[lane]

    def tail(self, lane: int) -> int:
        """Return how far the lane to a worker is written: messages will do."""
        return self._sent[lane]

    def quiet(self) -> bool:
        """Is nothing queued, and in the hands of no coroutine?"""
        return not any(self.queues) and not self.busy()

    def slot_of(self, address: int) -> int | None:
        """Return the slot of an agent, None when it is not alive."""
        slot = self.table[address & 0xFFFFFFFF] ^ (address >> 32 << 32)
        return slot if slot <= 0xFFFF else None

    def route(self, addresses: "array[int]") -> "tuple[int, array[int]]":
        """Return (how many of the first are alive, slot of each of those)."""
        slots = array("H")
        for address in addresses:
            slot = self.slot_of(address)
            if slot is None:
                break
            slots.append(slot)
        return len(slots), slots

    def partition(self, slots: "array[int]") -> list[tuple[int, list[int]]]:
        """Sort messages by slot: (slot, indexes of its messages in order) for each slot in use."""
        return [(slot, [i for i, there in enumerate(slots) if there == slot]) for slot in sorted(set(slots))]

    def write_table(self, addresses: "array[int]", slots: "array[int]", state: int) -> None:
        """Write the table's words of these agents."""
        for address, slot in zip(addresses, slots, strict=True):
            self.table[address & 0xFFFFFFFF] = address >> 32 << 32 | state << 16 | slot

    def close(self) -> None:
        """Drop what is queued."""
        for queue in self.queues:
            queue.clear()


class Outbox:
    """What the handlers of one worker send."""

    def __init__(self, lanes: Lanes, config: FabricConfig) -> None:
        self._lanes = lanes
        self._room = config.outbox_bytes // 2
        smallest = min(config.peer_lane_bytes, config.lane_bytes, config.outbox_bytes)
        self.limit = smallest // 2 - HEADER_BYTES
        self._limit_home = min(config.lane_bytes, config.outbox_bytes) // 2 - HEADER_BYTES
        self.backed_up = False  # a queue is never full
        self.waiting = 0  # bytes that no receiver has taken
        self.undeliverable: Callable[[int, int, int], None] | None = None

    def tell(
        self,
        target: int,
        sender: int,
        correlation: int,
        encoding: int,
        body: Data,
        flags: int = 0,
        kind: int = MESSAGE,
    ) -> None:
        """Send a message of a handler. BackpressureError, MessageTooLargeError as in a worker."""
        _check_size(body, self.limit, "message")
        self.require(len(body))
        self._put(Record(kind, encoding, target, sender, correlation, body, self))

    def steer(self, meta: int, target: int, sender: int, correlation: int, body: bytes) -> None:
        """Send what steers a stream."""
        self._put(Record(meta & 0xFFFF, meta >> 16, target, sender, correlation, body, self))

    def require(self, body_bytes: int, messages: int = 1) -> None:
        """Raise BackpressureError unless there is room for so much now."""
        size = body_bytes + messages * HEADER_BYTES
        if self.waiting + size > self._room:
            raise BackpressureError(
                f"the outbox of this worker is full, with no room for {size:,} bytes ({self.waiting:,} wait for their "
                "receivers): send less, or raise outbox_bytes"
            )

    def reply(self, target: int, sender: int, correlation: int, encoding: int, body: Data) -> None:
        """Send a reply."""
        _check_size(body, self._limit_home if target == COORDINATOR else self.limit, "reply")
        self._put(Record(REPLY, encoding, target, sender, correlation, body, self))

    def request(self, sender: int, correlation: int, encoding: int, body: Data) -> None:
        """Send a request to the coordinator."""
        _check_size(body, self._limit_home, "request")
        self._put(Record(REQUEST, encoding, COORDINATOR, sender, correlation, body, self))

    def _put(self, record: Record) -> None:
        slot = self._lanes.slot_of(record.target)
        if slot is not None:
            parcel = record.body
            if isinstance(parcel, Parcel):
                record = record._replace(body=parcel.lend(slot))
                parcel.sent()
            self.waiting += len(record.body) + HEADER_BYTES
            self._lanes.queues[slot].append(record)
        elif record.kind in TO_AGENTS and self.undeliverable is not None:
            self.undeliverable(record.target, record.sender, record.correlation)


class Batch:
    """Records of one kind, decoded: what a worker's loop has as a receiver.Received."""

    lane = COORDINATOR
    end = bytes = 0  # there is no lane: nothing is held back in it

    def __init__(self, records: list[Record], codec: Codec, arena: InlineArena | None = None) -> None:
        self._codec, self._arena = codec, arena
        self.records = records
        self.kind = records[0].kind
        self.count = len(records)
        self.bodies = [self._body(record.encoding, record.body) for record in records]
        self.undecodable = True  # or not: the host looks at each body

    def _body(self, encoding: int, data: Any) -> Any:
        if encoding & LENT and self._arena is not None:
            return self._codec.decode_lent(encoding & ~LENT, data, self._arena.take)
        return decode_order(data) if encoding == ORDER else self._codec.decode_or_mark(encoding, data)

    def targets(self) -> list[int]:
        """Address of each receiver."""
        return [record.target for record in self.records]

    def senders(self) -> list[int]:
        """Address of each sender."""
        return [record.sender for record in self.records]

    def correlations(self) -> list[int]:
        """Correlation id of each."""
        return [record.correlation for record in self.records]


def _check_size(body: Data, limit: int, what: str) -> None:
    if len(body) > limit:
        raise MessageTooLargeError(len(body), limit, what)
