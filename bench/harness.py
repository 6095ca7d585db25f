"""Rounds, limits and verdicts: runs each contestant of a case in turn, each trial in a process of its own.

::

    round 1   ours    peer A  peer B     a trial that exceeds its limit is killed with all that it started;
    round 2   peer A  peer B  ours       a contestant that failed once is not tried again in this case
    round 3   peer B  ours    peer A
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bench.machine import usable_cores
from bench.sample import Percentiles, Sample, percentiles

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Metric:
    """What is measured, under the name that samples use."""

    name: str
    unit: str
    higher_is_better: bool = True
    size: int | None = None  # x of a point: metrics of a case that have one are a curve
    axis: str = "bytes"  # what x counts


def points(axis: str, sizes: Sequence[int], unit: str, higher_is_better: bool = True) -> tuple[Metric, ...]:
    """Return the metrics of a curve over these numbers, named by them: 10, 1,000."""
    return tuple(Metric(f"{size:,}", unit, higher_is_better, size, axis) for size in sizes)


@dataclass(frozen=True)
class Contestant:
    """One side of a comparison: a function that a trial calls."""

    name: str
    call: str  # "module:function"; imported in the trial only
    options: Mapping[str, Any] = field(default_factory=dict)
    needs: str = ""  # the module that must be installed
    slow: bool = False  # left out by --quick
    peer: bool = True  # False: ours in another setting, or a floor that no peer is: shown beside, not compared with
    busy: int = 2  # processes at work at once
    rounds: int = 1_000  # at most; the case says how many there are
    limit_s: float = 60.0


@dataclass(frozen=True)
class Case:
    """One setting in which the contestants meet. The first is ours; the others are compared with it."""

    name: str
    metrics: tuple[Metric, ...]
    contestants: tuple[Contestant, ...]
    rounds: int
    cpus: int | None = None  # CPUs that a trial keeps; None: all

    def is_ours(self, contestant: Contestant) -> bool:
        """Return whether the contestant is the fabric, in whatever setting."""
        return contestant is self.contestants[0] or not contestant.peer


@dataclass
class Result:
    """What one contestant did in one case, by one metric."""

    bench: str
    case: str
    metric: Metric
    contestant: str
    ours: bool
    status: str  # "ok", or why there is no figure
    wrong: bool
    values: list[float]
    rounds: int
    note: str
    by_round: list[float] = field(
        default_factory=list
    )  # the median of each: how far they lie apart says how sure it is
    kept: Percentiles | None = None  # of a row from a file, which leaves out the values where they are many

    @property
    def figures(self) -> Percentiles | None:
        """Over all values of all rounds; None when there is no figure."""
        return self.kept or (percentiles(self.values) if self.values else None)

    @property
    def is_failure(self) -> bool:
        """Whether it fails the run: a wrong answer of anybody, or no figure of ours."""
        return self.wrong or (self.ours and self.status != "ok")

    def as_json(self) -> dict[str, Any]:
        """Return the row for the JSON file."""
        figures = self.figures
        return {
            "bench": self.bench,
            "case": self.case,
            "metric": self.metric.name,
            "unit": self.metric.unit,
            "higher_is_better": self.metric.higher_is_better,
            "size": self.metric.size,
            "axis": None if self.metric.size is None else self.metric.axis,
            "contestant": self.contestant,
            "ours": self.ours,
            "status": self.status,
            "wrong": self.wrong,
            "rounds": self.rounds,
            "figures": None if figures is None else vars(figures),
            "by_round": self.by_round,
            "values": self.values if len(self.values) <= 100 else [],
            "note": self.note,
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Result:
        """Return the row that `as_json` gave; what an earlier version did not write is as if it were not known."""
        metric = Metric(row["metric"], row["unit"], row["higher_is_better"], row["size"], row.get("axis") or "bytes")
        figures, values = row["figures"], row["values"]
        by_round = row.get("by_round", values if len(values) == row["rounds"] else [])
        return cls(
            row["bench"],
            row["case"],
            metric,
            row["contestant"],
            row["ours"],
            row["status"],
            row.get("wrong", False),
            values,
            row["rounds"],
            row["note"],
            by_round,
            None if figures is None else Percentiles(**figures),
        )


@dataclass(frozen=True)
class Settings:
    """How a run is done."""

    quick: bool = False
    ours_only: bool = False
    progress: Callable[[str], None] = lambda line: None


class Interrupted(KeyboardInterrupt):
    """Ctrl-C in the middle of a case, and what had been measured by then."""

    def __init__(self, results: list[Result]) -> None:
        super().__init__()
        self.results = results


@dataclass
class _Score:
    """What a contestant has gathered so far in a case."""

    status: str = "ok"
    wrong: bool = False
    samples: list[Sample] = field(default_factory=list)


def run_case(bench: str, case: Case, settings: Settings) -> list[Result]:
    """Run all rounds of a case, the contestants in turn; return a result per metric and contestant.

    Never raises for what a contestant does: its status says it.

    Raises: Interrupted, with the results of the rounds there were, when Ctrl-C ends it.
    """
    contestants = [one for one in case.contestants if case.is_ours(one) or not settings.ours_only]
    scores = [_Score(_absence(contestant, settings)) for contestant in contestants]
    try:
        _run_rounds(bench, case, settings, list(zip(contestants, scores, strict=True)))
    except KeyboardInterrupt:
        raise Interrupted(_results(bench, case, contestants, scores)) from None
    return _results(bench, case, contestants, scores)


def _run_rounds(bench: str, case: Case, settings: Settings, sides: Sequence[tuple[Contestant, _Score]]) -> None:
    for index in range(case.rounds):
        settings.progress(f"{bench} · {case.name} · round {index + 1} of {case.rounds}")
        first = index % len(sides)
        for contestant, score in [*sides[first:], *sides[:first]]:
            if score.status == "ok" and index < contestant.rounds:
                _score(contestant, case.cpus, score)


def _results(bench: str, case: Case, contestants: list[Contestant], scores: list[_Score]) -> list[Result]:
    return [
        _result(bench, case, metric, contestant, score)
        for metric in case.metrics
        for contestant, score in zip(contestants, scores, strict=True)
    ]


def run_trial(contestant: Contestant, cpus: int | None = None) -> dict[str, Any]:
    """Run one trial in a new process; return its sample as a dict, or {"failed": why, "wrong": bool}.

    Waits up to the contestant's limit, then kills the trial and all that it started.
    """
    spec = {"call": contestant.call, "options": dict(contestant.options), "cpus": cpus}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        answer, log = Path(folder, "answer.json"), Path(folder, "log")
        command = [sys.executable, "-m", "bench.trial"]
        command += [json.dumps(spec | {"limit_s": contestant.limit_s}), str(answer)]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": path, "TMPDIR": folder},  # so that its files go with it
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            try:
                status = process.wait(contestant.limit_s)
            except subprocess.TimeoutExpired:
                why = f"no answer within {contestant.limit_s:g} s{_where_it_hangs(log)}"
                return {"failed": why, "wrong": False}
            finally:
                _sweep(process)
        if not answer.exists():
            return {"failed": f"ended with status {status}{_last_line(log)}", "wrong": False}
        found: dict[str, Any] = json.loads(answer.read_text())
        return found


def _absence(contestant: Contestant, settings: Settings) -> str:
    if contestant.needs and importlib.util.find_spec(contestant.needs) is None:
        return f"not installed ({contestant.needs})"
    if settings.quick and contestant.slow:
        return "left out by --quick"
    return "ok"


def _score(contestant: Contestant, cpus: int | None, score: _Score) -> None:
    found = run_trial(contestant, cpus)
    if "failed" in found:
        score.status, score.wrong = found["failed"], found["wrong"]
    else:
        score.samples.append(Sample(**found))


def _result(bench: str, case: Case, metric: Metric, contestant: Contestant, score: _Score) -> Result:
    ok = score.status == "ok"
    rounds = [found for sample in score.samples if (found := sample.values.get(metric.name, []))]
    if ok and not rounds:
        score = _Score(f"does not report {metric.name}" if score.samples else "stopped before it was measured")
    cores = case.cpus or usable_cores()
    crowd = f"{contestant.busy} busy processes on {cores} core{'s' if cores > 1 else ''}"
    notes = [score.samples[-1].note if score.samples else "", crowd if contestant.busy > cores else ""]
    return Result(
        bench=bench,
        case=case.name,
        metric=metric,
        contestant=contestant.name,
        ours=case.is_ours(contestant),
        status=score.status,
        wrong=score.wrong,
        values=[value for values in rounds for value in values] if ok else [],
        rounds=len(score.samples),
        note="; ".join(filter(None, notes)),
        by_round=[percentiles(values).median for values in rounds] if ok else [],
    )


def _sweep(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of a trial: its descendants, itself and its process group."""
    if process.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
        process.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _where_it_hangs(log: Path) -> str:
    """Return the innermost frame of the main thread, which the trial dumped last."""
    stack = log.read_text(errors="replace").rpartition("(most recent call first):")[2]
    found = re.search(r'File "(?:.*/)?(.+)", line (\d+) in (.+)', stack)
    return f" (in {found[3]}, {found[1]}:{found[2]})" if found else ""


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return f" ({lines[-1].strip()[:160]})" if lines else ""
