"""Executor in whole programs: scripts, nested ones, forked children, the end of the interpreter, logging, kills."""

import logging
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest

from fabric import Executor, PoisonMessageError
from tests import task_functions as work

DEADLINE = 30.0


def run(source: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source), *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        env={**os.environ, **environment},
        check=False,
    )


def test_functions_and_classes_of_a_script_need_no_guard_and_follow_its_globals() -> None:
    done = run("""
        from fabric import Executor

        class Point:
            def __init__(self, x): self.x = x
            def __eq__(self, other): return self.x == other.x

        scale = 2
        def scaled(point): return Point(point.x * scale)

        executor = Executor(2)
        print(executor.submit(scaled, Point(4)).result() == Point(8))
        scale = 5
        print(executor.submit(scaled, Point(4)).result() == Point(20))
        print([p.x for p in executor.map(scaled, map(Point, range(3)))])
    """)
    assert (done.stdout, done.stderr, done.returncode) == ("True\nTrue\n[0, 5, 10]\n", "", 0)


def test_the_interpreter_finishes_what_was_submitted_before_it_ends() -> None:
    done = run("""
        import time
        from fabric import Executor
        from tests.task_functions import sleep_and_return
        executor = Executor(1)
        futures = [executor.submit(sleep_and_return, 0.1, i) for i in range(3)]
        futures[-1].add_done_callback(lambda done: print("last", done.result(), flush=True))
    """)
    assert (done.stdout, done.stderr, done.returncode) == ("last 2\n", "", 0)


def test_submitting_after_the_interpreters_end_is_refused() -> None:
    done = run("""
        import atexit
        @atexit.register
        def late():
            try:
                executor.submit(pow, 2, 3)
            except RuntimeError as error:
                print(error)
        from fabric import Executor
        executor = Executor(1)
        print(executor.submit(pow, 2, 3).result())
    """)
    assert done.stdout == "8\ncannot schedule new futures after interpreter shutdown\n"
    assert done.returncode == 0


