"""The benchmarks of large data: what was not summed fails, what is kept shows, and a curve says where we lose."""

import importlib.util
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import __main__ as command
from bench import arrays, curve
from bench.harness import Contestant, Metric, Result, run_trial
from bench.sample import WrongAnswerError

SUMS, ARRAYS = ({"job": {"back": back, "trips": 3}} for back in ("sum", "array"))
CURVE = {"job": {"back": "array", "trips": 3, "sizes": [64, 65_536]}}
LOAN = SUMS | {"loan": True}
HAND_OVER = [
    *((call, options) for call in ("large:ours", "peers.by_hand:arrays") for options in (SUMS, ARRAYS, LOAN)),
    *((call, options) for call in ("peers.pipe:arrays", "peers.pipe:array_bytes") for options in (SUMS, ARRAYS, CURVE)),
    ("large:ours", CURVE),
    ("peers.executor:arrays", SUMS),
    ("peers.pool:arrays", ARRAYS),
]


PLOTS = """
import sys
from pathlib import Path
from bench import curve
from bench.harness import Metric, Result
rows = [
    Result("a bench", case, Metric(str(size), "µs", False, size), name, name == "ours", "ok", False, [value], 1, "")
    for case in "ab" for size in (64, 128) for name, value in (("ours", 1.0), ("a peer", 2.0))
]
curve.plot(rows, Path(sys.argv[1]))
"""


@pytest.mark.parametrize(("call", "options"), HAND_OVER)
def test_ours_and_the_peers_of_the_standard_library_hand_over_arrays(call: str, options: Mapping[str, Any]) -> None:
    found = run_trial(Contestant("a contestant", f"bench.{call}", options, limit_s=30))
    assert "failed" not in found, found
    beyond = found["values"].pop(arrays.BEYOND, [])  # what is less than nothing is shown as 0
    assert all(value >= 0 for value in beyond)
    assert all(len(values) >= 3 and min(values) > 0 for values in found["values"].values())


def test_an_array_that_comes_back_with_another_sum_fails() -> None:
    job = arrays.Job(arrays.ARRAY, trips=1, sizes=[64])
    with pytest.raises(WrongAnswerError):
        arrays.run(lambda array: array, job)  # it was not summed
    assert arrays.run(lambda array: arrays.answer(array.copy(), arrays.ARRAY), job).values["64 B"]


def test_a_read_only_array_is_copied_to_answer_with_it() -> None:
    sent = np.ones(8)
    sent.flags.writeable = False
    found = arrays.answer(sent, arrays.ARRAY)
    assert found.tolist() == [8.0] + 7 * [1.0]
    assert sent.tolist() == 8 * [1.0]


def test_a_curve_says_where_we_lose_and_a_setting_of_ours_where_it_crosses() -> None:
    ours, peer, other = [5.0, 4.0, 2.0, 1.0], [4.0, 5.0, 5.0, 5.0], [4.0, 5.0, 1.0, 2.0]
    rows = [row for size in range(4) for row in points(64 * 4**size, ours[size], peer[size], other[size])]
    assert curve.is_one(rows)
    assert not curve.is_one([result("ours", 1.0, metric=Metric("rate", "messages/s"), ours=True)])
    assert curve.verdicts(rows) == [
        "Worse than a peer: at 64 B.",
        "Crossover: ours is at least as fast as other from 4 KiB on.",
    ]
    assert curve.summary(rows)[0] == "a bench · a case: Worse than a peer: at 64 B."
    assert curve.summary([result("ours", 1.0, metric=Metric("rate", "messages/s"), ours=True)]) == []


def test_a_curve_that_never_crosses_and_one_that_nobody_beats_say_so() -> None:
    rows = [row for size in (64, 128) for row in points(size, 2.0, 5.0, 1.0)]
    assert curve.verdicts(rows) == [
        "Worse than a peer: at no size.",
        "Crossover: none; ours is slower than other up to 128 B.",
    ]


def test_a_curve_is_shown_with_a_row_a_size_and_with_who_is_absent(capsys: pytest.CaptureFixture[str]) -> None:
    metric = Metric("64 B", "µs", higher_is_better=False, size=64)
    absent = result("nobody", metric=metric)
    curve.show([*points(64, 2.0, 5.0, 1.0), absent])
    shown = capsys.readouterr().out
    assert re.search("64 B .*2.00.*5.00.*1.00.* - .*2.50 x a peer, 0.50 x other", shown)
    assert "nobody: a status" in shown


def test_a_plot_without_matplotlib_is_refused_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as stopped:
        command.main(["sizes", "--plot", str(tmp_path / "curve.png")])
    assert stopped.value.code == 2
    assert "matplotlib" in capsys.readouterr().err


def test_a_plot_of_benches_without_curves_is_refused_before_anything_is_measured(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit):
        command.main(["spawn", "--plot", str(tmp_path / "curve.png")])
    assert "sizes, body_sizes, threshold" in capsys.readouterr().err


def test_the_benches_that_can_be_plotted_are_those_of_curves() -> None:
    found = {
        bench
        for bench in command.BENCHES
        if any(one.size is not None for case in command.cases_of(bench, True) for one in case.metrics)
    }
    assert found == {*command.CURVES}


def test_a_plot_holds_the_curves(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "curve.png"
    # In a process of its own: matplotlib keeps its fonts open.
    subprocess.run([sys.executable, "-c", PLOTS, str(file)], check=True, timeout=50)
    assert file.read_bytes().startswith(b"\x89PNG")


def test_a_plot_of_no_curve_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no curve"):
        curve.plot([result("ours", 1.0, metric=Metric("rate", "messages/s"), ours=True)], tmp_path / "curve.png")


def result(name: str, *values: float, metric: Metric, ours: bool = False) -> Result:
    return Result("a bench", "a case", metric, name, ours, "a status", False, list(values), 1, "")


def points(size: int, ours: float, peer: float, other: float) -> list[Result]:
    metric = Metric(arrays.name(size), "µs", higher_is_better=False, size=size)
    return [
        result("ours", ours, metric=metric, ours=True),
        result("a peer", peer, metric=metric),
        result("other", other, metric=metric, ours=True),
    ]
