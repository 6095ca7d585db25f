"""Who waits for room in an arena takes one block; and none stays for a wait, an error or a reply that is over."""

import contextlib
import gc
import os
import signal
import threading

import numpy as np
import pytest

from fabric import BackpressureError, Fabric
from fabric.large import Large
from fabric.receiver import Receiver
from tests.arenas import PATIENCE, all_came_back, holders_of, lent
from tests.ends import ARENA_BYTES, PAGE, ends
from tests.payload_agents import pattern
from tests.waiting import until

ARENA = 16 << 20
BIG = 5 << 20  # over what a lane takes, so that it has to wait


class TornError(Exception):
    """What ends a wait or a copy in the middle."""


@pytest.fixture
def fab():
    with Fabric(workers=2, arena_bytes=ARENA, arena_timeout=PATIENCE) as fabric:
        yield fabric


@contextlib.contextmanager
def stopped(fab, worker):
    """Have a worker stand still inside; what is given lets it go on earlier."""
    pid = fab.statistics().workers[worker].pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield lambda: os.kill(pid, signal.SIGCONT)
    finally:
        os.kill(pid, signal.SIGCONT)


def test_who_looks_once_more_after_room_came_takes_no_second_block():
    with ends(2, patience=1000.0) as (first, _):
        taken = first.arena.reserve(ARENA_BYTES)

        def wait(reached, deadline):
            assert not reached()
            first.arena.drop(taken.block)
            assert reached()
            return reached()  # as a thread does that led while it waited

        first.arena.wait = wait
        piece = first.arena.reserve(PAGE)
        assert first.lent == (0, 1)
        first.arena.drop(piece.block)
        assert first.lent == (0, 0)


def test_a_wait_that_is_torn_when_room_has_come_keeps_none():
    with ends(2, patience=1000.0) as (first, _):
        taken = first.arena.reserve(ARENA_BYTES)

        def wait(reached, deadline):
            first.arena.drop(taken.block)
            assert reached()
            raise TornError

        first.arena.wait = wait
        with pytest.raises(TornError):
            first.arena.reserve(PAGE)
        assert first.lent == (0, 0)


@pytest.mark.parametrize("leads", [True, False], ids=["this thread drains", "another thread drains"])
def test_a_message_that_waited_for_room_leaves_nothing_behind(fab, leads):
    first, second = holders_of(fab)
    for seed in range(3):
        first.ask(("keep", pattern(seed, BIG)), timeout=PATIENCE)
    usual, waits = fab._arena.wait, []
    with stopped(fab, 0) as go_on:

        def wait(reached, deadline):
            go_on()
            waits.append(deadline)
            return usual(reached, deadline)

        fab._arena.wait = wait
        promised = None if leads else first.submit(("look",))  # the pump drains while it is outstanding
        first.tell(("let_go",))
        first.tell(("keep", pattern(3, BIG)), timeout=PATIENCE)
    assert len(waits) == 1
    assert promised is None or len(promised.result(PATIENCE)) == 3
    assert first.ask(("look",), timeout=PATIENCE) == [(0, 255)]
    assert until(lambda: lent(fab)[1] == 1)
    first.ask(("let_go",), timeout=PATIENCE)
    assert all_came_back(fab, first, second)


def test_a_question_that_was_not_answered_in_time_keeps_nothing_though_its_error_is_kept(fab):
    first, second = holders_of(fab)
    with stopped(fab, 0), pytest.raises(TimeoutError) as kept:
        first.ask(("sum", pattern(1, BIG)), timeout=0.05)
    assert all_came_back(fab, first, second)
    assert kept.value.__traceback__ is not None


def test_a_thread_that_goes_on_waiting_keeps_no_reply_of_another(fab, monkeypatch):
    first, second = holders_of(fab)
    views, await_next = fab._receiver._views, Receiver.await_next
    let_go, kept = threading.Event(), []

    def wait(receiver, *arguments):
        if views._latest:  # the leader has given the reply to whose it is
            let_go.wait(PATIENCE)
            kept.append(bool(views._latest))
        return await_next(receiver, *arguments)

    monkeypatch.setattr(Receiver, "await_next", wait)
    with stopped(fab, 1):
        leader = threading.Thread(target=second.ask, args=(("look",),))
        leader.start()
        until(fab._replies._lead.locked)
        came = first.ask(("make", 1, BIG), timeout=PATIENCE)
        assert np.array_equal(came, pattern(1, BIG))
        del came
        let_go.set()
    leader.join()
    assert True not in kept
    assert all_came_back(fab, first, second)


def test_an_error_that_is_kept_keeps_no_part_of_the_body_that_found_no_room():
    with ends(2) as (first, _):
        body = [np.zeros(ARENA_BYTES // 2, "u1"), np.zeros(ARENA_BYTES // 2 + PAGE, "u1")]
        with pytest.raises(BackpressureError) as kept:
            first.codec.encode(body)
        gc.collect()
        assert first.lent == (0, 0)
        assert kept.value.__traceback__ is not None


@pytest.mark.parametrize("layout", ["in order", "strided"])
def test_a_copy_that_fails_leaves_no_block(monkeypatch, layout):
    def tear(*_):
        raise TornError

    array = np.zeros((PAGE, 4), "u1")
    with ends(2) as (first, _):
        monkeypatch.setattr(np, "copyto", tear)
        monkeypatch.setattr("fabric.arena._copy", tear)
        with pytest.raises(TornError):
            Large(first.arena, PAGE, 0).encode(first.codec, array[:, ::2] if layout == "strided" else array, None)
        assert first.lent == (0, 0)
