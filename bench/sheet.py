"""How a case is shown that measures many things of one contestant: as one table, with a row a metric."""

from __future__ import annotations

from collections.abc import Sequence

from bench.harness import Result
from bench.table import figure, grid

MANY = 2  # from this many metrics on


def is_one(results: Sequence[Result]) -> bool:
    """Return whether these are the results of such a case."""
    return len(results) >= MANY and len({row.contestant for row in results}) == 1


def show(results: Sequence[Result]) -> None:
    """Print the table of one case; where there are no figures, why."""
    first = results[0]
    title = f"{first.bench} · {first.case}{f' ({first.note})' if first.note else ''}"
    if first.status != "ok":
        grid(title, ["", "status"], [[first.contestant, first.status]])
        return
    many = first.rounds > 1
    grid(title, ["", "median", *(["worst", "best"] if many else []), "unit"], [_cells(row, many) for row in results])


def _cells(row: Result, many: bool) -> list[str]:
    figures = row.figures
    if figures is None:
        return [row.metric.name, "-", *(["-", "-"] if many else []), row.status]
    spread = [figures.minimum, figures.maximum]
    if not row.metric.higher_is_better:
        spread.reverse()
    return [row.metric.name, *map(figure, [figures.median, *(spread if many else [])]), row.metric.unit]
