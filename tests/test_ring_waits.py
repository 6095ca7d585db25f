"""Sleep until there is something to do, and be woken: by messages, by room, by quiet, by a bell."""

import os
import signal
import threading

import pytest

from fabric.columns import BATCH_MAX, Columns
from fabric.layout import LINE_BYTES
from fabric.ring import EINTR, MESSAGES, QUIET, ROOM
from tests.loopback import LANE_BYTES, facts_of, loopback, receive

KIND = 2
META = KIND | 1 << 16
PATIENCE = 30


@pytest.fixture
def loop():
    with loopback(2) as made:
        yield made


def test_quiet_is_when_all_that_was_sent_is_committed(loop):
    assert loop.peers[0].quiet()
    loop.peers[2].send(1, META, 1, 0, 0, b"")
    assert not any(peer.quiet() for peer in loop.peers)
    end = receive(loop, 1)[1]["end"]
    assert not loop.peers[0].quiet()
    loop.peers[1].commit(2, end)
    assert all(peer.quiet() for peer in loop.peers)


def _counter(loop, process, lane, tail):
    """A head or tail in the block of a process, writable."""
    layout = loop.segments[0].layout
    line = 2 * layout.processes * tail + lane
    return loop.segments[process]._own_words(layout.heads_offset + line * LINE_BYTES, 1)


@pytest.mark.parametrize("tail", [False, True], ids=["head", "tail"])
@pytest.mark.parametrize("lane", [0, 2])
@pytest.mark.parametrize("garbage", [2**63, 8, 2**64 - 8, LANE_BYTES + 16])
def test_a_counter_that_cannot_be_is_not_waited_for_and_what_others_sent_is(loop, lane, tail, garbage):
    _counter(loop, 1, lane, tail)[0] = garbage
    assert loop.peers[0].quiet()
    assert loop.peers[2].send(0, META, 1, 0, 0, b"")
    assert not loop.peers[0].quiet()
    loop.peers[0].commit(2, receive(loop, 0)[1]["end"])
    assert loop.peers[0].quiet()


def test_a_lane_that_was_found_broken_is_not_waited_for_though_its_tail_is_mended(loop):
    tail = _counter(loop, 1, 0, True)
    tail[0] = 8
    assert loop.peers[0].receive(1, Columns()) == -1
    tail[0] = 64
    assert loop.peers[0].quiet()


def test_what_lies_before_a_slot_that_nobody_was_ever_in_is_not_waited_for():
    with loopback(2) as loop:
        loop.segments[2]._own_words(0, 1)[0] = 0  # sleeping, and present
        assert loop.peers[1].send(2, META, 1, 0, 0, b"")
        assert loop.peers[0].quiet()
        assert loop.peers[0].send(2, META, 1, 0, 0, b"")
        assert not loop.peers[0].quiet(), "the coordinator's own are for one who is about to start"


def test_a_wait_ends_with_a_reason_or_with_its_time(loop):
    coordinator, worker = loop.peers[:2]
    assert worker.wait(MESSAGES, -1, 0.0) == 0
    assert worker.wait(MESSAGES, -1, 0.001) == 0
    coordinator.send(1, META, 1, 0, 0, b"")
    assert worker.wait(MESSAGES) == 1
    assert coordinator.wait(MESSAGES | QUIET, -1, 0.001) == 0
    worker.commit(0, receive(loop, 1)[1]["end"])
    assert coordinator.wait(MESSAGES | QUIET) == 1
    reader, writer = os.pipe()
    os.close(writer)
    assert worker.wait(MESSAGES, reader) == 2
    os.close(reader)


def test_a_sleeper_is_woken_by_a_message_by_room_and_by_its_bell(loop):
    coordinator, worker = loop.peers[:2]
    while coordinator.send(1, META, 1, 0, 0, b"x" * 1_000):
        pass
    for peer, reason, wake in (
        (loop.peers[2], MESSAGES, lambda: coordinator.send(2, META, 1, 0, 0, b"")),
        (coordinator, ROOM, lambda: worker.commit(0, receive(loop, 1)[1]["end"])),
        (worker, MESSAGES, lambda: coordinator.ring(1)),
    ):
        woken = []
        sleeper = threading.Thread(target=lambda wait=peer.wait, why=reason, tell=woken.append: tell(wait(why)))
        sleeper.start()
        wake()
        sleeper.join(PATIENCE)
        assert woken == [1]
    assert [segment.counters()[4] for segment in loop.segments] == [0, 0, 0], "no wake-up was lost"


def test_who_arms_is_told_of_work_and_is_rung_for_what_comes_after(loop):
    coordinator, worker = loop.peers[:2]
    assert not worker.arm(MESSAGES)
    coordinator.send(1, META, 1, 0, 0, b"")
    assert os.eventfd_read(loop.bells[1]) == 1
    worker.disarm()
    assert worker.arm(MESSAGES)
    worker.disarm()
    coordinator.send(1, META, 1, 0, 0, b"")
    with pytest.raises(BlockingIOError):
        os.eventfd_read(loop.bells[1])


def test_a_wait_commits_and_receives_in_one_call(loop):
    peer, worker, columns = loop.peers[0], loop.peers[1], Columns()
    assert worker.await_next(MESSAGES, 0, BATCH_MAX, columns, -1, 0) == -1, "nothing is there"
    end = 0
    for number in range(2):
        assert peer.send(1, META, 5, 0, number, b"body")
        assert worker.await_next(MESSAGES, None, BATCH_MAX, columns, 0, end) == 0
        assert peer.backlog(1)[1] == end, "what was done is committed, and nothing else"
        end = facts_of(columns)["end"]


def test_a_signal_ends_a_wait_before_anything_is_received(loop):
    worker, columns, seen = loop.peers[1], Columns(), []
    previous = signal.signal(signal.SIGUSR1, lambda *_: seen.append(loop.peers[0].send(1, META, 5, 0, 7, b"x")))
    thread = threading.get_ident()
    timer = threading.Timer(0.05, signal.pthread_kill, (thread, signal.SIGUSR1))
    timer.start()
    try:
        assert worker.await_next(MESSAGES, None, BATCH_MAX, columns, -1, 0) == EINTR
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, previous)
    assert seen == [True]
    assert worker.receive(BATCH_MAX, columns) == 0
