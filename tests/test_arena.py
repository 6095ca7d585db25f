"""An arena over a segment whose processes are all here: what it gives, refuses and takes back, and in which words."""

import gc
import os
import threading

import numpy as np
import pytest

from fabric import BackpressureError, ClosedError, FabricError, MessageTooLargeError
from fabric.lending import Lending
from fabric.parcel import Piece
from tests.ends import ARENA_BYTES, PAGE, ends
from tests.loopback import loopback

FREE = (0, ARENA_BYTES)  # bytes in blocks, and of the largest free stretch, where nothing is kept


@pytest.fixture
def arena():
    with ends(2) as (first, _):
        yield first.arena


def _used(arena):
    usage = arena.usage()
    return usage[0], usage[2]


def test_a_block_is_kept_until_each_who_has_it_dropped_it(arena):
    piece = arena.reserve(3 * PAGE)
    arena.retain(piece.block)
    arena.drop(piece.block)
    assert arena.usage()[5] == 1
    arena.drop(piece.block)
    assert _used(arena) == FREE


def test_memory_that_a_program_holds_goes_back_with_the_last_view_of_a_view(arena):
    memory = arena.hold(arena.reserve(2 * PAGE))
    array = np.frombuffer(memory, "u1")
    part = array[10:].reshape(-1, 2)[::2]
    del memory, array
    gc.collect()
    assert arena.usage()[5] == 1
    del part
    assert _used(arena) == FREE


def test_what_is_stored_is_a_copy_and_knows_whether_it_was_read_only(arena):
    source = bytearray(b"ab" * PAGE)
    piece = arena.store(memoryview(source))
    source[:2] = b"xy"
    assert bytes(arena.memory(piece)) == b"ab" * PAGE
    assert not piece.read_only
    assert arena.store(memoryview(b"ab" * PAGE)).read_only


def test_what_lies_in_the_arena_already_is_found_there_and_not_copied(arena):
    array = np.frombuffer(arena.hold(arena.reserve(4 * PAGE)), "u1")
    piece = arena.store(memoryview(array[100:200]))
    assert piece == Piece(piece.block, piece.block + 100, 100, False)
    assert arena.usage()[5] == 1
    del array
    assert arena.usage()[5] == 1, "the piece keeps the block"
    arena.drop(piece.block)
    assert _used(arena) == FREE


def test_no_bytes_and_bytes_elsewhere_do_not_lie_in_the_arena(arena):
    array = np.frombuffer(arena.hold(arena.reserve(PAGE)), "u1")
    assert arena.piece_of(memoryview(array[:0])) is None
    assert arena.piece_of(memoryview(bytes(PAGE))) is None


def test_more_than_the_arena_is_too_large_at_any_time(arena):
    with pytest.raises(MessageTooLargeError, match=f"{ARENA_BYTES + 1:,}"):
        arena.reserve(ARENA_BYTES + 1)
    assert arena.reserve(ARENA_BYTES).bytes == ARENA_BYTES


def test_a_full_arena_says_what_was_asked_what_is_free_and_what_to_raise(arena):
    blocks = [arena.reserve(ARENA_BYTES // 4) for _ in range(3)]
    arena.drop(blocks[1].block)
    array = arena.hold(blocks[2])
    with pytest.raises(BackpressureError) as caught:
        arena.reserve(ARENA_BYTES // 2)
    free = ARENA_BYTES // 2
    for part in (f"{free:,} bytes was asked for", f"{free:,} of {ARENA_BYTES:,} bytes free", "arena_bytes"):
        assert part in str(caught.value)
    assert f"({ARENA_BYTES // 4:,} in one stretch; 0 payloads are in receivers' hands, 1 arrays" in str(caught.value)
    del array
    with pytest.raises(BackpressureError, match=r" 0 arrays of loan\(\) or share\(\) in ours"):
        arena.reserve(ARENA_BYTES)


def test_a_shortage_of_memory_is_an_error_in_words_and_no_signal():
    with ends(2, arena_bytes=2**28, memory_left=2**20) as (first, _):
        held = [first.arena.reserve(2**22) for _ in range(16)]  # 64 MiB are had without a look
        with pytest.raises(BackpressureError, match=f"{2**22:,} bytes was asked for, and {2**20:,} bytes of memory"):
            first.arena.reserve(2**22)
        first.arena.drop(held.pop().block)
        held.append(first.arena.reserve(2**22))  # memory that was used before
        first.memory_left = 2**30
        held.append(first.arena.reserve(2**22))


def test_who_cannot_wait_is_refused_at_once(arena):
    arena.wait = lambda reached, deadline: pytest.fail("nobody may wait")
    arena.reserve(ARENA_BYTES)
    with pytest.raises(BackpressureError):
        arena.reserve(PAGE, patient=False)


def test_patience_ends_when_there_is_room():
    with ends(2, patience=1000.0) as (first, _):
        taken = first.arena.reserve(ARENA_BYTES)
        looks = []

        def wait(reached, deadline):
            looks.append(reached())
            first.arena.drop(taken.block)
            looks.append(reached())
            return True

        first.arena.wait = wait
        assert first.arena.reserve(PAGE).bytes == PAGE
        assert looks == [False, True]
        assert first.arena.usage()[5] == 1


def test_a_hurry_bounds_the_patience_of_its_own_thread_alone():
    with ends(2, patience=1000.0) as (first, _):
        arena, deadlines = first.arena, []
        arena.reserve(ARENA_BYTES)
        arena.wait = lambda reached, deadline: bool(deadlines.append(deadline))

        def ask():
            with pytest.raises(BackpressureError):
                arena.reserve(PAGE)

        with arena.hurry(2.0**40):
            ask()
        with arena.hurry(0.0):
            ask()  # its time is up: it does not wait at all
            thread = threading.Thread(target=ask)
            thread.start()
            thread.join()
        ask()
    assert len(deadlines) == 3
    assert max(deadlines) < 2.0**40


def test_loans_that_run_out_are_an_error_that_counts_them(monkeypatch):
    monkeypatch.setattr("fabric.segment._LOANS_MIN", 4)
    monkeypatch.setattr("fabric.segment._RECEIPTS", 12)
    with ends(3) as (first, *_):
        piece = first.arena.reserve(PAGE)
        for _ in range(4):
            first.arena.lend(piece, 1)
        with pytest.raises(BackpressureError, match="4 payloads are lent already"):
            first.arena.lend(piece, 1)


def test_after_close_finalizers_and_parcels_do_nothing():
    with ends(2) as (first, _):
        memory = first.arena.hold(first.arena.reserve(PAGE))
        parcel = first.arena.parcel([first.arena.reserve(PAGE)])
        parcel.lend(1)
        first.arena.close()
        memory[:3] = b"abc"
        assert bytes(memory[:4]) == b"abc\0"
        del memory, parcel
        gc.collect()
        first.arena.close()
        assert first.arena.piece_of(memoryview(b"x")) is None
        with pytest.raises(ClosedError):
            first.arena.reserve(1)


def test_a_forked_child_gives_nothing_back(arena):
    held = [arena.hold(arena.reserve(PAGE)), arena.parcel([arena.reserve(PAGE)])]
    held[1].lend(1)
    child = os.fork()
    if child == 0:
        try:
            held.clear()
            os._exit(0 if arena.lending.usage()[3:] == (1, ARENA_BYTES, 2) else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert arena.usage()[3:] == (1, ARENA_BYTES, 2)


def test_a_segment_without_arenas_says_so():
    with loopback(1) as loop, pytest.raises(FabricError, match="arena_bytes is 0"):
        Lending(loop.peers[0])
