"""Metrics that are one quantity at several sizes, as one table: a row a size, a column a contestant. And as a plot."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from bench.harness import Result
from bench.table import LEVEL, figure, grid, ratio, times


def is_one(results: Sequence[Result]) -> bool:
    """Return whether these are the results of a curve."""
    return bool(results) and all(row.metric.size is not None for row in results)


def show(results: Sequence[Result]) -> None:
    """Print the curve of one case, and below it what it says."""
    first, names = results[0], _names(results)
    rows = []
    for line in _by_size(results):
        cells = [figure(row.figures.median) if row.figures else "-" for row in line]
        rows.append([line[0].metric.name, *cells, _remark(line)])
    better = "higher" if first.metric.higher_is_better else "lower"
    title = f"{first.bench} · {first.case} ({first.metric.unit}, medians, {better} is better)"
    grid(title, [first.metric.axis, *names, f"{first.contestant} is"], rows)
    print(*_absent(results), *verdicts(results), sep="\n")


def verdicts(results: Sequence[Result]) -> list[str]:
    """Say of each other contestant where the first is slower than it; of another setting of ours, the crossover."""
    lines = []
    for name in _names(results)[1:]:
        pairs = [_pair(line, name) for line in _by_size(results)]
        found = [(ours.metric.name, value) for ours, other in pairs if (value := ratio(ours, other)) is not None]
        if not found:
            continue
        if pairs[0][1].ours:
            lines.append(_crossover(results[0].contestant, name, found))
            continue
        lost = [size for size, value in found if value < 1 - LEVEL]
        where = f"at {', '.join(lost)}" if lost else "at no size"
        lines.append(f"Worse than {name}: {where}.")
    return lines


def summary(results: Sequence[Result]) -> list[str]:
    """Return the verdicts on all curves among the results, each with its bench and case."""
    lines = []
    for (bench, case), rows in groupby(results, key=lambda row: (row.bench, row.case)):
        if is_one(curve := list(rows)):
            lines += [f"{bench} · {case}: {verdict}" for verdict in verdicts(curve)]
    return lines


def plot(results: Sequence[Result], file: Path) -> None:
    """Draw the curves of all cases into a file, with matplotlib.

    Raises: ValueError when there is no curve; ImportError when matplotlib is not installed.
    """
    cases = list(dict.fromkeys((row.bench, row.case) for row in results if row.metric.size is not None))
    if not cases:
        raise ValueError("no curve was measured: --plot goes with the benches of CURVES")
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("Agg")  # files only: no display is asked for
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    figures, places = pyplot.subplots(len(cases), 1, figsize=(8, 5 * len(cases)), squeeze=False)
    for place, case in zip(places[:, 0], cases, strict=True):
        _draw(place, case, [row for row in results if (row.bench, row.case) == case and row.figures])
    figures.tight_layout()
    figures.savefig(file)
    pyplot.close(figures)


def _draw(place: Any, case: tuple[str, str], rows: Sequence[Result]) -> None:
    for name in _names(rows):
        points = [
            (row.metric.size, row.figures.median) for row in rows if row.contestant == name and row.figures is not None
        ]
        place.plot(*zip(*points, strict=True), marker="o", label=name)
    place.set(title=" · ".join(case), xscale="log", yscale="log")
    if rows:
        place.set(xlabel=rows[0].metric.axis, ylabel=rows[0].metric.unit)
        place.legend()
    place.grid(visible=True, alpha=0.3)


def _crossover(name: str, other: str, found: Sequence[tuple[str, float]]) -> str:
    """Say from which size on the first is as fast as the other, there and at all larger ones."""
    start = len(found)
    while start and found[start - 1][1] >= 1 - LEVEL:
        start -= 1
    if start == len(found):
        return f"Crossover: none; {name} is slower than {other} up to {found[-1][0]}."
    return f"Crossover: {name} is at least as fast as {other} from {found[start][0]} on."


def _remark(line: Sequence[Result]) -> str:
    found = [(value, row.contestant) for row in line[1:] if (value := ratio(line[0], row)) is not None]
    return ", ".join(f"{times(value)} {name}" for value, name in found)


def _absent(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(f"{row.contestant}: {row.status}" for row in results if row.status != "ok"))


def _names(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(row.contestant for row in results))


def _by_size(results: Sequence[Result]) -> list[list[Result]]:
    sizes = list(dict.fromkeys(row.metric.size for row in results))
    return [[row for row in results if row.metric.size == size] for size in sizes]


def _pair(line: Sequence[Result], name: str) -> tuple[Result, Result]:
    return line[0], next(row for row in line if row.contestant == name)
