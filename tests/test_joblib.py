"""joblib on the fabric's workers: batches, errors, generators, nesting, and what is kept between calls."""

import os
import pickle
import signal
import subprocess
import sys
import threading
from multiprocessing import TimeoutError as NotInTime

import numpy as np
import psutil
import pytest

joblib = pytest.importorskip("joblib", reason="joblib is not installed: its backend is NOT TESTED")
from joblib import Parallel, delayed, parallel_config  # noqa: E402 - only where there is joblib

from fabric.integrations import joblib as integration  # noqa: E402
from fabric.integrations.shared_pools import Keeper  # noqa: E402
from tests import neighbour_functions as work  # noqa: E402
from tests.neighbour_functions import wait_until  # noqa: E402

integration.register()


@pytest.fixture(autouse=True, scope="module")
def two_workers():
    """Start workers that the tests of this module share, as calls do; and end them."""
    Parallel(n_jobs=2, backend="fabric")(delayed(abs)(i) for i in range(2))
    yield
    integration.shutdown()


@pytest.fixture(autouse=True)
def on_the_fabric(two_workers):
    with parallel_config(backend="fabric", n_jobs=2):
        yield


@pytest.fixture
def own_workers(monkeypatch):
    """Give a test workers of its own: it has some killed, or wants others than the two that are shared."""
    keeper = Keeper()
    monkeypatch.setattr(integration, "_keeper", keeper)
    yield
    keeper.close()


def test_results_come_in_the_order_of_the_tasks():
    assert Parallel()(delayed(pow)(i, 2) for i in range(300)) == [i**2 for i in range(300)]


def test_tasks_of_every_length_are_run_in_batches_that_grow():
    parallel = Parallel()
    assert parallel(delayed(abs)(-i) for i in range(2000)) == list(range(2000))
    assert parallel.n_dispatched_batches < 1000


def test_a_lambda_and_what_it_closes_over_are_sent():
    offset = 10
    assert Parallel()(delayed(lambda x: x + offset)(i) for i in range(5)) == [10, 11, 12, 13, 14]


def test_workers_are_kept_between_calls_and_there_are_n_jobs_of_them():
    pids = {pid for _ in range(20) for pid in Parallel()(delayed(work.pid_of)(i) for i in range(10))}
    assert os.getpid() not in pids
    assert len(pids) == 2


def test_another_number_of_jobs_has_other_workers_and_those_before_end(own_workers):
    before = set(Parallel()(delayed(work.pid_of)(i) for i in range(10)))
    after = set(Parallel(n_jobs=3)(delayed(work.pid_of)(i) for i in range(10)))
    assert not before & after
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in before))


def test_one_job_runs_here():
    assert set(Parallel(n_jobs=1)(delayed(work.pid_of)(i) for i in range(3))) == {os.getpid()}


def test_an_error_names_its_line_in_the_worker(own_workers):
    with pytest.raises(ZeroDivisionError) as caught:
        Parallel()(delayed(work.divide)(1, i) for i in (1, 0))
    assert "return a / b" in str(caught.value.__cause__)


def test_the_first_error_ends_the_call_and_the_tasks_that_run(tmp_path, own_workers):
    tasks = [delayed(work.say_and_block)(tmp_path, "one"), delayed(work.fail_after)(tmp_path, "one")]
    with pytest.raises(LookupError, match="on purpose"):
        Parallel()(tasks)
    blocked = int((tmp_path / "one").read_text())
    wait_until(lambda: not psutil.pid_exists(blocked))
    assert Parallel()(delayed(abs)(i) for i in range(4)) == [0, 1, 2, 3]


def test_calls_of_other_threads_do_not_notice_an_error(tmp_path, own_workers):
    # Three workers: one for the other thread's task, which waits for a file that is made when this call is over.
    results = []

    def other():
        with parallel_config(backend=integration.FabricBackend(nesting_level=0), n_jobs=3):
            results.extend(Parallel()(delayed(work.wait_for)(tmp_path, "over", i) for i in range(2)))

    thread = threading.Thread(target=other)
    thread.start()
    try:
        wait_until((tmp_path / "waits-0").exists)
        with pytest.raises(ZeroDivisionError):
            Parallel(n_jobs=3)(delayed(work.divide)(1, 0) for _ in range(4))
    finally:
        (tmp_path / "over").touch()
        thread.join()
    assert results == [0, 1]


def test_what_cannot_be_pickled_is_said(own_workers):
    with pytest.raises(pickle.PicklingError, match="the task to send"):
        Parallel()(delayed(abs)(threading.Lock()) for _ in range(3))


def test_a_killed_worker_does_not_abort_the_call(tmp_path, own_workers):
    tasks = [delayed(work.kill_worker_once)(tmp_path / "killed", i) for i in range(20)]
    assert Parallel(batch_size=1)(tasks) == list(range(20))
    assert (tmp_path / "killed").exists()


@pytest.mark.parametrize("return_as", ["generator", "generator_unordered"])
def test_results_can_be_iterated_over_as_they_come(return_as):
    results = Parallel(return_as=return_as)(delayed(abs)(-i) for i in range(50))
    assert sorted(results) == list(range(50))


def test_a_call_while_a_generator_is_open_goes_beside_it():
    with parallel_config(backend="fabric", n_jobs=2):
        opened = Parallel(return_as="generator")(delayed(abs)(-i) for i in range(40))
        assert next(opened) == 0
        assert Parallel()(delayed(abs)(-i) for i in range(10)) == list(range(10))
        assert list(opened) == list(range(1, 40))


