"""The supervisor thread goes on, whatever fails in it: nobody else would see a worker die."""

import errno
import os
import signal
import socket
import time

import pytest

from fabric import Fabric, FabricError, WorkerLostError
from fabric.postmortem import is_stopped
from fabric.restart import GiveUp
from fabric.wire import receive_frame
from tests.agents import Echo

PATIENCE = 30


def _fails_once(function):
    """Wrap a function: its first call ends with a MemoryError."""
    failed = []

    def wrapper(*args):
        if not failed:
            failed.append(True)
            raise MemoryError("for once")
        return function(*args)

    return wrapper


@pytest.mark.parametrize("part", ["_lookout._watched", "_lookout._run_due", "_on_death", "start"])
def test_a_worker_is_replaced_though_memory_runs_out_meanwhile(monkeypatch, part):
    with Fabric(workers=1) as fab:
        echo, crew = fab.spawn_batch(Echo, 1)[0], fab._supervisor.crew
        where, name = (crew._lookout, part.removeprefix("_lookout.")) if "." in part else (crew, part)
        monkeypatch.setattr(where, name, _fails_once(getattr(where, name)))
        crew.kill(1)
        assert echo.ask("hello", timeout=PATIENCE) == "hello"


def test_a_fabric_that_gets_no_thread_says_so(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", refuse)
    with pytest.raises(FabricError, match=r"can't start new thread; .*ulimit -u"):
        Fabric(workers=1)


def test_descriptors_of_a_frame_that_breaks_off_are_closed():
    ours, theirs = socket.socketpair()
    with ours:
        with theirs, open(os.devnull) as other:
            socket.send_fds(theirs, [b"\x09\x00\x00\x00half"], [other.fileno()])
        with pytest.raises(EOFError):
            receive_frame(ours)


def test_lanes_that_cannot_be_emptied_for_want_of_descriptors_are_emptied_later(monkeypatch):
    def refuse(*args):
        monkeypatch.undo()
        raise OSError(errno.EMFILE, "Too many open files")

    with Fabric(workers=1, on_error=lambda letter: None) as fab:
        echo = fab.spawn_batch(Echo, 1)[0]
        pid = fab.statistics().workers[0].pid
        os.kill(pid, signal.SIGSTOP)
        deadline = time.monotonic() + PATIENCE
        while not is_stopped(pid):
            assert time.monotonic() < deadline
        for number in range(10):
            echo.tell(number)
        monkeypatch.setattr("fabric.restart.RestartPolicy.died", lambda *args: GiveUp("to try it"))
        monkeypatch.setattr("fabric.supervisor.empty_lanes", refuse)
        fab._supervisor.crew.kill(1)
        fab.drain(timeout=PATIENCE)

        assert [type(letter.error) for letter in fab.dead_letters()] == [WorkerLostError] * 10