def test_ctrl_c_ends_a_program_at_once_with_one_traceback() -> None:
    source = """
        import time
        from fabric import Executor
        from tests.task_functions import sleep_and_return
        with Executor(2) as executor:
            futures = [executor.submit(sleep_and_return, 60) for _ in range(10)]
            executor.submit(sleep_and_return, 0).cancel()
            print("running", flush=True)
            futures[0].result()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=DEADLINE)
    assert errors.count("Traceback") == 1
    assert errors.rstrip().endswith("KeyboardInterrupt")


def nested(count: int) -> int:
    with Executor(1) as executor:
        return sum(executor.map(work.echo, range(count)))


def test_a_task_may_have_an_executor_of_its_own() -> None:
    with Executor(1) as executor:
        assert executor.submit(nested, 10).result(DEADLINE) == 45


def test_a_forked_child_cannot_use_its_parents_executor_and_makes_one_of_its_own() -> None:
    with Executor(1) as executor:
        assert executor.submit(work.echo, 1).result(DEADLINE) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads, from Python 3.12 on: the child has none
            pid = os.fork()
        if pid == 0:
            status = 1
            try:
                try:
                    executor.submit(work.echo, 2)
                except RuntimeError as error:
                    with Executor(1) as own:
                        status = 0 if "forked child" in str(error) and own.submit(work.echo, 3).result(9) == 3 else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert executor.submit(work.echo, 4).result(DEADLINE) == 4


def log_and_return(text: str) -> str:
    logging.getLogger("science").warning(text)
    return text


def test_what_workers_log_arrives_in_the_coordinators_logging(caplog: pytest.LogCaptureFixture) -> None:
    with Executor(1) as executor:
        assert executor.submit(log_and_return, "too hot").result(DEADLINE) == "too hot"
    records = [record for record in caplog.records if record.name == "science"]
    assert [(record.getMessage(), record.levelname) for record in records] == [("too hot", "WARNING")]
    assert records[0].worker == 1  # type: ignore[attr-defined]


def test_an_initializer_may_get_locks_and_queues_of_multiprocessing() -> None:
    done = run("""
        import multiprocessing
        from fabric import Executor
        queue = multiprocessing.get_context("forkserver").SimpleQueue()
        with Executor(1, initializer=queue.put, initargs=("hello",)) as executor:
            executor.submit(pow, 2, 3).result()
            print(queue.get())
    """)
    assert (done.stdout, done.stderr, done.returncode) == ("hello\n", "", 0)


def test_workers_that_grow_or_grow_old_are_replaced(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fabric")
    with Executor(1, max_seconds_per_child=0.2) as executor:
        first = executor.submit(work.pid).result(DEADLINE)
        deadline = threading.Event()
        for _ in range(400):
            if executor.submit(work.pid).result(DEADLINE) != first:
                break
            deadline.wait(0.02)
        else:
            pytest.fail("it was not replaced")
    assert any("recycled: after 0.2" in record.getMessage() for record in caplog.records)


def hoard(megabytes: int) -> int:
    kept = globals().setdefault("_kept", [])
    kept.append(b"x" * (megabytes << 20))
    return os.getpid()


def test_a_worker_whose_memory_grows_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fabric")
    with Executor(1, max_growth_per_child=50 << 20) as executor:
        first = executor.submit(work.pid).result(DEADLINE)
        pause = threading.Event()
        for _ in range(200):
            if executor.submit(hoard, 8).result(DEADLINE) != first:
                break
            pause.wait(0.05)
        else:
            pytest.fail("it was not replaced")
    assert any("its memory grew by" in record.getMessage() for record in caplog.records)


def test_every_task_is_done_once_for_its_sender_while_workers_are_killed() -> None:
    seed = int(os.environ.get("FABRIC_TEST_SEED", "0")) or random.randrange(1 << 30)
    print("seed", seed)
    chance = random.Random(seed)
    with Executor(2, max_attempts=50, max_restarts=50) as executor:
        futures: list[Any] = []
        mapped: list[int] = []
        over = threading.Event()
        kills = 0

        def strike() -> None:
            nonlocal kills
            while kills < 10 and not over.wait(chance.uniform(0.005, 0.05)):  # however slow: the limits stay the same
                for process in list(executor._processes.values())[: chance.randrange(3)]:
                    process.kill()
                    kills += 1

        striker = threading.Thread(target=strike)
        executor.submit(work.echo, 0).result(DEADLINE)
        striker.start()
        try:
            while kills < 10 or len(futures) < 20_000:
                futures += [executor.submit(work.echo, i) for i in range(len(futures), len(futures) + 5_000)]
                mapped += executor.map(work.echo, range(len(mapped), len(mapped) + 25_000))
            results = [future.result(DEADLINE) for future in futures]
        finally:
            over.set()
            striker.join()
    assert results == list(range(len(futures)))
    assert mapped == list(range(len(mapped)))


def test_a_task_that_kills_does_not_take_the_others_of_a_storm_with_it(tmp_path: Path) -> None:
    with Executor(2) as executor:
        futures = [executor.submit(work.die if i % 50 == 49 else work.echo, signal.SIGKILL) for i in range(200)]
        outcomes = [type(future.exception(DEADLINE)) for future in futures]
    assert sum(issubclass(kind, PoisonMessageError) for kind in outcomes) == 4
    assert outcomes.count(type(None)) == 196


def test_tasks_that_are_stopped_give_back_the_room_they_had() -> None:
    with Executor(1) as executor:
        limited = executor.options(timeout=0.05)
        for _ in range(20):  # 20 of 60 KB would fill what may be ahead of a worker
            with pytest.raises(TimeoutError):
                limited.submit(work.sleep_and_return, 60, b"x" * 60_000).result(DEADLINE)
        assert executor.submit(work.echo, 1).result(DEADLINE) == 1
        assert [seat.bytes_ahead for seat in executor._pool.crew.seats.values()] == [0]


def test_a_view_that_treats_crashes_otherwise_waits_for_nobody(tmp_path: Path) -> None:
    with Executor(2) as executor:
        long = executor.submit(work.sleep_and_return, 60)
        assert executor.options(on_crash="fail").submit(work.echo, 1).result(DEADLINE) == 1
        assert executor.submit(work.echo, 2).result(DEADLINE) == 2
        assert not long.done()
        long.cancel()


def test_an_executor_may_be_shut_down_in_a_callback() -> None:
    over = threading.Event()
    executor = Executor(1)

    def shut_down(done: Any) -> None:
        executor.shutdown(wait=True)
        over.set()

    executor.submit(work.echo, 1).add_done_callback(shut_down)
    assert over.wait(DEADLINE)
    executor.shutdown()


def begin_slowly(path: str) -> None:
    """Be an initializer that takes longer than any task may: but for the first time."""
    if os.path.exists(path):
        threading.Event().wait(1.0)
    Path(path).touch()


def test_a_time_limit_does_not_count_the_start_of_a_worker(tmp_path: Path) -> None:
    arguments = (str(tmp_path / "begun"),)
    with Executor(1, max_tasks_per_child=1, initializer=begin_slowly, initargs=arguments) as executor:
        limited = executor.options(timeout=0.5)
        assert [limited.submit(work.echo, i).result(DEADLINE) for i in range(3)] == [0, 1, 2]


def begin_once(path: str) -> None:
    """Be an initializer that works once."""
    if os.path.exists(path):
        raise OSError("the licence server is down")
    Path(path).touch()


def test_an_initializer_that_raises_in_a_successor_breaks_the_executor(tmp_path: Path) -> None:
    with Executor(1, initializer=begin_once, initargs=(str(tmp_path / "begun"),)) as executor:
        assert executor.submit(work.echo, 1).result(DEADLINE) == 1
        next(iter(executor._processes.values())).kill()
        with pytest.raises(RuntimeError, match="licence server"):
            executor.submit(work.sleep_and_return, 1.0).result(DEADLINE)
        assert executor._broken


def test_killing_the_workers_waits_for_no_task() -> None:
    executor = Executor(1)
    future = executor.submit(work.sleep_and_return, 60)
    while not future.running():
        threading.Event().wait(0.001)
    executor.kill_workers()
    with pytest.raises(RuntimeError):
        future.result(0)


def test_priorities_that_nobody_uses_any_more_are_forgotten() -> None:
    with Executor(1) as executor:
        for priority in range(200):
            assert executor.options(priority=priority).submit(work.echo, priority).result(DEADLINE) == priority
        assert len(executor._pool.queue._levels) < 10
