"""The binding of the arena, with all processes of a segment in this one: blocks, loans, and what the dead leave."""

import errno
import os
import struct

import pytest

from fabric import FabricError
from fabric.columns import Columns
from fabric.lending import ARENA, KEPT, Lending
from fabric.messages import LENT
from fabric.segment import Segment
from tests.loopback import loopback

PAGE = 4096
ARENA_BYTES = 64 * PAGE
KIND = 2


@pytest.fixture
def loop():
    with loopback(2, arena_bytes=ARENA_BYTES) as made:
        yield made


@pytest.fixture
def lendings(loop):
    made = [Lending(peer) for peer in loop.peers]
    for lending in made:
        lending.allow(ARENA_BYTES)
    yield made
    for lending in made:
        lending.close()


def _send(loop, owner, reader, loan, at, count):
    """Send a record that names a loan; return its lane's counter behind it."""
    body = struct.pack("=IIQQQQ", 1, 0, loan, at, count, 0)
    assert loop.peers[owner].send(reader, KIND | LENT << 16, 77, 88, 0, body)
    return loop.peers[owner].tail(reader)


def test_a_block_is_whole_pages_and_goes_back_with_its_last_reference(lendings):
    owner = lendings[0]
    block = owner.take(PAGE + 1)
    assert owner.block_bytes(block) == 2 * PAGE
    assert owner.usage() == (2 * PAGE, 2 * PAGE, ARENA_BYTES - 2 * PAGE, 0, ARENA_BYTES, 1)
    assert (owner.retain(block), owner.drop(block), owner.drop(block), owner.drop(block)) == (0, 0, 0, -errno.EINVAL)
    assert owner.usage() == (0, 2 * PAGE, ARENA_BYTES, 0, ARENA_BYTES, 0)
    assert owner.trim(PAGE) == PAGE
    assert owner.usage()[1] == PAGE


def test_a_block_is_found_and_kept_by_any_byte_in_it_and_no_other(lendings):
    owner = lendings[0]
    block = owner.take(PAGE + 1)
    found = [owner.retain_around(block + at) for at in (0, 2 * PAGE - 1, 2 * PAGE, ARENA_BYTES)]
    assert found == [block, block, -1, -1]
    assert [owner.drop(block) for _ in range(4)] == [0, 0, 0, -errno.EINVAL]
    assert owner.retain_around(block) == -1


def test_what_cannot_be_taken_comes_back_as_an_errno(lendings):
    owner = lendings[0]
    assert owner.take(0) == -errno.EINVAL
    assert owner.take(ARENA_BYTES + 1) == -errno.EMSGSIZE
    owner.allow(PAGE)
    assert owner.take(2 * PAGE) == -errno.ENOMEM
    owner.allow(ARENA_BYTES)
    assert owner.take(ARENA_BYTES) == 0
    assert owner.take(1) == -errno.ENOSPC


def test_a_loan_comes_back_and_wakes_who_waits_for_it(loop, lendings):
    owner, reader = lendings[0], lendings[1]
    block = owner.take(100)
    loan = owner.lend(block, block + 8, 50, 1)
    assert owner.drop(block) == 0
    end = _send(loop, 0, 1, loan, block + 8, 50)
    assert not reader.hold(0, loan, block + 8, 51, end)
    assert not lendings[2].hold(0, loan, block + 8, 50, end)
    assert reader.hold(0, loan, block + 8, 50, end)
    assert loop.peers[0].wait(ARENA, seconds=0) == 0
    reader.done(0, loan)
    assert loop.peers[0].wait(ARENA) == 1
    assert owner.reclaim() == 1
    assert owner.usage()[3] == 0
    assert owner.block_bytes(block) == 0


def test_a_loan_that_was_never_sent_is_taken_back(lendings):
    owner = lendings[0]
    block = owner.take(1)
    loan = owner.lend(block, block, 1, 2)
    assert owner.lend(block, block, PAGE + 1, 2) == -errno.EINVAL
    assert (owner.unlend(loan), owner.unlend(loan)) == (0, -errno.EINVAL)


def test_a_successor_of_a_reader_is_done_with_what_only_the_dead_held(loop, lendings):
    owner, reader = lendings[0], lendings[1]
    block = owner.take(3 * PAGE)
    loans = [owner.lend(block, block + at, PAGE, 1) for at in (0, PAGE, 2 * PAGE)]
    ends = [_send(loop, 0, 1, loan, block + at * PAGE, PAGE) for at, loan in enumerate(loans)]
    for at, (loan, end) in enumerate(zip(loans, (ends[0], KEPT, ends[2]), strict=True)):
        assert reader.hold(0, loan, block + at * PAGE, PAGE, end)
    assert loop.peers[1].receive(1, Columns()) == 0
    loop.peers[1].commit(0, ends[0])  # the first record, and then its worker dies
    reader.close()
    peer = loop.segments[1].peer()
    successor = Lending(peer)
    assert successor.adopt() == 1
    assert owner.reclaim() == 1
    assert successor.hold(0, loans[2], block + 2 * PAGE, PAGE, ends[2])
    successor.close()
    peer.close()


def test_a_successor_of_an_owner_keeps_what_was_sent_and_what_is_held(loop, lendings):
    owner, reader = lendings[1], lendings[2]
    sent, held, lost = (owner.take(PAGE) for _ in range(3))
    loans = {block: owner.lend(block, block, PAGE, 2) for block in (sent, held, lost)}
    _send(loop, 1, 2, loans[sent], sent, PAGE)
    assert reader.hold(1, loans[held], held, PAGE, KEPT)
    owner.close()
    peer = loop.segments[1].peer()
    successor = Lending(peer)
    assert [successor.block_bytes(block) for block in (sent, held, lost)] == [PAGE, PAGE, 0]
    assert successor.usage()[3] == 2
    reader.done(1, loans[held])
    assert successor.reclaim() == 1
    successor.close()
    peer.close()


def test_without_arenas_there_is_nothing_to_lend_from():
    with loopback(1) as loop, pytest.raises(FabricError, match="arena_bytes is 0"):
        Lending(loop.peers[0])


def test_done_after_close_does_nothing(lendings):
    lendings[0].close()
    lendings[0].close()
    lendings[0].done(1, 1 << 32)


def test_tables_that_were_never_used_cost_no_memory(loop):
    """32 MiB of receipts a process are laid out; opening looks at a page of each table of loans."""
    segment = Segment.attach(os.dup(loop.segments[0].descriptor), 1)
    before = os.fstat(segment.descriptor).st_blocks * 512
    peer = segment.peer()
    lending = Lending(peer)
    assert lending.adopt() == 0
    assert os.fstat(segment.descriptor).st_blocks * 512 - before <= 16 * PAGE
    lending.close()
    peer.close()
    segment.close()
