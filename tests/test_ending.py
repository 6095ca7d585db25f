"""A worker that is killed for one question: it dies in that and in no other, and all the others are answered."""

import logging
import os
import random
import signal
import threading
import time
from concurrent.futures import Future

import pytest

from fabric import Agent, Fabric, WorkerLostError
from fabric.messages import INDEX_BITS
from fabric.pending import Promise, error_in
from fabric.postmortem import locate
from tests.agents import Echo, Gate

PATIENCE = 30


class Napper(Agent):
    """Computes for as many seconds as it is told, then answers with its number."""

    def on_message(self, body):
        number, seconds = body
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            pass
        return number


class Tasks:
    """Questions of a fabric by correlation id, as an executor has them."""

    def __init__(self, fab):
        self.fab = fab
        self._futures = {}

    def ask(self, ref, body):
        """Ask, and return the correlation id."""
        future = Future()
        correlation = self.fab._switchboard.promise(ref, body, True, Promise(0, future.set_result))
        self._futures[correlation] = future
        return correlation

    def is_answered(self, correlation):
        """Has it come to an end?"""
        return self._futures[correlation].done()

    def outcome(self, correlation):
        """Wait for what came of a question."""
        self.fab._replies.attend(correlation)
        value = self._futures[correlation].result(PATIENCE)
        return error_in(value) or value


def _ended(fab, correlations, why="cancelled"):
    """Try until it is ended."""
    deadline = time.monotonic() + PATIENCE
    while not fab._supervisor.end_question(1, correlations, why):
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_the_question_in_hand_is_ended_and_its_neighbours_are_answered(caplog):
    with caplog.at_level(logging.INFO, "fabric"), Fabric(workers=1, max_restarts=0) as fab:
        tasks = Tasks(fab)
        napper = fab.spawn_batch(Napper, 1)[0]
        places = [tasks.ask(napper, (number, 1000 if number == 3 else 0)) for number in range(8)]
        pid = fab.statistics().workers[0].pid
        _ended(fab, {places[3]}, "it was cancelled")

        error = tasks.outcome(places[3])
        assert isinstance(error, WorkerLostError)
        assert (error.worker, error.pid, error.signal_name) == (1, pid, "SIGKILL")
        assert "it was cancelled" in str(error)
        assert [tasks.outcome(place) for place in places if place != places[3]] == [0, 1, 2, 4, 5, 6, 7]
        assert (fab._supervisor.ended, fab.statistics().restarts, fab.dead_letters()) == (1, 0, [])
        assert [r.levelno for r in caplog.records if "it was cancelled" in r.getMessage()] == [logging.INFO]
        assert not [r for r in caplog.records if r.levelno > logging.INFO]


def test_those_behind_it_are_delivered_to_an_agent_that_takes_each_once():
    with Fabric(workers=1) as fab:
        tasks = Tasks(fab)
        napper = fab.spawn_batch(Napper, 1, on_crash="fail")[0]
        places = [tasks.ask(napper, (number, 1000 if number == 3 else 0)) for number in range(8)]
        _ended(fab, {places[3]}, "it was cancelled")

        assert "it was cancelled" in str(tasks.outcome(places[3]))
        assert [tasks.outcome(place) for place in places if place != places[3]] == [0, 1, 2, 4, 5, 6, 7]


def test_a_worker_with_something_else_in_hand_is_left_alone():
    with Fabric(workers=1) as fab:
        tasks = Tasks(fab)
        napper = fab.spawn_batch(Napper, 1)[0]
        first, second = tasks.ask(napper, (1, 0.3)), tasks.ask(napper, (2, 0))
        pid = fab.statistics().workers[0].pid
        assert not fab._supervisor.end_question(1, {second}, "cancelled")
        assert not fab._supervisor.end_question(1, set(), "cancelled")
        assert not fab._supervisor.end_question(7, {first}, "cancelled")

        assert [tasks.outcome(place) for place in (first, second)] == [1, 2]
        fab.drain(timeout=PATIENCE)
        assert not fab._supervisor.end_question(1, {first, second}, "cancelled"), "both are answered"
        assert fab.statistics().workers[0].pid == pid


def test_a_worker_without_messages_is_left_alone():
    with Fabric(workers=1) as fab:
        fab.spawn_batch(Echo, 1)[0].ask("hello", timeout=PATIENCE)
        assert not fab._supervisor.end_question(1, range(1 << 62), "cancelled")


def test_what_an_agent_of_another_worker_asked_is_not_taken_for_a_question_of_the_coordinator(tmp_path):
    class Passer(Agent):
        async def on_message(self, ref):
            return await ref.ask_async("wait")

    with Fabric(workers=2) as fab:
        gate = fab.spawn_batch(Gate, 1, placement=0, path=str(tmp_path / "open"))[0]
        future = fab.spawn_batch(Passer, 1, placement=1)[0].submit(gate)
        deadline = time.monotonic() + PATIENCE
        while fab._segment.cursor_of(1)[0] != 1:
            assert time.monotonic() < deadline
        assert not fab._supervisor.end_question(1, range(1 << 62), "cancelled")
        (tmp_path / "open").touch()
        assert future.result(PATIENCE) is None


def test_a_slot_is_not_given_up_though_one_question_after_the_other_is_ended_in_it():
    with Fabric(workers=1, max_restarts=0) as fab:
        tasks = Tasks(fab)
        napper = fab.spawn_batch(Napper, 1)[0]
        places = [tasks.ask(napper, (number, 1000)) for number in range(20)]
        for place in places:
            _ended(fab, {place}, f"number {place >> INDEX_BITS}")
        for place in places:
            assert f"number {place >> INDEX_BITS}" in str(tasks.outcome(place))
        assert napper.ask((5, 0), timeout=PATIENCE) == 5
        assert (fab._supervisor.ended, fab.statistics().restarts) == (20, 0)


