"""The binding of the lanes, with all processes of a segment in this one: records in, columns out, routing."""

import random
from array import array

import pytest

from fabric import MessageTooLargeError
from fabric.batch import Batch
from fabric.columns import Columns
from fabric.ring import ALIVE, LOST, STOPPED
from tests.loopback import LANE_BYTES, PEER_LANE_BYTES, facts_of, loopback, receive

KIND = 2
META = KIND | 1 << 16
LIMIT = LANE_BYTES // 2 - 48  # of a body


@pytest.fixture
def loop():
    with loopback(2) as made:
        yield made


def test_what_is_sent_is_received_with_its_header(loop):
    assert loop.peers[0].send(1, KIND | 3 << 16 | 1 << 24, 77, 88, 5 << 20 | 6, b"hello")
    lane, facts, columns, bodies = receive(loop, 1)

    assert (lane, bodies) == (0, [b"hello"])
    assert (facts["count"], facts["kind"], facts["encoding"], facts["flags"], facts["size"]) == (1, KIND, 3, 1, 5)
    assert (facts["token"], facts["asks"], facts["more"]) == (5, 1, 0)
    assert (columns.targets(1), columns.senders(1), columns.correlations(1)) == ([77], [88], [5 << 20 | 6])
    assert (facts["target"], facts["sender"], facts["correlation"]) == (77, 88, 5 << 20 | 6)
    assert facts["sent_at"] > 0
    assert receive(loop, 1) is None
    assert receive(loop, 2) is None


def test_a_full_lane_takes_nothing_until_its_consumer_commits(loop):
    coordinator, worker = loop.peers[:2]
    sent = 0
    while coordinator.send(1, META, 1, 0, 0, b"x" * 1_000):
        sent += 1
    assert sent == LANE_BYTES // 1_056
    assert coordinator.backlog(1) == (sent * 1_056, 0)
    _, facts, _, bodies = receive(loop, 1)
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


def test_a_run_ends_where_the_kind_changes_and_where_enough_are_read(loop):
    for kind in (2, 2, 2, 3, 2):
        assert loop.peers[0].send(1, kind, 1, 0, 0, b"")
    runs = [receive(loop, 1, most=2)[1] for _ in range(4)]

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
        run = receive(loop, 1, most=seed.randrange(1, 9))
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
    lanes = [receive(loop, 1, most=1)[0] for _ in range(7)]

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
    assert facts_of(columns)["count"] == 0
    assert loop.peers[1].dropped_bytes() == 160
    assert loop.peers[0].send(1, META, 2, 0, 0, b"good")
    assert receive(loop, 1)[3] == [b"good"]


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
