"""An agent that does to its worker's block of the segment what no worker of ours does."""

import os
import random
import struct
import threading

from fabric import Agent
from fabric.codec import Codec
from fabric.layout import LINE_BYTES
from fabric.messages import RECORDS, REPLY, ErrorInfo
from fabric.segment import Segment

KINDS = (0, *range(2, 13), 999, 65_535)  # all but PAD, which the C core keeps to itself
ENCODINGS = (*range(10), RECORDS, 255)


class Vandal(Agent):
    """Told ("method", arguments...), does that; what it starts goes on in a thread of its own."""

    def on_message(self, body):
        what, *arguments = body
        return getattr(self, what)(*arguments)

    def scribble(self, regions, seed):
        """Write random words into parts of our block from now on, as fast as Python can."""
        segment, chance = self._segment(), random.Random(seed)
        own = memoryview(segment._own).cast("Q")
        parts = regions_of(segment.layout, self._slot())
        places = [range(start // 8, stop // 8) for name in regions for start, stop in parts[name]]

        def go_on():
            while True:
                place = chance.choice(chance.choice(places))
                near = own[place] + chance.randrange(-64, 65) & 2**64 - 1
                own[place] = chance.choice((chance.getrandbits(64), near, near & ~15, 0, 2**64 - 1, 16))

        self._start(go_on)

    def flood(self, to):
        """Fill our lane to a process with records of an unknown kind, and say for ever that all of it is new."""
        segment, slot = self._segment(), self._slot()
        base, (data, capacity) = segment.layout.block_offset(slot), segment.layout.lane_range(slot, to)
        read = segment.head_of(to, slot) % capacity  # where the next record has to begin
        lane = memoryview(segment._own)[data - base : data - base + capacity]
        lane[read:], lane[:read] = _records(capacity - read), _records(read)
        tail = segment.layout.heads_offset + (2 * segment.layout.processes + to) * LINE_BYTES
        words = memoryview(segment._own).cast("Q")

        def go_on():
            while True:
                words[tail // 8] = segment.head_of(to, slot) + capacity

        self._start(go_on)

    def die(self, index, where):
        """Say that some message is in hand, and die; not before the one that asks for it is done."""
        cursor = self._segment().cursor()

        def end():
            cursor[0], cursor[1] = index, where
            os._exit(7)

        threading.Timer(0.01, end).start()

    def spoil(self, lane, tail):
        """Move the tail of one of our lanes by so much, then leave it alone."""
        segment = self._segment()
        at = segment.layout.heads_offset + (2 * segment.layout.processes + lane) * LINE_BYTES
        memoryview(segment._own).cast("Q")[at // 8] += tail

    def spoil_data(self, lane, size):
        """Say that there are so many bytes in one of our lanes, which are no records."""
        segment = self._segment()
        offset, capacity = segment.layout.lane_range(self._slot(), lane)
        start, tail = offset - segment.layout.block_offset(self._slot()), segment.tail_of(self._slot(), lane)
        for at in range(tail, tail + size, 8):
            memoryview(segment._own)[start + at % capacity : start + at % capacity + 8] = b"\xff" * 8
        segment.set_tail(lane, tail + size)

    def records(self, seed, count):
        """Send well-formed records with any contents to all others, save replies to what somebody waits for."""
        chance, table = random.Random(seed), self._host._table
        agents = [table[i] >> 32 << 32 | i for i in range(1, 8)]
        for _ in range(count):
            meta = chance.choice(KINDS) | chance.choice(ENCODINGS) << 16 | chance.randrange(4) << 24
            target, sender = (chance.choice((0, *agents, chance.getrandbits(64))) for _ in range(2))
            correlation = chance.choice((0, 1 << 20, chance.getrandbits(30) << 34 | chance.randrange(4), 2**64 - 1))
            self.send(chance.randrange(6), meta, target, sender, correlation, chance.choice(BODIES))

    def send(self, lane, meta, target, sender, correlation, body):
        """Put one record into one of our lanes, if there is such a lane and it has room."""
        peer = self._host.outbox._peer
        if lane < 2 * peer.processes and peer.body_limit(lane):
            peer.send(lane, meta, target, sender, correlation, body)

    def send_text(self, lane, meta, correlation, body):
        """Do as `send`, with a body that JSON can say."""
        self.send(lane, meta, 0, 0, correlation, bytes.fromhex(body))

    def reply_with(self, encoding, body):
        """Answer this message, with bytes and an encoding that do not go together."""
        handle = self.context.reply_later()
        self.send(0, REPLY | encoding << 16, 0, 0, handle._ticket.correlation, bytes.fromhex(body))

    def answer_orders_with(self, encoding, body):
        """Answer the coordinator's orders with this from now on; with encoding 0, as usual."""
        codec = self._host.codec
        codec.__dict__.pop("encode_answer", None)
        if encoding:
            codec.encode_answer = lambda answer: (encoding, bytes.fromhex(body))

    def _slot(self):
        return self._host._table[self._address & 0xFFFFFFFF] & 0xFFFF

    def _segment(self):
        for number in os.listdir("/proc/self/fd"):
            try:
                if os.readlink(f"/proc/self/fd/{number}") == "/memfd:shm-fabric (deleted)":
                    return Segment.attach(os.dup(int(number)), self._slot())
            except OSError:
                continue
        raise AssertionError("a worker has its segment open")

    @staticmethod
    def _start(target):
        threading.Thread(target=target, daemon=True).start()


class Mute(Agent):
    """Answers nobody, unless its worker dies."""

    def on_message(self, body):
        self.handles = [*getattr(self, "handles", ()), self.context.reply_later()]


def _records(size):
    """Fill so many bytes with records of an unknown kind, and up to their end with PADs."""
    record = struct.pack("<IHBBQQQQQ", 48, 999, 1, 0, 0, 0, 0, 0, 0)
    return record * (size // 48) + struct.pack("<IHxxQ", 16, 1, 0) * (size % 48 // 16)


def regions_of(layout, slot):
    """Say which bytes of a worker's block hold what: (begin, end) pairs by name."""
    base, lines = layout.block_offset(slot), 2 * layout.processes * LINE_BYTES
    heads = layout.heads_offset
    data = [layout.lane_range(slot, lane) for lane in range(layout.processes)]
    return {
        "words": [(0, 16)],
        "cursor": [(LINE_BYTES, LINE_BYTES + 16)],
        "counters": [(2 * LINE_BYTES, heads)],
        "heads": [(at, at + 8) for at in range(heads, heads + lines, LINE_BYTES)],
        "tails": [(at, at + 8) for at in range(heads + lines, heads + 2 * lines, LINE_BYTES)],
        "outbox": [(at, at + 8) for at in range(heads + 2 * lines, heads + 2 * lines + 256, LINE_BYTES)],
        "data": [(start - base, start - base + min(size, 4096)) for start, size in data if size],
    }


def _errors():
    """Errors as a worker might send them, whose parts are not what they should be."""
    for what in ("agent", "not_found", "encoding", "too_large", "poison", "lost", "nonsense", ""):
        for message in ("", "no json", "[]", "{}", "[1]", "[[], {}, null]", '["a", "b", "c", "d", "e"]', "[1e999]"):
            yield Codec().encode(ErrorInfo(what, message, "", 2**63, b"no pickle"))[1]


BODIES = [
    b"",
    b"\n",
    b"null",
    b"[]",
    b"[[0]]",
    b"[[[1,2]],3,[9]]",
    b'{"a":1}',
    b"\x80\x05N.",
    b"\xff" * 40,
    bytes(8),
    bytes(24),
    *_errors(),
]
