"""Draw what a whole run says: requirements against their targets, ours against the best peers, and earlier runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from bench import calibration
from bench.blocks import Figure
from bench.calibration import UNITS
from bench.compare import kind_of
from bench.harness import Result
from bench.history import Run
from bench.plot_style import INK, LOST, MARKERS, MUTED, OTHERS, OURS, RULE, Canvas, cut, label, style
from bench.requirements import AT_LEAST
from bench.table import LEVEL, Comparison, figure, times

_LINE = 0.24  # inches
_MOST_LINES = 8  # in one picture of the history
_FAR = 1e4  # times as good as asked: what is beyond is drawn there


def of_requirements(marks: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """Return a picture of how far each requirement is surpassed or missed."""
    found = [(mark, share) for mark in marks if (share := _share(mark)) is not None]
    if not found:
        return []
    lines = [
        (mark["name"], share, bool(mark["met"]), f"at {figure(mark['measured'])}" if share >= _FAR else "")
        for mark, share in found
    ]
    svg = _dots(lines, "how many times as good as asked for, logarithmic", ("passed", "MISSED"))
    return [Figure("requirements", svg, "Right of the line: better than the target, by so many times.")]


def of_comparisons(found: Sequence[Comparison]) -> list[Figure]:
    """Return a picture of ours against the best peer, for each metric that a peer has too."""
    if not found:
        return []
    ordered = sorted(found, key=lambda one: one.ratio)
    lines = [(f"{one.bench} · {one.case} · {one.metric}", one.ratio, not one.lost, one.best_peer) for one in ordered]
    svg = _dots(lines, "how many times as good as the best peer, logarithmic", ("level or better", "WE LOSE"))
    text = (
        f"Medians, beside the best peer in the same run. Right of the line ours is better; within {LEVEL:.0%} is level."
    )
    return [Figure("comparisons", svg, text)]


def of_history(runs: Sequence[Run], bench: str) -> list[Figure]:
    """Return a picture of ours over the runs in which the bench is, the last one now: each row as times the first."""
    having = [run for run in runs if any(row.bench == bench and row.figures for row in run.results)]
    lines = (
        {name: points for name, points in (_line(having, row) for row in _shown(having, bench)) if len(points) > 1}
        if len(having) > 1
        else {}
    )
    if not lines:
        return []
    with style():
        canvas = Canvas([3.0 + 0.2 * len(lines)])
        _draw_history(canvas.panels[0], lines, having)
        svg = canvas.svg()
    text = (
        "Ours over the runs on this machine, as times the first; by the calibration, the machine's pace is taken out."
    )
    return [Figure(f"history-{bench}", svg, text)]


def of_pace(runs: Sequence[Run]) -> list[Figure]:
    """Return a picture of how fast the machine was in each run, by each loop of the calibration."""
    read = [run for run in runs if run.calibration]
    if len(read) < 2:
        return []
    lines = {}
    for kind in UNITS:
        paces = [median(value for one in run.calibration for value in one.values[kind]) for run in read]
        lines[kind] = [(place, pace / paces[0]) for place, pace in enumerate(paces)]
    with style():
        canvas = Canvas([3.0])
        _draw_history(canvas.panels[0], lines, read)
        svg = canvas.svg()
    return [Figure("history-pace", svg, "The pace of the machine in each run, divided by what it was in the first.")]


def _share(mark: Mapping[str, Any]) -> float | None:
    measured: float | None = mark["measured"]
    target: float = mark["target"]
    if measured is None or target <= 0:
        return None
    if mark["direction"] == AT_LEAST:
        return max(measured / target, 1 / _FAR)
    return min(target / measured, _FAR) if measured > 0 else _FAR


def _dots(lines: Sequence[tuple[str, float, bool, str]], title: str, words: tuple[str, str]) -> str:
    with style():
        canvas = Canvas([1.0 + _LINE * len(lines)])
        place = canvas.panels[0]
        place.set_xscale("log")
        shares = [share for _, share, _, _ in lines]
        low, high = min(0.5, *shares), max(2.0, *shares)
        span = high / low
        place.set_xlim(low / span**0.06, high * span ** (0.5 if all(beside for *_, beside in lines) else 0.14))
        place.axvline(1, color=MUTED, linewidth=1.2)
        for level, (_, share, good, beside) in enumerate(lines):
            colour = OURS if good else LOST
            place.plot([1, share], [level, level], color=colour, linewidth=1.6)
            place.plot(
                [share], [level], "o" if good else "X", color=colour, markersize=7, label=words[0 if good else 1]
            )
            right = max(share, 1.0)
            text = f"{times(share) if share < _FAR else ''}  {cut(beside, 34)}"
            place.annotate(text, (right, level), (7, 0), textcoords="offset points", va="center", fontsize=8)
        place.set_yticks(range(len(lines)), [cut(name, 78) for name, _, _, _ in lines])
        place.tick_params(axis="y", length=0, labelsize=8)
        place.set_ylim(len(lines) - 0.4, -0.6)
        place.grid(visible=False, axis="y")
        label(place.xaxis, low, high, times, logarithmic=True)
        place.set_xlabel(title)
        _legend_once(place)
        return canvas.svg()


def _legend_once(place: Any) -> None:
    handles, labels = place.get_legend_handles_labels()
    by_label = dict(zip(labels, handles, strict=True))
    place.figure.legend(by_label.values(), by_label.keys(), loc="outside upper right", ncols=2)


def _shown(runs: Sequence[Run], bench: str) -> list[Result]:
    """Return the rows whose lines are drawn: the first of ours by each case and metric, some of a curve, in all few."""
    firsts: dict[tuple[str, str], Result] = {}
    for row in runs[-1].of(bench):
        if row.ours and row.figures is not None and row.figures.median > 0:
            firsts.setdefault((row.case, row.metric.name), row)
    found = list(firsts.values())
    return found[:: -(-len(found) // _MOST_LINES) or 1]


def _line(runs: Sequence[Run], wanted: Result) -> tuple[str, list[tuple[int, float]]]:
    """Return the name of a row and, by the number of the run, how many times as good as in the first it was."""
    kind, points = kind_of(wanted), []
    for place, run in enumerate(runs):
        row = next((row for row in run.results if _is_same(row, wanted)), None)
        if row is None or row.figures is None or row.figures.median <= 0:
            continue
        pace = median(found[kind]) if kind and (found := calibration.around(run.calibration, wanted.bench)) else 1.0
        good = row.figures.median if row.metric.higher_is_better else 1 / row.figures.median
        points.append((place, good / pace))
    base = points[0][1] if points else 1.0
    return f"{wanted.case} · {wanted.metric.name}", [(place, value / base) for place, value in points]


def _is_same(row: Result, wanted: Result) -> bool:
    return (row.bench, row.case, row.metric.name, row.contestant) == (
        wanted.bench,
        wanted.case,
        wanted.metric.name,
        wanted.contestant,
    )


def _draw_history(place: Any, lines: Mapping[str, Sequence[tuple[int, float]]], runs: Sequence[Run]) -> None:
    colours, markers = (OURS, *OTHERS, INK), ("o", *MARKERS, "*")
    for index, (name, points) in enumerate(lines.items()):
        look = {"color": colours[index % len(colours)], "marker": markers[index % len(markers)]}
        place.plot(*zip(*points, strict=True), linewidth=1.5, markersize=5, label=cut(name, 80), **look)
    place.axhline(1, color=RULE, linewidth=1)
    values = [value for points in lines.values() for _, value in points]
    low, high = min(0.8, *values), max(1.25, *values)
    if wide := high / low > 10:
        place.set_yscale("log")
    else:
        place.set_ylim(low * 0.95, high * 1.05)
    step = math.ceil(len(runs) / 8)
    shown = range(0, len(runs), step)
    labels = [f"{runs[number].date[5:]}\n{str(runs[number].facts['commit'])[:7]}" for number in shown]
    place.set_xticks(list(shown), labels, fontsize=8)
    place.set_xlim(-0.3, len(runs) - 0.7)
    label(place.yaxis, low, high, times, logarithmic=wide)
    place.set_ylabel("times the first, higher is better")
    longest = max(map(len, lines))
    place.figure.legend(loc="outside lower center", ncols=1 if longest > 44 else 2 if longest > 20 else 3)
