"""Bodies over lanes: encoded by a Sender, decoded by a Receiver, all processes in this one."""

import pickle
import threading
from array import array

import numpy as np
import pytest

from fabric import ClosedError, EncodingError, MessageTooLargeError
from fabric.codec import Codec
from fabric.messages import DROPPED, MESSAGE, MIXED, NDARRAY, NONE, ORDER, PICKLE, RAW
from fabric.receiver import Receiver
from fabric.remote_errors import Undecodable
from fabric.ring import MESSAGES
from fabric.sender import Sender, as_sequence, make_batch
from tests.loopback import LANE_BYTES, loopback


@pytest.fixture
def loop():
    with loopback(2) as made:
        yield made


@pytest.fixture
def receiver(loop):
    made = Receiver(loop.segments[1], loop.peers[1], Codec())
    yield made
    made.close()


def _send(loop, bodies, codec=None, to=1, source=0):
    encoded = (codec or Codec()).encode_many(bodies)
    assert Sender(loop.peers[source], to).put(make_batch(MESSAGE, encoded, 7, len(bodies)))
    return encoded


def _all(receiver):
    """Receive and commit all there is; return the bodies."""
    bodies = []
    while (received := receiver.receive()) is not None:
        bodies += received.bodies
        receiver.commit(received.lane, received.end)
    return bodies


@pytest.mark.parametrize(
    ("bodies", "encoding"),
    [
        ([b"a"], RAW),
        ([b"a", b"bb", b""], RAW),
        ([b"64 in a chunk"] * 64, RAW),
        ([b"more than one chunk"] * 200, RAW),
        ([b""] * 100, RAW),
        ([None] * 3, NONE),
        ([1, "two", {3: 4}], PICKLE),
        ([1, b"raw", None], MIXED),
    ],
)
def test_bodies_arrive_in_order_in_one_run(loop, receiver, bodies, encoding):
    _send(loop, bodies)
    received = receiver.receive()

    assert received.bodies == bodies
    assert (received.count, received.encoding, received.undecodable) == (len(bodies), encoding, False)
    assert received.targets() == [7] * len(bodies)
    assert received.senders() == received.correlations() == [0] * len(bodies)
    assert receiver.receive() is None


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 47, 48, 49, 100])
@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 129])
def test_runs_of_one_size_are_cut_right(loop, receiver, size, count):
    bodies = [bytes([i % 251]) * size for i in range(count)]
    _send(loop, bodies)

    assert _all(receiver) == bodies


def test_more_sizes_than_are_remembered_are_cut_right(loop, receiver):
    for size in range(100):
        _send(loop, [bytes([size]) * size] * 64)
        assert _all(receiver) == [bytes([size]) * size] * 64


def test_bodies_are_copies_that_outlive_their_bytes_in_the_lane(loop, receiver):
    kept = []
    for number in range(50):
        _send(loop, [bytes([number]) * 3_000, np.full(100, number)])
        kept += _all(receiver)

    assert kept[::2] == [bytes([number]) * 3_000 for number in range(50)]
    assert all((array == number).all() for number, array in enumerate(kept[1::2]))


def test_a_run_can_be_committed_in_parts(loop, receiver):
    _send(loop, [b"x" * size for size in (1, 16, 17, 40)])
    received = receiver.receive()
    begin = received.end - received.bytes

    assert [received.end_of(count) - begin for count in (1, 2, 3, 4)] == [64, 128, 208, 304]
    receiver.commit(received.lane, received.end_of(2))
    assert loop.peers[0].backlog(1) == (304 - 128, begin + 128)


def test_a_commit_may_wait_for_the_next_look(loop, receiver):
    _send(loop, [b"x"])
    received = receiver.receive()
    receiver.commit_at_next(received.lane, received.end)
    assert not loop.peers[0].quiet()
    assert receiver.receive() is None
    assert loop.peers[0].quiet()
    _send(loop, [b"y"])
    received = receiver.receive()
    receiver.commit_at_next(received.lane, received.end)
    receiver.commit_now()
    assert loop.peers[0].quiet()


def test_a_receiver_takes_no_more_than_it_is_told(loop, receiver):
    _send(loop, [b"x"] * 10)

    assert [receiver.receive(4).count for _ in range(3)] == [4, 4, 2]


def test_a_body_that_cannot_be_decoded_is_marked_and_the_others_are_not(loop, receiver):
    good = Codec().encode_many([1, 2, b"raw"])
    broken = good._replace(blob=good.blob.replace(pickle.dumps(2, 5), b"\xff" * len(pickle.dumps(2, 5))))
    assert Sender(loop.peers[0], 1).put(make_batch(MESSAGE, broken, 7, 3))
    received = receiver.receive()

    assert received.undecodable
    assert [received.bodies[0], type(received.bodies[1]), received.bodies[2]] == [1, Undecodable, b"raw"]
    assert isinstance(received.bodies[1].error, EncodingError)


def test_where_pickles_are_refused_none_is_read(loop):
    receiver = Receiver(loop.segments[1], loop.peers[1], Codec("json", allow_pickle=False))
    _send(loop, [1, "two"])
    received = receiver.receive()

    assert [type(body) for body in received.bodies] == [Undecodable] * 2
    assert "allow_pickle=False" in str(received.bodies[0].error)
    receiver.close()


