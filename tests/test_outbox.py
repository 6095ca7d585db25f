"""What handlers send, over real lanes in one process: in order, never waiting, and refused only where that is said."""

from array import array

import pytest

from fabric import BackpressureError, MessageTooLargeError
from fabric.batch import Batch
from fabric.codec import Codec
from fabric.messages import COORDINATOR, FORWARDED, MESSAGE, RAW, REPLY, REQUEST
from fabric.receiver import Receiver
from fabric.ring import ROOM, STOPPED
from fabric.sender import Sender
from fabric.workers.outbox import Outbox, Slice
from tests.loopback import LANE_BYTES, OUTBOX_BYTES, PEER_LANE_BYTES, loopback

LIMIT = PEER_LANE_BYTES // 2 - 48  # of a body between workers


class World:
    """Worker 1 with an outbox, among a coordinator and a worker 2 that read."""

    def __init__(self, loop):
        self.loop = loop
        self.peer = loop.peers[1]
        self.outbox = self.successor()
        self.agent = loop.put_agent(1, 2)
        self.other = loop.put_agent(2, 2)
        self.here = loop.put_agent(3, 1)
        self.receivers = [Receiver(s, p, Codec()) for s, p in zip(loop.segments, loop.peers, strict=True)]

    def successor(self):
        senders = {process: Sender(self.peer, process) for process in range(self.peer.processes)}
        return Outbox(self.peer, senders)

    def tell(self, body, target=None, flags=0, correlation=0):
        self.outbox.tell(target or self.agent, self.here, correlation, RAW, body, flags)

    def read(self, process, most=1_024):
        """Read and commit all there is; return (kind, target, body) of each."""
        found = []
        while (received := self.receivers[process].receive(most)) is not None:
            rows = zip(received.targets(), received.bodies, strict=True)
            found += [(received.kind, target, body) for target, body in rows]
            self.receivers[process].commit(received.lane, received.end)
        return found


@pytest.fixture(params=[{}], ids=[""])
def world(request):
    with loopback(2, **request.param) as loop:
        made = World(loop)
        yield made
        for receiver in made.receivers:
            receiver.close()


def test_nothing_is_sent_before_the_flush(world):
    world.tell(b"a")
    assert world.outbox.pending
    assert not world.outbox.idle
    assert world.read(2) == []
    world.outbox.flush()

    assert world.read(2) == [(MESSAGE, world.agent, b"a")]
    assert world.outbox.idle
    assert not world.outbox.pending


def test_messages_keep_their_order_and_their_senders(world):
    bodies = [b"%d" % number for number in range(150)]
    for body in bodies:
        world.tell(body, target=world.other if len(body) == 2 else world.agent)
    world.outbox.flush()
    received = world.receivers[2].receive()

    assert received.bodies == bodies
    assert received.senders() == [world.here] * 150
    assert [target == world.other for target in received.targets()] == [len(body) == 2 for body in bodies]


def test_each_kind_goes_to_the_process_of_its_target(world):
    world.tell(b"to worker 2")
    world.tell(b"to myself", target=world.here)
    world.outbox.reply(world.agent, world.here, 7 << 20, RAW, b"answer")
    world.outbox.reply(COORDINATOR, world.here, 8 << 20, RAW, b"answer home")
    world.outbox.request(world.here, 9 << 20, RAW, b"request")
    assert world.outbox.wants_attention
    world.outbox.flush()

    assert world.read(2) == [(REPLY, world.agent, b"answer"), (MESSAGE, world.agent, b"to worker 2")]
    assert world.read(1) == [(MESSAGE, world.here, b"to myself")]
    assert world.read(0) == [(REPLY, COORDINATOR, b"answer home"), (REQUEST, COORDINATOR, b"request")]


def test_a_forwarded_message_says_so(world):
    world.tell(b"plain")
    world.outbox.flush()
    world.tell(b"forwarded", flags=FORWARDED)
    world.outbox.flush()

    assert [world.receivers[2].receive(1).flags for _ in range(2)] == [0, FORWARDED]


def test_what_no_lane_has_room_for_goes_through_the_outbox_region_in_order(world):
    bodies = [bytes([number]) * 1_000 for number in range(60)]
    received = []
    for first in range(0, 60, 6):
        for body in bodies[first : first + 6]:
            world.tell(body)
        world.outbox.flush()
    assert world.outbox.backed_up
    world.tell(b"last")
    world.outbox.flush()
    while world.outbox.backed_up:
        received += [body for _, _, body in world.read(2, most=3)]
        world.outbox.retry()
    received += [body for _, _, body in world.read(2)]

    assert received == [*bodies, b"last"]
    assert world.outbox.idle
    assert world.outbox.lost == 0


