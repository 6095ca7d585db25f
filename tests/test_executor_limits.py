"""Executor when a worker dies or a task is stopped: only that task is concerned, and what order the others have."""

import concurrent.futures
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fabric import Executor, PoisonMessageError, WorkerLostError
from tests import task_functions as work
from tests.waiting import until

DEADLINE = 20.0


@pytest.fixture
def executor() -> Iterator[Executor]:
    with Executor(2) as shared:
        yield shared


def begun(path: Path) -> bool:
    return path.exists() and path.read_text() != ""


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
    limited = executor.options(timeout=2.0).submit(work.note_and_sleep, str(path), 60)
    with pytest.raises(TimeoutError, match="over its time limit"):
        limited.result(DEADLINE)
    assert [future.result(DEADLINE) for future in others] == list(range(50))
    pids = path.read_text().split() if path.exists() else []  # on a busy machine it may not have come that far
    until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))
    assert len(path.read_text().split() if path.exists() else []) == len(pids) <= 1  # it was not run again
    assert executor.options(timeout=DEADLINE).submit(work.echo, 1).result(DEADLINE) == 1


def test_a_running_task_that_is_cancelled_is_stopped(executor: Executor, tmp_path: Path) -> None:
    path = tmp_path / "begun"
    future = executor.submit(work.note_and_sleep, str(path), 60)
    until(lambda: begun(path))
    assert future.running()
    assert future.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(0)
    pid = int(path.read_text())
    until(lambda: not os.path.exists(f"/proc/{pid}"))
    assert executor.submit(work.echo, 1).result(DEADLINE) == 1
    assert len(path.read_text().split()) == 1


def test_a_waiting_task_that_is_cancelled_never_runs(tmp_path: Path) -> None:
    with Executor(1) as executor:
        first = executor.submit(work.wait_for_file, str(tmp_path / "go"))
        waiting = [executor.submit(work.note_and_sleep, str(tmp_path / "ran"), 0) for _ in range(5)]
        assert all(future.cancel() for future in waiting)
        assert all(future.cancelled() for future in waiting)
        (tmp_path / "go").touch()
        first.result(DEADLINE)
    assert not (tmp_path / "ran").exists()


def test_what_has_a_higher_priority_goes_first(tmp_path: Path) -> None:
    order: list[str] = []
    with Executor(1) as executor:
        executor.submit(work.wait_for_file, str(tmp_path / "go"))
        for name, priority in (("low", -1), ("middle", 0), ("high", 5)):
            future = executor.options(priority=priority).submit(work.echo, name)
            future.add_done_callback(lambda done: order.append(done.result()))
        (tmp_path / "go").touch()
    assert order == ["high", "middle", "low"]


def test_a_short_task_does_not_wait_behind_a_long_one(executor: Executor, tmp_path: Path) -> None:
    long = executor.submit(work.wait_for_file, str(tmp_path / "go"))
    short = [executor.submit(work.sleep_and_return, 0.001, i) for i in range(20)]
    assert [future.result(DEADLINE) for future in short] == list(range(20))
    assert not long.done()
    (tmp_path / "go").touch()
    assert long.result(DEADLINE) == "gone"


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


def test_results_of_quick_tasks_do_not_wait_for_a_long_one_in_their_batch(tmp_path: Path) -> None:
    with Executor(1) as executor:
        for go in (tmp_path / f"go{i}" for i in range(5)):
            assert len([f.result(DEADLINE) for f in [executor.submit(work.echo, i) for i in range(2_000)]]) == 2_000
            quick = [executor.submit(work.echo, i) for i in range(40)]
            long = executor.submit(work.wait_for_file, str(go))
            assert [future.result(DEADLINE) for future in quick] == list(range(40))
            assert not long.done()
            go.touch()
            assert long.result(DEADLINE) == "gone"
    assert executor._pool.unfinished == 0


def test_a_large_task_waits_until_another_gives_its_room_back() -> None:
    array = np.ones(3 << 20, dtype="u1")  # two do not fit at a time, though there are two workers
    with Executor(2, arena_bytes=4 << 20) as executor:
        executor.submit(work.echo, 0).result(DEADLINE)
        futures = [executor.submit(work.sleep_and_total, 0.05, array) for _ in range(6)]
        assert [future.result(DEADLINE) for future in futures] == [float(3 << 20)] * 6