def test_ended_at_any_moment_it_is_the_one_that_was_named(monkeypatch):
    """Handlers of some 100 us, and an end of one of the next few wanted at moments that are not theirs to choose."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    ended = 0
    with Fabric(workers=1) as fab:
        tasks = Tasks(fab)
        supervisor = fab._supervisor
        in_hand, replace = [], supervisor._replace_ended

        def replace_ended(death, ending, policy):
            in_hand.append((locate(fab._segment, 1), ending.victim))
            replace(death, ending, policy)

        monkeypatch.setattr(supervisor, "_replace_ended", replace_ended)
        nappers = [fab.spawn_batch(Napper, 1, on_crash=how)[0] for how in ("retry", "fail")]
        begun = time.monotonic()
        while time.monotonic() < begun + (PATIENCE if ended == 0 else 5):
            asked = []
            for number in range(20):
                nap = chance.choice([0, 0.00002, 0.0002])
                asked.append(tasks.ask(chance.choice(nappers), (number, nap)))
            fab._replies.attend(asked[-1])
            named = set(chance.sample(asked, 3))
            spin = time.perf_counter() + chance.random() * 0.004
            while time.perf_counter() < spin:
                pass
            done = supervisor.end_question(1, named, "by chance")
            outcomes = [tasks.outcome(place) for place in asked]
            failed = [place for place, outcome in zip(asked, outcomes, strict=True) if isinstance(outcome, Exception)]
            assert set(failed) <= named
            assert len(failed) <= done, "a reply may be out already when its worker is killed, but no more than one is"
            assert [o for p, o in zip(asked, outcomes, strict=True) if p not in failed] == [
                number for number, p in enumerate(asked) if p not in failed
            ]
            ended += done
        assert supervisor.ended == len(in_hand) == ended > 0
        assert all(found == victim for found, victim in in_hand), "what it had in hand when it was dead"
        assert fab.statistics().restarts == 0


def test_only_one_of_many_that_try_at_once_ends_it():
    with Fabric(workers=1) as fab:
        tasks = Tasks(fab)
        place = tasks.ask(fab.spawn_batch(Napper, 1)[0], (1, 1000))
        stop, ended = threading.Event(), []

        def end(number):
            while not stop.is_set():
                if fab._supervisor.end_question(1, {place}, f"by {number}"):
                    ended.append(number)
                    stop.set()

        threads = [threading.Thread(target=end, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        error = tasks.outcome(place)
        stop.set()
        for thread in threads:
            thread.join(PATIENCE)
        assert f"by {ended[0]}" in str(error)
        assert fab._supervisor.ended == 1


def test_a_worker_that_is_looked_at_all_the_time_is_not_taken_for_a_stopped_one():
    with Fabric(workers=1, stopped_timeout=0.2) as fab:
        tasks = Tasks(fab)
        napper = fab.spawn_batch(Napper, 1)[0]
        pid = fab.statistics().workers[0].pid
        place = tasks.ask(napper, (1, 1.0))
        ender = fab._supervisor._ender
        ender._named = lambda worker, correlations, named=ender._named: (  # the guess is right, the look is not
            None if ender._stops % 2 else named(worker, correlations)
        )
        looks = 0
        while not tasks.is_answered(place):
            looks += not fab._supervisor.end_question(1, {place}, "cancelled")
            fab._replies.drain_if_free()
        assert (tasks.outcome(place), fab.statistics().workers[0].pid) == (1, pid)
        assert looks
        os.kill(pid, signal.SIGSTOP)
        assert napper.ask((2, 0), timeout=PATIENCE) == 2
        assert fab.statistics().restarts == 1


def test_a_worker_that_somebody_else_stopped_is_ended_or_stays_so():
    with Fabric(workers=1, stopped_timeout=None) as fab:
        tasks = Tasks(fab)
        napper = fab.spawn_batch(Napper, 1)[0]
        place = tasks.ask(napper, (1, 1000))
        pid = fab.statistics().workers[0].pid
        deadline = time.monotonic() + PATIENCE
        while fab._segment.cursor_of(1)[0] != 1:
            assert time.monotonic() < deadline
        os.kill(pid, signal.SIGSTOP)
        while not fab._supervisor._ender.is_stopped(pid):
            assert time.monotonic() < deadline
        assert not fab._supervisor.end_question(1, {place + 1}, "cancelled")
        assert fab._supervisor._ender.is_stopped(pid)
        assert fab._supervisor.end_question(1, {place}, "cancelled")
        assert "cancelled" in str(tasks.outcome(place))


@pytest.mark.parametrize("recycled_first", [True, False])
def test_a_worker_that_is_to_be_recycled_can_be_ended(recycled_first):
    with Fabric(workers=1) as fab:
        tasks = Tasks(fab)
        napper = fab.spawn_batch(Napper, 1)[0]
        place = tasks.ask(napper, (1, 1000))
        if recycled_first:
            fab._supervisor.recycle(1, "for a test")
        behind = tasks.ask(napper, (2, 0))
        _ended(fab, {place})
        if not recycled_first:
            fab._supervisor.recycle(1, "for a test")
        assert "cancelled" in str(tasks.outcome(place))
        assert tasks.outcome(behind) == 2
        assert tasks.outcome(tasks.ask(napper, (3, 0))) == 3
        assert (fab.statistics().restarts, fab._supervisor.ended, fab._supervisor.recycled) == (0, 1, 1)
