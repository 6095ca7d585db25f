"""Views of what others lent, all processes in this one: private, writable, and given back neither too soon nor never.

Seeded faults that these have caught: giving back before the commit, not renewing pages, not sharing out pages.
"""

import gc
import os
import threading

import numpy as np
import pytest

from fabric import EncodingError, StreamChunk
from fabric.messages import LENT, MESSAGE, RAW
from fabric.parcel import Entry, Parcel, unpack
from fabric.remote_errors import Undecodable
from fabric.views import copy_of
from tests.ends import ARENA_BYTES, PAGE, ends

SIZE = 2 * PAGE + 100


@pytest.fixture(autouse=True)
def small_ones_too(monkeypatch):
    """Views of a few pages; otherwise those are copied."""
    monkeypatch.setattr("fabric.views._WORTH_A_VIEW", 0)


@pytest.fixture
def three():
    with ends(3) as made:
        yield made


def _array(value=1, size=SIZE):
    return np.full(size, value, "u1")


def test_what_a_receiver_writes_is_seen_by_nobody_else(three):
    sender, *receivers = three
    source = _array()
    encoding, parcel = sender.codec.encode(source)
    assert type(parcel) is Parcel
    block = parcel.pieces[0]
    for number in (1, 2):
        sender.send(number, source)
    arrays = [receiver.take() for receiver in receivers]
    arrays[0][:] = 7
    arrays[1][-1] = 9
    assert (arrays[0] == 7).all()
    assert (arrays[1][:-1] == 1).all()
    assert (arrays[1][-1], source[0]) == (9, 1)
    assert bytes(sender.arena.memory(block)) == source.tobytes()
    assert encoding & LENT


@pytest.mark.parametrize(
    "parts",
    [(slice(None), slice(None)), (slice(PAGE, None), slice(5, SIZE)), (slice(9), slice(9, 20))],
    ids=["the same", "overlapping", "neighbours"],
)
def test_views_of_one_block_in_one_process_do_not_share_a_page(three, parts):
    sender, receiver, _ = three
    block = np.frombuffer(sender.arena.hold(sender.arena.reserve(4 * PAGE)), "u1")
    block[:] = 1
    first, second = (_view_of(sender, receiver, block[part]) for part in parts)
    first[:] = bytes(len(first))
    assert set(bytes(second)) == {1}, "what is written to the first is not seen in the second"
    second[:] = b"\2" * len(second)
    assert set(bytes(first)) == {0}
    del first
    assert set(bytes(second)) == {2}, "and stays when the first is let go of"
    assert (block == 1).all()
    del second, block
    gc.collect()
    assert sender.lent == (0, 0)


def _view_of(sender, receiver, part):
    """Lend a part of a block, and return the receiver's view of it, as if its record were committed."""
    parcel = sender.arena.parcel([sender.arena.piece_of(memoryview(part))])
    (view,) = receiver.receiver._views.take(0, unpack(parcel.lend(1))[0], end=0)
    parcel.sent()
    return view


def test_a_block_that_is_used_again_shows_what_was_written_then(three):
    sender, receiver, _ = three
    places = set()
    for round_ in range(3):
        sender.send(1, _array(round_))
        array = receiver.take()
        places.add(array.__array_interface__["data"][0])
        assert (array == round_).all()
        array[:] = 99  # our copies of these pages must be gone before they are seen again
        del array
        assert sender.lent == (0, 0)
    assert len(places) == 1, "it is the same block"


def test_a_small_one_is_the_receivers_own_and_goes_back_with_its_record(three, monkeypatch):
    monkeypatch.setattr("fabric.views._WORTH_A_VIEW", SIZE + 1)
    sender, receiver, _ = three
    source = np.frombuffer(sender.arena.hold(sender.arena.reserve(SIZE)), "u1")
    source[:] = 1
    sender.send(1, source, source)
    received = receiver.receive()
    assert sender.lent == (2, 1), "not before its record is committed"
    first, second = received.bodies
    first[:] = 2
    assert (second == 1).all()
    assert (source == 1).all()
    receiver.commit(received)
    assert sender.lent == (0, 1), "though the arrays are still looked at"
    assert (first == 2).all()


