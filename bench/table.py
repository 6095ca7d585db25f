"""How results are shown: a table per metric, and a line for each comparison. With rich if it is installed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from bench.harness import Result

try:
    from rich.console import Console
    from rich.table import Table
except ImportError:  # optional
    Console = None  # type: ignore[assignment,misc]

MANY = 100  # from this many values on, p99 says something
LEVEL = 0.03  # a difference of less is noise


@dataclass(frozen=True)
class Comparison:
    """Ours against the best peer by one metric. `ratio` above 1: ours is that many times better."""

    bench: str
    case: str
    metric: str
    best_peer: str
    ratio: float

    @property
    def lost(self) -> bool:
        """Whether the peer is better by more than noise."""
        return self.ratio < 1 - LEVEL

    def __str__(self) -> str:
        mark = "WE LOSE" if self.lost else "level" if self.ratio < 1 + LEVEL else "we win"
        where = f"{self.bench} · {self.case} · {self.metric}"
        return f"{mark:8} {where}: {times(self.ratio)} as good as the best peer, {self.best_peer}"


def ratio(ours: Result, peer: Result) -> float | None:
    """Return how many times better our median is; None when one of the two has no figure, or is 0."""
    if ours.figures is None or peer.figures is None:
        return None
    better, worse = ours.figures.median, peer.figures.median
    if not ours.metric.higher_is_better:
        better, worse = worse, better
    return better / worse if worse else None


def comparisons(results: Iterable[Result]) -> list[Comparison]:
    """Return for each metric that a peer has a figure for how ours compares with the best one."""
    compared = []
    for rows in by_metric(results):
        ours = rows[0]
        peers = [row for row in rows if not row.ours]
        ratios = [(found, row.contestant) for row in peers if (found := ratio(ours, row)) is not None]
        if ratios:
            least, peer = min(ratios)
            compared.append(Comparison(ours.bench, ours.case, ours.metric.name, peer, least))
    return compared


def figure(value: float) -> str:
    """Return a number with three digits that count: 28.4 G, 1.85 M, 62.1 k, 4.12."""
    for size, sign in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= 0.9995 * size:
            return f"{_three(value / size)}{sign}"
    return _three(value)


def times(value: float) -> str:
    """Return a ratio with a sign that says so: 0.45 x, 12.3 x, 1,880 x."""
    return f"{value:,.0f} x" if value >= 99.95 else f"{_three(value)} x"


def show(results: Sequence[Result]) -> None:
    """Print a table per metric."""
    for rows in by_metric(results):
        first = rows[0]
        grid(f"{first.bench} · {first.case} · {described(first)}", *lines(rows))


def by_metric(results: Iterable[Result]) -> Iterator[list[Result]]:
    """Yield the results of each case and metric."""
    for _, rows in groupby(results, key=lambda row: (row.bench, row.case, row.metric.name)):
        yield list(rows)


def described(row: Result) -> str:
    """Return the metric with its unit, and which way is better."""
    better = "higher" if row.metric.higher_is_better else "lower"
    return f"{row.metric.name} ({row.metric.unit}, {better} is better)"


def lines(rows: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the table of one metric."""
    many = any(is_many(row) for row in rows)
    header = ["", "median", *(["p99", "max"] if many else ["worst", "best"]), "ours is", "rounds", "remarks"]
    return header, [_cells(row, rows[0], many) for row in rows]


def is_many(row: Result) -> bool:
    """Return whether there are so many values that their p99 says something."""
    return row.figures is not None and row.figures.count >= MANY


def grid(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print one table: the first and the last column from the left, the others from the right."""
    if Console is not None:
        table = Table()
        for place, name in enumerate(header):
            table.add_column(name, justify="left" if place in (0, len(header) - 1) else "right")
        for row in rows:
            table.add_row(*row)
        console = Console(width=None if _is_terminal() else 140, highlight=False, markup=False)
        console.print(title, style="bold")  # not the table's own title, which would be as narrow as the table
        console.print(table)
        return
    widths = [max(len(row[place]) for row in [header, *rows]) for place in range(len(header))]
    print(f"\n{title}")
    for row in [header, *rows]:
        cells: list[Any] = [row[0].ljust(widths[0]), *map(str.rjust, row[1:-1], widths[1:-1]), row[-1]]
        print("  " + "  ".join(cells).rstrip())


def _cells(row: Result, ours: Result, many: bool) -> list[str]:
    figures = row.figures
    if figures is None:
        return [row.contestant, "-", "-", "-", "", "", row.status]
    worst, best = figures.minimum, figures.maximum
    if not row.metric.higher_is_better:
        worst, best = best, worst
    spread = [figures.p99, figures.maximum] if many else [worst, best]
    found = None if row is ours else ratio(ours, row)
    against = "" if found is None else times(found)
    return [row.contestant, *map(figure, [figures.median, *spread]), against, str(row.rounds), row.note]


def _three(value: float) -> str:
    size = abs(value)
    if 0 < size < 0.0995:
        return f"{value:.2g}"
    return f"{value:.0f}" if size >= 99.95 or value == 0 else f"{value:.1f}" if size >= 9.995 else f"{value:.2f}"


def _is_terminal() -> bool:
    return Console().is_terminal
