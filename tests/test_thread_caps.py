"""Threads of BLAS and OpenMP in workers: what the environment says, and what numpy's library really has."""

import os
import subprocess
import sys

import pytest

from fabric import Fabric
from fabric.config import usable_cpus
from fabric.threads import PART, VARIABLES, cpu_part, threads_of, worker_environment
from tests.thread_agents import Counter, Nester

PATIENCE = 60
CPUS = usable_cpus()


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch):
    """Start without what the one who runs the tests may have set."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def _counted(settings):
    with Fabric(**settings) as fab:
        workers = len(fab.statistics().workers)
        return fab.spawn_batch(Counter, workers).ask_all(None, timeout=PATIENCE)


# What numpy's library has.


@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_share_the_cpus_among_their_threads(start_method, workers):
    counted = _counted({"workers": workers, "start_method": start_method})
    assert counted == [max(1, CPUS // workers)] * workers


def test_workers_that_may_yet_come_count():
    assert _counted({"workers": 1, "max_workers": 2 * CPUS}) == [1]


@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
def test_what_the_user_set_in_the_environment_is_respected(monkeypatch, start_method):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", str(CPUS))
    assert _counted({"workers": 2, "start_method": start_method}) == [CPUS] * 2
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    assert _counted({"workers": 1, "start_method": start_method}) == [1]


def test_what_the_user_set_for_all_libraries_is_respected(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", str(CPUS))
    assert _counted({"workers": 2}) == [CPUS] * 2


@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
def test_an_explicit_number_overrules_the_environment(monkeypatch, start_method):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    settings = {"workers": 2, "threads_per_worker": CPUS, "start_method": start_method}
    assert _counted(settings) == [CPUS] * 2


@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
def test_zero_leaves_the_library_to_itself(start_method):
    settings = {"workers": 2, "threads_per_worker": 0, "start_method": start_method}
    assert _counted(settings) == [len(os.sched_getaffinity(0))] * 2


@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
def test_a_fabric_in_a_worker_divides_the_part_of_that_worker(start_method):
    with Fabric(workers=1, start_method=start_method) as fab:
        nester = fab.spawn_batch(Nester, 1)[0]
        assert nester.ask({}, timeout=PATIENCE) == (CPUS, [1] * CPUS)
        assert nester.ask({"workers": 1}, timeout=PATIENCE) == (1, [CPUS])
        assert nester.ask({"workers": 2}, timeout=PATIENCE) == (2, [max(1, CPUS // 2)] * 2)


def test_a_fabric_in_each_worker_does_not_multiply_them():
    with Fabric(workers=CPUS) as fab:
        nesters = fab.spawn_batch(Nester, CPUS)
        assert nesters.ask_all({}, timeout=PATIENCE) == [(1, [1])] * CPUS


def test_a_successor_has_as_many_as_its_predecessor():
    with Fabric(workers=1) as fab:
        counter = fab.spawn_batch(Counter, 1)[0]
        fab._supervisor.crew.kill(1)
        assert counter.ask(None, timeout=PATIENCE) == CPUS


def test_other_variables_arrive_as_they_are(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE_OF_THE_TEST", "as it is")
    with Fabric(workers=1) as fab:
        counter = fab.spawn_batch(Counter, 1)[0]
        assert counter.ask("OPENBLAS_CORETYPE_OF_THE_TEST", timeout=PATIENCE) == "as it is"
        assert counter.ask("MKL_NUM_THREADS", timeout=PATIENCE) == str(CPUS)


PRELOADS = """
import sys
sys.modules["threadpoolctl"] = None
from fabric.workers.preload import preload
preload(["numpy"])
print("numpy" in sys.modules)
"""


@pytest.mark.parametrize(("threads", "preloads"), [("1", "True"), ("2", "False")])
def test_without_threadpoolctl_numpy_is_preloaded_only_where_one_thread_is_wanted(monkeypatch, threads, preloads):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", threads)
    found = subprocess.run([sys.executable, "-c", PRELOADS], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == preloads


# What the environment says.


@pytest.mark.parametrize(("cpus", "workers", "part"), [(8, 2, 4), (8, 3, 2), (2, 2, 1), (2, 16, 1), (1, 1, 1)])
def test_threads_times_workers_are_at_most_the_cpus_and_at_least_one_each(cpus, workers, part):
    environment = worker_environment(None, cpus, workers, {"HOME": "/"})
    assert environment == {"HOME": "/", **dict.fromkeys(VARIABLES, str(part)), PART: " ".join([str(part), *VARIABLES])}


def test_a_variable_of_the_user_stays_in_a_worker_of_a_worker_and_ours_is_divided():
    worker = worker_environment(None, 8, 2, {"MKL_NUM_THREADS": "7"})
    nested = worker_environment(None, cpu_part(worker), 4, worker)

    assert (worker["MKL_NUM_THREADS"], worker["OMP_NUM_THREADS"]) == ("7", "4")
    assert (nested["MKL_NUM_THREADS"], nested["OMP_NUM_THREADS"]) == ("7", "1")


def test_zero_in_a_worker_keeps_the_cap_of_that_worker():
    worker = worker_environment(None, 8, 2, {})
    nested = worker_environment(0, 4, 2, worker)
    assert nested == {**worker, PART: " ".join(["2", *VARIABLES])}


def test_a_variable_that_is_set_to_nothing_is_not_set():
    assert worker_environment(None, 8, 2, {"OMP_NUM_THREADS": ""})["OMP_NUM_THREADS"] == "4"


@pytest.mark.parametrize("value", ["", "no number", "0", "-3 OMP_NUM_THREADS"])
def test_a_part_that_makes_no_sense_is_none(value):
    assert cpu_part({PART: value}) is None


@pytest.mark.parametrize(
    ("library", "environ", "threads"),
    [
        ("openblas", {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "2"}, 1),
        ("openblas", {"OPENBLAS_NUM_THREADS": "100000"}, len(os.sched_getaffinity(0))),
        ("mkl", {"OPENBLAS_NUM_THREADS": "3", "OMP_NUM_THREADS": "2"}, 2),
        ("openmp", {"OMP_NUM_THREADS": "4,2"}, 4),
        ("flexiblas", {"FLEXIBLAS_NUM_THREADS": "9", "OMP_NUM_THREADS": "2"}, 2),
        ("openblas", {"OPENBLAS_NUM_THREADS": "many"}, len(os.sched_getaffinity(0))),
    ],
)
def test_a_library_goes_by_its_own_variable_and_then_by_that_of_OpenMP(library, environ, threads):
    assert threads_of(library, environ) == threads
