"""The number of workers changes while others ask, spawn, and close."""

import contextlib
import itertools
import os
import signal
import threading
import time

import pytest

from fabric import ClosedError, Fabric, FabricError
from tests.agents import Echo

PATIENCE = 30


class Thread(threading.Thread):
    """A thread that says what it raised."""

    def __init__(self, function):
        super().__init__()
        self.function, self.error = function, None
        self.start()

    def run(self):
        try:
            self.function()
        except BaseException as error:
            self.error = error

    def end(self):
        """Wait for its end; return what it raised."""
        self.join(PATIENCE)
        assert not self.is_alive()
        return self.error


def test_workers_come_and_go_while_others_ask_and_spawn():
    with Fabric(workers=1, max_workers=3) as fab:
        echoes = fab.spawn_batch(Echo, 10)
        stop = threading.Event()

        def ask():
            for number in itertools.takewhile(lambda _: not stop.is_set(), itertools.count()):
                assert echoes.ask_all(number, timeout=PATIENCE) == [number] * 10

        def spawn():
            while not stop.is_set():
                more = fab.spawn_batch(Echo, 6)
                assert more.ask_all("hello", timeout=PATIENCE) == ["hello"] * 6
                more.stop(timeout=PATIENCE)

        def resize():
            for count in (3, 1, 2, 3, 1) * 3:
                with contextlib.suppress(ValueError):  # those that would go have agents
                    fab.resize(count)
            stop.set()

        try:
            threads = [Thread(function) for function in (ask, ask, spawn, spawn, resize)]
            threads[-1].join(PATIENCE)
        finally:
            stop.set()
        assert [thread.end() for thread in threads] == [None] * 5
        assert fab.statistics().restarts == 0


def test_no_agent_is_made_in_a_worker_that_is_about_to_go(monkeypatch):
    with Fabric(workers=2) as fab:
        supervisor, agents = fab._supervisor, []
        send_away = supervisor.send_away

        def spawn_first(slots):
            agents.extend(fab.spawn_batch(Echo, 10))
            send_away(slots)

        monkeypatch.setattr(supervisor, "send_away", spawn_first)
        fab.resize(1)
        assert fab.ask_many(agents, range(10), timeout=PATIENCE) == list(range(10))


def test_a_worker_that_died_and_has_no_successor_yet_can_go(monkeypatch):
    with Fabric(workers=2) as fab:
        supervisor = fab._supervisor
        call_later, died = supervisor.crew.call_later, threading.Event()

        def hold_back(seconds, function):
            due.append((seconds, function))
            died.set()

        due = []
        monkeypatch.setattr(supervisor.crew, "call_later", hold_back)
        os.kill(supervisor.crew.workers[2].pid, signal.SIGKILL)
        assert died.wait(PATIENCE)
        resizing = Thread(lambda: fab.resize(1))
        deadline = time.monotonic() + PATIENCE
        while supervisor.slots != (1,):
            assert time.monotonic() < deadline
        for seconds, function in due:
            call_later(seconds, function)
        assert resizing.end() is None
        monkeypatch.undo()
        fab.resize(2)
        assert fab.spawn_batch(Echo, 4).ask_all("hello", timeout=PATIENCE) == ["hello"] * 4


@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
@pytest.mark.parametrize("count", [1, 4], ids=["fewer", "more"])
def test_a_fabric_is_closed_in_the_middle_of_a_resize(start_method, count):
    turns = 12 if start_method == "forkserver" else 3
    for turn in range(turns):
        fab = Fabric(workers=2, max_workers=4, start_method=start_method)
        resizing = Thread(lambda fab=fab: fab.resize(count))
        until = time.perf_counter() + 0.015 * turn / turns * (1 if start_method == "forkserver" else 10)
        while time.perf_counter() < until:
            pass
        fab.close(drain=bool(turn % 2))
        error = resizing.end()
        assert error is None or isinstance(error, FabricError), error


def test_a_closed_fabric_is_not_resized():
    fab = Fabric(workers=1, max_workers=2)
    fab.close()
    with pytest.raises(ClosedError):
        fab.resize(2)
    with pytest.raises(ClosedError):
        fab._supervisor.start(fab._spawner, [2])
    with pytest.raises(ClosedError):
        fab._supervisor.crew.start(2, [])


def test_a_resize_that_waits_is_told_of_the_close(monkeypatch):
    """Its worker never comes: it must not wait for the whole of its patience."""
    with Fabric(workers=1, max_workers=2) as fab:
        asked = threading.Event()
        monkeypatch.setattr(fab._supervisor.crew, "start", lambda slot, orders: asked.set())
        resizing = Thread(lambda: fab.resize(2))
        assert asked.wait(PATIENCE)
        fab.close()
        assert isinstance(resizing.end(), ClosedError)
