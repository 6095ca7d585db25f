"""Queues in one process: multiprocessing's semantics, batches, the shutdown, threads, what cannot be pickled."""

import copy
import os
import pickle
import queue
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fabric.queue_ring
from fabric import ClosedError, JoinableQueue, Queue, ShutDown, SimpleQueue
from fabric.queue_ring import BATCH_ITEMS

PATIENCE = 30


@pytest.fixture(params=[Queue, JoinableQueue, SimpleQueue], ids=lambda kind: kind.__name__)
def any_queue(request):
    made = request.param()
    yield made
    made.close()


@pytest.fixture
def q():
    made = Queue()
    yield made
    made.close()


@pytest.fixture
def small():
    made = Queue(3)
    yield made
    made.close()


class Refuses:
    """Cannot be pickled."""

    def __reduce__(self):
        raise AttributeError("not this one")


ITEMS = [b"", b"x" * 64, b"y" * 300_000, "text", 7, None, {"a": [1, 2.5]}, (True, frozenset({3})), bytearray(b"abc")]


def test_what_is_put_is_got_in_order(any_queue):
    for item in ITEMS:
        any_queue.put(item)
    assert [any_queue.get() for _ in ITEMS] == ITEMS
    assert any_queue.empty()


def test_items_of_a_batch_come_one_by_one_and_single_ones_in_a_batch(any_queue):
    any_queue.put_many(ITEMS)
    assert [any_queue.get() for _ in ITEMS] == ITEMS
    for item in ITEMS[:2]:
        any_queue.put(item)
    assert any_queue.get_many() == ITEMS[:2]


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 64, 4_096, 65_536, 65_537, 3_000_000])
def test_bytes_of_any_size_arrive_as_they_are(q, size):
    body = os.urandom(size)
    for _ in range(5):
        q.put(body)
    assert q.get() == body
    got = q.get_many()
    while len(got) < 4:
        got += q.get_many()
    assert got == [body] * 4
    assert {*map(type, got)} == {bytes}


def test_a_batch_of_many_items_of_mixed_sizes_keeps_its_order(q):
    items = [os.urandom(n * 37 % 200_000) if n % 3 else n for n in range(BATCH_ITEMS * 2 + 17)]
    q.put_many(items)
    assert q.qsize() == len(items)
    got = []
    while len(got) < len(items):
        got += q.get_many(700)
    assert got == items


def test_get_many_takes_what_is_there_up_to_the_number_asked_for(q):
    q.put_many(range(3_000))
    assert q.get_many(5) == [0, 1, 2, 3, 4]
    assert q.get_many(2_500) == list(range(5, 2_505))
    assert q.get_many(10_000) == list(range(2_505, 3_000))
    with pytest.raises(queue.Empty):
        q.get_many(block=False)
    with pytest.raises(ValueError, match="max_items=0"):
        q.get_many(0)


def test_get_many_takes_all_that_is_there_however_large(any_queue):
    items = [bytes([n]) * 50_000 for n in range(100)]
    any_queue.put_many(items)
    assert any_queue.get_many(90) == items[:90]
    assert any_queue.get_many() == items[90:]


def test_all_items_but_those_that_cannot_be_unpickled_are_told_though_they_were_got_in_parts(q):
    items = [bytes([n]) * 50_000 for n in range(10)]
    q.put_many([*items, Breaks(), "last"])
    with pytest.raises(ZeroDivisionError, match="made to") as failed:
        q.get_many()
    assert failed.value.items == [*items, "last"]


def test_looking_into_an_empty_queue_takes_the_same_memory_again_and_again(q, monkeypatch):
    made = []
    make = fabric.queue_ring._Buffer
    monkeypatch.setattr(fabric.queue_ring, "_Buffer", lambda size: made.append(size) or make(size))
    for _ in range(10):
        for attempt in (q.get_nowait, lambda: q.get_many(block=False)):
            with pytest.raises(queue.Empty):
                attempt()
    q.shutdown()
    for _ in range(10):
        for attempt in (q.get, q.get_many):
            with pytest.raises(ShutDown):
                attempt()
    assert len(made) == 1


def test_arrays_and_lambdas_travel(q):
    array = np.arange(1_000_000.0)
    q.put(array)
    assert np.array_equal(q.get(), array)
    q.put(lambda x: x + 1)
    assert q.get()(1) == 2


def test_a_full_queue_refuses_after_its_timeout_and_takes_again_when_one_is_got(small):
    small.put_many("abc")
    assert small.full()
    for attempt in (lambda: small.put(1, False), lambda: small.put_nowait(1), lambda: small.put(1, timeout=0.02)):
        with pytest.raises(queue.Full):
            attempt()
    with pytest.raises(queue.Full):
        small.put(1, True, -1)
    assert small.get() == "a"
    small.put_nowait("d")
    assert [small.get() for _ in range(3)] == ["b", "c", "d"]


def test_a_timeout_takes_as_long_as_it_says(q, small):
    small.put_many("abc")
    for attempt, error in ((lambda: q.get(timeout=0.2), queue.Empty), (lambda: small.put(1, timeout=0.2), queue.Full)):
        start = time.monotonic()
        with pytest.raises(error):
            attempt()
        assert time.monotonic() - start >= 0.2


