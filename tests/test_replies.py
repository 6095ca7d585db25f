"""Who drains the reply lanes: real threads over real lanes, with the worker's end in the hands of the test."""

import contextlib
import os
import random
import signal
import threading
import time

import pytest

from fabric import ClosedError, WorkerLostError
from fabric.codec import Codec
from fabric.messages import FAILURE, INDEX_BITS, MESSAGE, RAW, REPLY, REQUEST
from fabric.pending import Many, One, Promise, error_in
from fabric.receiver import Receiver
from fabric.replies import Replies
from fabric.ring import MESSAGES, QUIET, ROOM
from fabric.sender import Sender
from tests.loopback import loopback

PATIENCE = 30  # seconds until a test is taken to have failed


class World:
    """A coordinator that waits for replies, and a worker that gives them when it is told to."""

    def __init__(self, loop):
        self.loop = loop
        self.records = []
        self.receiver = Receiver(loop.segments[0], loop.peers[0], Codec())
        self.replies = Replies(loop.peers[0], self.receiver, lambda received: self.records.extend(received.bodies))
        self.back = Sender(loop.peers[1], 0)
        self.threads = []

    def reply(self, *correlations, body=b"reply"):
        """Answer, as worker 1; several in one batch."""
        for correlation in correlations:
            assert self.back.send_one(REPLY | RAW << 16, 0, correlation, body)

    def start(self, function):
        """Run a function in a thread; its result is in the list that this returns, when it is joined."""
        result = []
        thread = threading.Thread(target=lambda: result.append(function()), daemon=True)
        thread.start()
        self.threads.append(thread)
        return result

    def asks(self, timeout=None):
        """Wait for one reply in a thread of its own; return (correlation, result). It waits when this returns."""
        entry = One(1)
        correlation = self.replies.expect(entry)
        waiting = len(self.replies._followers) + self.replies._lead.locked()
        deadline = None if timeout is None else time.monotonic() + timeout
        result = self.start(lambda: (self.replies.wait(entry, deadline), entry.value))
        self.until(lambda: len(self.replies._followers) + self.replies._lead.locked() > waiting)
        return correlation, result

    def until(self, reached):
        """Let other threads run until something can be seen of them; no event says that a thread sleeps."""
        deadline = time.monotonic() + PATIENCE
        while not reached():
            assert time.monotonic() < deadline
            os.sched_yield()

    def join(self):
        for thread in self.threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        self.threads.clear()

    def alarms(self):
        return [segment.counters()[4] for segment in self.loop.segments]


@pytest.fixture
def world(monkeypatch):
    monkeypatch.setattr("fabric.pump.LINGER", 0.0)
    with loopback(2) as loop:
        made = World(loop)
        yield made
        made.replies.close(ClosedError("closed"))
        made.join()


# Alone.


def test_who_waits_alone_drains_for_itself(world):
    entry = One(1)
    correlation = world.replies.expect(entry)
    world.reply(correlation)

    assert world.replies.outstanding == 1
    assert world.replies.wait(entry, None)
    assert (entry.value, world.replies.outstanding) == (b"reply", 0)
    assert world.replies.wait(entry, None), "it is done already"


def test_a_wait_ends_with_its_time(world):
    entry = One(1)
    correlation = world.replies.expect(entry)
    for seconds in (-1, 0, 0.001):
        assert not world.replies.wait(entry, time.monotonic() + seconds)
    assert not world.replies.wait_for(lambda: False, ROOM, time.monotonic() + 0.001)
    world.replies.forget(correlation)
    world.reply(correlation)
    world.replies.drain_if_free()

    assert (world.replies.late, world.replies.outstanding) == (1, 0)


def test_a_reply_that_came_is_taken_though_the_time_is_up(world):
    entry = One(1)
    world.reply(world.replies.expect(entry))

    assert world.replies.wait(entry, time.monotonic() - 1)


def test_replies_of_one_batch_find_their_entries(world):
    many, one = Many([1] * 3), One(1)
    first, single = world.replies.expect(many), world.replies.expect(one)
    world.reply(first + 2, single, first, 99 << INDEX_BITS, first + 1)

    assert world.replies.wait(many, time.monotonic() + PATIENCE)
    assert (many.replies, one.value, world.replies.late) == ([b"reply"] * 3, b"reply", 1)


def test_what_is_no_reply_goes_where_it_belongs(world):
    assert world.back.send_one(FAILURE | RAW << 16, 0, 0, b"unasked")
    world.replies.wake_and_drain()

    assert world.records == [b"unasked"]
    assert world.replies.wait_for(world.loop.peers[0].quiet, QUIET, time.monotonic() + PATIENCE)


