"""A worker's outbox in its segment: what lanes had no room for yet, in order, and for a successor."""

import pytest

from fabric.ring import STOPPED
from tests.loopback import batch_of, loopback, receive

KIND = 2
META = KIND | 1 << 16


@pytest.fixture
def loop():
    with loopback(2) as made:
        yield made


def test_the_outbox_holds_records_until_lanes_take_them_in_order(loop):
    worker, target = loop.peers[1], loop.put_agent(1, 2)
    room = worker.outbox_room()
    assert batch_of(META, [b"%d" % i for i in range(50)], targets=[target] * 50).put_in_outbox(worker)
    assert worker.outbox_room() < room
    assert not loop.peers[0].quiet()
    assert worker.flush_outbox() == (True, [])
    lane, _, _, bodies = receive(loop, 2)

    assert (lane, bodies) == (1, [b"%d" % i for i in range(50)])


def test_the_outbox_keeps_what_a_full_lane_does_not_take(loop):
    worker, target = loop.peers[1], loop.put_agent(1, 2)
    bodies = [bytes([i]) * 1_000 for i in range(25)]
    assert batch_of(META, bodies, targets=[target] * 25).put_in_outbox(worker)
    received = []
    while True:
        empty, strays = worker.flush_outbox()
        assert strays == []
        while (run := receive(loop, 2)) is not None:
            received += run[3]
            loop.peers[2].commit(1, run[1]["end"])
        if empty:
            break

    assert received == bodies


def test_what_the_outbox_holds_for_the_dead_is_handed_back(loop):
    worker, alive, dead = loop.peers[1], loop.put_agent(1, 2), loop.put_agent(2, 2)
    assert batch_of(META, [b"a", b"b", b"c"], targets=[dead, alive, dead]).put_in_outbox(worker)
    loop.put_agent(2, 2, STOPPED)

    empty, strays = worker.flush_outbox()
    assert (empty, [stray.target for stray in strays]) == (True, [dead, dead])
    assert receive(loop, 2)[3] == [b"b"]


def test_a_successor_inherits_the_outbox(loop):
    target = loop.put_agent(1, 2)
    assert batch_of(META, [b"left behind"], targets=[target]).put_in_outbox(loop.peers[1])
    successor = loop.segments[1].peer()

    assert successor.flush_outbox() == (True, [])
    assert receive(loop, 2)[3] == [b"left behind"]
    successor.close()