def test_a_batch_that_does_not_fit_says_how_much_of_it_was_put(small):
    with pytest.raises(queue.Full) as refused:
        small.put_many([b"0", 1, "2", 3, 4], block=False)
    assert refused.value.args == (3,)
    assert small.get_many() == [b"0", 1, "2"]


def test_the_number_of_items_is_exact_at_any_maxsize():
    for maxsize in (1, 2, 7, BATCH_ITEMS + 1):
        made = Queue(maxsize)
        for n in range(maxsize):
            assert (made.qsize(), made.full(), made.empty()) == (n, False, n == 0)
            made.put_nowait(n)
        assert made.full()
        with pytest.raises(queue.Full):
            made.put_nowait(0)
        made.close()


def test_an_empty_queue_refuses_a_get_and_a_late_item_ends_the_wait(q):
    for attempt in (lambda: q.get(False), q.get_nowait, lambda: q.get(timeout=0.02), lambda: q.get(True, -1)):
        with pytest.raises(queue.Empty):
            attempt()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(q.get, timeout=PATIENCE)
        q.put("late")
        assert waiting.result() == "late"


def test_a_put_that_waits_for_room_goes_on_when_there_is_some(small):
    small.put_many("abc")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(small.put_many, "defghij")
        assert [small.get(timeout=PATIENCE) for _ in range(10)] == list("abcdefghij")
        waiting.result(PATIENCE)


def test_a_closed_queue_is_a_value_error_and_its_emptiness_an_os_error():
    for kind in (Queue, JoinableQueue):
        unused, used = kind(), kind()
        used.put(1)
        for made in (unused, used):
            made.close()
            made.close()
            made.join_thread()
            for attempt in (
                lambda made=made: made.put(1),
                made.get,
                made.get_many,
                lambda made=made: made.put_many([1]),
            ):
                with pytest.raises(ValueError, match="is closed"):
                    attempt()
        assert unused.empty()
        with pytest.raises(OSError, match="is closed"):
            used.empty()


def test_a_closed_simple_queue_is_an_os_error():
    made = SimpleQueue()
    made.close()
    made.close()
    for attempt in (made.empty, made.get, lambda: made.put(1), made.get_many, lambda: made.put_many([1])):
        with pytest.raises(OSError, match="is closed"):
            attempt()


def test_join_thread_wants_a_closed_queue(q):
    with pytest.raises(AssertionError, match="not closed"):
        q.join_thread()
    q.cancel_join_thread()


def test_an_item_that_cannot_be_pickled_is_reported_and_the_queue_goes_on(capsys):
    seen = []

    class Noting(Queue):
        @staticmethod
        def _on_queue_feeder_error(e, obj):
            seen.append((type(e), type(obj)))

    made = Noting(1, ctx=None)
    made.put(Refuses())
    made.put_many([Refuses(), 5, Refuses()])
    assert made.qsize() == 1
    assert made.get() == 5
    assert seen == [(AttributeError, Refuses)] * 3
    made.close()
    plain = Queue()
    plain.put(Refuses())
    assert "AttributeError: not this one" in capsys.readouterr().err
    plain.close()


def test_a_simple_queue_raises_what_pickling_raises():
    made = SimpleQueue()
    with pytest.raises(AttributeError, match="not this one"):
        made.put(Refuses())
    with pytest.raises(AttributeError, match="not this one"):
        made.put_many([1, Refuses()])
    assert made.empty()
    made.close()


class Breaks:
    """Can be pickled and not unpickled."""

    def __reduce__(self):
        return _break, ()


def _break():
    raise ZeroDivisionError("made to")


def test_an_item_that_cannot_be_unpickled_raises_and_the_rest_of_its_batch_is_told(q):
    q.put(Breaks())
    with pytest.raises(ZeroDivisionError, match="made to"):
        q.get()
    q.put_many([1, Breaks(), b"2", 3])
    with pytest.raises(ZeroDivisionError, match="made to") as failed:
        q.get_many()
    assert failed.value.items == [1, b"2", 3]
    assert q.empty()


def test_threads_share_a_queue_and_nothing_is_lost_or_comes_twice():
    made, producers, each = Queue(50), 4, 2_000
    with ThreadPoolExecutor(2 * producers) as pool:
        puts = [pool.submit(lambda p=p: [made.put((p, n)) for n in range(each)]) for p in range(producers)]
        gets = [pool.submit(lambda: [made.get(timeout=PATIENCE) for _ in range(each)]) for _ in range(producers)]
        for one in puts:
            one.result(PATIENCE)
        got = [one.result(PATIENCE) for one in gets]
    for items in got:
        for p in range(producers):
            numbers = [n for producer, n in items if producer == p]
            assert numbers == sorted(numbers)
    assert sorted(item for items in got for item in items) == [(p, n) for p in range(producers) for n in range(each)]
    made.close()


def test_a_copy_and_a_pickle_are_the_same_queue(any_queue):
    for other in (copy.copy(any_queue), pickle.loads(pickle.dumps(any_queue))):
        other.put("to the other")
        assert any_queue.get() == "to the other"
        other.close()


def test_a_pickle_of_a_queue_that_is_gone_says_so():
    made = Queue()
    data = pickle.dumps(made)
    made.close()
    with pytest.raises(ClosedError, match="does not have it open any more"):
        pickle.loads(data)
    other = Queue()  # in its place, most likely
    with pytest.raises(ClosedError, match="does not have it open any more"):
        pickle.loads(data)
    other.close()
