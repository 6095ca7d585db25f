"""Executor: ProcessPoolExecutor's contract, and what goes beyond it."""

import concurrent.futures
import math
import os
import pickle
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fabric import Executor, PoisonMessageError, WorkerLostError
from tests import task_functions as work

DEADLINE = 20.0


@pytest.fixture
def executor() -> Iterator[Executor]:
    with Executor(2) as shared:
        yield shared


def wait_for(reached: Any) -> None:
    deadline = time.monotonic() + DEADLINE
    while not reached():
        assert time.monotonic() < deadline, "it did not happen in time"
        threading.Event().wait(0.002)


def begun(path: Path) -> bool:
    return path.exists() and path.read_text() != ""


# What the standard library promises.


def test_submit_returns_a_future_of_the_result(executor: Executor) -> None:
    future = executor.submit(pow, 2, 10)
    assert isinstance(future, concurrent.futures.Future)
    assert future.result(DEADLINE) == 1024
    assert future.done()
    assert not future.running()
    assert not future.cancelled()
    assert future.exception() is None


def test_arguments_may_have_any_names(executor: Executor) -> None:
    future = executor.submit(work.both, 1, self=2, fn=3, function=4)
    assert future.result(DEADLINE) == ((1,), {"self": 2, "fn": 3, "function": 4})
    with pytest.raises(TypeError):
        executor.submit(fn=work.echo)  # type: ignore[call-arg]


def test_many_tasks_come_back_in_the_order_of_their_futures(executor: Executor) -> None:
    futures = [executor.submit(work.echo, i) for i in range(5_000)]
    assert [future.result(DEADLINE) for future in futures] == list(range(5_000))


def test_an_exception_is_raised_with_its_remote_traceback(executor: Executor) -> None:
    future = executor.submit(work.fail, KeyError("nothing there"))
    with pytest.raises(KeyError, match="nothing there") as caught:
        future.result(DEADLINE)
    assert type(caught.value.__cause__) is concurrent.futures.process._RemoteTraceback
    assert "raise error" in caught.value.__cause__.tb
    assert isinstance(future.exception(), KeyError)


def test_system_exit_in_a_task_is_its_exception(executor: Executor) -> None:
    with pytest.raises(SystemExit):
        executor.submit(work.fail, SystemExit(1)).result(DEADLINE)
    assert executor.submit(work.echo, 1).result(DEADLINE) == 1


def test_what_cannot_be_pickled_is_told_by_the_future(executor: Executor) -> None:
    with pytest.raises(RuntimeError, match="cannot pickle"):
        executor.submit(work.echo, work.Unpicklable()).result(DEADLINE)
    with pytest.raises(RuntimeError, match="cannot pickle"):
        executor.submit(work.make, work.Unpicklable).result(DEADLINE)


def test_what_cannot_be_unpickled_fails_only_its_own_future(executor: Executor) -> None:
    with pytest.raises(BrokenProcessPool, match="cannot be read"):
        executor.submit(work.echo, work.FailsWhenRead()).result(DEADLINE)
    with pytest.raises(BrokenProcessPool, match="cannot be read"):
        executor.submit(work.make, work.FailsWhenRead).result(DEADLINE)
    assert executor.submit(work.echo, 5).result(DEADLINE) == 5


def test_closures_and_lambdas_run_with_what_they_hold_now(executor: Executor) -> None:
    held = [1]
    factor = 2

    def scaled(x: int) -> int:
        return x * factor + held[0]

    assert executor.submit(scaled, 10).result(DEADLINE) == 21
    factor = 3
    held[0] = 5
    assert executor.submit(scaled, 10).result(DEADLINE) == 35
    assert list(executor.map(lambda x: x * factor, range(4))) == [0, 3, 6, 9]


def test_methods_of_objects_run_on_a_fresh_copy_each_time(executor: Executor) -> None:
    items: list[int] = []
    futures = [executor.submit(items.append, 1) for _ in range(3)] + [executor.submit(items.__len__)]
    assert futures[-1].result(DEADLINE) == 0


def test_wait_and_as_completed_work_with_our_futures(executor: Executor) -> None:
    futures = [executor.submit(work.sleep_and_return, 0.01 * i, i) for i in range(5)]
    assert sorted(f.result() for f in concurrent.futures.as_completed(futures, DEADLINE)) == list(range(5))
    done, pending = concurrent.futures.wait(futures, DEADLINE)
    assert (len(done), len(pending)) == (5, 0)
    first = executor.submit(work.echo, 1)
    blocked = concurrent.futures.Future[Any]()
    done, _ = concurrent.futures.wait([first, blocked], DEADLINE, concurrent.futures.FIRST_COMPLETED)
    assert done == {first}


