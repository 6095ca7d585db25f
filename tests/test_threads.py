"""Many threads of the coordinator at once: each gets its own replies, in its own order, whatever dies meanwhile."""

import threading
from concurrent.futures import ThreadPoolExecutor, as_completed

import pytest

from fabric import ClosedError, Fabric
from tests.agents import Echo, Gate, Recorder

THREADS = 8
PATIENCE = 60


@pytest.fixture
def fab():
    with Fabric(workers=2) as fabric:
        yield fabric
        assert fabric.statistics().alarms == 0


def test_threads_that_ask_at_once_each_get_their_own_replies(fab):
    echoes = fab.spawn_batch(Echo, 16)

    def ask_a_lot(thread):
        one = [echoes[thread].ask((thread, i), timeout=PATIENCE) for i in range(300)]
        many = fab.ask_many([echoes[thread]] * 3_000, [(thread, i) for i in range(3_000)], timeout=PATIENCE)
        return one == [(thread, i) for i in range(300)] and many == [(thread, i) for i in range(3_000)]

    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(ask_a_lot, range(THREADS))) == [True] * THREADS


def test_threads_get_their_replies_though_workers_are_killed(fab):
    echoes = fab.spawn_batch(Echo, 16)
    done = threading.Event()

    def ask_a_lot(thread):
        return [echoes[thread].ask(i, timeout=PATIENCE) for i in range(3_000)] == list(range(3_000))

    def kill_now_and_then():
        kills, killed_at = 0, {}
        while not done.wait(0.03):
            worker = fab.statistics().workers[kills % 2]
            if worker.received > killed_at.get(worker.slot, -1):  # on a busy machine a successor takes its time
                killed_at[worker.slot] = worker.received
                fab._supervisor.crew.kill(worker.slot)  # by pidfd: it may be dead already, and its pid another's
                kills += 1
        return kills

    with ThreadPoolExecutor(THREADS + 1) as pool:
        killer = pool.submit(kill_now_and_then)
        try:
            assert list(pool.map(ask_a_lot, range(THREADS))) == [True] * THREADS
        finally:
            done.set()
        assert fab.statistics().restarts <= killer.result(timeout=PATIENCE)


def test_what_one_thread_tells_one_agent_arrives_in_order_among_other_threads(fab):
    recorder = fab.spawn_batch(Recorder, 1)[0]

    def tell_a_lot(thread):
        for i in range(500):
            recorder.tell((thread, i))

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(tell_a_lot, range(THREADS)))
    fab.drain(timeout=PATIENCE)
    seen = recorder.ask("all")

    assert len(seen) == THREADS * 500
    for thread in range(THREADS):
        assert [i for who, i in seen if who == thread] == list(range(500))


def test_drain_returns_as_soon_as_all_is_quiet(fab):
    echoes = fab.spawn_batch(Echo, 16)
    for _ in range(100):  # a second each if the coordinator's own replies were left uncommitted
        echoes.ask_all(b"x")
        fab.drain(timeout=PATIENCE)


def test_futures_complete_and_their_callbacks_run_though_nobody_asks_for_them(fab):
    echoes = fab.spawn_batch(Echo, 16)
    called = []
    futures = [echoes[i % 16].submit(i) for i in range(2_000)]
    for future in futures:
        future.add_done_callback(lambda future: called.append(future.result()))

    assert {future.result() for future in as_completed(futures, timeout=PATIENCE)} == set(range(2_000))
    assert fab.spawn_batch(Echo, 1)[0].submit("after").result(timeout=PATIENCE) == "after"
    assert sorted(called) == list(range(2_000))


def test_a_callback_may_ask_and_submit(fab):
    echo = fab.spawn_batch(Echo, 1)[0]
    answers = []
    finished = threading.Event()

    def ask_again(future):
        answers.append(echo.ask(future.result() + 1))
        echo.submit(answers[-1] + 1).add_done_callback(lambda last: (answers.append(last.result()), finished.set()))

    echo.submit(1).add_done_callback(ask_again)

    assert finished.wait(PATIENCE)
    assert answers == [2, 3]


def test_closing_ends_the_waits_of_other_threads(tmp_path):
    gate = tmp_path / "never"
    with Fabric(workers=1, lane_bytes=2**16) as fab:
        agents = fab.spawn_batch(Gate, 2, path=str(gate))
        agents[0].tell("wait")

        def ask_for_ever():
            agents[1].ask(b"x")

        def tell_for_ever():
            while True:
                agents[1].tell(b"x" * 64)

        with ThreadPoolExecutor(4) as pool:
            waits = [pool.submit(function) for function in (ask_for_ever, tell_for_ever, ask_for_ever, tell_for_ever)]
            while fab.statistics().workers[0].lane_bytes < 2**15:
                pass
            fab.close(drain=False)
            assert [type(wait.exception(timeout=PATIENCE)) for wait in waits] == [ClosedError] * 4


def test_a_future_is_not_forgotten_when_threads_hand_the_lead_to_each_other(fab):
    echoes = fab.spawn_batch(Echo, 8)
    stop = threading.Event()

    def ask_on_and_off(thread):
        while not stop.is_set():
            echoes[thread].ask(thread, timeout=PATIENCE)

    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask_on_and_off, thread) for thread in range(2)]
        try:
            for i in range(500):
                assert echoes[7].submit(i).result(timeout=PATIENCE) == i
        finally:
            stop.set()
        for thread in asking:
            thread.result(timeout=PATIENCE)
