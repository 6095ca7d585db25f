"""Draw the results of one case, whatever they are: bars of all contestants, and curves where metrics have a size.

::

    metrics without a size    a panel a metric, a bar a contestant: median, and from the least to the most of the rounds
    the same, one contestant  a panel a unit, a bar a metric
    metrics with a size       a panel a unit, a line a contestant, and a band from the least to the most of the rounds

What spans more than a factor of 30 is drawn as dots on a logarithmic axis: a bar has no foot there.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from bench import curve, plot_curves
from bench.blocks import Figure
from bench.harness import Result
from bench.plot_style import INK, MUTED, OURS, PEER, SETTING, Canvas, cut, label, style
from bench.table import figure, is_many

WIDE = 30  # a span from which on an axis is logarithmic
ONE = ", of one round."
BAND = "; the band reaches from the worst round to the best."
LINE = "; the thin line reaches from the worst round to the best."
_BAR, _AROUND = 0.3, 0.85  # inches
_NAME = 44  # letters, after which a name is broken


@dataclass(frozen=True)
class _Panel:
    """Rows to be drawn together, with what each is called."""

    title: str
    unit: str
    rows: Sequence[Result]
    names: Sequence[str]
    first: str  # the contestant that the others are compared with


def of_case(rows: Sequence[Result]) -> list[Figure]:
    """Return the pictures of one case: one of its bars, one of its curves, or neither where a table says it all."""
    first = rows[0]
    stem = re.sub(r"[^0-9a-zA-Z]+", "-", f"{first.bench} {first.case}").strip("-").lower()
    found = []
    panels = [panel for panel in _panels(_plain(rows)) if len(panel.rows) > 1]
    if panels:
        found.append(Figure(stem, _bars(panels), _caption(panels)))
    if found_curves := curve.split(rows):
        text = f"Medians{BAND if _has_rounds(rows) else ONE}"
        found.append(Figure(f"{stem}-curve", plot_curves.draw(found_curves), text))
    return found


def _plain(rows: Sequence[Result]) -> list[Result]:
    return [row for row in rows if row.metric.size is None]


def _panels(rows: Sequence[Result]) -> list[_Panel]:
    shown = [row for row in rows if row.figures is not None or _is_worth_telling(row)]
    alone = len({row.contestant for row in shown}) == 1

    def key(row: Result) -> tuple[Hashable, ...]:
        metric = row.metric
        return (metric.unit, metric.higher_is_better) if alone else (metric.name, metric.unit)

    panels = []
    for _, found in groupby(sorted(shown, key=_order_of(shown, key)), key):
        some = list(found)
        if any(row.figures for row in some):
            names = [row.metric.name if alone else row.contestant for row in some]
            better = "higher" if some[0].metric.higher_is_better else "lower"
            title = f"{some[0].metric.unit if alone else some[0].metric.name}: {better} is better"
            panels.append(_Panel(title, some[0].metric.unit, some, names, rows[0].contestant))
    return panels


def _order_of(rows: Sequence[Result], key: Callable[[Result], Hashable]) -> Callable[[Result], int]:
    places = {found: place for place, found in reversed(list(enumerate(map(key, rows))))}
    return lambda row: places[key(row)]


def _is_worth_telling(row: Result) -> bool:
    """Return whether a row without a figure belongs into a picture: a failure does, what is not installed does not."""
    return not row.status.startswith(("not installed", "left out", "stopped"))


def _caption(panels: Sequence[_Panel]) -> str:
    rows = [row for panel in panels for row in panel.rows]
    text = f"Medians{LINE if _has_rounds(rows) else ONE}"
    if any(map(is_many, rows)):
        text += " The diamond is the 99th percentile."
    return text


def _has_rounds(rows: Sequence[Result]) -> bool:
    return any(len(row.by_round) > 1 for row in rows)


def _bars(panels: Sequence[_Panel]) -> str:
    with style():
        canvas = Canvas([_AROUND + _BAR * len(panel.rows) for panel in panels])
        for place, panel in zip(canvas.panels, panels, strict=True):
            _draw_bars(place, panel)
        return canvas.svg()


def _draw_bars(place: Any, panel: _Panel) -> None:
    spans = [_span(row) for row in panel.rows]
    ends = [end for span in spans if span for end in span]
    low, high = min(ends), max(ends)
    wide = low > 0 and high / low > WIDE
    if wide:
        place.set_xscale("log")
        place.set_xlim(low / 1.6, high * (high / low) ** 0.22)
    else:
        place.set_xlim(min(0.0, low * 1.1), high * 1.25 or 1.0)
    for level, (row, span) in enumerate(zip(panel.rows, spans, strict=True)):
        if span is None:
            text = cut(row.status, 70)
            place.text(
                0.005, level, text, color=MUTED, style="italic", va="center", transform=place.get_yaxis_transform()
            )
        else:
            _draw_bar(place, level, row, (span, wide, _colour(row, panel.first)))
    place.set_yticks(range(len(panel.rows)), [textwrap.fill(name, _NAME) for name in panel.names])
    place.set_ylim(len(panel.rows) - 0.4, -0.6)
    place.tick_params(axis="y", length=0)
    place.grid(visible=False, axis="y")
    label(place.xaxis, low, high, figure, logarithmic=wide)
    place.set_title(panel.title)
    place.set_xlabel(f"{panel.unit}{', logarithmic' if wide else ''}")


def _draw_bar(place: Any, level: int, row: Result, look: tuple[tuple[float, float], bool, str]) -> None:
    figures = row.figures
    assert figures is not None
    span, wide, colour = look
    if wide:
        place.plot([figures.median], [level], "o", color=colour, markersize=8)
    else:
        place.barh(level, figures.median, height=0.62, color=colour)
    rounds = row.by_round or [figures.median]
    if len(rounds) > 1:
        place.plot([min(rounds), max(rounds)], [level, level], color=INK, linewidth=1.2, solid_capstyle="butt")
    text = figure(figures.median)
    if is_many(row):
        place.plot([figures.p99], [level], "D", color=INK, markersize=4, fillstyle="none")
        text += f"   p99 {figure(figures.p99)}"
    weight = "bold" if colour == OURS else "normal"
    right = (max(0.0, *span), level)
    place.annotate(text, right, (7, 0), textcoords="offset points", va="center", weight=weight, fontsize=8.5)


def _span(row: Result) -> tuple[float, float] | None:
    """Return from where to where a row reaches in the picture."""
    figures = row.figures
    if figures is None:
        return None
    seen = [figures.median, *row.by_round, *([figures.p99] if is_many(row) else [])]
    return min(seen), max(seen)


def _colour(row: Result, first: str) -> str:
    if row.ours:
        return OURS if row.contestant == first else SETTING
    return PEER
