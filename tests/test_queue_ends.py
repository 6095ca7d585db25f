"""How waiting for a queue ends: by a shutdown, the last task, Ctrl-C, a handler, memory that is short or damaged."""

import copy
import os
import signal
import struct
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import fabric.queue_ring
from fabric import BackpressureError, JoinableQueue, LayoutError, Queue, ShutDown
from tests.queue_users import is_asleep
from tests.waiting import until

PATIENCE = 30
BELLS_AT = 6 * 128  # in the header of a queue


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


def test_a_shutdown_refuses_puts_and_lets_gets_empty_it(q):
    q.put_many("ab")
    q.shutdown()
    for attempt in (lambda: q.put(1), lambda: q.put_nowait(1), lambda: q.put_many([1])):
        with pytest.raises(ShutDown):
            attempt()
    assert [q.get(), q.get_nowait()] == ["a", "b"]
    for attempt in (q.get, q.get_nowait, q.get_many):
        with pytest.raises(ShutDown):
            attempt()
    q.shutdown()


def test_an_immediate_shutdown_throws_away_what_is_there():
    made = JoinableQueue(2)
    made.put_many("ab")
    assert made.get() == "a"
    made.shutdown(immediate=True)
    for attempt in (made.get, made.get_nowait, lambda: made.put("c")):
        with pytest.raises(ShutDown):
            attempt()
    assert made.qsize() == 0
    with pytest.raises(TimeoutError):
        made.join(timeout=0.01)  # "a" is in somebody's hands
    made.task_done()
    made.join(timeout=PATIENCE)
    made.close()


@pytest.mark.parametrize("immediate", [False, True])
def test_a_shutdown_wakes_all_who_wait(immediate):
    empty, full = Queue(), Queue(1)
    full.put(0)
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(empty.get) for _ in range(2)] + [pool.submit(full.put, n) for n in range(2)]
        until(lambda: _sleeps(empty)[0] >= 2 and _sleeps(full)[1] >= 2)
        for made in (empty, full):
            made.shutdown(immediate)
        assert [type(one.exception(PATIENCE)) for one in waiting] == [ShutDown] * 4
    empty.close()
    full.close()


def test_join_waits_for_the_last_task():
    made = JoinableQueue()
    made.join()
    made.put_many(range(10))
    with ThreadPoolExecutor(1) as pool:
        joined = pool.submit(made.join)
        for _ in made.get_many():
            assert not joined.done()
            made.task_done()
        joined.result(PATIENCE)
    with pytest.raises(ValueError, match="too many times"):
        made.task_done()
    made.put_many(range(4))
    made.task_done(4)
    made.join(timeout=PATIENCE)
    made.close()


def test_ctrl_c_ends_a_wait(q, small):
    small.put_many("abc")
    for made, wait in (
        (q, q.get),
        (q, q.get_many),
        (small, lambda: small.put(1)),
        (small, lambda: small.put_many([1])),
    ):
        arguments = (made, _sleeps(made), threading.get_native_id())
        struck = threading.Thread(target=_strike_when_asleep, args=arguments)
        struck.start()
        with pytest.raises(KeyboardInterrupt):
            wait()
        struck.join()


def _strike_when_asleep(made, before, thread):
    until(lambda: _sleeps(made) != before and is_asleep(f"/proc/self/task/{thread}"))
    os.kill(os.getpid(), signal.SIGINT)


def _sleeps(made):
    """Return how often somebody went to sleep until there is an item, and until there is room: see fab_queue.h."""
    items, _, room, _ = struct.unpack("4I", os.pread(made._ring.descriptor, 16, BELLS_AT))
    return items >> 1, room >> 1


def test_a_handler_that_returns_lets_the_wait_go_on(q):
    before = signal.signal(signal.SIGALRM, lambda *_: q.put("by the handler"))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert q.get(timeout=PATIENCE) == "by the handler"
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_shortage_of_memory_is_an_error_before_and_what_was_put_is_there(monkeypatch):
    made = None
    limit = 100 << 20  # of which 64 MiB are left to others
    monkeypatch.setattr("fabric.queue_holder.memory_left", lambda: limit - (_memory(made) if made else 0))
    made = Queue()
    made.put(b"first")
    with pytest.raises(BackpressureError, match=r"needs 50,.* bytes of memory and 37,.* may be taken"):
        made.put(b"x" * 50_000_000)
    with pytest.raises(BackpressureError, match="may be taken"):
        made.put_many([b"y" * 1_000_000] * 50)
    assert _memory(made) < 36 << 20
    assert made.get() == b"first"
    left = made.qsize()
    assert left > 20
    assert made.get_many(1) == [b"y" * 1_000_000]
    made.put("and it goes on")
    assert [made.get() for _ in range(left)][-1] == "and it goes on"
    made.close()


def _memory(made):
    return os.fstat(made._ring.descriptor).st_blocks * 512


def test_garbage_in_the_memory_is_an_error_and_no_crash(q):
    q.put_many([b"x" * 64] * 10)
    header = os.pread(q._ring.descriptor, 4096, 0)
    with open(f"/proc/self/fd/{q._ring.descriptor}", "r+b", buffering=0) as file:
        file.seek(fabric.queue_ring.DATA_BYTES)
        file.write(b"\xff" * 4096)
        with pytest.raises(LayoutError, match="damaged"):
            q.get()
        file.seek(0)
        file.write(b"\xff" * 8)
        with pytest.raises(LayoutError, match="no queue of shm-fabric"):
            copy.copy(q)
        file.seek(0)
        file.write(header)
