"""Records that lie about what is lent: nothing outside is read, nothing dies, and who lent honestly gets it all back.

With all processes in this one: each lie by itself, and any that hypothesis comes to. With real workers: one that writes
any numbers into its table of loans and its receipts, and sends records with any parts.
"""

import gc
import itertools
import os
import struct
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fabric import Fabric
from fabric.messages import DROPPED, LENT, MESSAGE, NDARRAY, PICKLE, RAW
from fabric.parcel import unpack
from fabric.remote_errors import Undecodable
from fabric.segment import _loans
from tests.agents import Echo
from tests.arenas import PATIENCE
from tests.ends import ARENA_BYTES, PAGE, ends
from tests.payload_agents import pattern
from tests.vandals import Vandal

SEED = int(os.environ.get("FABRIC_SEED", 1))
SIZE = 3 * PAGE
LIARS_ARENA = 8 << 20
NEAR = (1, 2, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - PAGE, 2**64 - 1, ARENA_BYTES, ARENA_BYTES - SIZE + 1, PAGE - 1)
WORDS = st.one_of(st.sampled_from((0, *NEAR)), st.integers(0, 2**64 - 1))
LIES = {
    "another loan": lambda loan, at, size: (loan + 1, at, size),
    "an older generation": lambda loan, at, size: (loan - (1 << 32), at, size),
    "a newer generation": lambda loan, at, size: (loan + (1 << 32), at, size),
    "no generation": lambda loan, at, size: (loan & 0xFFFFFFFF, at, size),
    "a loan beyond the table": lambda loan, at, size: (loan | 0xFFFFFFF0, at, size),
    "a page further": lambda loan, at, size: (loan, at + PAGE, size),
    "a byte more": lambda loan, at, size: (loan, at, size + 1),
    "a byte less": lambda loan, at, size: (loan, at, size - 1),
    "nothing": lambda loan, at, size: (loan, at, 0),
    "more than the arena": lambda loan, at, size: (loan, at, ARENA_BYTES + 1),
    "round the end of the numbers": lambda loan, at, size: (loan, 2**64 - PAGE, 2 * PAGE),
    "as much as a number can say": lambda loan, at, size: (loan, at, 2**64 - 1),
    "before the arena": lambda loan, at, size: (loan, 2**64 - SIZE, size),
}


@pytest.fixture(scope="module")
def three():
    with ends(3) as made:
        yield made


def _forge(sender, to, encoding, entries, whole=0, rest=b"", count=None):
    """Send a record with a list of parts that nobody may have lent."""
    head = struct.pack("<II", len(entries) if count is None else count, whole)
    body = head + b"".join(struct.pack("<QQQQ", *entry) for entry in entries) + rest
    assert sender.peer.send(to, MESSAGE | encoding << 16, 7, 0, 0, body)


def _lent(sender, reader):
    """Lend something honestly; return the parcel, and its part as (loan, offset, bytes)."""
    parcel = sender.arena.parcel([sender.arena.store(memoryview(pattern(1, SIZE)))], whole=True)
    (entry,) = unpack(parcel.lend(reader))[0]
    return parcel, entry[:3]


def _is_refused(receiver):
    received = receiver.receive()
    refused = [type(body) is Undecodable for body in received.bodies]
    receiver.commit(received)
    return refused == [True]


def _goes_on(sender, receiver, parcel):
    """What was lent honestly can be had, and comes back."""
    assert sender.peer.send(receiver.process, MESSAGE | (RAW | LENT) << 16, 7, 0, 0, parcel.lend(receiver.process))
    parcel.sent()
    assert receiver.take() == pattern(1, SIZE).tobytes()
    parcel.__del__()
    parcel.pieces = ()
    receiver.receiver.receive()
    assert sender.lent == (0, 0)


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("encoding", [RAW, NDARRAY, PICKLE])
def test_a_part_that_is_not_what_was_lent_is_refused(three, lie, encoding):
    sender, receiver, _ = three
    parcel, entry = _lent(sender, 1)
    _forge(sender, 1, encoding | LENT, [(*(number % 2**64 for number in LIES[lie](*entry)), 0)], whole=encoding == RAW)
    assert _is_refused(receiver)
    _goes_on(sender, receiver, parcel)