def test_a_slice_for_several_workers_is_known_to_be_published(world):
    slice_ = Slice(COORDINATOR, 4_096)
    world.tell(b"to worker 2")
    world.tell(b"to myself", target=world.here)
    world.outbox.flush(slice_)

    assert world.successor().settle() == slice_
    assert world.read(2) == [(MESSAGE, world.agent, b"to worker 2")]
    assert world.read(1) == [(MESSAGE, world.here, b"to myself")]


def test_a_slice_for_several_workers_arrives_with_its_flush(world):
    world.tell(b"to worker 2")
    world.tell(b"to myself", target=world.here)
    world.outbox.flush(Slice(COORDINATOR, 4_096))

    assert world.outbox.idle
    assert world.read(2) == [(MESSAGE, world.agent, b"to worker 2")]
    assert world.read(1) == [(MESSAGE, world.here, b"to myself")]


def test_what_finds_room_in_the_region_stays_behind_what_found_none(world):
    bodies = [b"%d" % number + b"x" * 1_000 for number in range(100)]
    for number, body in enumerate(bodies):  # replies are never refused
        world.outbox.reply(world.agent, world.here, number << 20, RAW, body)
        world.outbox.flush()
    assert world.outbox.unpublished
    received = world.read(2, most=1)
    world.outbox.retry()
    assert world.outbox.unpublished
    world.tell(b"last")
    world.outbox.flush(Slice(COORDINATOR, 4_096))
    while world.outbox.backed_up:
        received += world.read(2)
        world.outbox.retry()
    received += world.read(2)

    assert [body for _, _, body in received] == [*bodies, b"last"]


def test_what_is_no_slice_is_never_taken_for_one(world):
    world.tell(b"alone")
    world.outbox.flush()
    world.outbox.reply(world.agent, world.here, 7 << 20, RAW, b"answer")
    world.outbox.flush(Slice(COORDINATOR, 4_096))  # of a reply whoever asked drops the second

    assert world.successor().settle() is None
    assert [body for _, _, body in world.read(2)] == [b"alone", b"answer"]


@pytest.mark.parametrize("count", [1, 40], ids=["one", "many"])
def test_there_is_room_for_messages_again_when_an_idle_worker_has_sent_what_waited(world, count):
    while not world.outbox.backed_up:
        world.tell(b"x" * 1_000)
        world.outbox.flush()
    with pytest.raises(BackpressureError):  # noqa: PT012 - until it is full
        while True:
            world.tell(b"x" * 1_000)
            world.outbox.flush()
    while world.outbox.backed_up:
        world.read(2)
        world.outbox.retry()
    for _ in range(count):  # without a flush in between
        world.tell(b"x" * 600)
    world.outbox.flush()


def test_while_one_lane_is_full_what_goes_elsewhere_queues_behind(world):
    for number in range(20):
        world.tell(bytes([number]) * 1_000)
    world.outbox.flush()
    world.outbox.reply(COORDINATOR, world.here, 8 << 20, RAW, b"home")
    world.outbox.flush()
    assert world.read(0) == []
    while world.outbox.backed_up:
        world.read(2)
        world.outbox.retry()

    assert world.read(0) == [(REPLY, COORDINATOR, b"home")]


def test_a_full_outbox_refuses_messages_until_there_is_room(world):
    sent = 0
    with pytest.raises(BackpressureError, match="the outbox of this worker is full"):  # noqa: PT012 - until it is
        while True:
            world.tell(b"x" * 1_000)
            sent += 1
            world.outbox.flush()
    received = len(world.read(2))
    while world.outbox.backed_up:
        world.outbox.retry()
        received += len(world.read(2))

    assert sent * 1_056 < PEER_LANE_BYTES + OUTBOX_BYTES
    assert sent > 40
    assert received == sent
    world.outbox.flush()
    world.tell(b"there is room again")


def test_replies_and_requests_are_never_refused_for_want_of_room(world):
    for number in range(500):
        world.outbox.reply(world.agent, world.here, number << 20, RAW, b"x" * 1_000)
    world.outbox.request(world.here, 1 << 20, RAW, b"request")
    world.outbox.flush()
    received = len(world.read(2))
    while world.outbox.backed_up:
        world.outbox.retry()
        received += len(world.read(2))

    assert received == 500
    assert [kind for kind, _, _ in world.read(0)] == [REQUEST]