@pytest.mark.parametrize("kind", [bytes, StreamChunk])
def test_raw_bytes_are_copied_once_whoever_else_looks_at_the_block(three, kind):
    sender, receiver, _ = three
    data = bytes(_array(7))
    body = data if kind is bytes else StreamChunk(data, 0, True, None, SIZE, 1)
    sender.send(1, body, body)
    received = receiver.receive()
    assert sender.lent == (2, 2), "not before their records are committed"
    receiver.commit(received)
    assert sender.lent == (0, 0)
    assert received.bodies == [body, body]
    assert {type(one if kind is bytes else one.data) for one in received.bodies} == {bytes}


def test_what_no_memory_is_left_to_copy_goes_back_all_the_same(three, monkeypatch):
    sender, receiver, _ = three
    monkeypatch.setattr("fabric.views.memoryview", refuses, raising=False)
    sender.send(1, bytes(_array(7)))
    body = receiver.take()
    assert type(body) is Undecodable
    assert "MemoryError" in str(body.error)
    assert sender.lent == (0, 0)


def refuses(*_):
    raise MemoryError


def test_read_only_arrays_arrive_so_and_share_their_pages(three):
    sender, receiver, _ = three
    source = np.frombuffer(sender.arena.hold(sender.arena.reserve(SIZE)), "u1")
    source[:] = 3
    source.flags.writeable = False
    sender.send(1, source, source)
    arrays = receiver.take()
    assert [array.flags.writeable for array in arrays] == [False, False]
    assert arrays[0].__array_interface__["data"] == arrays[1].__array_interface__["data"]
    with pytest.raises(ValueError, match="read-only"):
        arrays[0][0] = 1
    del source, arrays
    gc.collect()
    assert sender.lent == (0, 0)


def test_a_view_of_a_view_keeps_the_block_when_the_message_is_gone(three):
    sender, receiver, _ = three
    sender.send(1, {"a": _array(1), "b": [_array(2), bytearray(_array(3))], "c": _array(4)})
    body = receiver.take()
    part = body["b"][0][PAGE:][::3]
    body = None
    gc.collect()
    assert sender.lent == (1, 1)
    assert (part == 2).all()
    part = None
    assert sender.lent == (0, 0)


def test_nothing_goes_back_before_its_record_is_committed(three):
    sender, receiver, _ = three
    sender.send(1, _array(1), _array(2))
    received = receiver.receive()
    received.bodies.clear()
    gc.collect()
    assert sender.lent == (2, 2)
    receiver.receiver.commit(received.lane, received.end_of(1))
    receiver.receiver.receive()
    assert sender.lent == (1, 1)
    receiver.receiver.commit(received.lane, received.end)
    receiver.receiver.receive()
    assert sender.lent == (0, 0)


def test_what_is_committed_with_the_next_look_goes_back_with_it(three):
    sender, receiver, _ = three
    sender.send(1, _array())
    received = receiver.receive()
    receiver.receiver.commit_at_next(received.lane, received.end)
    del received
    gc.collect()
    assert sender.lent == (1, 1)
    assert receiver.receiver.receive() is None
    assert sender.lent == (0, 0)


def test_views_that_die_while_others_are_settled_are_not_forgotten(three):
    sender, receiver, _ = three
    views = receiver.receiver._views
    head_of = views._head_of
    late = []

    def and_meanwhile(lane):
        if late:
            views.unsettled.append(late.pop())
        return head_of(lane)

    class Meanwhile(list):
        """As if another thread let go of a view between two steps."""

        def __iter__(self):
            found = super().__iter__()
            rest = list(found)
            if late:
                self.append(late.pop())
            return iter(rest)

    views.unsettled = receiver.receiver._unsettled = Meanwhile()
    sender.send(1, _array(1), _array(2))
    received = receiver.receive()
    received.bodies.pop()
    late.append(views.unsettled.pop())
    received.bodies.clear()
    receiver.receiver.commit(received.lane, received.end)
    views._head_of = and_meanwhile
    views.settle()
    views.settle()
    assert (late, sender.lent) == ([], (0, 0))


def test_views_die_in_any_thread():
    with ends(2, arena_bytes=16 * ARENA_BYTES) as (sender, receiver):
        for _ in range(20):
            sender.send(1, *(_array(k) for k in range(60)))
            while (received := receiver.receiver.receive()) is not None:
                ready = threading.Barrier(4)
                parts = [received.bodies[k::3] for k in range(3)]
                received.bodies.clear()
                threads = [threading.Thread(target=_let_go, args=(part, ready)) for part in parts]
                for thread in threads:
                    thread.start()
                del parts
                ready.wait()
                receiver.receiver.commit(received.lane, received.end)
                receiver.receiver._settle()
                for thread in threads:
                    thread.join()
            assert sender.lent == (0, 0)


