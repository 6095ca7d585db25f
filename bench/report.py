"""Tell a run to a reader who has not seen the source: what was asked, on what, how, what came out, where we lose.

::

    Run ──▶ blocks (headings, text, tables, pictures) ──▶ report.md + plots/*.svg     report.html, all in one

Pure but for the pictures, which matplotlib draws; where it is not installed there are none, and the report says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench import (
    curve,
    plot_overview,
    plot_style,
    report_benches,
    report_html,
    report_markdown,
    report_runs,
    requirements,
    table,
)
from bench.blocks import Block, Heading, Items, Table, Text
from bench.compare import Comparison
from bench.history import Run
from bench.machine import NOISY
from bench.plot_style import EXTRA

FOLDER = Path("bench-report")
RUNS = "runs"  # the history, in the report's folder


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
        report_runs.compared(against) if against else [],
        *(report_benches.part(run, bench, runs) for bench in run.benches),
        report_runs.before(runs),
        report_runs.method(run),
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
        worse = [line for line in curves if not line.endswith("at no size.")]
        blocks += [Heading(3, "On curves"), Items(worse or ["On all curves ours is the best at all sizes."])]
    return blocks


def _comparisons(run: Run) -> list[table.Comparison]:
    """Return ours beside the best peers, but for the points of curves: those have words and a picture of their own."""
    return table.comparisons(row for row in run.results if row.metric.size is None)


def _contents(run: Run) -> list[Block]:
    lines = [f"{bench}: {report_benches.question(run, bench)}".removesuffix(": ") for bench in run.benches]
    return (
        [Heading(2, "What was asked"), Items(lines, [report_benches.title(bench) for bench in run.benches])]
        if lines
        else []
    )


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
