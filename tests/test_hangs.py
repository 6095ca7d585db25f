"""Which worker hangs, and what becomes of it."""

import os
import signal

import pytest

from fabric import Fabric, PoisonMessageError
from fabric.hangs import HangWatch, Sighting
from tests.agents import Echo, Sleeper

BUSY = Sighting(10, (1, 4096), stopped=False)
NEXT = Sighting(10, (2, 4096), stopped=False)
IDLE = Sighting(10, None, stopped=False)
STOPPED = Sighting(10, (1, 4096), stopped=True)


def test_a_message_in_hand_for_longer_than_the_timeout_is_a_hang():
    watch = HangWatch(handler_timeout=2.0, stopped_timeout=None)

    assert [watch.look([BUSY], now) for now in (0.0, 1.0, 1.9)] == [{}, {}, {}]
    assert list(watch.look([BUSY], 2.0)) == [10]


@pytest.mark.parametrize("between", [NEXT, IDLE])
def test_a_worker_that_gets_on_is_no_hang(between):
    watch = HangWatch(handler_timeout=2.0, stopped_timeout=None)

    assert [watch.look([seen], now) for now, seen in enumerate([BUSY, between, BUSY, between, BUSY])] == [{}] * 5


def test_without_a_handler_timeout_a_handler_may_take_for_ever():
    watch = HangWatch(handler_timeout=None, stopped_timeout=30.0)

    assert [watch.look([BUSY], now) for now in (0.0, 1e3, 1e6)] == [{}, {}, {}]


def test_a_stopped_worker_is_a_hang_after_its_own_timeout_only():
    watch = HangWatch(handler_timeout=1.0, stopped_timeout=5.0)

    assert [watch.look([STOPPED], now) for now in (0.0, 2.0, 4.9)] == [{}, {}, {}]
    assert list(watch.look([STOPPED], 5.0)) == [10]


def test_a_worker_that_is_continued_in_time_is_no_hang():
    watch = HangWatch(handler_timeout=None, stopped_timeout=5.0)

    assert [watch.look([seen], now) for now, seen in ((0, STOPPED), (4, IDLE), (5, STOPPED), (9, STOPPED))] == [{}] * 4


def test_the_interval_is_a_quarter_of_the_shortest_timeout():
    assert HangWatch(2.0, 30.0).interval == 0.5
    assert HangWatch(None, None).interval is None


def test_a_handler_over_its_time_is_stopped_and_the_others_go_on():
    with Fabric(workers=1, handler_timeout=0.2, max_attempts=1) as fab:
        sleeper = fab.spawn_batch(Sleeper, 1)[0]
        echo = fab.spawn_batch(Echo, 1)[0]
        future = sleeper.submit("spin")
        with pytest.raises(PoisonMessageError, match=r"handler_timeout=0\.2 s"):
            future.result(timeout=30)
        assert echo.ask("still here") == "still here"
        (letter,) = fab.dead_letters()
        assert (letter.signal, letter.encoding) == ("SIGKILL", "pickle")
        assert "in on_message" in letter.stack


def test_a_stopped_worker_is_replaced():
    with Fabric(workers=1, stopped_timeout=0.2) as fab:
        echo = fab.spawn_batch(Echo, 1)[0]
        os.kill(fab.statistics().workers[0].pid, signal.SIGSTOP)
        assert echo.ask("hello", timeout=30) == "hello"
        assert fab.statistics().restarts == 1


def test_a_stopped_fork_server_is_replaced_when_it_is_needed():
    with Fabric(workers=1, stopped_timeout=0.2) as fab:
        echo = fab.spawn_batch(Echo, 1)[0]
        os.kill(fab._supervisor.crew.server.pid, signal.SIGSTOP)
        os.kill(fab.statistics().workers[0].pid, signal.SIGKILL)
        assert echo.ask("hello", timeout=30) == "hello"


def test_a_fork_server_that_is_stopped_does_not_hold_up_the_end():
    with Fabric(workers=1, stopped_timeout=None) as fab:
        os.kill(fab._supervisor.crew.server.pid, signal.SIGSTOP)