def test_callbacks_run_without_anybody_waiting(executor: Executor) -> None:
    came = threading.Event()
    future = executor.submit(work.echo, 7)
    future.add_done_callback(lambda done: came.set() if done.result() == 7 else None)
    assert came.wait(DEADLINE)


def test_a_callback_may_submit_and_wait(executor: Executor) -> None:
    answers: list[int] = []
    came = threading.Event()

    def again(done: Any) -> None:
        answers.append(executor.submit(work.add, done.result(), 1).result(DEADLINE))
        came.set()

    executor.submit(work.echo, 1).add_done_callback(again)
    assert came.wait(DEADLINE)
    assert answers == [2]


def test_tasks_go_on_while_nobody_waits(executor: Executor, tmp_path: Path) -> None:
    futures = [executor.submit(work.note_and_sleep, str(tmp_path / f"{i}"), 0.0) for i in range(200)]
    wait_for(lambda: len(list(tmp_path.iterdir())) == 200)
    assert all(future.result(DEADLINE) for future in futures)


def test_result_times_out_and_can_be_waited_for_again(executor: Executor) -> None:
    future = executor.submit(work.sleep_and_return, 0.3, "late")
    with pytest.raises(TimeoutError):
        future.result(0.01)
    assert future.result(DEADLINE) == "late"