def test_what_is_lent_to_another_or_by_another_is_refused(three):
    sender, receiver, other = three
    parcel, entry = _lent(sender, 1)
    _forge(sender, 2, RAW | LENT, [(*entry, 0)], whole=1)
    assert _is_refused(other)
    _forge(other, 1, RAW | LENT, [(*entry, 0)], whole=1)
    assert _is_refused(receiver)
    _goes_on(sender, receiver, parcel)


def test_what_was_given_back_cannot_be_had_again(three):
    sender, receiver, _ = three
    parcel, entry = _lent(sender, 1)
    _goes_on(sender, receiver, parcel)
    _forge(sender, 1, RAW | LENT, [(*entry, 0)], whole=1)
    assert _is_refused(receiver)


@pytest.mark.parametrize("count", [2, 3, 2**16, 2**27, 2**32 - 1])
def test_more_parts_than_there_are_bytes_for_are_refused(three, count):
    sender, receiver, _ = three
    parcel, entry = _lent(sender, 1)
    _forge(sender, 1, RAW | LENT, [(*entry, 0)], count=count)
    assert _is_refused(receiver)
    _goes_on(sender, receiver, parcel)


@pytest.mark.parametrize("lane", ["data", "control"])
@pytest.mark.parametrize("encoding", [*range(16), 127, *(LENT | n for n in range(16)), 255])
def test_no_encoding_makes_more_of_a_part_than_bytes(three, encoding, lane):
    sender, receiver, _ = three
    parcel, entry = _lent(sender, 1)
    head = struct.pack("<BBHIq", 1, 0, 0, 3, SIZE) + b"<u1"
    for whole, rest in itertools.product((0, 1, 2), (b"", head, b"\x80\x05\x97.", b"\x80\x05N.", b"null")):
        _forge(sender, 1 if lane == "data" else 1 + len(three), encoding, [(*entry, 0)], whole, rest)
        received = receiver.receive()
        for body in received.bodies:
            assert received.kind == DROPPED or type(body) in (Undecodable, bytes, np.ndarray, memoryview, type(None))
            if type(body) is np.ndarray:
                assert np.array_equal(body, pattern(1, SIZE))
        body = received.bodies = None
        receiver.commit(received)
        del body, parcel
        parcel, entry = _lent(sender, 1)
    del parcel
    gc.collect()
    assert sender.lent[1] == 0


