"""Tell a run to a reader who has not seen the source: what was asked, on what, how, what came out, where we lose.

::

    Run ──▶ blocks (headings, text, tables, pictures) ──▶ report.md + plots/*.svg     report.html, all in one

Pure but for the pictures, which matplotlib draws; where it is not installed there are none, and the report says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from statistics import median

from bench import (
    calibration,
    compare,
    curve,
    plot_curves,
    plot_overview,
    plot_style,
    plots,
    report_html,
    report_markdown,
    requirements,
    table,
)
from bench.blocks import Block, Folded, Heading, Items, Table, Text
from bench.calibration import UNITS
from bench.compare import Comparison
from bench.harness import Result
from bench.history import Run
from bench.machine import NOISY
from bench.plot_style import EXTRA
from bench.table import figure, times

FOLDER = Path("bench-report")
RUNS = "runs"  # the history, in the report's folder
_METHOD = (
    "Each trial is a process of its own, which checks its own answers: what is wrong has no figure. A round runs each "
    "contestant once, and the order rotates from round to round, so that noise hits all alike; nothing of one is alive "
    "while another is measured. Figures are medians over all values of all rounds. “Worst” and “best” are single "
    "values; where there are a hundred values or more, p99 and the largest stand in their place. “Ours is” says how "
    "many times as good as that contestant ours is, by the medians: more than 1 is for us, whichever way is better.",
    "Figures are for comparing within this report: another machine, or this one on another day, has others. A fixed "
    "loop of plain Python, one of copied memory and one of a pipe between two processes are timed ahead of each bench "
    "and at the end (the calibration), so that runs can be compared with the machine's own pace taken out.",
)
_HOW_COMPARED = (
    "“Pace” is how fast the machine was now against then, by the calibration's loop nearest to the row; “change” is "
    "how many times better the row is with that taken out. It counts when it is beyond “room”: the spread of the "
    "rounds in both runs and of the calibration, and never less than 10 %. Where the three loops differ by a factor "
    "of 2, nothing is said (“unsure”). Peers do not regress; one that changed as much as ours says that it was the "
    "machine."
)


def write(run: Run, folder: Path, earlier: Sequence[Run] = (), against: Comparison | None = None) -> list[Path]:
    """Write report.md, its pictures, and report.html into the folder; return the two files."""
    blocks = blocks_of(run, earlier, against)
    markdown, page = folder / "report.md", folder / "report.html"
    report_markdown.write(blocks, markdown)
    report_html.write(blocks, page)
    return [markdown, page]


def blocks_of(run: Run, earlier: Sequence[Run] = (), against: Comparison | None = None) -> list[Block]:
    """Return the report of a run, with those before it as history and what it was compared with."""
    runs = [*earlier, run]
    parts = [
        _head(run),
        _summary(run),
        _contents(run),
        _requirements(run),
        _against_peers(run),
        compared(against) if against else [],
        *(_bench(run, bench, runs) for bench in run.benches),
        _history(runs),
        _machine(run),
    ]
    return [block for part in parts for block in part]


def _head(run: Run) -> list[Block]:
    facts = run.facts
    where = f"{facts['processor']}, {facts['cores']} usable cores, {facts['system']}, {facts['python']}"
    found: list[Block] = [
        Heading(1, "shm-fabric: what was measured"),
        Text(f"{run.date} UTC, commit {facts['commit']}. {where}.", "muted"),
    ]
    remarks = []
    if run.interrupted:
        remarks.append("INTERRUPTED: this run was stopped before its end; the report holds what there was by then.")
    if run.quick:
        remarks.append(
            "Quick: smaller amounts, fewer rounds, and without the slow peers. Good for a look, not to quote."
        )
    if facts.get("load_before", 0) > NOISY:
        load = facts["load_before"]
        remarks.append(f"The machine was not quiet: load average {load} when this began. Look at the spreads.")
    if not plot_style.is_there():
        remarks.append(f"No plots: matplotlib is not installed ({EXTRA}).")
    if remarks:
        found.append(Items(remarks))
    return found


def _summary(run: Run) -> list[Block]:
    found = _comparisons(run)
    lost = [str(one) for one in sorted(found, key=lambda one: one.ratio) if one.lost]
    failed = dict.fromkeys(
        f"FAILED: {row.bench} · {row.case} · {row.contestant}: {row.status}" for row in run.results if row.is_failure
    )
    unmet = [mark["name"] for mark in run.requirements if not mark["met"]]
    curves = curve.summary(run.results)
    lines = []
    if run.requirements:
        met = len(run.requirements) - len(unmet)
        missed = f" MISSED: {'; '.join(unmet)}." if unmet else ""
        lines.append(f"{met} of {len(run.requirements)} requirements are met.{missed}")
    if found:
        won = sum(one.ratio > 1 + table.LEVEL for one in found)
        level = len(found) - won - len(lost)
        text = f"better in {won}, level in {level}, worse in {len(lost)}."
        lines.append(f"Beside the best peer, in {len(found)} comparisons{', curves apart' if curves else ''}: {text}")
    elif not run.requirements:
        lines.append("No peer was measured beside ours in this run.")
    lines.append("Nothing of ours failed and no answer was wrong." if not failed else f"{len(failed)} failed:")
    blocks: list[Block] = [Heading(2, "Summary"), Items([*lines, *failed])]
    if lost:
        blocks += [Heading(3, "Where we lose"), Items(lost)]
    if curves:
        blocks += [Heading(3, "What the curves say"), Items(curves)]
    return blocks


def _comparisons(run: Run) -> list[table.Comparison]:
    """Return ours beside the best peers, but for the points of curves: those have words and a picture of their own."""
    return table.comparisons(row for row in run.results if row.metric.size is None)


def _contents(run: Run) -> list[Block]:
    lines = [f"{bench}: {_question(run, bench)}".removesuffix(": ") for bench in run.benches]
    return [Heading(2, "What was asked"), Items(lines, [_title(bench) for bench in run.benches])] if lines else []


def _requirements(run: Run) -> list[Block]:
    if not run.requirements:
        return []
    return [
        Heading(2, "Requirements"),
        Text("What the fabric must reach, and what it reached here. Where a peer is named, it ran beside ours."),
        *(plot_overview.of_requirements(run.requirements) if plot_style.is_there() else []),
        Table(*requirements.lines(run.requirements)),
    ]


def _against_peers(run: Run) -> list[Block]:
    if not plot_style.is_there() or not (pictures := plot_overview.of_comparisons(_comparisons(run))):
        return []
    return [Heading(2, "Beside the best peer"), *pictures]


def _bench(run: Run, bench: str, runs: Sequence[Run]) -> list[Block]:
    about = run.about.get(bench, "")
    question, _, rest = about.partition("\n")
    found: list[Block] = [Heading(2, _title(bench))]
    if question:
        found.append(Text(question))
    if rest.strip():
        found.append(Folded("How it is done, and what answer would change our minds", rest.strip("\n")))
    for _, rows in groupby(run.of(bench), key=lambda row: row.case):
        found += _case(list(rows))
    if plot_style.is_there() and (pictures := plot_overview.of_history(runs, bench)):
        found += [Heading(3, "Over the runs"), *pictures]
    return found


def _case(rows: list[Result]) -> list[Block]:
    found: list[Block] = [Heading(3, rows[0].case)]
    if plot_style.is_there():
        found += plots.of_case(rows)
    for its in table.by_metric(row for row in rows if row.metric.size is None):
        header, lines = table.lines(its)
        found += [Heading(4, table.described(its[0])), Table(header, lines, stressed=0)]
    for its in plot_curves.of(rows):
        better = "higher" if its[0].metric.higher_is_better else "lower"
        found += [Heading(4, f"{its[0].metric.unit}, medians, {better} is better"), Table(*curve.lines(its))]
        if said := [*curve.absent(its), *curve.verdicts(its)]:
            found.append(Items(said))
    return found


def compared(found: Comparison) -> list[Block]:
    """Return what a comparison with an earlier run says: each row that changed, then those that did not."""
    regressions = found.regressions
    text = f"{len(regressions)} regressions" if regressions else "No regression"
    blocks: list[Block] = [
        Heading(2, "Compared with an earlier run"),
        Text(
            f"{found.later.title} against {found.earlier.title}: {text} among {len(found.changes)} rows, "
            f"{found.count(compare.GONE)} missing, {found.count(compare.UNSURE)} of which nothing can be said."
        ),
        Text(
            _HOW_COMPARED,
            "muted",
        ),
    ]
    if found.remarks:
        blocks.append(Items(found.remarks))
    order = [compare.WORSE, compare.BETTER, compare.GONE, compare.NEW, compare.NO_RATIO, compare.UNSURE]
    told = [*regressions, *(one for name in order for one in found.changes if one.verdict == name)]
    if told:
        blocks.append(Table(compare.HEADER, [compare.cells(one) for one in told]))
    same = [compare.cells(one) for one in found.changes if one.verdict == compare.SAME]
    if same:
        blocks += [Heading(3, f"{len(same)} rows that did not change"), Table(compare.HEADER, same)]
    return blocks


def _history(runs: Sequence[Run]) -> list[Block]:
    if len(runs) < 2:
        return []
    rows = []
    for run in reversed(runs):
        load = " → ".join(str(run.facts[key]) for key in ("load_before", "load_after") if key in run.facts)
        paces = [_pace(run, kind) for kind in UNITS]
        rows.append([run.date, *paces, load, str(len(run.benches)), str(run.facts["commit"])])
    header = ["run, UTC", *(f"{kind}, {unit}" for kind, unit in UNITS.items()), "load", "benches", "commit"]
    return [
        Heading(2, "Runs on this machine"),
        Text("The newest first, with the pace of the machine by the calibration's three loops."),
        *(plot_overview.of_pace(runs) if plot_style.is_there() else []),
        Table(header, rows),
    ]


def _pace(run: Run, kind: str) -> str:
    found = calibration.around(run.calibration, "")
    return figure(median(found[kind])) if found else "-"


def _machine(run: Run) -> list[Block]:
    facts = run.facts
    shown = (
        "date",
        "commit",
        "processor",
        "cores",
        "memory",
        "system",
        "python",
        "load_before",
        "load_after",
        "duration",
    )
    rows = [[name.replace("_", " "), str(facts[name])] for name in shown if name in facts]
    versions = [[name, str(version)] for name, version in facts.get("versions", {}).items()]
    found: list[Block] = [
        Heading(2, "How it was measured"),
        *map(Text, _METHOD),
        Heading(3, "Machine"),
        Table(["", ""], rows),
        Heading(3, "Versions"),
        Table(["", ""], versions),
    ]
    if run.calibration:
        lines = [[one.before, *(figure(median(one.values[kind])) for kind in UNITS)] for one in run.calibration]
        header = ["before", *(f"{kind}, {unit}" for kind, unit in UNITS.items()), "cpu against the first"]
        first = median(run.calibration[0].values["cpu"])
        for line, one in zip(lines, run.calibration, strict=True):
            line.append(times(median(one.values["cpu"]) / first))
        found += [Heading(3, "Pace of the machine meanwhile"), Table(header, lines)]
    return found


def _title(bench: str) -> str:
    return f"Bench {bench}"


def _question(run: Run, bench: str) -> str:
    return run.about.get(bench, "").partition("\n")[0]
