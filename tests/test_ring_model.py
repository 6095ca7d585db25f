"""The ring against lists: any order of sends, looks, commits, spills and successors, from any position of the counters.

FABRIC_LONG=n tries n times as many runs, at random and not the same each time; how to repeat a failure is printed.
"""

import os
from array import array
from collections import deque

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fabric.batch import Batch
from fabric.codec import Codec
from fabric.layout import LINE_BYTES
from fabric.messages import MESSAGE, RAW, REPLY
from fabric.receiver import Receiver
from fabric.sender import Sender
from tests.loopback import LANE_BYTES, OUTBOX_BYTES, PEER_LANE_BYTES, Loopback

LONG = int(os.environ.get("FABRIC_LONG", "0"))
PROCESSES = 3
PAIRS = [(0, 1), (0, 2), (1, 0), (2, 0), (1, 2), (2, 1), (1, 1), (2, 2)]
SIZES = st.sampled_from([0, 1, 15, 16, 17, 48, 700, 2_000, 5_000, PEER_LANE_BYTES // 2 - 48])
KINDS = st.sampled_from([MESSAGE, REPLY])


def _span(size):
    return (48 + size + 15) // 16 * 16


class Lane:
    """What a lane has to hold: records that were sent and not committed; the first `read` of them were looked at."""

    def __init__(self, capacity, position):
        self.capacity = capacity
        self.records = deque()
        self.read = 0
        self.tail = position

    def has_room(self, size):
        """Does one more record fit?"""
        return self.after(size) - self.head <= self.capacity

    def after(self, size):
        """The tail behind one more record, and the padding before it."""
        to_end = -self.tail % self.capacity or self.capacity
        return self.tail + (to_end if _span(size) > to_end else 0) + _span(size)

    @property
    def head(self):
        return self.records[0][0] if self.records else self.tail

    def send(self, record):
        """Take (kind, target, correlation, body); each is kept with the counter before its padding."""
        begin, self.tail = self.tail, self.after(len(record[-1]))
        self.records.append((begin, record))


class RingMachine(RuleBasedStateMachine):
    """Three processes, all in this one."""

    def __init__(self):
        super().__init__()
        self.loop = Loopback(PROCESSES - 1)
        self.receivers = {}
        self.number = 0

    @initialize(turns=st.integers(0, 2), below=st.sampled_from([0, 16, 48, 64, 4_096]))
    def begin(self, turns, below):
        """Let all counters stand somewhere, maybe just under 2^64."""
        self.start = (turns * LANE_BYTES * 4 - below) % 2**64 if turns else 0
        layout = self.loop.segments[0].layout
        lines = 4 * layout.processes + 2
        for segment in self.loop.segments:
            for line in range(lines):
                segment._own_words(layout.heads_offset + line * LINE_BYTES, 1)[0] = self.start
        for process in range(PROCESSES):
            self.attach(process)
        sizes = {pair: PEER_LANE_BYTES if 0 not in pair else LANE_BYTES for pair in PAIRS}
        self.lanes = {pair: Lane(sizes[pair], self.start) for pair in PAIRS}
        self.outboxes = {process: deque() for process in range(1, PROCESSES)}
        self.spilled = dict.fromkeys(self.outboxes, 0)
        for slot in (1, 2):
            self.loop.put_agent(slot, slot)

    def attach(self, process):
        if process in self.receivers:
            self.receivers[process].close()
        segment = self.loop.segments[process]
        peer = self.loop.peers[process] = segment.peer()
        for other, bell in enumerate(self.loop.bells):
            peer.set_bell(other, bell)
        self.receivers[process] = Receiver(segment, peer, Codec())

    def _record(self, kind, size, target=7):
        self.number += 1
        body = (self.number.to_bytes(4, "little") * (size // 4 + 1))[:size]
        return kind, target, self.number, body

    @rule(pair=st.sampled_from(PAIRS), kind=KINDS, size=SIZES)
    def send_one(self, pair, kind, size):
        lane, record = self.lanes[pair], self._record(kind, size)
        sent = Sender(self.loop.peers[pair[0]], pair[1]).send_one(kind | RAW << 16, *record[1:])
        assert sent == lane.has_room(size)
        if sent:
            lane.send(record)

    @rule(
        pair=st.sampled_from(PAIRS),
        kind=KINDS,
        sizes=st.lists(SIZES, min_size=1, max_size=4),
        repeats=st.sampled_from([1, 2, 5, 70]),
    )
    def send_many(self, pair, kind, sizes, repeats):
        lane, records = self.lanes[pair], [self._record(kind, size) for size in sizes * repeats]
        batch = Batch(kind | RAW << 16, 0, len(records)).target(7).numbered_from(records[0][2])
        bodies = [record[3] for record in records]
        batch.bodies(b"".join(bodies), array("I", map(len, bodies)))
        whole = Sender(self.loop.peers[pair[0]], pair[1]).put(batch)
        for record in records[: batch.done]:
            assert lane.has_room(len(record[3]))
            lane.send(record)
        assert whole == (batch.done == len(records))
        assert whole or not lane.has_room(len(records[batch.done][3]))

    @rule(process=st.integers(0, PROCESSES - 1), most=st.sampled_from([1, 2, 3, 7, 1_024]))
    def receive(self, process, most):
        received = self.receivers[process].receive(most)
        unread = {p: lane for p, lane in self.lanes.items() if p[1] == process and lane.read < len(lane.records)}
        assert (received is None) == (not unread)
        if received is None:
            return
        lane = unread[received.lane, process]
        expected = [record for _, record in lane.records][lane.read : lane.read + received.count]
        rows = zip(received.targets(), received.correlations(), received.bodies, strict=True)
        assert [(received.kind, *row) for row in rows] == expected
        assert 0 < received.count <= most
        for count in range(1, received.count + 1):
            assert received.end_of(count) == self._end(lane, lane.read + count - 1)
        lane.read += received.count

    @rule(choice=st.integers(0, 7), share=st.sampled_from([0.01, 0.5, 1.0]))
    def commit(self, choice, share):
        """Commit a share of what was looked at in some lane, where there is one."""
        looked_at = [pair for pair, lane in self.lanes.items() if lane.read]
        if not looked_at:
            return
        pair = looked_at[choice % len(looked_at)]
        lane = self.lanes[pair]
        count = max(1, int(share * lane.read))
        self.receivers[pair[1]].commit(pair[0], self._end(lane, count - 1))
        for _ in range(count):
            lane.records.popleft()
        lane.read -= count

    @staticmethod
    def _end(lane, index):
        """The counter behind a record, which is where the next one, or its padding, begins."""
        behind = lane.records[index + 1][0] if index + 1 < len(lane.records) else lane.tail
        return behind % 2**64

    @rule(process=st.integers(0, PROCESSES - 1))
    def succeed(self, process):
        """Die, and have a successor: what was not committed is read again, what was published stands."""
        self.attach(process)
        for (_, to), lane in self.lanes.items():
            if to == process:
                lane.read = 0

    @rule(process=st.integers(1, PROCESSES - 1), slot=st.sampled_from([1, 2]), size=SIZES, count=st.integers(1, 9))
    def spill(self, process, slot, size, count):
        """Put messages to an agent into the outbox, as far as it has room."""
        records = [self._record(MESSAGE, size, 1 << 32 | slot) for _ in range(count)]
        batch = Batch(MESSAGE | RAW << 16, 0, count).target(1 << 32 | slot).numbered_from(records[0][2])
        batch.bodies(b"".join(record[3] for record in records), size)
        peer = self.loop.peers[process]
        room = peer.outbox_room()
        batch.put_in_outbox(peer)
        assert batch.done == count or (batch.done + 1) * _span(size) > room
        assert self.outboxes[process] or batch.done or _span(size) > OUTBOX_BYTES // 2
        self.outboxes[process].extend((slot, record) for record in records[: batch.done])

    @rule(process=st.integers(1, PROCESSES - 1))
    def flush(self, process):
        """Move what fits from the outbox to the lanes, in order: the first that finds no room holds up the rest."""
        empty, lost = self.loop.peers[process].flush_outbox()
        waiting = self.outboxes[process]
        while waiting and self.lanes[process, waiting[0][0]].has_room(len(waiting[0][1][3])):
            slot, record = waiting.popleft()
            self.lanes[process, slot].send(record)
        assert (empty, lost) == (not waiting, [])

    @invariant()
    def what_lies_in_a_lane_is_what_was_sent_and_not_committed(self):
        if not hasattr(self, "lanes"):
            return
        quiet = not any(lane.records for lane in self.lanes.values()) and not any(self.outboxes.values())
        assert self.loop.peers[0].quiet() == quiet
        for (source, to), lane in self.lanes.items():
            backlog, head = self.loop.peers[source].backlog(to)
            assert (backlog, head) == (lane.tail - lane.head, lane.head % 2**64)
        assert not any(peer.dropped_bytes() for peer in self.loop.peers)

    def teardown(self):
        for receiver in self.receivers.values():
            receiver.close()
        self.loop.close()


TestRing = RingMachine.TestCase
TestRing.settings = settings(
    max_examples=150 * max(1, LONG),
    stateful_step_count=50,
    deadline=None,
    derandomize=not LONG,
    phases=(Phase.generate, Phase.shrink) if LONG else (Phase.generate,),  # to shrink a story takes minutes
    database=None,
    print_blob=True,
)
