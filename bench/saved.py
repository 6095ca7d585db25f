"""Commands about runs there were: `python -m bench compare EARLIER.json LATER.json [NAME ...]`, `report RUN.json`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from bench import compare, history, outputs, report
from bench.history import NotARunError

COMMANDS = ("compare", "report")


def main(arguments: Sequence[str]) -> int:
    """Run the command that the first argument names; return 1 for a regression, if that was asked for."""
    name, *rest = arguments
    return _compare(rest) if name == "compare" else _report(rest)


def _compare(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench compare", description="Say what is slower in the later run.")
    parser.add_argument("earlier", type=Path, metavar="EARLIER.json")
    parser.add_argument("later", type=Path, metavar="LATER.json")
    parser.add_argument("names", nargs="*", metavar="NAME", help="benches (default: those of the later run)")
    outputs.add_comparing(parser)
    asked = parser.parse_args(arguments)
    try:
        found = compare.compare(history.read(asked.earlier), history.read(asked.later), asked.names)
    except (NotARunError, ValueError) as error:
        parser.error(str(error))
    compare.show(found)
    return int(bool(found.regressions) and asked.fail_on_regression)


def _report(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench report", description="Write the report of a run there was.")
    parser.add_argument("run", type=Path, metavar="RUN.json")
    parser.add_argument("--report", type=Path, metavar="FOLDER", default=report.FOLDER, help="(%(default)s)")
    parser.add_argument("--compare", type=Path, metavar="EARLIER.json", help="with a part on what changed since")
    asked = parser.parse_args(arguments)
    try:
        run = history.read(asked.run)
        against = compare.compare(history.read(asked.compare), run) if asked.compare else None
    except (NotARunError, ValueError) as error:
        parser.error(str(error))
    outputs.tell(report.write(run, asked.report, history.earlier(asked.report / report.RUNS, run), against))
    return 0
