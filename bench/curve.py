"""Metrics that are one quantity at several sizes, as one table: a row a size, a column a contestant. And as a plot."""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from bench.harness import Result
from bench.table import LEVEL, figure, grid, ratio, times

_SIZE = re.compile(r"(?<![\w.,])\d[\d,.]*( ?[kKMG]?i?B)?(?!\w)")  # a number of its own in a name


def is_one(results: Sequence[Result]) -> bool:
    """Return whether these are the results of a curve."""
    return bool(results) and all(row.metric.size is not None for row in results)


def show(results: Sequence[Result]) -> None:
    """Print the curves of one case, and below each what it says."""
    for found in split(results):
        first = found[0]
        grid(f"{first.bench} · {first.case} ({described(first)})", *lines(found))
        print(*absent(found), *verdicts(found), sep="\n")


def described(row: Result) -> str:
    """Return what a curve shows, and which way is better."""
    better = "higher" if row.metric.higher_is_better else "lower"
    return f"{series(row)} {row.metric.unit}, medians, {better} is better".strip()


def split(results: Sequence[Result]) -> list[list[Result]]:
    """Return the curves among the results of a case: each of one unit, and of one series where there are several."""
    sized = [row for row in results if row.metric.size is not None]
    several = len({(row.contestant, row.metric.unit, row.metric.size) for row in sized}) < len(sized)
    found: dict[tuple[str, str, str], list[Result]] = {}
    for row in sized:
        found.setdefault((row.metric.unit, row.metric.axis, series(row) if several else ""), []).append(row)
    return list(found.values())


def series(row: Result) -> str:
    """Return the name of a metric without its size: "p99" of "p99 of 1,000"; "" where it is the size alone."""
    return re.sub(r" (of|at|with|for)$", "", " ".join(_SIZE.sub("", row.metric.name).split()))


def lines(results: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the table of one curve: a row a size, a column a contestant."""
    first, rows = results[0], []
    for line in _by_size(results):
        cells = [figure(row.figures.median) if row.figures else "-" for row in line]
        rows.append([line[0].metric.name, *cells, _remark(line)])
    return [first.metric.axis, *_names(results), f"{first.contestant} is"], rows


def compact(results: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    """Return the table with, in place of a column of words, how many times as good the first is in each cell."""
    rows = []
    for line in _by_size(results):
        cells = [figure(row.figures.median) if row.figures else "-" for row in line]
        for place, row in enumerate(line[1:], 1):
            if (value := ratio(line[0], row)) is not None:
                cells[place] += f" ({times(value)})"
        rows.append([line[0].metric.name, *cells])
    return [results[0].metric.axis, *_names(results)], rows


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


def absent(results: Sequence[Result]) -> list[str]:
    """Return who has no figures, and why."""
    return list(dict.fromkeys(f"{row.contestant}: {row.status}" for row in results if row.status != "ok"))


def summary(results: Sequence[Result]) -> list[str]:
    """Return the verdicts on all curves among the results, each with its bench and case."""
    lines = []
    for (bench, case), rows in groupby(results, key=lambda row: (row.bench, row.case)):
        for found in split(list(rows)):
            where = " · ".join(filter(None, (bench, case, series(found[0]))))
            lines += [f"{where}: {verdict}" for verdict in verdicts(found)]
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


def _names(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(row.contestant for row in results))


def _by_size(results: Sequence[Result]) -> list[list[Result]]:
    sizes = list(dict.fromkeys(row.metric.size for row in results))
    return [[row for row in results if row.metric.size == size] for size in sizes]


def _pair(line: Sequence[Result], name: str) -> tuple[Result, Result]:
    return line[0], next(row for row in line if row.contestant == name)