def _let_go(bodies, ready):
    ready.wait()
    while bodies:
        bodies.pop()


class InterruptsOnce:
    """Interrupts whoever decodes it for the first time."""

    times = 0

    def __setstate__(self, state):
        self.array = state
        InterruptsOnce.times += 1
        if InterruptsOnce.times == 1:
            raise KeyboardInterrupt


def test_a_record_that_comes_again_after_an_interrupt_is_given_back_once_its_second_views_are_gone(three):
    sender, receiver, _ = three
    body = InterruptsOnce()
    body.__dict__["array"] = _array(5)
    body.__class__.__getstate__ = lambda self: self.array
    sender.send(1, body)
    with pytest.raises(KeyboardInterrupt):
        receiver.receive()
    gc.collect()
    again = receiver.take()
    assert sender.lent == (1, 1), "its first views are gone, and the second are not"
    sender.send(1, _array(6))
    assert (again.array == 5).all()
    receiver.take()
    del again
    gc.collect()
    receiver.receiver.receive()
    assert sender.lent == (0, 0)


def test_one_that_names_what_was_not_lent_to_us_is_undecodable_and_holds_nothing(three):
    sender, receiver, other = three
    parcel = sender.codec.encode([_array(1), _array(2)])[1]
    data = parcel.lend(2)
    assert sender.peer.send(1, MESSAGE | (RAW | LENT) << 16, 7, 0, 0, data)
    body = receiver.take()
    assert type(body) is Undecodable
    assert "lent us no such thing" in str(body.error)
    parcel.sent()
    del parcel
    assert sender.lent == (2, 2)
    assert sender.peer.send(2, MESSAGE | (RAW | LENT) << 16, 7, 0, 0, data)
    other.take()
    assert sender.lent == (0, 0)


def test_views_that_are_alive_when_all_is_closed_stay_readable():
    with ends(2) as (sender, receiver):
        sender.send(1, _array(8))
        array = receiver.take()
        sender.close()
        receiver.close()
    array += 1
    assert (array == 9).all()
    del array


def test_a_forked_child_that_lets_go_gives_nothing_back(three):
    sender, receiver, _ = three
    sender.send(1, _array(4))
    held = [receiver.take()]
    child = os.fork()
    if child == 0:
        try:
            fine = bool((held[0] == 4).all())
            held.clear()
            os._exit(0 if fine else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert sender.lent == (1, 1)
    held.clear()
    assert sender.lent == (0, 0)


def test_copies_of_what_a_record_names_stay_within_the_arena(three):
    sender, receiver, _ = three
    piece = sender.arena.store(memoryview(_array(6)))
    segment = receiver.receiver._segment
    assert copy_of(segment, 0, [Entry(1, piece.at, SIZE, 0)]) == [_array(6).tobytes()]
    for offset, size in ((ARENA_BYTES, 1), (0, ARENA_BYTES + 1), (2**64 - 1, 2), (PAGE, 2**64 - PAGE)):
        with pytest.raises(EncodingError, match="of an arena of"):
            copy_of(segment, 0, [Entry(1, offset, size, 0)])


def test_pages_are_only_looked_at_where_a_fault_may_have_been_a_write_to_them(monkeypatch):
    import fabric.views
    from fabric import Agent, Fabric

    class Reader(Agent):
        def __init__(self, faults):
            if faults is not None:
                fabric.views.page_faults = lambda: faults  # none since, as far as anybody can tell

        def on_message(self, body):
            array, write = body
            total = float(array.sum())
            if write:
                array[:] = -1.0
            return total

    def sums(faults):
        with Fabric(workers=1) as fab:
            reader = fab.spawn_batch(Reader, 1, args=(faults,))[0]
            with fab.loan(100_000) as array:
                found = []
                for value, write in ((1.0, False), (2.0, True), (3.0, False)):
                    array[:] = value
                    found.append(reader.ask((array, write), timeout=20) / 100_000)
                return found

    assert sums(None) == [1.0, 2.0, 3.0]
    assert sums(7) == [1.0, 2.0, -1.0]  # so this would be seen, were a write no fault
    for unknown in (-1, 0):  # some kernels do not count them
        assert sums(unknown) == [1.0, 2.0, 3.0]
