"""Other libraries with an Executor of ours: asyncio, dask, pandas, tqdm and scikit-learn, each the real one."""

import asyncio
import importlib.util
import io
import json
import os
import subprocess
import sys

import numpy as np
import psutil
import pytest

from fabric import Executor
from tests import neighbour_functions as work
from tests.neighbour_functions import wait_until

UNTESTED = "is not installed: what we say of it is NOT TESTED (scripts/neighbours installs it)"


def _library(name):
    return pytest.importorskip(name, reason=f"{name} {UNTESTED}")


def _need(*names):
    """Skip where a library is missing, which is not imported here: it would start threads that stay."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} {UNTESTED}")


@pytest.fixture(scope="module")
def executor():
    """Two workers that tests share which leave them as they are."""
    with Executor(2) as executor:
        assert [future.result() for future in [executor.submit(abs, -1) for _ in range(8)]] == [1] * 8
        yield executor


@pytest.fixture
def own_executor():
    with Executor(2) as executor:
        yield executor


# asyncio


def test_an_event_loop_awaits_what_workers_do(executor):
    async def main():
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(executor, pow, i, 2) for i in range(50)))

    assert asyncio.run(main()) == [i**2 for i in range(50)]


def test_cancelling_an_asyncio_task_stops_what_it_runs(own_executor, tmp_path):
    async def main():
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(own_executor, work.say_and_block, tmp_path, "pid")
        while not (tmp_path / "pid").exists():
            await asyncio.sleep(0.002)
        future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await future
        return await loop.run_in_executor(own_executor, abs, -1)

    assert asyncio.run(asyncio.wait_for(main(), 30)) == 1
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: not psutil.pid_exists(pid))


def test_an_error_comes_through_the_event_loop_with_its_line_in_the_worker(executor):
    async def main():
        await asyncio.get_running_loop().run_in_executor(executor, work.divide, 1, 0)

    with pytest.raises(ZeroDivisionError) as caught:
        asyncio.run(main())
    assert "return a / b" in str(caught.value.__cause__)


# dask


def test_dask_computes_on_the_workers(executor):
    dask = _library("dask")
    tasks = [dask.delayed(work.pid_of)(i) for i in range(20)]
    [pids] = dask.compute(tasks, scheduler=executor)
    assert os.getpid() not in pids
    total = dask.delayed(sum)([dask.delayed(abs)(-i) for i in range(100)])
    with dask.config.set(scheduler=executor):
        assert total.compute() == 4950


def test_an_error_comes_out_of_dask(executor):
    dask = _library("dask")
    with pytest.raises(ZeroDivisionError):
        dask.delayed(work.divide)(1, 0).compute(scheduler=executor)


# pandas


@pytest.fixture
def frame():
    pandas = _library("pandas")
    if int(pandas.__version__.partition(".")[0]) < 3:
        pytest.skip(f"pandas 3 {UNTESTED}; this is {pandas.__version__}")
    return pandas.DataFrame({"a": range(50), "b": np.linspace(0, 1, 50)}, index=[f"row {i}" for i in range(50)])


def _same(left, right):
    import pandas

    check = pandas.testing.assert_frame_equal if left.ndim == 2 else pandas.testing.assert_series_equal
    check(left, right)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("function", ["sum_of", "twice"])
def test_pandas_applies_a_function_to_rows_and_columns(executor, frame, axis, function):
    from fabric.integrations.pandas import Engine

    function = getattr(work, function)
    expected = frame.apply(function, axis=axis, args=(2,))
    _same(frame.apply(function, axis=axis, args=(2,), engine=Engine(executor)), expected)


@pytest.mark.parametrize("axis", [0, 1])
def test_pandas_applies_a_function_to_raw_arrays(executor, frame, axis):
    from fabric.integrations.pandas import Engine

    expected = frame.apply(work.sum_of, axis=axis, raw=True, args=(2,))
    _same(frame.apply(work.sum_of, axis=axis, raw=True, args=(2,), engine=Engine(executor)), expected)


def test_pandas_maps_a_series_and_leaves_out_what_is_missing(executor, frame):
    from fabric.integrations.pandas import Engine

    series = frame["b"].where(frame["a"] % 3 > 0)
    expected = series.map(work.sign, na_action="ignore")
    _same(series.map(work.sign, na_action="ignore", engine=Engine(executor)), expected)


def test_the_functions_of_pandas_run_in_workers(executor, frame):
    from fabric.integrations.pandas import Engine

    assert os.getpid() not in set(frame.apply(work.pid_of, axis=1, engine=Engine(executor)))


# tqdm


def test_process_map_returns_a_list_and_draws_a_bar():
    _library("tqdm")
    from fabric.integrations.tqdm import process_map

    drawn = io.StringIO()
    results = process_map(pow, range(100), [2] * 100, max_workers=2, desc="squares", file=drawn)
    assert results == [i**2 for i in range(100)]
    assert "squares: 100%" in drawn.getvalue()


def test_process_map_takes_what_that_of_tqdm_takes():
    _library("tqdm")
    import tqdm.contrib.concurrent

    from fabric.integrations.tqdm import process_map

    given = {"max_workers": 2, "chunksize": 3, "timeout": 60, "lock_name": "mp_lock", "unit": "x", "disable": True}
    expected = tqdm.contrib.concurrent.process_map(abs, range(-9, 0), **given)
    assert process_map(abs, range(-9, 0), **given) == expected


# scikit-learn, in a process of its own: the threads of its OpenMP stay

LEARNING = """
import joblib, sys
from sklearn.datasets import make_classification
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.tree import DecisionTreeClassifier
from fabric.integrations import joblib as integration
from tests import neighbour_functions as work

