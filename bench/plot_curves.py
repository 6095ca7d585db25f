"""Draw curves: one quantity at several sizes, a line a contestant, with a band from its worst round to its best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench import curve
from bench.harness import Result
from bench.plot_style import DASHES, MARKERS, OTHERS, OURS, SETTING, Canvas, label, style
from bench.table import figure

_TICKS = 12  # sizes, up to which each has its name at the axis
_FAR = 8  # a span from which on an axis of sizes is logarithmic
_WIDE = 5  # and one of values


def draw(curves: Sequence[Sequence[Result]]) -> str:
    """Return the picture of these curves, one below the other."""
    with style():
        canvas = Canvas([4.0 + 0.2 * (len(_names(rows)) // 3) for rows in curves])
        for place, rows in zip(canvas.panels, curves, strict=True):
            _draw(place, rows)
        return canvas.svg()


def _draw(place: Any, rows: Sequence[Result]) -> None:
    names = _names(rows)
    looks = _looks(rows)
    for name in reversed(names):  # ours comes last, and so lies on top
        points = [row for row in rows if row.contestant == name and row.figures]
        if points:
            _draw_line(place, name, sorted(points, key=_size), looks[name])
    _axes(place, rows)
    handles, labels = place.get_legend_handles_labels()
    columns = 3 if max(map(len, labels), default=0) < 26 else 2
    place.legend(handles[::-1], labels[::-1], loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=columns)


def _looks(rows: Sequence[Result]) -> dict[str, dict[str, Any]]:
    """Return how the line of each contestant looks: the first blue and thick, ours light blue, peers each its own."""
    ours = {row.contestant for row in rows if row.ours}
    first, *others = _names(rows)
    looks: dict[str, dict[str, Any]] = {first: {"color": OURS, "marker": "o", "linewidth": 2.6, "markersize": 6}}
    for number, name in enumerate(name for name in others if name in ours):
        looks[name] = {"color": SETTING, "marker": "o", "linestyle": DASHES[1 + number % 3], "fillstyle": "none"}
    for number, name in enumerate(name for name in others if name not in ours):
        turn, place = divmod(number, len(OTHERS))
        looks[name] = {"color": OTHERS[place], "marker": MARKERS[place], "linestyle": DASHES[turn % len(DASHES)]}
    return looks


def _draw_line(place: Any, name: str, points: Sequence[Result], look: dict[str, Any]) -> None:
    sizes, medians, rounds = [], [], []
    for row in points:
        if row.figures is not None:
            sizes.append(_size(row))
            medians.append(row.figures.median)
            rounds.append(row.by_round or [row.figures.median])
    place.plot(sizes, medians, label=name, **{"linewidth": 1.5, "markersize": 5} | look)
    if any(len(found) > 1 for found in rounds):
        low, high = list(map(min, rounds)), list(map(max, rounds))
        place.fill_between(sizes, low, high, color=look["color"], alpha=0.16, linewidth=0)


def _axes(place: Any, rows: Sequence[Result]) -> None:
    metric = rows[0].metric
    names = {row.metric.size: row.metric.name for row in rows}
    sizes = sorted(size for size in names if size is not None)
    values = [row.figures.median for row in rows if row.figures]
    wide = bool(values) and min(values) > 0 and max(values) > _WIDE * min(values)
    far = sizes[0] > 0 and sizes[-1] >= _FAR * sizes[0]
    if far:
        place.set_xscale("log")
    if wide:
        place.set_yscale("log")
    else:
        place.set_ylim(0, max([*values, *(value for row in rows for value in row.by_round)], default=1.0) * 1.1)
    step = -(-len(sizes) // _TICKS)
    short = all(len(name) <= 12 for name in names.values())
    place.set_xticks(sizes[::step], [names[size] if short else f"{size:,}" for size in sizes[::step]], minor=False)
    place.set_xticks([], minor=True)
    label(place.yaxis, min(values, default=0.0), max(values, default=0.0), figure, logarithmic=wide)
    better = "higher" if metric.higher_is_better else "lower"
    place.set_title(f"{curve.series(rows[0]) or metric.unit}: {better} is better")
    place.set_xlabel(f"{metric.axis}{', logarithmic' if far else ''}")
    place.set_ylabel(f"{metric.unit}{', logarithmic' if wide else ''}")


def _names(rows: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(row.contestant for row in rows))


def _size(row: Result) -> int:
    return row.metric.size or 0
