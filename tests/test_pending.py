"""What somebody waits for: completed by replies, by failures, once."""

import itertools
import threading
from concurrent.futures import Future

import pytest

from fabric import AgentError, EncodingError, WorkerLostError
from fabric.pending import Failed, Many, One, Promise, Single, error_in, settle, wake
from fabric.remote_errors import Undecodable, describe

LOST = WorkerLostError(1, 77, -9)
TOKEN = 5 << 20


class Replies:
    """Replies that came together."""

    def __init__(self, indexes, bodies):
        self.bodies = bodies
        self._correlations = [TOKEN | index for index in indexes]
        self.correlation = self._correlations[0]
        steps = {b - a for a, b in itertools.pairwise(indexes)}
        self.step = steps.pop() % 2**64 if len(steps) == 1 else 0

    def correlations(self):
        return self._correlations


def test_one_is_done_with_its_reply_and_wakes_its_owner():
    entry = One(1)
    entry.lock = threading.Lock()
    entry.lock.acquire()
    assert not entry.is_done()
    assert entry.accept(Single(TOKEN, "yes")) is None

    assert (entry.is_done(), entry.value, entry.slots) == (True, "yes", (1,))
    assert entry.lock.acquire(blocking=False), "its owner sleeps on this"


@pytest.mark.parametrize("indexes", [[6, 7, 8], [8, 9], [0, 4, 8], [2**20 - 2, 2**20 - 1], [5, 9, 8]], ids=str)
def test_replies_to_what_was_not_asked_are_refused_and_the_others_still_come(indexes):
    entry = Many([1] * 8)
    with pytest.raises((IndexError, ValueError)):
        entry.accept(Replies(indexes, ["forged"] * len(indexes)))
    entry.accept(Replies(range(8), list(range(8))))

    assert (entry.done, entry.replies) == (True, list(range(8)))


def test_one_that_fails_has_the_error_for_a_reply():
    entry = One(1)
    entry.fail(1, LOST)

    assert entry.done
    assert error_in(entry.value) is LOST


@pytest.mark.parametrize(
    "batches",
    [
        [range(8)],
        [range(0, 8, 2), range(1, 8, 2)],
        [[0], [7], [3], [1, 2], [4, 5, 6]],
        [[3, 1, 4, 0], [6, 5, 2, 7]],
        [range(7, -1, -1)],
        [[2, 3], [4, 5, 6, 7], [0, 1]],
    ],
    ids=str,
)
def test_many_replies_find_their_places_however_they_come(batches):
    entry = Many([1, 2] * 4)
    for batch in batches:
        assert not entry.done
        entry.accept(Replies(list(batch), [f"reply {i}" for i in batch]))

    assert entry.done
    assert entry.replies == [f"reply {i}" for i in range(8)]
    assert not entry.failed


def test_a_reply_that_comes_twice_does_not_stand_for_another():
    entry = Many([1] * 3)
    for _ in range(3):
        entry.accept(Replies([0], ["a"]))
        entry.accept(Replies([0, 1], ["a", "b"]))
        assert not entry.done
    entry.accept(Replies([2], ["c"]))

    assert (entry.done, entry.replies) == (True, ["a", "b", "c"])


@pytest.mark.parametrize(
    "bad", [describe(ValueError()), Undecodable(EncodingError("no"))], ids=["error", "undecodable"]
)
def test_many_say_whether_errors_are_among_them(bad):
    entry = Many([1] * 3)
    entry.accept(Replies([0, 1, 2], ["a", bad, None]))

    assert (entry.done, entry.failed) == (True, True)
    assert [error_in(reply) is None for reply in entry.replies] == [True, False, True]


def test_a_worker_that_is_lost_fails_what_it_owes_and_nothing_else():
    entry = Many([1, 2, 1, 2])
    entry.accept(Replies([0], ["came in time"]))
    entry.fail(1, LOST)
    assert not entry.done
    entry.accept(Replies([1, 3], ["b", "d"]))

    assert entry.done
    assert entry.failed
    assert [entry.replies[0], error_in(entry.replies[2]), entry.replies[3]] == ["came in time", LOST, "d"]


def test_nothing_is_left_to_wait_for_when_every_worker_is_lost():
    entry = Many([1, 2])
    entry.fail(1, LOST)
    entry.fail(2, LOST)

    assert entry.done
    assert [error_in(reply) for reply in entry.replies] == [LOST, LOST]


def test_a_promise_is_delivered_outside_the_lanes():
    came = []
    promise = Promise(1, came.append)
    finish = promise.accept(Single(TOKEN, "reply"))
    assert (promise.done, came) == (True, [])
    finish()
    assert came == ["reply"]
    failing = Promise(1, came.append)
    failing.fail(1, LOST)()
    assert error_in(came[1]) is LOST


def test_a_future_gets_the_reply_or_the_error_unless_it_was_cancelled():
    good, bad, cancelled = Future(), Future(), Future()
    cancelled.cancel()
    settle(good, 5, True)
    settle(bad, describe(KeyError("gone")), True)
    settle(cancelled, 5, True)

    assert good.result(0) == 5
    assert isinstance(bad.exception(0), AgentError)
    assert cancelled.cancelled()


def test_errors_are_told_from_replies():
    unread = EncodingError("no")

    assert error_in("a reply") is error_in(None) is error_in(ValueError("as a reply")) is None
    assert error_in(Failed(LOST)) is LOST
    assert error_in(Undecodable(unread)) is unread
    assert error_in(describe(KeyError())).__cause__.args == ()
    assert error_in(describe(KeyError()), allow_pickle=False).__cause__ is None


def test_waking_somebody_who_is_awake_does_nothing():
    lock = threading.Lock()
    wake(lock)
    assert lock.acquire(blocking=False)
    wake(lock)
    wake(lock)
    assert lock.acquire(blocking=False)


@pytest.mark.parametrize("together", [True, False])
def test_a_reply_that_came_is_not_replaced_by_what_a_successor_says_of_it(together):
    entry = Many([1, 1, 1])
    entry.accept(Single(5 << 20, "right"))
    error = describe(KeyError("it was handled, and its reply is not known"))
    if together:
        entry.accept(_Two(5 << 20, [error, "second"]))
    else:
        entry.accept(Single(5 << 20, error))
        entry.accept(Single(5 << 20 | 1, "second"))
    assert not entry.done
    entry.accept(Single(5 << 20 | 2, "third"))

    assert entry.done
    assert entry.replies == ["right", "second", "third"]


class _Two(Single):
    """Two replies that arrive together."""

    def __init__(self, correlation, bodies):
        super().__init__(correlation, None)
        self.bodies = bodies
        self.step = 1

    def correlations(self):
        return [self.correlation, self.correlation + 1]