# Threads.


def test_many_threads_that_ask_at_once_each_get_their_own(world):
    asked, stop = [], threading.Event()

    def work():
        seed = random.Random(5)
        while not stop.is_set() or asked:
            some = [asked.pop(seed.randrange(len(asked))) for _ in range(min(len(asked), seed.randrange(1, 6)))]
            for correlation in some:
                while not world.back.send_one(REPLY | RAW << 16, 0, correlation, b"%d" % correlation):
                    os.sched_yield()
            os.sched_yield()

    def ask():
        wrong = 0
        for _ in range(300):
            entry = One(1)
            correlation = world.replies.expect(entry)
            asked.append(correlation)
            wrong += not world.replies.wait(entry, time.monotonic() + PATIENCE) or entry.value != b"%d" % correlation
        return wrong

    results = [world.start(ask) for _ in range(6)]
    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    try:
        world.join()
    finally:
        stop.set()
        asked.clear()
        worker.join(PATIENCE)

    assert results == [[0]] * 6
    assert (world.replies.outstanding, world.replies.late) == (0, 0)
    assert not world.replies._followers
    assert world.alarms() == [0, 0, 0]


def test_a_leader_that_leaves_hands_on_to_those_who_still_wait(world):
    asks = [world.asks() for _ in range(5)]
    for correlation, _ in (asks[0], asks[3], asks[1], asks[4], asks[2]):
        world.reply(correlation)
        world.until(lambda correlation=correlation: correlation >> INDEX_BITS not in world.replies._pending)
    world.join()

    assert [result for _, result in asks] == [[(True, b"reply")]] * 5


def test_whoever_is_woken_to_lead_and_is_done_already_hands_on_in_turn(world):
    for _ in range(30):
        asks = [world.asks() for _ in range(6)]
        last = asks.pop(random.Random(7).randrange(1, 6))
        world.reply(*(correlation for correlation, _ in asks))
        world.until(lambda: world.replies.outstanding == 1)
        world.reply(last[0])
        world.join()
        assert last[1] == [(True, b"reply")]


def test_a_follower_whose_time_is_up_leaves_and_the_others_go_on(world):
    leader, leads = world.asks()
    late, gives_up = world.asks(timeout=0.01)
    other, follows = world.asks()
    world.until(lambda: gives_up)
    world.reply(leader)
    world.until(lambda: leads)
    world.reply(other)
    world.join()

    assert (leads, gives_up, follows) == ([(True, b"reply")], [(False, None)], [(True, b"reply")])
    world.replies.forget(late)


def test_a_thread_may_wait_for_room_while_another_leads(world):
    ours = Sender(world.loop.peers[0], 1)
    while ours.send_one(MESSAGE | RAW << 16, 1, 0, b"x" * 1_000):
        pass
    leader, leads = world.asks()
    sent = world.start(
        lambda: world.replies.wait_for(lambda: ours.send_one(MESSAGE | RAW << 16, 1, 0, b"x" * 1_000), ROOM, None)
    )
    world.until(lambda: world.replies._wanted[ROOM])
    receiver = Receiver(world.loop.segments[1], world.loop.peers[1], Codec())
    received = receiver.receive()
    receiver.commit(received.lane, received.end)
    world.until(lambda: sent)
    receiver.close()
    world.reply(leader)
    world.join()

    assert (sent, leads) == ([True], [(True, b"reply")])
    assert world.alarms() == [0, 0, 0]


def test_a_leader_interrupted_by_a_signal_lets_go_of_the_lead(world):
    class Interrupt(Exception):  # noqa: N818 - stands for KeyboardInterrupt
        pass

    def interrupt(number, frame):
        raise Interrupt

    entry = One(1)
    correlation = world.replies.expect(entry)
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        main = threading.main_thread().ident
        world.start(lambda: (world.until(world.replies._lead.locked), signal.pthread_kill(main, signal.SIGUSR1)))
        with pytest.raises(Interrupt):
            world.replies.wait(entry, time.monotonic() + PATIENCE)
    finally:
        signal.signal(signal.SIGUSR1, before)
    world.reply(correlation)

    assert world.replies.wait(entry, time.monotonic() + PATIENCE)


# The pump.


