"""The benchmarks of the peers' grids: a wrong answer fails, ours and the peers of the standard library run."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from bench import __main__ as command
from bench import fifo_grid, race
from bench.harness import Contestant, run_trial
from bench.sample import WrongAnswerError, rate

ASYNC, CROWD = "1:1 actor calls async", "n:n actor calls with arg async"
TIMED = {"seconds": 0.02}
SEEDED: dict[str, tuple[str, Mapping[str, Any]]] = {  # the fault in ours, by what is run
    "a call of an actor": ("ray_cases:one_to_one", {**TIMED, "case": ASYNC, "agent": "Careless"}),
    "calls in one ask_many": ("ray_cases:one_to_one", {**TIMED, "case": ASYNC, "agent": "Careless", "many": True}),
    "a call of a client": ("ray_cases:crowd", {**TIMED, "case": CROWD, "agent": "Careless"}),
    "a task": ("ray_cases:tasks", {**TIMED, "case": "single client tasks async", "task": "wrong"}),
    "a pool made": ("concurrent_imap:made", {"user": "fabric.Pool", "times": 1, "task": "off_by_one"}),
    "a pool kept": ("concurrent_imap:kept", {"user": "fabric.Pool", "times": 1, "task": "off_by_one"}),
}


def runs(
    calls: Sequence[str], options: Mapping[str, Any], **choices: Sequence[Any]
) -> list[tuple[str, dict[str, Any]]]:
    """Return each of the calls with each combination of the choices."""
    picked = [dict(zip(choices, some, strict=True)) for some in itertools.product(*choices.values())]
    return [(call, {**options, **one}) for call in calls for one in picked]


RUN = [
    *runs(["ray_cases:one_to_one"], TIMED, case=["1:1 actor calls sync", "1:1 async-actor calls with args async"]),
    *runs(["ray_cases:one_to_one"], TIMED, case=["1:1 actor calls concurrent"], many=[True]),
    *runs(["ray_cases:crowd"], TIMED, case=["1:n async-actor calls async", CROWD]),
    *runs(
        ["ray_cases:tasks"],
        {**TIMED, "case": "single client tasks sync"},
        user=["fabric.Executor", "ProcessPoolExecutor"],
    ),
    *runs(["peers.manager:run"], TIMED, case=["1:1 actor calls sync"]),
    *runs(["concurrent_imap:made"], {"times": 1}, user=["fabric.Pool", "multiprocessing.Pool", "ThreadPool"]),
    *runs(["concurrent_imap:kept"], {"times": 1}, user=["fabric.Pool", "Pool, forkserver"]),
    *runs(["fifo_grid:ours"], {"producers": 3, "consumers": 2, "each": 300}, many=[1, 100]),
    *runs(["fifo_grid:theirs"], {"producers": 3, "consumers": 2, "each": 300}, many=[1]),
]


@pytest.mark.parametrize("what", SEEDED)
def test_a_bench_fails_when_what_it_measures_answers_wrong(what: str) -> None:
    call, options = SEEDED[what]
    found = run_trial(Contestant("a liar", f"bench.{call}", options, limit_s=30))
    assert found.get("wrong"), found


@pytest.mark.parametrize(("call", "options"), RUN)
def test_ours_and_the_peers_of_the_standard_library_run(call: str, options: Mapping[str, Any]) -> None:
    found = run_trial(Contestant("a contestant", f"bench.{call}", options, limit_s=30))
    assert "failed" not in found, found
    assert found["values"]
    assert all(value > 0 for values in found["values"].values() for value in values)


@pytest.mark.parametrize(
    "kept",
    [
        [(1, 1, 1, 1, 0), (0, 0, 0, 0, 0)],
        [(0, 0, 0, 0, 0), (0, 0, 0, 0, 0)],
        [(0, 0, 1, 0, 0)],
    ],
)
def test_an_item_that_is_swapped_doubled_or_changed_fails_the_grid(kept: Sequence[tuple[int, ...]]) -> None:
    with pytest.raises(WrongAnswerError):
        fifo_grid._counts(list(kept))
    assert fifo_grid._counts([(0, 0, 0, 0, 0), (0, 0, 0, 0, 1), (2, 2, 2, 2, 0)]) == {0: 2, 1: 1}


@pytest.mark.parametrize("counts", [[{0: 2}, {0: 1}], [{0: 2, 1: 2}, {1: 2}], [{}]])
def test_a_race_in_which_an_item_is_lost_or_comes_twice_fails(counts: list[dict[int, int]]) -> None:
    with pytest.raises(WrongAnswerError):
        race._check(counts, each=3, producers=2)
    race._check([{0: 2, 1: 3}, {0: 1}], each=3, producers=2)


def test_a_rate_counts_what_calls_say_that_they_did() -> None:
    calls: list[int] = []

    def call() -> int:
        calls.append(1)
        return 1_000

    found = rate(call, 0.05)
    assert 0 < found <= 1_000 * len(calls) / 0.05


def test_the_case_names_of_ray_are_those_of_its_microbenchmark() -> None:
    names = [case.name for case in command.cases_of("ray_cases", True)]
    assert len(set(names)) == len(names)
    for crowd in ("1:1", "1:n", "n:n"):
        assert f"{crowd} actor calls async" in names
        assert f"{crowd} async-actor calls async" in names
