"""Read and write a worker's journal: snapshots of agents, and the messages that they handled since.

    | states | MARK | RUN | RUN | states | MARK | RUN |
    RUN    records of a lane as they lay there; target, sender, correlation: lane, begin, end (counters)
    STATE  the snapshot of the agent `target`
    LATER  a message that is to be sent at some time: target and sender as it will have them; correlation: its number
    GONE   what has been sent, by that number
    OWED   a question whose reply was put off (reply_later): target, sender and correlation as it had them
    MARK   the states before it, back to the mark before, are complete and belong together; its body says
           how far each lane had been handled by then

The journal lies in the worker's block of the segment. Its successor finds there what it needs to go on.
"""

import itertools
import struct
from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fabric.batch import Batch
from fabric.codec import Codec
from fabric.columns import Columns
from fabric.encoded import joined
from fabric.messages import MIXED, RAW
from fabric.ring import HEADER_BYTES, RUN, Peer

STATE = 17
MARK = 18
OWED = 19
LATER = 20
GONE = 21
_HEADER = struct.Struct("<IHBBQQQ")  # size, kind, encoding, flags, target, sender, correlation
_ALIGN = 16
_OVERHEAD = HEADER_BYTES + _ALIGN  # of a record, at most
_PAIR = struct.Struct("<QQ")
_TIME = struct.Struct("<QQQQ")  # due, lane, counter behind, is there a body?


class Mark(NamedTuple):
    """How far things were when snapshots were taken.

    `handled`: counter of each lane up to which their effects are in the states. `done`: for agents whose
    messages are not done in order, (lane, counter behind the message) of each whose effects are in theirs.
    """

    handled: dict[int, int]
    done: list[tuple[int, int]]

    def encode(self) -> bytes:
        """Lay it out: the number of lanes, then pairs."""
        pairs = [*self.handled.items(), *self.done]
        return struct.pack("<Q", len(self.handled)) + b"".join(_PAIR.pack(*pair) for pair in pairs)

    @classmethod
    def decode(cls, data: bytes) -> "Mark":
        """Read what `encode` laid out."""
        (lanes,) = struct.unpack_from("<Q", data)
        pairs = list(_PAIR.iter_unpack(data[8:]))
        return cls(dict(pairs[:lanes]), pairs[lanes:])


class Message(NamedTuple):
    """A message of a run."""

    target: int
    sender: int
    correlation: int
    encoding: int
    body: bytes


class Owed(NamedTuple):
    """A question whose reply was put off."""

    target: int
    sender: int
    correlation: int


class Later(NamedTuple):
    """A message that is to be sent later. `number` is its own.

    `end` is the counter of `lane` behind the message that its sender handled then. `body` is None for one that was
    too large to be written down: a successor can only tell that it is lost.
    """

    target: int
    sender: int
    number: int
    due: int  # ns on the monotonic clock
    lane: int
    end: int
    encoding: int
    body: bytes | None


class Gone(NamedTuple):
    """Such a message, when it has been sent."""

    number: int


class Run(NamedTuple):
    """Messages that were handled together, and where their lane ends behind them."""

    lane: int
    end: int
    messages: list[Message]


class Replayed:
    """A run of the journal as a batch for the host: what receiver.Received is for a lane."""

    undecodable = True  # or not: the host looks at each body

    def __init__(self, run: Run, codec: Codec) -> None:
        self.lane = run.lane
        self.end = run.end
        self.bytes = 0
        self.count = len(run.messages)
        self.bodies = [codec.decode_or_mark(message.encoding, message.body) for message in run.messages]
        self._run = run

    def end_of(self, count: int) -> int:
        """The lane's counter behind all of it: what these say and send again is dropped."""
        return self.end

    def targets(self) -> list[int]:
        """Address of each receiver."""
        return [message.target for message in self._run.messages]

    def senders(self) -> list[int]:
        """Address of each sender."""
        return [message.sender for message in self._run.messages]

    def correlations(self) -> list[int]:
        """Correlation id of each."""
        return [message.correlation for message in self._run.messages]


class State(NamedTuple):
    """A snapshot, encoded."""

    encoding: int
    data: bytes


NO_STATE = State(0, b"")  # from here on the state of this agent is not kept


class States(NamedTuple):
    """Snapshots that belong together, by address, and the mark that makes them good."""

    states: dict[int, State]
    mark: Mark


