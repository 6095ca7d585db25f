"""Many records by one crossing: columns and one joined body, whole or in parts."""

from array import array

import pytest

from fabric import MessageTooLargeError
from fabric.batch import Batch
from tests.loopback import LANE_BYTES, batch_of, loopback, receive

KIND = 2
META = KIND | 1 << 16
LIMIT = LANE_BYTES // 2 - 48  # of a body


@pytest.fixture
def loop():
    with loopback(2) as made:
        yield made


def test_a_batch_is_columns_and_one_joined_body(loop):
    bodies = [b"a", b"", b"ccc"]
    batch = batch_of(META, bodies, targets=[7, 8, 9], senders=[1, 2, 3], correlations=[30, 20, 10])
    assert batch.put(loop.peers[0], 1)
    assert batch.done == 3
    _, facts, columns, received = receive(loop, 1)

    assert received == bodies
    assert (columns.targets(3), columns.senders(3)) == ([7, 8, 9], [1, 2, 3])
    assert columns.correlations(3) == [30, 20, 10]
    assert facts["size"] == 2**32 - 1
    assert facts["step"] == 2**64 - 10, "the same step from each to the next, modulo 2^64"


def test_records_of_a_batch_may_share_their_body_target_and_numbering(loop):
    batch = Batch(META, 5, 4).same_body(b"same").target(7).numbered_from(3 << 20)
    assert batch.put(loop.peers[0], 1)
    _, facts, columns, received = receive(loop, 1)

    assert received == [b"same"] * 4
    assert columns.targets(4) == [7] * 4
    assert columns.correlations(4) == [3 << 20 | i for i in range(4)]
    assert (facts["size"], facts["step"], facts["token"], facts["asks"]) == (4, 1, 3, 4)


def test_encodings_may_differ_within_a_batch(loop):
    sizes, blob = array("I", [1, 1, 1]), b"abc"
    assert Batch(KIND, 0, 3).bodies(blob, sizes, bytes([1, 2, 1])).put(loop.peers[0], 1)
    _, facts, columns, _ = receive(loop, 1)

    assert facts["encoding"] == 256
    assert list(columns.encodings(3)) == [1, 2, 1]


def test_a_batch_remembers_how_far_it_came(loop):
    bodies = [bytes([i]) * 5_000 for i in range(30)]
    batch = batch_of(META, bodies, targets=range(30))
    received = []
    while not batch.put(loop.peers[0], 1):
        assert 0 < batch.done < 30
        while (run := receive(loop, 1)) is not None:
            received += run[3]
            loop.peers[1].commit(0, run[1]["end"])
    while (run := receive(loop, 1)) is not None:
        received += run[3]

    assert received == bodies


def test_a_record_that_is_too_large_is_named_when_those_before_it_are_sent(loop):
    batch = batch_of(META, [b"a", b"b", bytes(LIMIT + 1), b"d"])
    with pytest.raises(MessageTooLargeError) as caught:
        batch.put(loop.peers[0], 1)

    assert (caught.value.size, batch.done) == (LIMIT + 1, 2)
    assert receive(loop, 1)[3] == [b"a", b"b"]


def test_a_window_leaves_the_rest_of_a_batch_for_later(loop):
    batch = batch_of(META, [b"x" * 16] * 100)
    assert not batch.put(loop.peers[0], 1, 640)
    assert batch.done == 10, "records of 64 bytes while fewer than 640 bytes are in flight"
    loop.peers[1].commit(0, receive(loop, 1)[1]["end"])
    assert not batch.put(loop.peers[0], 1, 640)
    assert batch.done == 20
