"""The benchmarks of executors, pools and joblib: a wrong result fails, ours and the peers run."""

import sys
from collections.abc import Mapping
from typing import Any

import pytest

from bench import tasks
from bench.harness import Contestant, run_trial

EXECUTORS = [
    ("executor:pipelined", {"tasks": 300}),
    ("executor:pipelined", {"tasks": 300, "workers": 2}),
    ("executor:one_by_one", {"tasks": 60}),
    ("executor:mapped", {"items": 3_000}),
    ("executor:mapped", {"items": 3_000, "chunksize": 100}),
]
POOLS = [
    ("pool:mapped", {"items": 3_000}),
    ("pool:singly", {"items": 300}),
    ("pool:singly", {"items": 300, "way": "imap_unordered"}),
]
CALLS = [
    *(
        (call, {"user": user, **options})
        for user in ("fabric.Executor", "ProcessPoolExecutor")
        for call, options in EXECUTORS
    ),
    *((call, {"user": "multiprocessing.Pool", **options}) for call, options in POOLS),
]


def trial(call: str, options: Mapping[str, Any], where: str = tasks.IMPORTABLE) -> dict[str, Any]:
    placed, given = tasks.placed(where, f"bench.{call}", dict(options))
    return run_trial(Contestant("a contestant", placed, given, limit_s=30))


@pytest.mark.parametrize(("call", "options"), CALLS)
def test_executors_and_pools_run_and_a_wrong_result_fails(call: str, options: Mapping[str, Any]) -> None:
    found = trial(call, options)
    assert "failed" not in found, found
    assert all(value > 0 for values in found["values"].values() for value in values)

    found = trial(call, {**options, "task": "stutter"})
    assert found.get("wrong"), found


@pytest.mark.parametrize("user", ["fabric.Executor", "ProcessPoolExecutor"])
def test_a_function_of_a_script_is_of_its_main_module(user: str) -> None:
    options = {"user": user, "tasks": 100}
    found = trial("executor:pipelined", options, tasks.OF_A_SCRIPT)
    assert found["values"]["tasks"][0] > 0, found

    found = trial("executor:pipelined", {**options, "task": "stutter"}, tasks.OF_A_SCRIPT)
    assert found.get("wrong"), found
    assert (
        "no_such_task" in trial("executor:pipelined", {**options, "task": "no_such_task"}, tasks.OF_A_SCRIPT)["failed"]
    )


def test_a_task_is_found_in_a_script_before_it_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tasks.find("increment") is tasks.increment
    monkeypatch.setattr(sys.modules["__main__"], "increment", abs, raising=False)
    assert tasks.find("increment") is abs


@pytest.mark.parametrize("reuse", [False, True])
def test_joblib_is_called_in_both_ways_and_a_wrong_result_fails(reuse: bool) -> None:
    pytest.importorskip("joblib")
    options = {"backend": "sequential", "calls": 10, "reuse": reuse}
    found = trial("joblib_calls:repeated", options)
    assert found["values"]["tasks"][0] > 0, found
    assert trial("joblib_calls:repeated", {**options, "task": "stutter"})["wrong"]
