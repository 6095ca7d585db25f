"""The binding of the C core, with all processes of a segment in this one: batches in, columns out, waiting, routing."""

import os
import random
import signal
import threading
from array import array

import pytest

from fabric import LayoutError, MessageTooLargeError
from fabric.batch import Batch
from fabric.columns import BATCH_MAX, Columns
from fabric.layout import LINE_BYTES, Layout
from fabric.ring import ALIVE, EINTR, LOST, MESSAGES, QUIET, ROOM, STOPPED
from tests.loopback import LANE_BYTES, PEER_LANE_BYTES, loopback

KIND = 2
META = KIND | 1 << 16
LIMIT = LANE_BYTES // 2 - 48  # of a body
PATIENCE = 30


@pytest.fixture
def loop():
    with loopback(2) as made:
        yield made


def _facts(columns):
    names = "count kind encoding flags asks size token step start bytes end sent_at more target sender correlation"
    return dict(zip(names.split(), columns.facts(), strict=True))


def _receive(loop, process, most=BATCH_MAX):
    """Return (lane, facts, columns, bodies) of the next run, None when there is none."""
    columns = Columns()
    lane = loop.peers[process].receive(most, columns)
    if lane < 0:
        return None
    facts = _facts(columns)
    data = loop.segments[process].lane_data(lane % 3, process + lane // 3 * 3)
    run = bytes(data[facts["start"] : facts["start"] + facts["bytes"]])
    starts, ends = columns.starts(facts["count"]), columns.ends(facts["count"])
    return lane, facts, columns, [run[a:b] for a, b in zip(starts, ends, strict=True)]


def _batch(bodies, **columns):
    sizes = array("I", map(len, bodies))
    batch = Batch(META, 0, len(bodies)).bodies(b"".join(bodies), sizes)
    for name, values in columns.items():
        getattr(batch, name)(array("Q", values))
    return batch


# One record.


def test_what_is_sent_is_received_with_its_header(loop):
    assert loop.peers[0].send(1, KIND | 3 << 16 | 1 << 24, 77, 88, 5 << 20 | 6, b"hello")
    lane, facts, columns, bodies = _receive(loop, 1)

    assert (lane, bodies) == (0, [b"hello"])
    assert (facts["count"], facts["kind"], facts["encoding"], facts["flags"], facts["size"]) == (1, KIND, 3, 1, 5)
    assert (facts["token"], facts["asks"], facts["more"]) == (5, 1, 0)
    assert (columns.targets(1), columns.senders(1), columns.correlations(1)) == ([77], [88], [5 << 20 | 6])
    assert (facts["target"], facts["sender"], facts["correlation"]) == (77, 88, 5 << 20 | 6)
    assert facts["sent_at"] > 0
    assert _receive(loop, 1) is None
    assert _receive(loop, 2) is None


def test_a_full_lane_takes_nothing_until_its_consumer_commits(loop):
    coordinator, worker = loop.peers[:2]
    sent = 0
    while coordinator.send(1, META, 1, 0, 0, b"x" * 1_000):
        sent += 1
    assert sent == LANE_BYTES // 1_056
    assert coordinator.backlog(1) == (sent * 1_056, 0)
    _, facts, _, bodies = _receive(loop, 1)
    assert len(bodies) == sent
    assert not coordinator.send(1, META, 1, 0, 0, b"x" * 1_000), "read, and not committed"
    worker.commit(0, facts["end"])
    assert coordinator.send(1, META, 1, 0, 0, b"x" * 1_000)
    assert (coordinator.sent(1), coordinator.sent(2)) == (sent + 1, 0)
    assert worker.progress(1) == sent * 1_056


def test_a_body_over_the_limit_is_refused_and_one_of_the_limit_is_not(loop):
    assert loop.peers[0].body_limit(1) == LIMIT
    assert loop.peers[1].body_limit(2) == PEER_LANE_BYTES // 2 - 48
    assert loop.peers[1].body_limit(5) == 0, "workers have no control lanes to each other"
    assert loop.peers[0].send(1, META, 1, 0, 0, bytes(LIMIT))
    with pytest.raises(MessageTooLargeError) as caught:
        loop.peers[0].send(1, META, 1, 0, 0, bytes(LIMIT + 1))
    assert (caught.value.size, caught.value.limit) == (LIMIT + 1, LIMIT)


def test_a_body_whose_size_does_not_fit_into_a_record_is_too_large(loop):
    body = bytes(2**32 + 1)  # pages of zeros that nobody touches
    with pytest.raises(MessageTooLargeError):
        loop.peers[0].send(1, META, 1, 0, 0, body)
    with pytest.raises(MessageTooLargeError):
        Batch(META, 0, 2).same_body(body)


# Batches.


def test_a_batch_is_columns_and_one_joined_body(loop):
    bodies = [b"a", b"", b"ccc"]
    batch = _batch(bodies, targets=[7, 8, 9], senders=[1, 2, 3], correlations=[30, 20, 10])
    assert batch.put(loop.peers[0], 1)
    assert batch.done == 3
    _, facts, columns, received = _receive(loop, 1)

    assert received == bodies
    assert (columns.targets(3), columns.senders(3)) == ([7, 8, 9], [1, 2, 3])
    assert columns.correlations(3) == [30, 20, 10]
    assert facts["size"] == 2**32 - 1
    assert facts["step"] == 2**64 - 10, "the same step from each to the next, modulo 2^64"


def test_records_of_a_batch_may_share_their_body_target_and_numbering(loop):
    batch = Batch(META, 5, 4).same_body(b"same").target(7).numbered_from(3 << 20)
    assert batch.put(loop.peers[0], 1)
    _, facts, columns, received = _receive(loop, 1)

    assert received == [b"same"] * 4
    assert columns.targets(4) == [7] * 4
    assert columns.correlations(4) == [3 << 20 | i for i in range(4)]
    assert (facts["size"], facts["step"], facts["token"], facts["asks"]) == (4, 1, 3, 4)


def test_encodings_may_differ_within_a_batch(loop):
    sizes, blob = array("I", [1, 1, 1]), b"abc"
    assert Batch(KIND, 0, 3).bodies(blob, sizes, bytes([1, 2, 1])).put(loop.peers[0], 1)
    _, facts, columns, _ = _receive(loop, 1)

    assert facts["encoding"] == 256
    assert list(columns.encodings(3)) == [1, 2, 1]


def test_a_batch_remembers_how_far_it_came(loop):
    bodies = [bytes([i]) * 5_000 for i in range(30)]
    batch = _batch(bodies, targets=range(30))
    received = []
    while not batch.put(loop.peers[0], 1):
        assert 0 < batch.done < 30
        while (run := _receive(loop, 1)) is not None:
            received += run[3]
            loop.peers[1].commit(0, run[1]["end"])
    while (run := _receive(loop, 1)) is not None:
        received += run[3]

    assert received == bodies


def test_a_record_that_is_too_large_is_named_when_those_before_it_are_sent(loop):
    batch = _batch([b"a", b"b", bytes(LIMIT + 1), b"d"])
    with pytest.raises(MessageTooLargeError) as caught:
        batch.put(loop.peers[0], 1)

    assert (caught.value.size, batch.done) == (LIMIT + 1, 2)
    assert _receive(loop, 1)[3] == [b"a", b"b"]


def test_a_window_leaves_the_rest_of_a_batch_for_later(loop):
    batch = _batch([b"x" * 16] * 100)
    assert not batch.put(loop.peers[0], 1, 640)
    assert batch.done == 10, "records of 64 bytes while fewer than 640 bytes are in flight"
    loop.peers[1].commit(0, _receive(loop, 1)[1]["end"])
    assert not batch.put(loop.peers[0], 1, 640)
    assert batch.done == 20


def test_a_run_ends_where_the_kind_changes_and_where_enough_are_read(loop):
    for kind in (2, 2, 2, 3, 2):
        assert loop.peers[0].send(1, kind, 1, 0, 0, b"")
    runs = [_receive(loop, 1, most=2)[1] for _ in range(4)]

    assert [(run["kind"], run["count"], run["more"]) for run in runs] == [(2, 2, 1), (2, 1, 1), (3, 1, 1), (2, 1, 0)]


def test_many_turns_of_the_ring_lose_nothing(loop):
    seed = random.Random(7)
    sent = received = 0
    held = []
    while received < 5_000:
        body = sent.to_bytes(4, "little") * seed.randrange(1, 1_500)
        if sent < 5_000 and loop.peers[0].send(1, META, sent, 0, 0, body):
            sent += 1
            if seed.random() < 0.9:
                continue
        run = _receive(loop, 1, most=seed.randrange(1, 9))
        if run is not None:
            _, facts, columns, bodies = run
            numbers = list(range(received, received + len(bodies)))
            assert columns.targets(len(bodies)) == numbers
            assert all(set(array("I", body)) == {number} for number, body in zip(numbers, bodies, strict=True))
            received += len(bodies)
            held.append(facts["end"])
        if held and (run is None or seed.random() < 0.5):
            loop.peers[1].commit(0, held[-1])

    assert loop.peers[1].dropped_bytes() == 0


def test_lanes_take_turns_and_control_lanes_come_first(loop):
    for process in (0, 2):
        for _ in range(3):
            assert loop.peers[process].send(1, META, process, 0, 0, b"")
    assert loop.peers[0].send(1 + 3, META, 99, 0, 0, b"")
    lanes = [_receive(loop, 1, most=1)[0] for _ in range(7)]

    assert lanes[0] == 3
    assert sorted(lanes[1:]) == [0, 0, 0, 2, 2, 2]
    assert lanes[1:4] != lanes[4:] or lanes[1] != lanes[2], "neither lane starves the other"
    assert {lanes[1], lanes[2]} == {0, 2}


def test_bytes_that_cannot_be_records_are_dropped_and_counted(loop):
    assert loop.peers[0].send(1, META, 1, 0, 0, b"x" * 100)
    offset, _ = loop.segments[0].layout.lane_range(0, 1)
    loop.segments[0]._own[offset : offset + 4] = b"\xff\xff\xff\xff"  # a size beyond the ring
    columns = Columns()

    assert loop.peers[1].receive(10, columns) == 0
    assert _facts(columns)["count"] == 0
    assert loop.peers[1].dropped_bytes() == 160
    assert loop.peers[0].send(1, META, 2, 0, 0, b"good")
    assert _receive(loop, 1)[3] == [b"good"]


# Who is where.


def test_agents_are_routed_by_the_shared_table(loop):
    peer = loop.peers[2]
    first, second = loop.put_agent(1, 1), loop.put_agent(2, 2)
    assert peer.route(array("Q", [second, first, 0])) == (3, array("H", [2, 1, 0]))
    for state in (STOPPED, LOST):
        loop.put_agent(2, 2, state)
        assert peer.route(array("Q", [first, second, first]))[0] == 1
    loop.put_agent(2, 1, ALIVE, generation=2)
    assert peer.route(array("Q", [second]))[0] == 0, "an earlier generation"
    assert peer.route(array("Q", [2 << 32 | 2]))[0] == 1
    for nobody in (1 << 32 | 99, 1 << 32 | 2**31, 2**64 - 1):
        assert peer.route(array("Q", [nobody]))[0] == 0
    assert peer.route(array("Q"))[0] == 0


def test_messages_are_sorted_by_slot_in_order(loop):
    parts = loop.peers[0].partition(array("H", [2, 1, 2, 2, 1]))

    assert [(slot, list(order)) for slot, order in parts] == [(1, [1, 4]), (2, [0, 2, 3])]
    assert loop.peers[0].partition(array("H")) == []


# The outbox.


def test_the_outbox_holds_records_until_lanes_take_them_in_order(loop):
    worker, target = loop.peers[1], loop.put_agent(1, 2)
    room = worker.outbox_room()
    assert _batch([b"%d" % i for i in range(50)], targets=[target] * 50).put_in_outbox(worker)
    assert worker.outbox_room() < room
    assert not loop.peers[0].quiet()
    assert worker.flush_outbox() == (True, [])
    lane, _, _, bodies = _receive(loop, 2)

    assert (lane, bodies) == (1, [b"%d" % i for i in range(50)])


def test_the_outbox_keeps_what_a_full_lane_does_not_take(loop):
    worker, target = loop.peers[1], loop.put_agent(1, 2)
    bodies = [bytes([i]) * 1_000 for i in range(25)]
    assert _batch(bodies, targets=[target] * 25).put_in_outbox(worker)
    received = []
    while True:
        empty, strays = worker.flush_outbox()
        assert strays == []
        while (run := _receive(loop, 2)) is not None:
            received += run[3]
            loop.peers[2].commit(1, run[1]["end"])
        if empty:
            break

    assert received == bodies


def test_what_the_outbox_holds_for_the_dead_is_handed_back(loop):
    worker, alive, dead = loop.peers[1], loop.put_agent(1, 2), loop.put_agent(2, 2)
    assert _batch([b"a", b"b", b"c"], targets=[dead, alive, dead]).put_in_outbox(worker)
    loop.put_agent(2, 2, STOPPED)

    empty, strays = worker.flush_outbox()
    assert (empty, [stray.target for stray in strays]) == (True, [dead, dead])
    assert _receive(loop, 2)[3] == [b"b"]


def test_a_successor_inherits_the_outbox(loop):
    target = loop.put_agent(1, 2)
    assert _batch([b"left behind"], targets=[target]).put_in_outbox(loop.peers[1])
    successor = loop.segments[1].peer()

    assert successor.flush_outbox() == (True, [])
    assert _receive(loop, 2)[3] == [b"left behind"]
    successor.close()


# Waiting.


def test_quiet_is_when_all_that_was_sent_is_committed(loop):
    assert loop.peers[0].quiet()
    loop.peers[2].send(1, META, 1, 0, 0, b"")
    assert not any(peer.quiet() for peer in loop.peers)
    end = _receive(loop, 1)[1]["end"]
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
    loop.peers[0].commit(2, _receive(loop, 0)[1]["end"])
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
    worker.commit(0, _receive(loop, 1)[1]["end"])
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
        (coordinator, ROOM, lambda: worker.commit(0, _receive(loop, 1)[1]["end"])),
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


# The layout.


def test_a_header_is_read_back_as_it_was_laid_out(loop):
    layout = loop.segments[0].layout
    again = Layout.read(layout.header_bytes, layout.segment_bytes)

    assert (again.processes, again.max_agents, again.identity) == (3, 101, layout.identity)
    assert [again.lane_range(p, lane) for p in range(3) for lane in range(3)] == [
        layout.lane_range(p, lane) for p in range(3) for lane in range(3)
    ]
    assert again.lane_range(0, 0)[1] == 0, "the coordinator has no lane to itself"
    assert again.lane_range(1, 1)[1] == PEER_LANE_BYTES
    with pytest.raises(LayoutError):
        Layout.read(layout.header_bytes, layout.segment_bytes - 1)


def test_a_wait_commits_and_receives_in_one_call(loop):
    peer, worker, columns = loop.peers[0], loop.peers[1], Columns()
    assert worker.await_next(MESSAGES, 0, BATCH_MAX, columns, -1, 0) == -1, "nothing is there"
    end = 0
    for number in range(2):
        assert peer.send(1, META, 5, 0, number, b"body")
        assert worker.await_next(MESSAGES, None, BATCH_MAX, columns, 0, end) == 0
        assert peer.backlog(1)[1] == end, "what was done is committed, and nothing else"
        end = _facts(columns)["end"]


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
