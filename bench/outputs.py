"""What a run leaves: options of the command that say where, and the files that are written at its end."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench import compare, history, plot_style, report
from bench.history import NotARunError, Run


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that are about files."""
    add = parser.add_argument
    add("--json", type=Path, metavar="FILE", help="write facts, results and verdicts there")
    add("--report", type=Path, metavar="FOLDER", default=report.FOLDER, help="of report and history (%(default)s)")
    add("--no-report", dest="report", action="store_const", const=None, help="write neither")
    add_comparing(parser)
    add("--compare", type=Path, metavar="EARLIER.json", help="say what is slower than in that run, pace taken out")


def add_comparing(parser: argparse.ArgumentParser) -> None:
    """Add what every comparison takes."""
    parser.add_argument("--fail-on-regression", action="store_true", help="exit with 1 when ours is slower than then")


def checked(parser: argparse.ArgumentParser, asked: argparse.Namespace) -> Run | None:
    """Return the run to compare with, if any. What will not go is refused here, before minutes of measuring."""
    if asked.fail_on_regression and not asked.compare:
        parser.error("--fail-on-regression goes with --compare EARLIER.json")
    earlier = _earlier(parser, asked) if asked.compare else None
    if asked.report and not asked.list:
        try:
            asked.report.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            parser.error(f"--report {asked.report}: {error.strerror}; name another folder, or --no-report")
    return earlier


def _earlier(parser: argparse.ArgumentParser, asked: argparse.Namespace) -> Run:
    try:
        earlier = history.read(asked.compare)
    except NotARunError as error:
        parser.error(str(error))
    if earlier.quick != asked.quick:
        parser.error(f"{asked.compare} was measured {'with' if earlier.quick else 'without'} --quick: do so too")
    return earlier


def write(run: Run, asked: argparse.Namespace, earlier: Run | None) -> bool:
    """Write what was asked for, and compare; return whether that found a regression that is to fail the run.

    The report comes last: whatever becomes of its pictures, the figures are in their files by then.
    """
    if asked.json:
        run.write(asked.json)
    against = compare.compare(earlier, run) if earlier else None
    if against:
        compare.show(against)
    if asked.report and run.results:
        before = history.earlier(asked.report / report.RUNS, run)
        tell(report.write(run, asked.report, before, against))
    return bool(against and against.regressions and asked.fail_on_regression)


def tell(files: list[Path]) -> None:
    """Say where a report is, and what it lacks."""
    print(f"The report: {', '.join(map(str, files))}", file=sys.stderr)
    if not plot_style.is_there():
        print(f"It has no plots: matplotlib is not installed ({plot_style.EXTRA}).", file=sys.stderr)