def test_a_promise_is_kept_though_nobody_waits(world):
    came, delivered = [], threading.Event()
    promise = Promise(1, lambda body: (came.append((body, threading.current_thread().name)), delivered.set()))
    correlation = world.replies.expect(promise)
    world.replies.wake_pump()
    world.reply(correlation)

    assert delivered.wait(PATIENCE)
    assert came == [(b"reply", "fabric-pump")]


def test_a_promise_that_another_thread_drains_is_delivered_by_the_pump(world):
    names, delivered = [], threading.Event()
    promise = Promise(1, lambda body: (names.append(threading.current_thread().name), delivered.set()))
    promised = world.replies.expect(promise)
    entry = One(1)
    asked = world.replies.expect(entry)
    world.reply(promised, asked)

    assert world.replies.wait(entry, time.monotonic() + PATIENCE)
    assert delivered.wait(PATIENCE)
    assert names == ["fabric-pump"]


def test_a_leader_that_leaves_promises_behind_wakes_the_pump(world):
    delivered = threading.Event()
    promised = world.replies.expect(Promise(1, lambda body: delivered.set()))
    asks = [world.asks() for _ in range(3)]
    world.replies.wake_pump()
    world.reply(*(correlation for correlation, _ in asks))
    world.join()
    world.reply(promised)

    assert delivered.wait(PATIENCE)


def test_a_job_that_raises_is_logged_and_the_next_one_runs(world, caplog):
    ran = threading.Event()

    def fail():
        raise ValueError("a mistake of the user")

    world.replies.run_later(fail)
    world.replies.run_later(ran.set)

    assert ran.wait(PATIENCE)
    assert "a mistake of the user" in caplog.text


def test_the_pump_leaves_when_there_is_nothing_to_do_and_comes_again(world):
    for _ in range(3):
        ran = threading.Event()
        world.replies.run_later(ran.set)
        assert ran.wait(PATIENCE)
        world.until(lambda: world.replies._pump is None)


# Failures, and the end.


def test_a_lost_worker_fails_what_it_owes_whoever_leads(world):
    lost = WorkerLostError(1, 77, -9)
    correlation, result = world.asks()
    delivered = []
    world.replies.expect(Promise(1, delivered.append))
    other = One(2)
    world.replies.expect(other)
    world.replies.fail_all(1, lost)
    world.join()
    world.until(lambda: delivered)

    assert error_in(result[0][1]) is lost
    assert error_in(delivered[0]) is lost
    assert (other.done, world.replies.outstanding) == (False, 1)
    world.reply(correlation)
    world.replies.drain_if_free()
    assert world.replies.late == 1


def test_closing_ends_every_wait(world):
    asks = [world.asks() for _ in range(3)]
    delivered = []
    world.replies.expect(Promise(1, delivered.append))
    world.replies.wake_pump()
    quiet = world.start(lambda: world.replies.wait_for(lambda: False, QUIET, None))
    world.until(lambda: world.replies._wanted[QUIET])
    closed = ClosedError("this is the end")
    world.replies.close(closed)
    world.join()

    assert [error_in(result[0][1]) for _, result in asks] == [closed] * 3
    assert [error_in(value) for value in delivered] == [closed]
    assert quiet == [False]


def test_who_comes_after_the_end_is_told(world):
    world.replies.close(ClosedError("this is the end"))
    for entry in (One(1), Promise(1, print)):
        with pytest.raises(ClosedError, match="this is the end"):
            world.replies.expect(entry)
    assert not world.replies.wait_for(lambda: False, MESSAGES, None)
    world.replies.run_later(print)
    world.replies.drain_if_free()

    assert world.replies.outstanding == 0
    assert world.replies._pump is None


def test_nobody_waits_for_the_lead_to_look(world):
    with contextlib.ExitStack() as stack:
        assert world.replies._lead.acquire(blocking=False)
        stack.callback(world.replies._lead.release)
        world.replies.drain_if_free()
        world.replies.wake_and_drain()


def test_a_lane_that_is_never_empty_does_not_keep_who_has_its_reply(world):
    taken = []

    def one_more(received):  # of two kinds in turn, so that there is always one behind that which is taken
        taken.append(received.kind)
        assert world.back.send_one(received.kind | RAW << 16, 0, 0, b"")

    world.replies._on_record = one_more
    for kind in (FAILURE, REQUEST):
        world.back.send_one(kind | RAW << 16, 0, 0, b"")
    entry = One(1)
    world.reply(world.replies.expect(entry))

    assert world.replies.wait(entry, None)
    world.replies._on_record = lambda received: taken.append("the last")
    world.until(lambda: taken[-1] == "the last")  # what was left behind is taken although nobody waits for it
