"""The part of a report on one bench: its question, and a table and a picture for each case."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from bench import curve, plot_overview, plot_style, plots, table
from bench.blocks import Block, Folded, Heading, Items, Table, Text
from bench.harness import Result
from bench.history import Run
from bench.table import figure


def part(run: Run, bench: str, runs: Sequence[Run]) -> list[Block]:
    """Return what a run says of a bench; `runs` are those before it and itself."""
    about = run.about.get(bench, "")
    question, _, rest = about.partition("\n")
    found: list[Block] = [Heading(2, title(bench))]
    if question:
        found.append(Text(question))
    if rest.strip():
        found.append(
            Folded(
                "How it is done, and what answer would change our minds", rest.strip().removeprefix("::").strip("\n")
            )
        )
    for _, rows in groupby(run.of(bench), key=lambda row: row.case):
        found += _case(list(rows))
    if plot_style.is_there() and (pictures := plot_overview.of_history(runs, bench)):
        found += [Heading(3, "Over the runs"), *pictures]
    return found


def _case(rows: list[Result]) -> list[Block]:
    found: list[Block] = [Heading(3, rows[0].case)]
    if plot_style.is_there():
        found += plots.of_case(rows)
    plain = [row for row in rows if row.metric.size is None]
    metrics = list(table.by_metric(plain))
    if len(metrics) > 1 and len({row.contestant for row in plain}) == 1:
        found += _alone(plain)
        metrics = []
    for its in metrics:
        header, lines = table.lines(its)
        found += [Heading(4, table.described(its[0])), Table(header, lines, stressed=0)]
    for its in curve.split(rows):
        several = its[0].contestant != its[-1].contestant
        brackets = f"; in brackets how many times as good {its[0].contestant} is" if several else ""
        found += [Heading(4, f"{curve.described(its[0])}{brackets}"), Table(*curve.compact(its), ends_in_words=False)]
        if said := [*curve.absent(its), *curve.verdicts(its)]:
            found.append(Items(said))
    return found


def _alone(rows: Sequence[Result]) -> list[Block]:
    """Return the table of a case with one contestant: a row a metric; above it the remark, if all have the same."""
    notes = [row.note if row.status == "ok" else row.status for row in rows]
    remark, said_once = notes[0], len({*notes}) == 1
    several = any(row.rounds > 1 or len(row.values) > 1 for row in rows)
    lines = []
    for row, note in zip(rows, notes, strict=True):
        better = "higher" if row.metric.higher_is_better else "lower"
        spread = _spread(row)
        cells = [row.metric.name, *(spread if several else spread[:1]), row.metric.unit, better, str(row.rounds)]
        lines.append(cells if said_once else [*cells, note])
    shown = ["median", *(["worst", "best"] if several else []), "unit", "is better", "rounds"]
    header = [rows[0].contestant, *shown, *([] if said_once else ["remarks"])]
    said: list[Block] = [Text(f"{remark[:1].upper()}{remark[1:]}.", "muted")] if said_once and remark else []
    return [*said, Table(header, lines, ends_in_words=not said_once)]


def _spread(row: Result) -> list[str]:
    """Return median, worst and best."""
    figures = row.figures
    if figures is None:
        return ["-", "-", "-"]
    worst, best = figures.minimum, figures.maximum
    if not row.metric.higher_is_better:
        worst, best = best, worst
    return [figure(value) for value in (figures.median, worst, best)]


def title(bench: str) -> str:
    """Return the heading of a bench."""
    return f"Bench {bench}"


def question(run: Run, bench: str) -> str:
    """Return the first line of what a bench says of itself."""
    return run.about.get(bench, "").partition("\n")[0]
