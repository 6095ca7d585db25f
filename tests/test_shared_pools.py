"""Pools that are kept between calls: the threads that wait for them to be idle."""

import os
import threading

from fabric.integrations import shared_pools

PATIENCE = 30


class Pool:
    """Stands for a TaskPool."""

    closing = False
    broken = None

    def __init__(self, settings):
        pass

    def leave(self, at_exit):
        pass

    def join(self):
        pass


class LockThatStopsTheFirst:
    """A lock before which the first thread that watches waits, until it may go."""

    def __init__(self):
        self._lock = threading.Lock()
        self.reached, self.go = threading.Event(), threading.Event()

    def __enter__(self):
        if threading.current_thread().name == "fabric-idle-workers" and not self.reached.is_set():
            self.reached.set()
            assert self.go.wait(PATIENCE)
        self._lock.acquire()

    def __exit__(self, *problem):
        self._lock.release()


def test_a_thread_that_was_told_to_end_does_so_though_another_was_started_since(monkeypatch):
    monkeypatch.setattr(shared_pools, "TaskPool", Pool)
    keeper = shared_pools.Keeper()
    keeper._lock = lock = LockThatStopsTheFirst()
    keeper.lease({}, lambda: None, 1_000.0).release()
    assert lock.reached.wait(PATIENCE)
    first = keeper._thread
    closing = threading.Thread(target=keeper.close, daemon=True)
    closing.start()
    while keeper._thread is first:
        os.sched_yield()
    keeper.lease({}, lambda: None, 1_000.0).release()
    second = keeper._thread
    lock.go.set()
    closing.join(PATIENCE)
    assert not first.is_alive()
    assert second.is_alive()
    keeper.close()
    assert not second.is_alive()