@given(
    entries=st.lists(st.tuples(WORDS, WORDS, WORDS, WORDS), max_size=4),
    honest=st.lists(st.integers(0, 3), max_size=3),
    encoding=st.integers(0, 255),
    whole=st.integers(0, 3),
    rest=st.binary(max_size=60),
    count=st.one_of(st.none(), st.integers(0, 2**32 - 1)),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_list_of_parts_is_read_within_what_was_lent(three, entries, honest, encoding, whole, rest, count):
    sender, receiver, _ = three
    parcel, entry = _lent(sender, 1)
    for place in honest:  # the same part may be named twice, among lies
        entries.insert(place, (*entry, place % 2))
    _forge(sender, 1, encoding | LENT, entries, whole, rest, count)
    received = receiver.receive()
    received.bodies = None
    receiver.commit(received)
    del parcel
    assert sender.lent[1] in (0, 1)
    parcel, _ = _lent(sender, 1)
    _goes_on_beside(sender, receiver, parcel)


def _goes_on_beside(sender, receiver, parcel):
    assert sender.peer.send(1, MESSAGE | (RAW | LENT) << 16, 7, 0, 0, parcel.lend(1))
    parcel.sent()
    assert receiver.take() == pattern(1, SIZE).tobytes()


# With real workers.


NUMBERS = (0, PAGE, 5_000, 2**20, LIARS_ARENA - PAGE, LIARS_ARENA, 2**40, -PAGE, -1)
RECEIPTS = (1, 2, 5, 6, 2**33 + 2, 2**64 - 1)


class Liar(Vandal):
    """Lies about what it lends, and about what it holds."""

    def lie(self, seed, count):
        """Write any numbers into our loans and receipts, and send records that name them."""
        segment, slot = self._segment(), self._slot()
        chance = np.random.default_rng(seed)
        own = memoryview(segment._own).cast("Q")
        loans, receipts, _ = _tables(segment.layout, slot)
        for _ in range(count):
            index = int(chance.integers(0, 8))
            reader = int(chance.integers(0, segment.layout.processes))
            offset, length = (NUMBERS[int(n)] % 2**64 for n in chance.integers(0, len(NUMBERS), 2))
            place = loans // 8 + 4 * index
            for word, value in enumerate((7 << 16 | reader + 1, offset, length)[: int(chance.integers(0, 4))]):
                own[place + word] = value
            own[receipts // 8 + int(chance.integers(0, 64))] = RECEIPTS[int(chance.integers(0, len(RECEIPTS)))]
            entry = struct.pack("<QQQQ", 7 << 32 | index, offset, length, int(chance.integers(0, 2)))
            encoding = int(chance.integers(0, 8)) | LENT
            self.send(reader, MESSAGE | encoding << 16, self._others(), 0, 0, struct.pack("<II", 1, 1) + entry)

    def _others(self):
        return self._host._table[2] >> 32 << 32 | 2


def _tables(layout, slot):
    """Where a process's loans and its receipts begin in its block, and how large an arena is: native/fab_layout.h."""
    size, processes = layout.arena_range(slot)[1], layout.processes
    loans = -(-(layout.metrics.last_use + 4 * layout.max_agents) // PAGE) * PAGE
    return loans, -(-(loans + 32 * _loans(size, processes)) // PAGE) * PAGE, size


def test_the_tables_that_are_lied_in_are_where_they_are_thought_to_be():
    with ends(2) as (sender, receiver):
        loans, receipts, _ = _tables(sender.layout, 0)
        parcel, (loan, at, size) = _lent(sender, 1)
        block = sender.layout.block_offset(0) + loans
        assert struct.unpack_from("<QQQ", sender.whole, block) == (loan >> 32 << 16 | 2, at, size)
        assert sender.peer.send(1, MESSAGE | (RAW | LENT) << 16, 7, 0, 0, parcel.lend(1))
        receiver.receive()
        (state,) = struct.unpack_from("<Q", sender.whole, sender.layout.block_offset(1) + receipts)
        assert state == loan >> 32 << 2 | 1
        parcel.sent()


@pytest.mark.parametrize("seed", range(3))
def test_a_worker_that_lies_about_its_arena_does_not_keep_others_from_theirs(seed):
    with Fabric(workers=2, on_error=lambda letter: None, max_restarts=10, arena_bytes=LIARS_ARENA) as fab:
        liar = fab.spawn_batch(Liar, 1, placement=0)[0]
        others = fab.spawn_batch(Echo, 3, placement=1)
        for part in range(5):
            liar.tell(("lie", 100 * SEED + 10 * seed + part, 200))
            for body in (pattern(part, 100_000), pattern(part, 1_000_000)):
                assert all(np.array_equal(came, body) for came in others.ask_all(body, timeout=PATIENCE))
        deadline = time.monotonic() + PATIENCE
        while fab._arena.usage()[3]:
            others.ask_all(None, timeout=PATIENCE)
            assert time.monotonic() < deadline
        assert fab.statistics().workers[1].pid, "it lives"
        assert fab.statistics().restarts == 0