def test_bytes_that_cannot_be_records_are_handed_back_to_their_producer(loop, receiver):
    _send(loop, [b"x" * 100, b"y"])
    offset, _ = loop.segments[0].layout.lane_range(0, 1)
    loop.segments[0]._own[offset : offset + 4] = b"\xff\xff\xff\xff"
    received = receiver.receive()
    assert (received.kind, received.count, received.bodies, received.targets()) == (DROPPED, 0, [], [])
    receiver.commit(received.lane, received.end)

    assert loop.peers[0].backlog(1)[0] == 0
    _send(loop, [b"good"])
    assert _all(receiver) == [b"good"]


class _Trap:
    """Notes that it was unpickled."""

    sprung = False

    def __reduce__(self):
        return setattr, (_Trap, "sprung", True)


def test_orders_are_read_from_the_coordinators_lane_and_from_nowhere_else(loop, receiver):
    order = pickle.dumps(("an", "order"), 5)
    assert loop.peers[0].send(1, MESSAGE | ORDER << 16, 0, 0, 0, order)
    assert loop.peers[0].send(1 + 3, MESSAGE | ORDER << 16, 0, 0, 0, order)
    assert receiver.receive().bodies == [("an", "order")]
    assert receiver.receive().bodies == [("an", "order")]
    assert loop.peers[2].send(1, MESSAGE | ORDER << 16, 0, 0, 0, pickle.dumps(_Trap(), 5))
    assert type(receiver.receive().bodies[0]) is Undecodable
    at_home = Receiver(loop.segments[0], loop.peers[0], Codec())
    assert loop.peers[1].send(0, MESSAGE | ORDER << 16, 0, 0, 0, pickle.dumps(_Trap(), 5))
    assert type(at_home.receive().bodies[0]) is Undecodable
    at_home.close()

    assert not _Trap.sprung


def test_an_array_is_a_kind_of_its_own(loop, receiver):
    arrays = [np.arange(number) for number in range(5)]
    assert _send(loop, arrays).encoding == NDARRAY

    assert all(np.array_equal(*pair) for pair in zip(_all(receiver), arrays, strict=True))


def test_threads_may_share_a_sender(loop, receiver):
    sender, start, refused = Sender(loop.peers[0], 1), threading.Barrier(4), []

    def send(number):
        start.wait(30)
        for i in range(100):
            if not sender.send_one(MESSAGE | RAW << 16, number, i, b"x" * number):
                refused.append((number, i))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    by_thread = {number: [] for number in range(4)}
    while (received := receiver.receive()) is not None:
        for target, correlation, body in zip(received.targets(), received.correlations(), received.bodies, strict=True):
            assert body == b"x" * target
            by_thread[target].append(correlation)

    assert refused == []
    assert by_thread == {number: list(range(100)) for number in range(4)}


def test_a_sender_says_its_limit_and_its_backlog_until_it_refuses(loop):
    sender = Sender(loop.peers[0], 1)
    assert sender.limit == LANE_BYTES // 2 - 48
    with pytest.raises(MessageTooLargeError):
        sender.send_one(MESSAGE | RAW << 16, 7, 0, bytes(sender.limit + 1))
    assert sender.backlog() == (0, 0)
    batch = make_batch(MESSAGE, Codec().encode_many([b"x"]), array("Q", [7]), 1)
    sender.refuse(ClosedError("it is over"))
    for use in (lambda: sender.send_one(0, 0, 0, b""), lambda: sender.put(batch), sender.backlog, lambda: sender.limit):
        with pytest.raises(ClosedError, match="it is over"):
            use()
    sender.allow()
    assert sender.send_one(MESSAGE | RAW << 16, 7, 0, b"again")


def test_bodies_from_anywhere_become_a_sequence():
    given = [1, 2]
    assert as_sequence(given) is given
    assert as_sequence((1, 2)) == (1, 2)
    assert as_sequence(range(2)) == as_sequence(iter([0, 1])) == [0, 1]
    assert as_sequence({"a": 1}.values()) == [1]


def test_after_careful_decoding_no_message_is_in_hand(loop, receiver):
    _send(loop, ["one", "two", "three"])
    receiver.cursor, receiver.careful = [0, 0], True
    assert receiver.receive().bodies == ["one", "two", "three"]
    assert receiver.cursor[0] == 0


class _Interrupted(Codec):
    """Ctrl-C comes while the first batch is decoded."""

    again = False

    def decode_many(self, encoding, parts):
        if not self.again:
            self.again = True
            raise KeyboardInterrupt
        return super().decode_many(encoding, parts)


def test_what_an_interrupt_tore_away_is_received_again(loop):
    receiver = Receiver(loop.segments[1], loop.peers[1], _Interrupted())
    _send(loop, [b"before"])
    first = receiver.receive()
    receiver.commit_at_next(first.lane, first.end)
    _send(loop, ["torn away", "with it"])
    with pytest.raises(KeyboardInterrupt):
        receiver.await_next(MESSAGES, None)
    assert receiver.await_next(MESSAGES, None).bodies == ["torn away", "with it"]
    assert receiver.receive() is None
    receiver.close()
