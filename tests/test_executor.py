"""Executor: ProcessPoolExecutor's contract, large data, and tasks that are taken back from a busy worker."""

import concurrent.futures
import math
import pickle
import threading
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fabric import Executor
from tests import task_functions as work
from tests.waiting import until

DEADLINE = 20.0


@pytest.fixture
def executor() -> Iterator[Executor]:
    with Executor(2) as shared:
        yield shared


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
    until(lambda: len(list(tmp_path.iterdir())) == 200)
    assert all(future.result(DEADLINE) for future in futures)


def test_result_times_out_and_can_be_waited_for_again(executor: Executor, tmp_path: Path) -> None:
    future = executor.submit(work.wait_for_file, str(tmp_path / "go"))
    with pytest.raises(TimeoutError):
        future.result(0.01)
    (tmp_path / "go").touch()
    assert future.result(DEADLINE) == "gone"


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


def test_shutdown_may_cancel_what_no_worker_has(tmp_path: Path) -> None:
    executor = Executor(2)
    futures = [executor.submit(work.wait_for_file, str(tmp_path / "go")) for _ in range(30)]
    until(futures[0].running)
    executor.shutdown(wait=False, cancel_futures=True)
    kept = [future for future in futures if not future.cancelled()]
    assert 1 <= len(kept) <= 2  # one a worker: nothing is known yet of how long they take
    (tmp_path / "go").touch()
    executor.shutdown()
    assert [future.result(0) for future in kept] == ["gone"] * len(kept)


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


def test_a_future_cannot_be_pickled_and_an_executor_neither(executor: Executor) -> None:
    future = executor.submit(work.echo, 1)
    for one in (future, executor):
        with pytest.raises(TypeError, match="pickle"):
            pickle.dumps(one)
    assert future.result(DEADLINE) == 1


def test_math_functions_run(executor: Executor) -> None:
    assert list(executor.map(math.sqrt, [1.0, 4.0, 9.0])) == [1.0, 2.0, 3.0]


def test_what_waits_behind_a_task_that_turns_out_long_is_run_by_idle_workers(
    executor: Executor, tmp_path: Path
) -> None:
    for _ in range(5):  # both workers are known to be quick, and get many tasks ahead
        assert len([f.result(DEADLINE) for f in [executor.submit(work.sleep_and_return, 0, i) for i in range(2_000)]])
    busy = [executor.submit(work.wait_for_file, str(tmp_path / "begin")) for _ in range(2)]  # one each
    before = [executor.submit(work.echo, i) for i in range(40)]  # whose results may come with the long one's
    long = executor.submit(work.wait_for_file, str(tmp_path / "go"))
    behind = [executor.submit(work.echo, i) for i in range(400)]
    (tmp_path / "begin").touch()
    assert [future.result(DEADLINE) for future in behind] == list(range(400))
    assert not long.done()
    (tmp_path / "go").touch()
    assert long.result(DEADLINE) == "gone"
    assert [future.result(DEADLINE) for future in busy + before] == ["gone", "gone", *range(40)]


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
    first: list[Any] = []

    def submit_and_wait() -> None:
        for _ in range(100):  # batches: the steward may deliver all of one before this thread does
            for _ in range(10):
                first.append(executor.submit(work.sleep_and_return, 0.01, len(first)))
            list(map(work.result_of, first[-10:]))

    with pytest.raises(KeyboardInterrupt):
        submit_and_wait()
    assert torn
    assert [future.result(DEADLINE) for future in first] == list(range(len(first)))
    assert executor.submit(work.echo, 5).result(DEADLINE) == 5