class Journal:
    """The journal of one worker."""

    def __init__(self, peer: Peer, data: memoryview) -> None:
        self._peer = peer
        self._data = data
        self.size = len(data)
        self.torn = False  # did what was read end with states that have no mark? The next mark is not theirs

    def append_run(self, lane: int, begin: int, end: int) -> bool:
        """Copy records that were received from a lane, and not committed. False: there is no room."""
        return self._peer.journal_run(lane, begin, end)

    def append_states(self, states: dict[int, State], mark: Mark) -> bool:
        """Write snapshots and make them good. False: there is no room, and nothing has changed."""
        body = mark.encode()
        blobs = [state.data for state in states.values()]
        largest = max(map(len, (*blobs, body))) + _OVERHEAD
        if self.span(states) + len(body) + _OVERHEAD + largest > self.room or 2 * largest > self.size:
            return False
        if states:
            encoded = joined(MIXED, bytes(state.encoding for state in states.values()), blobs)
            batch = Batch(STATE, 0, len(states)).bodies(encoded.blob, encoded.sizes, encoded.encodings)
            batch.targets(array("Q", states)).put_in_journal(self._peer)
        return Batch(MARK | RAW << 16, 0, 1).same_body(body).put_in_journal(self._peer)

    def append_owed(self, questions: Sequence[Owed]) -> bool:
        """Write down who waits for a reply. False: there is no room."""
        if (len(questions) + 1) * _OVERHEAD > self.room:
            return False
        targets, senders, correlations = (array("Q", column) for column in zip(*questions, strict=True))
        batch = Batch(OWED | RAW << 16, 0, len(questions)).same_body(b"")
        return batch.targets(targets).senders(senders).correlations(correlations).put_in_journal(self._peer)

    def append_later(self, messages: Sequence[Later]) -> bool:
        """Write down what is to be sent later. False: there is no room."""
        blobs = [_TIME.pack(m.due, m.lane, m.end, m.body is not None) + (m.body or b"") for m in messages]
        if sum(map(len, blobs)) + (len(blobs) + 1) * _OVERHEAD + max(map(len, blobs)) > self.room:
            return False
        encoded = joined(MIXED, bytes(message.encoding for message in messages), blobs)
        batch = Batch(LATER, 0, len(messages)).bodies(encoded.blob, encoded.sizes, encoded.encodings)
        targets, senders, numbers = (array("Q", column) for column in list(zip(*messages, strict=True))[:3])
        return batch.targets(targets).senders(senders).correlations(numbers).put_in_journal(self._peer)

    def append_gone(self, numbers: Sequence[int]) -> bool:
        """Write down what has been sent of that. False: there is no room."""
        if (len(numbers) + 1) * _OVERHEAD > self.room:
            return False
        batch = Batch(GONE | RAW << 16, 0, len(numbers)).same_body(b"")
        return batch.correlations(array("Q", numbers)).put_in_journal(self._peer)

    @staticmethod
    def span(states: dict[int, State]) -> int:
        """Return how many bytes these take in the journal, at most."""
        return sum(len(state.data) + _OVERHEAD for state in states.values())

    @property
    def room(self) -> int:
        """Bytes that are free."""
        return self._peer.journal_room()

    @property
    def tail(self) -> int:
        """How far it is written."""
        return self._peer.journal_tail()

    def forget(self, before: int) -> None:
        """Give up what was written before this counter."""
        self._peer.journal_forget(before)

    def read(self) -> Iterator["Entry"]:
        """Read what a predecessor has left, from the oldest on. States without their mark are left out."""
        columns = Columns()
        open_states: dict[int, State] = {}
        while count := self._peer.journal_peek(columns):
            facts = columns.facts()
            kind, start = facts[1], facts[8]
            targets, correlations = columns.targets(count), columns.correlations(count)
            spans = zip(columns.starts(count), columns.ends(count), strict=True)
            bodies = [bytes(self._data[start + a : start + b]) for a, b in spans]
            if kind == STATE:
                open_states.update(zip(targets, map(State, columns.encodings(count), bodies), strict=True))
                continue
            if kind == OWED:
                yield from map(Owed, targets, columns.senders(count), correlations)
                continue
            if kind == GONE:
                yield from map(Gone, correlations)
                continue
            if kind == LATER:
                rows = zip(targets, columns.senders(count), correlations, columns.encodings(count), bodies, strict=True)
                yield from itertools.starmap(_later, rows)
                continue
            for target, end, body in zip(targets, correlations, bodies, strict=True):
                if kind == RUN:
                    yield Run(target, end, list(_records(body)))
                elif kind == MARK:
                    yield States(open_states, Mark.decode(body))
                    open_states = {}
        self.torn = bool(open_states)


Entry = Run | States | Owed | Later | Gone


def _later(target: int, sender: int, number: int, encoding: int, data: bytes) -> Later:
    due, lane, end, whole = _TIME.unpack_from(data)
    return Later(target, sender, number, due, lane, end, encoding, data[_TIME.size :] if whole else None)


def _records(data: bytes) -> Iterator[Message]:
    """Take a run apart."""
    at = 0
    while at < len(data):
        size, _, encoding, _, target, sender, correlation = _HEADER.unpack_from(data, at)
        yield Message(target, sender, correlation, encoding, data[at + HEADER_BYTES : at + size])
        at += (size + _ALIGN - 1) // _ALIGN * _ALIGN