def test_threads_submit_and_wait_at_the_same_time(executor: Executor) -> None:
    wrong: list[Any] = []

    def run(first: int) -> None:
        for i in range(first, first + 300):
            if executor.submit(work.echo, i).result(DEADLINE) != i:
                wrong.append(i)

    threads = [threading.Thread(target=run, args=(1000 * k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_shutdown_finishes_what_was_submitted_and_refuses_more() -> None:
    executor = Executor(2)
    futures = [executor.submit(work.sleep_and_return, 0.01, i) for i in range(20)]
    executor.shutdown()
    assert [future.result(0) for future in futures] == list(range(20))
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(work.echo, 1)
    executor.shutdown()


def test_shutdown_without_waiting_still_finishes() -> None:
    executor = Executor(1)
    futures = [executor.submit(work.sleep_and_return, 0.01, i) for i in range(5)]
    executor.shutdown(wait=False)
    assert [future.result(DEADLINE) for future in futures] == list(range(5))


def test_shutdown_may_cancel_what_no_worker_has() -> None:
    executor = Executor(2)
    futures = [executor.submit(work.sleep_and_return, 0.05, i) for i in range(30)]
    assert futures[0].result(DEADLINE) == 0
    executor.shutdown(cancel_futures=True)
    cancelled = [future for future in futures if future.cancelled()]
    assert 20 < len(cancelled) < 30
    assert all(future.result(0) is not None for future in futures if not future.cancelled())


def test_an_executor_that_is_dropped_finishes_first() -> None:
    future = Executor(1).submit(work.sleep_and_return, 0.05, "done")
    assert future.result(DEADLINE) == "done"


def test_an_initializer_runs_once_in_each_worker(tmp_path: Path) -> None:
    path = tmp_path / "begun"
    with Executor(2, initializer=work.note_and_sleep, initargs=(str(path), 0.0)) as executor:
        pids = {executor.submit(work.note_and_sleep, str(tmp_path / "other"), 0.05).result(DEADLINE) for _ in range(6)}
        assert pids <= {int(line) for line in path.read_text().split()}
        processes = len(executor._processes)
    assert len(path.read_text().split()) == processes


def test_an_initializer_that_raises_breaks_the_executor() -> None:
    with Executor(1, initializer=work.fail, initargs=(ValueError("no licence"),)) as executor:
        with pytest.raises(BrokenProcessPool, match="no licence"):
            executor.submit(work.echo, 1).result(DEADLINE)
        with pytest.raises(BrokenProcessPool):
            executor.submit(work.echo, 1)
        assert executor._broken


def test_workers_start_as_they_are_needed() -> None:
    with Executor(2) as executor:
        assert len(executor._processes) == 0
        for i in range(5):
            assert executor.submit(work.echo, i).result(DEADLINE) == i
        assert len(executor._processes) == 1
        futures = [executor.submit(work.sleep_and_return, 0.05, i) for i in range(4)]
        assert len(executor._processes) == 2
        assert [future.result(DEADLINE) for future in futures] == list(range(4))


def test_a_worker_is_replaced_after_so_many_tasks() -> None:
    with Executor(1, max_tasks_per_child=3) as executor:
        pids = [executor.submit(work.pid).result(DEADLINE) for _ in range(7)]
    assert pids[0] == pids[1] == pids[2] != pids[3]
    assert pids[3] == pids[4] == pids[5] != pids[6]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"max_workers": 0}, ValueError),
        ({"max_workers": -1}, ValueError),
        ({"max_workers": 1.5}, TypeError),
        ({"initializer": 1}, TypeError),
        ({"max_tasks_per_child": 0}, ValueError),
        ({"max_tasks_per_child": "x"}, TypeError),
        ({"on_crash": "ignore"}, ValueError),
        ({"lane_bytes": 3}, ValueError),
        ({"nonsense": 3}, TypeError),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Executor(**arguments)


# map.


def test_map_keeps_the_order(executor: Executor) -> None:
    assert list(executor.map(work.echo, range(20_000))) == list(range(20_000))
    assert list(executor.map(work.add, range(100), range(50))) == [2 * i for i in range(50)]
    assert list(executor.map(work.echo, [])) == []
    assert list(executor.map(work.echo, range(100), chunksize=7)) == list(range(100))


def test_map_yields_what_came_before_an_exception(executor: Executor) -> None:
    results = executor.map(divmod, [1, 1, 1, 1], [2, 3, 0, 5])
    assert next(results) == (0, 1)
    assert next(results) == (0, 1)
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_map_takes_an_endless_iterable_when_it_is_told_how_far(executor: Executor) -> None:
    import itertools

    taken = itertools.count()
    results = executor.map(work.echo, taken, buffersize=10)
    assert [next(results) for _ in range(100)] == list(range(100))
    results.close()  # type: ignore[attr-defined]
    assert next(taken) <= 120


def test_map_times_out_from_its_call_on(executor: Executor) -> None:
    results = executor.map(work.sleep_and_return, [0, 0, 5.0], timeout=2.5)
    assert [next(results), next(results)] == [None, None]
    with pytest.raises(TimeoutError):
        next(results)


def test_a_slow_item_does_not_hold_up_those_that_another_worker_could_take(executor: Executor) -> None:
    begun_at = time.monotonic()
    seconds = [0.0] * 200 + [0.5] + [0.0] * 200
    assert list(executor.map(work.sleep_and_return, seconds, range(401))) == list(range(401))
    assert time.monotonic() - begun_at < DEADLINE


def test_seeded_tasks_draw_the_same_with_any_number_of_workers() -> None:
    draws = []
    for workers in (1, 2):
        with Executor(workers) as executor:
            draws.append(list(executor.map(work.draw, range(200), seed=42)))
    assert draws[0] == draws[1]
    assert len(set(draws[0])) == 200


def test_results_are_not_kept_by_the_iterator(executor: Executor) -> None:
    import gc
    import weakref

    for array in executor.map(work.fill, range(1, 10)):
        kept = weakref.ref(array)
        del array
        gc.collect()
        assert kept() is None


# Large data.


def test_arrays_go_there_and_back(executor: Executor) -> None:
    array = np.arange(1_000_000, dtype="f8")
    assert executor.submit(work.total, array).result(DEADLINE) == array.sum()
    assert executor.submit(work.fill, 500_000).result(DEADLINE).sum() == 1_000_000
    assert list(executor.map(work.total, [array[:k] for k in (10, 1_000_000)])) == [45, array.sum()]


def test_more_large_tasks_than_the_arena_holds_wait_for_their_turn() -> None:
    array = np.ones(1 << 20, dtype="u1")
    with Executor(2, arena_bytes=8 << 20) as executor:
        futures = [executor.submit(work.total, array) for _ in range(40)]
        assert [future.result(DEADLINE) for future in futures] == [float(1 << 20)] * 40


# When something dies.


def test_a_killed_worker_takes_only_its_task_which_is_run_again(executor: Executor, tmp_path: Path) -> None:
    others = [executor.submit(work.echo, i) for i in range(500)]
    assert executor.submit(work.die_once, str(tmp_path / "died")).result(DEADLINE) == "survived"
    assert [future.result(DEADLINE) for future in others] == list(range(500))


def test_large_tasks_behind_a_long_one_are_taken_back_with_their_data(tmp_path: Path) -> None:
    arrays = [np.full(40_000, float(i)) for i in range(20)]
    with Executor(2) as executor:
        for i in range(5):
            quick = [executor.submit(work.total, array) for array in arrays * 20]  # workers get many ahead
            assert [future.result(DEADLINE) for future in quick] == [40_000.0 * k for k in range(20)] * 20
            long = executor.submit(work.work_then_die_once, str(tmp_path / f"{i}"), 0.1)
            behind = [executor.submit(work.total, array) for array in arrays]
            small = [executor.submit(work.echo, k) for k in range(20)]
            assert [future.result(DEADLINE) for future in behind] == [40_000.0 * k for k in range(20)]
            assert [future.result(DEADLINE) for future in small] == list(range(20))
            assert long.result(DEADLINE) == "survived"


def test_a_task_that_dies_when_what_was_behind_it_has_been_taken_back_is_run_again(tmp_path: Path) -> None:
    with Executor(2) as executor:
        for i in range(5):
            quick = [executor.submit(work.echo, k) for k in range(1_000)]  # workers get many ahead
            assert [future.result(DEADLINE) for future in quick] == list(range(1_000))
            long = executor.submit(work.work_then_die_once, str(tmp_path / f"{i}"), 0.1)
            behind = [executor.submit(work.echo, k) for k in range(200)]
            assert [future.result(DEADLINE) for future in behind] == list(range(200))
            assert long.result(DEADLINE) == "survived"


def test_a_task_that_kills_its_workers_is_put_aside(executor: Executor) -> None:
    others = [executor.submit(work.echo, i) for i in range(100)]
    with pytest.raises(PoisonMessageError, match="die") as caught:
        executor.submit(work.die).result(DEADLINE)
    assert isinstance(caught.value, BrokenProcessPool)
    assert [future.result(DEADLINE) for future in others] == list(range(100))
    assert executor.submit(work.echo, 1).result(DEADLINE) == 1


def test_with_on_crash_fail_a_task_is_not_run_again(executor: Executor, tmp_path: Path) -> None:
    once = executor.options(on_crash="fail")
    with pytest.raises(WorkerLostError, match="die_once") as caught:
        once.submit(work.die_once, str(tmp_path / "died")).result(DEADLINE)
    assert isinstance(caught.value, BrokenProcessPool)
    assert caught.value.signal_name == "SIGKILL"
    assert once.submit(work.echo, 3).result(DEADLINE) == 3


def test_only_the_item_of_a_map_that_kills_is_to_blame(executor: Executor) -> None:
    results = executor.map(work.die, [0] * 50 + [signal.SIGKILL] + [0] * 50)
    assert [next(results) for _ in range(50)] == [None] * 50
    with pytest.raises(PoisonMessageError):
        next(results)


def test_strict_is_the_standard_librarys_way() -> None:
    with Executor(2, strict=True) as executor:
        waiting = [executor.submit(work.sleep_and_return, 30) for _ in range(4)]
        next(iter(executor._processes.values())).terminate()
        for future in waiting:
            with pytest.raises(BrokenProcessPool):
                future.result(DEADLINE)
        with pytest.raises(BrokenProcessPool):
            executor.submit(work.echo, 1)


def test_a_task_over_its_time_limit_is_stopped_and_nobody_else_notices(executor: Executor, tmp_path: Path) -> None:
    path = tmp_path / "begun"
    others = [executor.submit(work.sleep_and_return, 0.005, i) for i in range(50)]
    limited = executor.options(timeout=0.2).submit(work.note_and_sleep, str(path), 60)
    with pytest.raises(TimeoutError, match="over its time limit"):
        limited.result(DEADLINE)
    assert [future.result(DEADLINE) for future in others] == list(range(50))
    pid = int(path.read_text())
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"))
    assert len(path.read_text().split()) == 1  # it was not run again
    assert executor.options(timeout=DEADLINE).submit(work.echo, 1).result(DEADLINE) == 1


def test_a_running_task_that_is_cancelled_is_stopped(executor: Executor, tmp_path: Path) -> None:
    path = tmp_path / "begun"
    future = executor.submit(work.note_and_sleep, str(path), 60)
    wait_for(lambda: begun(path))
    assert future.running()
    assert future.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(0)
    pid = int(path.read_text())
    wait_for(lambda: not os.path.exists(f"/proc/{pid}"))
    assert executor.submit(work.echo, 1).result(DEADLINE) == 1
    assert len(path.read_text().split()) == 1


def test_a_waiting_task_that_is_cancelled_never_runs(tmp_path: Path) -> None:
    with Executor(1) as executor:
        first = executor.submit(work.sleep_and_return, 0.2)
        waiting = [executor.submit(work.note_and_sleep, str(tmp_path / "ran"), 0) for _ in range(5)]
        assert all(future.cancel() for future in waiting)
        assert all(future.cancelled() for future in waiting)
        first.result(DEADLINE)
    assert not (tmp_path / "ran").exists()


def test_what_has_a_higher_priority_goes_first(tmp_path: Path) -> None:
    order: list[str] = []
    with Executor(1) as executor:
        executor.submit(work.sleep_and_return, 0.3)
        for name, priority in (("low", -1), ("middle", 0), ("high", 5)):
            future = executor.options(priority=priority).submit(work.echo, name)
            future.add_done_callback(lambda done: order.append(done.result()))
    assert order == ["high", "middle", "low"]


def test_a_short_task_does_not_wait_behind_a_long_one(executor: Executor) -> None:
    long = executor.submit(work.sleep_and_return, 1.0)
    short = [executor.submit(work.sleep_and_return, 0.001, i) for i in range(20)]
    assert [future.result(DEADLINE) for future in short] == list(range(20))
    assert not long.done()
    long.result(DEADLINE)


def test_leaving_by_an_interrupt_drops_the_rest() -> None:
    def interrupted() -> list[Any]:
        with Executor(1) as executor:
            futures = [executor.submit(work.sleep_and_return, 60) for _ in range(3)]
            raise KeyboardInterrupt
        return futures

    begun_at = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert time.monotonic() - begun_at < DEADLINE


def test_a_future_cannot_be_pickled_and_an_executor_neither(executor: Executor) -> None:
    with pytest.raises(TypeError):
        pickle.dumps(executor)


def test_math_functions_run(executor: Executor) -> None:
    assert list(executor.map(math.sqrt, [1.0, 4.0, 9.0])) == [1.0, 2.0, 3.0]


def test_what_waits_behind_a_task_that_turns_out_long_is_run_by_idle_workers(executor: Executor) -> None:
    for _ in range(5):  # both workers are known to be quick, and get many tasks ahead
        assert len([f.result(DEADLINE) for f in [executor.submit(work.sleep_and_return, 0, i) for i in range(2_000)]])
    mixed = [3.0 if i == 40 else 0.0 for i in range(400)]
    begun_at = time.monotonic()
    futures = [executor.submit(work.sleep_and_return, seconds, i) for i, seconds in enumerate(mixed)]
    behind = [future.result(DEADLINE) for i, future in enumerate(futures) if i > 60]
    assert behind == list(range(61, 400))
    assert not futures[40].done()
    assert time.monotonic() - begun_at < 3.0
    assert [future.result(DEADLINE) for future in futures] == list(range(400))


def test_tasks_that_are_taken_back_run_once_each(executor: Executor, tmp_path: Path) -> None:
    for _ in range(5):
        assert len([f.result(DEADLINE) for f in [executor.submit(work.echo, i) for i in range(2_000)]])
    futures = []
    for i in range(300):
        futures.append(executor.submit(work.note_and_sleep, str(tmp_path / str(i)), 0.05 if i % 30 == 0 else 0.0))
    assert all(future.result(DEADLINE) for future in futures)
    assert [len((tmp_path / str(i)).read_text().split()) for i in range(300)] == [1] * 300


def test_what_ctrl_c_tears_away_while_it_is_delivered_is_delivered_again(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, settle = executor._pool, executor._pool.settle
    torn: list[int] = []

    def interrupted(rows: Any) -> Any:
        if threading.current_thread() is threading.main_thread() and not torn:
            torn.append(len(rows))
            raise KeyboardInterrupt
        return settle(rows)

    assert executor.submit(work.echo, 0).result(DEADLINE) == 0
    monkeypatch.setattr(pool, "settle", interrupted)
    first = [executor.submit(work.sleep_and_return, 0.01, i) for i in range(10)]  # few: nothing is drained meanwhile
    with pytest.raises(KeyboardInterrupt):
        list(map(work.result_of, first))
    assert torn
    assert [future.result(DEADLINE) for future in first] == list(range(10))
    assert executor.submit(work.echo, 5).result(DEADLINE) == 5