x, y = make_classification(300, 8, random_state=0)
tree = DecisionTreeClassifier(random_state=0)

def scores(n_jobs):
    search = GridSearchCV(tree, {"max_depth": [1, 2, 3]}, cv=3, n_jobs=n_jobs).fit(x, y)
    forest = RandomForestClassifier(10, random_state=0, n_jobs=n_jobs)
    folds = cross_val_score(forest, x, y, cv=3, n_jobs=n_jobs)
    return list(search.cv_results_["mean_test_score"]), list(folds), forest.fit(x, y).score(x, y)

integration.register()
with joblib.parallel_config(backend="fabric"):
    assert scores(2) == scores(1)
    try:
        cross_val_score(DummyClassifier(), x, y, scoring=work.no_score, cv=3, n_jobs=2, error_score="raise")
    except ZeroDivisionError as error:
        assert "return a / b" in str(error.__cause__)
        print("as it does by itself")
"""


def test_scikit_learn_fits_on_the_fabric_as_it_does_by_itself():
    _need("sklearn", "joblib")
    done = subprocess.run([sys.executable, "-c", LEARNING], capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stdout) == (0, "as it does by itself\n"), done.stderr


# notebooks

CELLS = [
    "from dataclasses import dataclass\nimport os\nfrom fabric import Agent, Executor, Fabric",
    "@dataclass\nclass Point:\n    x: int\n\ndef shifted(point, by):\n    return Point(point.x + by)",
    "class Adder(Agent):\n    def on_message(self, point):\n        return shifted(point, 1), os.getpid()",
    "with Executor(2) as executor:\n    print([p.x for p in executor.map(shifted, [Point(1), Point(2)], [10, 10])])",
    "with Fabric(workers=1) as fab:\n"
    "    point, pid = fab.spawn_batch(Adder, 1)[0].ask(Point(5))\n"
    "    print(point, pid != os.getpid())",
    "offset = 1\ndef add(x):\n    return x + offset\nexecutor = Executor(1)\nprint(executor.submit(add, 1).result())",
    "offset = 2\nprint(executor.submit(add, 1).result())\ndef add(x):\n    return -x\n"
    "print(executor.submit(add, 1).result())\nexecutor.shutdown()",
]


def test_functions_and_classes_of_a_notebooks_cells_run_in_workers(tmp_path):
    _need("nbclient", "ipykernel")
    # In a process of its own too: the client starts threads that stay.
    (tmp_path / "cells.json").write_text(json.dumps(CELLS))
    command = [sys.executable, "-m", "tests.run_cells", str(tmp_path / "cells.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == ["[11, 12]", "Point(x=6) True", "2", "3", "-1"]


# pytest-benchmark


def test_a_fabric_under_the_benchmark_fixture_leaves_nothing(benchmark):
    def one_round():
        with Executor(2) as executor:
            return list(executor.map(abs, range(100)))

    assert benchmark.pedantic(one_round, rounds=2, warmup_rounds=1) == list(range(100))


def test_rounds_of_a_benchmark_share_an_executor(benchmark, executor):
    assert benchmark.pedantic(lambda: executor.submit(pow, 2, 10).result(), rounds=20) == 1024