def test_a_body_over_the_limit_of_its_lane_is_refused_and_nothing_else_is(world):
    assert world.outbox.limit == LIMIT
    world.tell(bytes(LIMIT))
    world.outbox.reply(world.agent, world.here, 1 << 20, RAW, bytes(LIMIT))
    home = min(LANE_BYTES, OUTBOX_BYTES) // 2 - 48
    world.outbox.reply(COORDINATOR, world.here, 1 << 20, RAW, bytes(home))
    for use, limit in (
        (lambda: world.tell(bytes(LIMIT + 1)), LIMIT),
        (lambda: world.outbox.reply(world.agent, world.here, 1, RAW, bytes(LIMIT + 1)), LIMIT),
        (lambda: world.outbox.reply(COORDINATOR, world.here, 1, RAW, bytes(home + 1)), home),
        (lambda: world.outbox.request(world.here, 1, RAW, bytes(home + 1)), home),
    ):
        with pytest.raises(MessageTooLargeError) as caught:
            use()
        assert caught.value.limit == limit
    world.outbox.flush()

    assert [len(body) for _, _, body in world.read(2)] == [LIMIT, LIMIT]
    assert [len(body) for _, _, body in world.read(0)] == [home]


@pytest.mark.parametrize("world", [{"outbox_bytes": 2**19}], indirect=True, ids=["large"])
def test_messages_to_agents_that_stopped_since_are_given_back(world):
    back = []
    world.outbox.undeliverable = lambda *message: back.append(message)
    for number in range(2_000):
        world.tell(b"%d" % number, target=world.other, correlation=number)
    world.tell(b"delivered")
    world.outbox.reply(world.other, world.here, 1 << 20, RAW, b"a reply that nobody waits for")
    world.loop.put_agent(2, 2, STOPPED)
    world.outbox.flush()

    assert back == [(world.other, world.here, number) for number in range(2_000)]
    assert world.outbox.lost == 2_001
    assert world.read(2) == [(MESSAGE, world.agent, b"delivered")]


def test_what_is_sent_because_something_was_undeliverable_goes_with_the_same_flush(world):
    def answer(target, sender, correlation):
        world.outbox.reply(sender, target, correlation, RAW, b"nobody there")

    world.outbox.undeliverable = answer
    world.tell(b"a question", target=world.other, correlation=5 << 20)
    world.loop.put_agent(2, 2, STOPPED)
    world.outbox.flush()

    assert world.read(1) == [(REPLY, world.here, b"nobody there")]


def test_a_successor_sends_what_its_predecessor_left_before_its_own(world):
    for number in range(20):
        world.tell(bytes([number]) * 1_000)
    world.outbox.flush()
    assert world.outbox.backed_up
    world.outbox = world.successor()
    world.outbox.retry()
    world.tell(b"the successor's")
    world.outbox.flush()
    received = world.read(2)
    while world.outbox.backed_up:
        world.outbox.retry()
        received += world.read(2)

    assert [body[:1] for _, _, body in received] == [*(bytes([number]) for number in range(20)), b"t"]


def test_a_batch_that_is_partly_in_its_lane_goes_on_behind_the_rest(world):
    bodies = [bytes([number]) * 1_000 for number in range(30)]
    batch = Batch(REPLY | RAW << 16, COORDINATOR, 30).bodies(b"".join(bodies), 1_000)
    batch.targets(array("Q", [world.agent] * 30))
    assert not Sender(world.peer, 2).put(batch)
    assert 0 < batch.done < 30
    world.outbox.overflow(batch)
    world.tell(b"last")
    world.outbox.flush()
    received = world.read(2)
    assert world.peer.wait(ROOM) == 1
    while world.outbox.backed_up:
        world.outbox.retry()
        received += world.read(2)

    assert [body for _, _, body in received] == [*bodies, b"last"]


@pytest.mark.parametrize("count", [3, 20], ids=["with room in the lane", "with none"])
def test_a_slice_is_known_to_be_published_though_its_worker_died_before_the_commit(world, count):
    slice_ = Slice(COORDINATOR, 4_096)
    for number in range(count):
        world.tell(bytes([number]) * 1_000)
    world.outbox.flush(slice_)
    successor = world.successor()

    assert successor.settle() == slice_
    received = world.read(2)
    while successor.backed_up:
        successor.retry()
        received += world.read(2)
    assert [body[:1] for _, _, body in received] == [bytes([number]) for number in range(count)]
