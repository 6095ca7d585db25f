"""Is this run slower than that one, or only the machine? Decides by figures divided by the calibration's.

    pace    = how fast the machine is now / how fast it was then      by the loop that is nearest to the row
    change  = how many times better the row is, the pace taken out    1: the same
    room    = 10 %, or more, in parts of the median: half the distance of the rounds of each run, at least a half for
              one or two rounds, since nobody knows; half that of the pace's own figures; and half of what the paces
              by the three loops differ by, because then something else was at work than a slower machine. Where they
              differ by a factor of 2, and in a run without them, nothing is said of speeds: "unsure"

A row of ours is a regression when its change is below 1 / (1 + room). Peers are shown, since one that changed as much
says that it was the machine after all; they never regress. What is no speed (bytes, counts) has no pace.
Pure: two runs in, changes out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from bench import calibration
from bench.calibration import CPU, MEMORY, PIPE
from bench.harness import Result
from bench.history import Run
from bench.machine import NOISY
from bench.table import figure, grid, times

FLOOR = 0.10  # what nobody should call a regression, however still the machine was
UNKNOWN = 0.5  # room of a row of one or two rounds
FEW = 3  # rounds, from which on their distance says something
REGRESSION, BETTER, SAME, GONE, NEW, NO_RATIO = "REGRESSION", "better", "same", "missing", "new", "no ratio"
WORSE, UNSURE = "worse", "unsure"  # worse: a peer's
DISAGREE = 2.0  # from which on the paces by two loops cannot both be the machine's
_TIMES = ("ns", "µs", "us", "ms", "s")
_FACTS = {
    "processor": "Another processor (the calibration bridges pace, not architecture)",
    "cores": "Another number of cores",
    "python": "Another Python",
    "scale": "Another scale of the scenarios",
}
_LARGE = re.compile(r"\b\d[\d,]* ?[MG]i?B\b")
_LARGE_BYTES = 1 << 20


HEADER = ("", "then", "now", "unit", "pace", "change", "room", "verdict")


@dataclass(frozen=True)
class Change:
    """One row in both runs, or in one of them."""

    before: Result | None
    now: Result | None
    verdict: str
    change: float | None = None
    room: float | None = None
    pace: float | None = None  # of the machine, now against then; None: the row is no speed, or it was not read
    kind: str = ""  # of calibration
    why: str = ""

    @property
    def row(self) -> Result:
        """The one there is."""
        found = self.now or self.before
        assert found is not None
        return found

    @property
    def name(self) -> str:
        """Where the row is: bench, case, metric, contestant."""
        row = self.row
        return f"{row.bench} · {row.case} · {row.metric.name} · {row.contestant}"


@dataclass(frozen=True)
class _Pace:
    """How many times as fast the machine is now, by one loop; None: nobody knows, or it does not matter."""

    factor: float | None = None
    room: float = 0.0  # how unsure that is
    unsure: bool = False  # so much that it is no use


@dataclass(frozen=True)
class Comparison:
    """Two runs, row by row."""

    earlier: Run
    later: Run
    changes: Sequence[Change]
    remarks: Sequence[str]

    @property
    def regressions(self) -> list[Change]:
        """Those of ours that are worse, the worst first."""
        found = [one for one in self.changes if one.verdict == REGRESSION]
        return sorted(found, key=lambda one: one.change or 0.0)

    def count(self, verdict: str) -> int:
        """Return how many rows have this verdict."""
        return sum(one.verdict == verdict for one in self.changes)


def compare(earlier: Run, later: Run, benches: Sequence[str] = ()) -> Comparison:
    """Compare two runs by all rows of these benches; without any, of those that the later one ran.

    Raises: ValueError when one of the two was quick and the other was not: they measured other amounts.
    """
    if earlier.quick != later.quick:
        raise ValueError("one of the two runs was --quick and the other was not: they measured different amounts")
    wanted = {*(benches or later.benches)}
    then, now = ({_key(row): row for row in run.results if row.bench in wanted} for run in (earlier, later))
    paces = {bench: _paces(earlier, later, bench) for bench in wanted}
    changes = [_change(then.get(key), now.get(key), paces[key[0]]) for key in {**now, **then}]
    return Comparison(earlier, later, changes, _remarks(earlier, later))


def kind_of(row: Result) -> str:
    """Return which loop of the calibration is nearest to a row; "" for one that is no speed.

    By its unit, and by what it says of sizes, since nobody writes it beside each metric: bodies of a megabyte and more
    are copied, a single crossing that is told in µs is system calls, and the rest is Python.
    """
    metric = row.metric
    unit = metric.unit.replace(",", " ").split()[0] if metric.unit else ""
    if metric.unit == "% of a core":  # the same work is a larger share of a slower one
        return CPU
    if "/s" not in unit and unit not in _TIMES:
        return ""
    in_bytes = metric.size is not None and metric.axis == "bytes"
    if (in_bytes and (metric.size or 0) >= _LARGE_BYTES) or _LARGE.search(f"{row.case} {metric.name}"):
        return MEMORY
    return PIPE if unit in ("ns", "µs", "us") else CPU


def spread(by_round: Sequence[float]) -> float:
    """Return half the distance of the rounds from each other, in parts of their median; at least UNKNOWN for few."""
    middle = median(by_round) if by_round else 0.0
    found = (max(by_round) - min(by_round)) / 2 / abs(middle) if middle else 0.0
    return found if len(by_round) >= FEW else max(UNKNOWN, found)


def cells(one: Change) -> list[str]:
    """Return the row of a change, under HEADER."""
    shown = [figure(row.figures.median) if row and row.figures else "-" for row in (one.before, one.now)]
    pace = f"{times(one.pace)} {one.kind}" if one.pace else ""
    change = times(one.change) if one.change else ""
    room = f"± {one.room:.0%}" if one.room else ""
    return [one.name, *shown, one.row.metric.unit, pace, change, room, f"{one.verdict} {one.why}".strip()]


def show(found: Comparison) -> None:
    """Print the rows that changed, or that only one run has, and how many did not."""
    told = [one for one in found.changes if one.verdict != SAME]
    told.sort(key=lambda one: (one.verdict != REGRESSION, one.change or 1.0))
    title = f"{found.later.title} against {found.earlier.title}, the machine's pace taken out"
    grid(title, HEADER, [cells(one) for one in told])
    print(*found.remarks, sep="\n")
    counts = f"{found.count(SAME)} rows are the same, {found.count(REGRESSION)} of ours are worse"
    print(f"{counts}, {found.count(GONE)} are missing, {found.count(UNSURE)} cannot be said.")


def _change(before: Result | None, now: Result | None, paces: Mapping[str, _Pace]) -> Change:
    if before is None or now is None:
        return Change(before, now, NEW if before is None else GONE)
    if before.figures is None or now.figures is None:
        return _without_figures(before, now)
    kind = kind_of(now)
    pace = paces.get(kind, _Pace(unsure=True)) if kind else _Pace()
    then, later = before.figures.median, now.figures.median
    room = max(FLOOR, spread(before.by_round) + spread(now.by_round) + pace.room)
    if then <= 0 or later <= 0:
        return _from_or_to_nothing(before, now)
    change = later / then if now.metric.higher_is_better else then / later
    change /= pace.factor or 1.0
    verdict = SAME
    if pace.unsure:
        verdict = UNSURE
    elif change > 1 + room:
        verdict = BETTER
    elif change < 1 / (1 + room):
        verdict = REGRESSION if now.ours else WORSE
    return Change(before, now, verdict, change, room, pace.factor, kind)


def _without_figures(before: Result, now: Result) -> Change:
    if now.figures is None and before.figures is not None:
        verdict = REGRESSION if now.ours else GONE
        return Change(before, now, verdict, why=f"no figure now: {now.status}")
    return Change(before, now, NEW if now.figures is not None else SAME, why=f"no figure then: {before.status}")


def _from_or_to_nothing(before: Result, now: Result) -> Change:
    """Judge where a figure is 0, which no ratio can: by whether the rounds of the two runs overlap."""
    then, later = before.by_round or before.values, now.by_round or now.values
    if min(len(then), len(later)) < 2 or (max(then) >= min(later) and max(later) >= min(then)):
        return Change(before, now, NO_RATIO, why="a figure is 0")
    worse = (min(later) > max(then)) != now.metric.higher_is_better
    verdict = BETTER if not worse else REGRESSION if now.ours else WORSE
    return Change(before, now, verdict, why="0 in all rounds of one run, and in none of the other")


def _paces(earlier: Run, later: Run, bench: str) -> dict[str, _Pace]:
    """Return by kind how many times as fast the machine is now around that bench."""
    then, now = calibration.around(earlier.calibration, bench), calibration.around(later.calibration, bench)
    if not then or not now:
        return {}
    paces = {kind: median(now[kind]) / median(then[kind]) for kind in now}
    differ = max(paces.values()) / min(paces.values())
    return {
        kind: _Pace(pace, _quartiles(then[kind]) + _quartiles(now[kind]) + (differ - 1) / 2, differ >= DISAGREE)
        for kind, pace in paces.items()
    }


def _quartiles(values: Sequence[float]) -> float:
    """Return half the distance between the quartiles, in parts of the median."""
    if len(values) < 2:
        return 0.0
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return (high - low) / 2 / middle


def _remarks(earlier: Run, later: Run) -> list[str]:
    """Say what makes a comparison worth less."""
    remarks = []
    for run, which in ((earlier, "earlier"), (later, "later")):
        if not run.calibration:
            remarks.append(f"The {which} run has no calibration: nothing can be said of speeds.")
        if run.interrupted:
            remarks.append(f"The {which} run was interrupted: it holds what there was by then.")
    for fact, shown in _FACTS.items():
        there, here = earlier.facts.get(fact), later.facts.get(fact)
        if there != here:
            remarks.append(f"{shown}: {there} then, {here} now.")
    loads = [run.facts.get("load_before", 0.0) for run in (earlier, later)]
    if max(loads) > NOISY:
        remarks.append(f"The machine was not quiet: load average {loads[0]} then, {loads[1]} now, when they began.")
    return remarks


def _key(row: Result) -> tuple[str, str, str, str]:
    return row.bench, row.case, row.metric.name, row.contestant