def test_a_generator_that_is_dropped_stops_its_tasks(tmp_path, own_workers):
    opened = Parallel(return_as="generator")(delayed(work.say_and_block)(tmp_path, f"task-{i}") for i in range(4))
    wait_until(lambda: (tmp_path / "task-0").exists() and (tmp_path / "task-1").exists())
    pids = [int((tmp_path / f"task-{i}").read_text()) for i in range(2)]
    with pytest.warns(UserWarning, match="cancelled"):
        del opened
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids))


def test_a_task_over_the_time_limit_ends_the_call(tmp_path, own_workers):
    with pytest.raises(NotInTime):
        Parallel(timeout=0.2)(delayed(work.say_and_block)(tmp_path, f"task-{i}") for i in range(2))


def test_a_context_manager_can_be_used_again_after_an_error(own_workers):
    with Parallel() as parallel:
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                parallel(delayed(work.divide)(1, 0) for _ in range(2))
            assert parallel(delayed(work.divide)(4, 2) for _ in range(2)) == [2.0, 2.0]


def test_an_error_in_the_iterable_of_tasks_is_raised(own_workers):
    def tasks():
        yield from (delayed(abs)(i) for i in range(20))
        raise LookupError("no more tasks")

    with pytest.raises(LookupError, match="no more tasks"):
        Parallel()(tasks())


def test_nested_calls_run_in_threads_and_then_in_sequence():
    [(outer, inner)] = Parallel()([delayed(work.levels)(0)])
    assert (outer[1:], inner[1:]) == (("ThreadingBackend", 1), ("SequentialBackend", 2))
    assert outer[0] == inner[0]


def test_a_nested_call_that_names_the_backend_keeps_to_the_part_of_the_worker():
    # Two workers, and the CPUs this process may use: a worker's part may be one, and is then the worker itself.
    part = max(1, len(os.sched_getaffinity(0)) // 2)
    for pids in Parallel()(delayed(work.nested_on_the_fabric)(i) for i in range(2)):
        assert len(set(pids)) <= part


def test_workers_know_the_backend_by_its_name():
    assert Parallel()(delayed(work.is_registered)(i) for i in range(2)) == [True, True]


def test_inner_max_num_threads_caps_the_threads_of_blas(own_workers):
    with parallel_config(backend="fabric", n_jobs=2, inner_max_num_threads=3):
        assert set(Parallel()(delayed(work.threads_of_blas)(i) for i in range(4))) == {"3"}


def test_an_initializer_runs_once_in_each_worker_and_another_one_in_others(own_workers):
    for word in ("one", "two", "two"):
        with parallel_config(backend="fabric", n_jobs=2, initializer=work.remember, initargs=(word,)):
            results = Parallel()(delayed(work.made_with)(i) for i in range(8))
        assert results == [[word]] * 8


def test_large_arrays_arrive_read_only_and_whole():
    array = np.ones(1 << 18)
    assert Parallel()(delayed(work.wrote_to)(array) for _ in range(6)) == [(False, float(1 << 18))] * 6
    assert Parallel(max_nbytes=None)(delayed(work.wrote_to)(array) for _ in range(2)) == [(True, float(1 << 18))] * 2


def test_arrays_are_sent_as_they_are_when_the_call_begins():
    array = np.ones(1 << 18)
    with Parallel() as parallel:
        for factor in (1, 2):
            array[:] = factor
            assert parallel(delayed(work.wrote_to)(array) for _ in range(3)) == [(False, factor * float(1 << 18))] * 3


def test_an_array_over_a_file_is_mapped_by_the_workers(tmp_path):
    stored = np.memmap(tmp_path / "array", "f8", "w+", shape=(1 << 18,))
    Parallel()(delayed(work.count_up)(stored[i : i + (1 << 17)], i) for i in (0, 1 << 17))
    assert np.array_equal(stored, np.arange(1 << 18))


def test_workers_that_are_idle_for_long_end(own_workers):
    with parallel_config(backend="fabric", n_jobs=2, idle_worker_timeout=0.05):
        pids = Parallel()(delayed(work.pid_of)(i) for i in range(4))
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids))


SCRIPT = """
import joblib, sys
from fabric.integrations import joblib as integration
integration.register(make_default=True)
def square(x):
    return x * x
print(joblib.Parallel(n_jobs=2)(joblib.delayed(square)(i) for i in range(4)))
"""


def test_a_program_without_a_guard_ends_though_workers_are_kept(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "-W", "error", "script.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[0, 1, 4, 9]\n", "")


BLOCKED = """
import sys, joblib
from fabric.integrations import joblib as integration
from tests import neighbour_functions as work
integration.register(make_default=True)
joblib.Parallel(n_jobs=2)(joblib.delayed(work.say_and_block)(sys.argv[1], f"task-{i}") for i in range(2))
"""


def test_ctrl_c_ends_a_call_and_what_it_runs(tmp_path):
    command = [sys.executable, "-c", BLOCKED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        wait_until(lambda: (tmp_path / "task-0").exists() and (tmp_path / "task-1").exists())
        pids = [int((tmp_path / f"task-{i}").read_text()) for i in range(2)]
        program.send_signal(signal.SIGINT)
        errors = program.communicate(timeout=30)[1]
    assert program.returncode == -signal.SIGINT
    assert errors.splitlines()[-1] == "KeyboardInterrupt"
    assert "Traceback" in errors.splitlines()[0], "nothing else is said"
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids))
