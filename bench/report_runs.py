"""The parts of a report on runs: what changed since an earlier one, those there were, and how this one was done."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from bench import calibration, compare, plot_overview, plot_style
from bench.blocks import Block, Heading, Items, Table, Text
from bench.calibration import UNITS
from bench.compare import Comparison
from bench.history import Run
from bench.table import figure, times

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


def compared(found: Comparison) -> list[Block]:
    """Return what a comparison with an earlier run says: each row that changed, then those that did not."""
    regressions = found.regressions
    text = f"{len(regressions)} regressions" if regressions else "No regression"
    blocks: list[Block] = [
        Heading(2, "Compared with an earlier run"),
        Text(
            f"{found.later.title} against {found.earlier.title}: {text} among {len(found.changes)} rows; "
            f"{found.count(compare.GONE)} are missing, and of {found.count(compare.UNSURE)} nothing can be said."
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
        blocks.append(Table(compare.HEADER, same, folded=f"{len(same)} rows that did not change"))
    return blocks


def before(runs: Sequence[Run]) -> list[Block]:
    """Return the runs as a table, and the pace of the machine in each."""
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


def method(run: Run) -> list[Block]:
    """Return how a run was done, on what."""
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
